"""Small charts as inline SVG, and tables, for a page that opens offline, prints, and follows light and dark modes.

Colors come from the style sheet: marks have a class, and the classes `m` (the method), `pool` and `cut` are defined by
the page (report.css). Coordinates are rounded to tenths of a pixel, so that a chart stays small.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 760, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 14, 46
_FEW, _MANY = 7, 11  # most ticks of a linear and of a logarithmic axis
_SHADES = 5
_DIRECTION = {
    0x061C,
    0x200E,
    0x200F,
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
}  # they change the direction of text
_CONTROL = {*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029} - {0x09, 0x0A}
_SIGNS = {code: f"[U+{code:04X}]" for code in _DIRECTION | _CONTROL}


@dataclass(frozen=True)
class Axis:
    """A range of numbers mapped to the pixels from `start` to `end`; the title names the unit."""

    title: str
    low: float
    high: float
    log: bool
    start: float
    end: float

    def place(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """Positions of values, in pixels; on a logarithmic axis values are above 0."""
        numbers = np.asarray(values, dtype=np.float64)
        low, high = self.low, self.high
        if self.log:
            numbers, low, high = np.log10(numbers), math.log10(low), math.log10(high)
        return self.start + (numbers - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round numbers within the range: powers of ten with 2 and 5 in between, or steps of 1, 2 or 5."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for factors in ((1, 2, 5), (1, 3), (1,)):
                ticks = [factor * 10.0**power for power in powers for factor in factors]
                ticks = [tick for tick in ticks if self.low <= tick <= self.high]
                if len(ticks) <= _MANY:
                    break
            if len(ticks) > 1:  # a short range is better served by even steps
                return ticks
        step = 10 ** math.floor(math.log10((self.high - self.low) / _FEW))
        step *= next(factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (step * factor) <= _FEW)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def x_axis(title: str, low: float, high: float, log: bool = False) -> Axis:
    """The axis at the bottom of a chart; an empty range is widened."""
    return Axis(title, *_widened(low, high, log), log, _LEFT, WIDTH - _RIGHT)


def y_axis(title: str, low: float, high: float, log: bool = False) -> Axis:
    """The axis at the left of a chart, pointing up."""
    return Axis(title, *_widened(low, high, log), log, HEIGHT - _BOTTOM, _TOP)


def chart(x: Axis, y: Axis, marks: Sequence[str], alt: str) -> str:
    """The marks with axes, ticks and grid as an SVG; `alt` describes it to those who cannot see it."""
    parts = [_grid(x, y), *marks]
    middle = (y.start + y.end) / 2
    parts.append(f'<text class="t" x="{(x.start + x.end) / 2:g}" y="{HEIGHT - 8}">{html.escape(x.title)}</text>')
    parts.append(f'<text class="t" transform="translate(14 {middle:g}) rotate(-90)">{html.escape(y.title)}</text>')
    label = html.escape(alt, quote=True)
    return (
        f'<div class="chart"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}'
        "</svg></div>"
    )


def line(x: Axis, y: Axis, xs: Sequence[float] | np.ndarray, ys: Sequence[float] | np.ndarray, kind: str) -> str:
    """A line of class `kind` through the points."""
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x.place(xs), y.place(ys), strict=True))
    return f'<polyline class="line {kind}" points="{points}"/>'


def steps(x: Axis, y: Axis, edges: np.ndarray, heights: np.ndarray, kind: str) -> str:
    """A histogram's outline, filled down to the axis: edges (bins + 1,), heights (bins,)."""
    across = np.repeat(x.place(edges), 2)
    up = np.concatenate([[y.start], np.repeat(y.place(heights), 2), [y.start]])
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, up, strict=True))
    return f'<polyline class="area {kind}" points="{points}"/>'


