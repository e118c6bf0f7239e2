"""Gradient norms against answer length, and areas marked on their chart (the paper's figures 3 and 4, table 12).

Lengths are answer tokens; norms are those before projection; both as log10. Arrays and tables are in the order of
positions: entry i belongs to the i-th scored row.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gradsift.runtime.errors import UsageError

if TYPE_CHECKING:
    from gradsift.datastore.store import Store

KINDS = ("grad_norm", "update_norm")
MOST_CELLS = 20_000
MOST_VERTICES = 60
_STEP = 1000  # areas and bins use whole thousandths, so that an area survives the address bar unchanged
_NUMBER = r"-?[0-9]{1,3}(?:\.[0-9]{1,3})?"
_AREA = re.compile(rf"(epoch-[0-9]{{1,4}});({'|'.join(KINDS)})((?:;{_NUMBER},{_NUMBER}){{3,{MOST_VERTICES}}})")


def norm_table(store: "Store") -> dict[str, pd.DataFrame]:
    """Norms and lengths of every scored row by checkpoint ("epoch-1" and so on), indexed by position.

    Columns: source, length (log10 of answer tokens), grad_norm (log10 ‖g‖), update_norm (log10 ‖Γ‖). A norm of 0 (the
    model is certain of the answer) has no logarithm and is NaN.

    Raises:
        StoreError, ShardError: a file is missing or damaged.
    """
    pool = store.pool().loc[store.scored_rows]
    source, length = pool["source"].to_numpy(), _log10(pool["n_answer_tokens"].to_numpy())
    frames = {}
    for epoch, frame in store.metrics().groupby("epoch", sort=False):
        kinds = {kind: _log10(frame[kind].to_numpy()[store.scored]) for kind in KINDS}
        frames[str(epoch)] = pd.DataFrame({"source": source, "length": length, **kinds})
    return frames


def _log10(values: np.ndarray) -> np.ndarray:
    return np.log10(values, out=np.full(len(values), np.nan), where=values > 0, dtype=np.float64)


def correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's r of the pairs that are both finite; None if there are fewer than two, or one side does not vary."""
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def correlations(table: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Pearson's r of log norm with log answer length, by checkpoint and source, for both kinds of norm.

    Columns: epoch, source ("" for all rows), kind, rows (number with a norm above 0), r (NaN if one side does not
    vary).
    """
    lines = []
    for epoch, frame in table.items():
        codes, names = pd.factorize(frame["source"])
        groups = [("", slice(None)), *((name, codes == code) for code, name in enumerate(names))]
        length = frame["length"].to_numpy()
        for kind in KINDS:
            norm = frame[kind].to_numpy()
            for source, rows in groups:
                x, y = length[rows], norm[rows]
                lines.append((epoch, source, kind, int(np.isfinite(y).sum()), correlation(x, y)))
    return pd.DataFrame(lines, columns=["epoch", "source", "kind", "rows", "r"]).astype({"r": np.float64})


def binned(x: np.ndarray, y: np.ndarray, groups: np.ndarray, bins: int = 60) -> pd.DataFrame:
    """Count rows on a grid of at most bins x bins cells with edges in whole thousandths, the same grid for every group.

    x, y: (n,) logarithms; rows with a NaN are left out. groups: (n,) names, such as sources. The grid becomes coarser
    until the result has at most 20,000 lines.

    Returns:
        One line per group and nonempty cell: group, x, y (center), x0, x1, y0, y1 (edges; x0 <= x < x1), rows.
    """
    codes, names = pd.factorize(groups)
    finite = np.isfinite(x) & np.isfinite(y)
    while True:
        x_edges, y_edges = _edges(x[finite], bins), _edges(y[finite], bins)
        height = len(y_edges) - 1
        column = np.searchsorted(x_edges, x[finite], side="right") - 1
        line = np.searchsorted(y_edges, y[finite], side="right") - 1
        cells = column * height + line
        size = (len(x_edges) - 1) * height
        counts = np.bincount(codes[finite] * size + cells, minlength=size * len(names))
        filled = np.flatnonzero(counts)
        if len(filled) <= MOST_CELLS or bins == 1:
            break
        bins = max(bins * 3 // 4, 1)
    cell = filled % size
    x0, x1, y0, y1 = (edges[at] for edges, at in _sides(x_edges, cell // height, y_edges, cell % height))
    place = {"x": (x0 + x1) / 2, "y": (y0 + y1) / 2, "x0": x0, "x1": x1, "y0": y0, "y1": y1}
    return pd.DataFrame({"group": names[filled // size], **place, "rows": counts[filled]})


def _sides(
    x_edges: np.ndarray, column: np.ndarray, y_edges: np.ndarray, line: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(x_edges, column), (x_edges, column + 1), (y_edges, line), (y_edges, line + 1)]


def _edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Edges of at most `bins` equal bins, in whole thousandths, that contain all values; none is on the last edge."""
    if not len(values):
        return np.array([0.0, 1.0])
    low, high = int(np.floor(values.min() * _STEP)) - 1, int(np.ceil(values.max() * _STEP)) + 1  # 1: for rounding
    width = -(-(high - low) // bins)
    return np.arange(low, high + width, width) / _STEP


@dataclass(frozen=True)
class Area:
    """A polygon on the chart of one checkpoint and kind of norm; vertices are (log10 tokens, log10 norm).

    It has at most 60 vertices, in whole thousandths, so that it fits in the address bar and survives it unchanged.
    """

    epoch: str
    kind: str
    vertices: tuple[tuple[float, float], ...]

    @classmethod
    def of_lasso(cls, epoch: str, kind: str, x: Sequence[float], y: Sequence[float]) -> "Area":
        """The area inside a freehand line; a long line is reduced to evenly spaced vertices.

        Raises:
            UsageError: the line encloses nothing, or the chart does not exist.
        """
        thousandths = np.round(np.array([x, y], dtype=np.float64).T * _STEP)
        if not np.isfinite(thousandths).all():
            raise UsageError("The area has a corner that is not a number: draw it again.")
        line = [(x, y) for x, y in (thousandths / _STEP + 0.0).tolist()]  # + 0.0 turns -0 into 0
        points = [point for previous, point in zip(line[-1:] + line, line, strict=False) if point != previous]
        if len(points) > MOST_VERTICES:
            points = [points[at] for at in np.linspace(0, len(points) - 1, MOST_VERTICES).round().astype(int)]
        return cls.parse(_as_text(epoch, kind, points))

    @classmethod
    def of_box(cls, epoch: str, kind: str, x0: float, x1: float, y0: float, y1: float) -> "Area":
        """A box: x0 <= x < x1 and y0 <= y < y1, like the cells of `binned`."""
        return cls.of_lasso(epoch, kind, (x0, x1, x1, x0), (y0, y0, y1, y1))

    @classmethod
    def parse(cls, text: str) -> "Area":
        """Read the text form that `str` gives: `epoch-1;grad_norm;1.000,0.200;1.500,0.200;1.500,0.900`.

        Raises:
            UsageError: the text is not an area.
        """
        match = _AREA.fullmatch(text)
        if not match:
            raise UsageError("This is not an area of the gradient norms' chart: mark rows on the chart again.")
        corners = (corner.split(",") for corner in match[3][1:].split(";"))
        return cls(match[1], match[2], tuple((float(x), float(y)) for x, y in corners))

    def __str__(self) -> str:
        return _as_text(self.epoch, self.kind, self.vertices)

    def inside(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(n,) bool, which points are inside; NaN never is. x, y: (n,) logarithms.

        From a point inside, a line to the right crosses the outline an odd number of times. A box includes its left and
        lower sides but not the others, so that neighboring boxes share no row.
        """
        corners = np.array(self.vertices)
        low, high = corners.min(0), corners.max(0)
        near = np.flatnonzero((x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]))
        across, up = x[near], y[near]
        odd = np.zeros(len(near), dtype=bool)
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            if y0 != y1:
                odd ^= ((y0 > up) != (y1 > up)) & (across < (x1 - x0) * (up - y0) / (y1 - y0) + x0)
        mask = np.zeros(len(x), dtype=bool)
        mask[near] = odd
        return mask


def _as_text(epoch: str, kind: str, points: Sequence[tuple[float, float]]) -> str:
    return ";".join([epoch, kind, *(f"{x:.3f},{y:.3f}" for x, y in points)])


def side_by_side(cosine: np.ndarray, dot: np.ndarray, n_answer: np.ndarray, norm: np.ndarray) -> pd.DataFrame:
    """Compare picks by the cosine, picks by the raw dot product and the whole pool (the paper's table 12).

    cosine, dot: positions of the picks. n_answer: (n,) tokens. norm: (n,) norms of a checkpoint, not logarithms.
    Columns: similarity ("cosine", "dot", "pool"), rows, mean_answer, median_answer (tokens), mean_norm, median_norm,
    common (rows that both pick), share (common / rows). Statistics of no rows are NaN.
    """
    common = len(np.intersect1d(cosine, dot))
    lines = []
    for name, positions in (("cosine", cosine), ("dot", dot), ("pool", np.arange(len(n_answer)))):
        answer, length = pd.Series(n_answer[positions]), pd.Series(norm[positions])
        line = {"similarity": name, "rows": len(positions), "mean_answer": answer.mean()}
        line |= {"median_answer": answer.median(), "mean_norm": length.mean(), "median_norm": length.median()}
        lines.append({**line, "common": common, "share": common / max(len(positions), 1)})
    return pd.DataFrame(lines)