def cells(
    x: Axis, y: Axis, x0: np.ndarray, x1: np.ndarray, y0: np.ndarray, y1: np.ndarray, rows: np.ndarray, kind: str
) -> str:
    """Rectangles that are darker the more rows they hold, in five shades on a logarithmic scale."""
    left, right, low, high = x.place(x0), x.place(x1), y.place(y0), y.place(y1)
    depth = np.log1p(rows) / max(float(np.log1p(rows).max(initial=0)), 1e-9)
    shade = np.ceil(depth * _SHADES).clip(1, _SHADES).astype(int)
    paths = []
    for number in range(1, _SHADES + 1):
        own = np.flatnonzero(shade == number)
        drawn = "".join(
            f"M{left[i]:.1f} {high[i]:.1f}H{right[i]:.1f}V{low[i]:.1f}H{left[i]:.1f}z" for i in own.tolist()
        )
        if drawn:
            paths.append(f'<path class="cells {kind}" style="fill-opacity:{number / _SHADES * 0.55:.2f}" d="{drawn}"/>')
    return "".join(paths)


def dots(x: Axis, y: Axis, xs: np.ndarray, ys: np.ndarray, kind: str) -> str:
    """A dot at every point, as one path."""
    drawn = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(x.place(xs), y.place(ys), strict=True))
    return f'<path class="dots {kind}" d="{drawn}"/>'


def cut(x: Axis, y: Axis, at: float, label: str) -> str:
    """A vertical line with a label at its top, on the side with more room."""
    where = float(x.place([at])[0])
    left = where > (x.start + x.end) / 2
    anchor, offset = ("end", -6) if left else ("start", 6)
    line = f'<path class="cut" d="M{where:.1f} {y.start:g}V{y.end:g}"/>'
    place = f'x="{where + offset:.1f}" y="{y.end + 11:g}" style="text-anchor:{anchor}"'
    return f'{line}<text class="cut" {place}>{html.escape(label)}</text>'


def bar(share: float, kind: str, mark: float | None = None) -> str:
    """A bar for a table cell that fills a share of its width; `mark`: a tick at another share."""
    tick = "" if mark is None else f'<i class="mark" style="left:{min(mark, 1) * 100:.1f}%"></i>'
    return f'<span class="bar"><i class="{kind}" style="width:{min(share, 1) * 100:.1f}%"></i>{tick}</span>'


def table(head: Sequence[str], lines: Sequence[Sequence[str]], total: int = 0) -> str:
    """A table of cells that are HTML already; all but the first column and bars are numbers.

    total: the number of lines if not all are given; the table then says how many are missing.
    """
    bars = {column for line in lines for column, cell in enumerate(line) if cell.startswith('<span class="bar"')}
    kinds = ["" if column == 0 else ' class="b"' if column in bars else ' class="n"' for column in range(len(head))]
    top = "".join(f"<th{kind}>{html.escape(name)}</th>" for name, kind in zip(head, kinds, strict=True))
    rows = ["".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(line, kinds, strict=True)) for line in lines]
    more = f'<p class="note">and {total - len(lines):,} more</p>' if total > len(lines) else ""
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>{more}'


def text_of(value: object, longest: int = 1500) -> str:
    """Text from data as HTML that shows its characters; control characters and those that change the direction of text
    are shown as codes. A text that is too long is cut and says so."""
    text = str(value)
    more = f" … [{len(text) - longest:,} more characters]" if len(text) > longest else ""
    return html.escape(text[:longest].replace("\r\n", "\n").translate(_SIGNS), quote=True) + more


def number(value: float) -> str:
    """A tick's label."""
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")
    return f"{value:,.10g}" if abs(value) >= 1 else f"{value:.4g}"


def _grid(x: Axis, y: Axis) -> str:
    parts = []
    for tick, place in zip(y.ticks(), y.place(y.ticks()), strict=True):
        parts.append(f'<path class="grid" d="M{x.start:g} {place:.1f}H{x.end:g}"/>')
        parts.append(f'<text class="n y" x="{x.start - 7:g}" y="{place + 4:.1f}">{number(tick)}</text>')
    for tick, place in zip(x.ticks(), x.place(x.ticks()), strict=True):
        parts.append(f'<path class="axis" d="M{place:.1f} {y.start:g}v4"/>')
        parts.append(f'<text class="n" x="{place:.1f}" y="{y.start + 17:g}">{number(tick)}</text>')
    parts.append(f'<path class="axis" d="M{x.start:g} {y.start:g}H{x.end:g}"/>')
    return "".join(parts)


def _widened(low: float, high: float, log: bool) -> tuple[float, float]:
    if high > low:
        return low, high
    return (low / 2, low * 2) if log else (low - 0.5, low + 0.5)
