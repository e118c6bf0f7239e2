"""Colors and marks: a method has one of each everywhere, a source one badge.

The hues keep apart under the common color blindnesses (blue, amber, teal, grey differ in lightness as well), and the
mark says the same without color. `css` turns both into variables that follow light and dark by themselves, through the
`color-scheme` that Streamlit sets on the page.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Look:
    """How a method looks: a mark for text, Plotly's name of the same mark, and its color on light and on dark."""

    mark: str
    symbol: str
    light: str
    dark: str
    ink: str  # the name of the nearest color in Streamlit's markdown


LOOKS = {
    "less": Look("●", "circle", "#2f54d1", "#8da6ff", "blue"),
    "bm25": Look("■", "square", "#b45309", "#f0b04a", "orange"),
    "rds": Look("▲", "triangle-up", "#0f766e", "#4fd1c5", "green"),
    "random": Look("○", "circle-open", "#5b6472", "#a3abb8", "gray"),
    "rds+": Look("◆", "diamond", "#134e4a", "#2ba79b", "green"),
    "dsir": Look("✚", "cross", "#7e22ce", "#c79bff", "violet"),
}
_OTHERS = (
    Look("✦", "star", "#b0236a", "#f08cbc", "red"),
    Look("▼", "triangle-down", "#6b7c05", "#c3d354", "green"),
    Look("◗", "hexagon", "#8a4b20", "#d9a27c", "orange"),
)
TINTS = (  # (background, text) of source badges, light then dark
    ("#e6ebfb", "#2a3f8f", "#26304f", "#b9c7ff"),
    ("#fbeedd", "#7a3d06", "#43321b", "#f3cd94"),
    ("#ddf1ee", "#0b5952", "#1b3b3a", "#93e0d8"),
    ("#f4e5f4", "#702470", "#402b45", "#e6b8ea"),
    ("#eaf0d8", "#475305", "#343a1c", "#cfdc8e"),
    ("#fbe4e6", "#8a1f2e", "#47262c", "#f5b3bb"),
    ("#e3eef6", "#1d4e6e", "#213645", "#a5d0ec"),
    ("#eceae6", "#534a3d", "#36332d", "#d3cabb"),
)


def look(method: str) -> Look:
    """The look of `method`; one that has none of its own gets a steady one."""
    return LOOKS.get(method) or _OTHERS[zlib.crc32(method.encode()) % len(_OTHERS)]


def color(method: str, dark: bool) -> str:
    """The method's color on a dark or a light page."""
    return look(method).dark if dark else look(method).light


def tint(source: str, sources: list[str]) -> int:
    """Which badge `source` has among the store's sorted `sources`."""
    return (sources.index(source) if source in sources else zlib.crc32(source.encode())) % len(TINTS)


def css() -> str:
    """The page's style sheet: the file beside this one, after the variables that carry the colors above."""
    methods = "".join(f".gs-m-{css_name(m)}{{--m:light-dark({v.light},{v.dark})}}" for m, v in LOOKS.items())
    tints = "".join(
        f".gs-t-{i}{{background:light-dark({a},{c});color:light-dark({b},{d})}}" for i, (a, b, c, d) in enumerate(TINTS)
    )
    return f"<style>{Path(__file__).with_name('style.css').read_text(encoding='utf-8')}{methods}{tints}</style>"


def css_name(method: str) -> str:
    """`method` as part of a class name."""
    return "".join(c if c.isalnum() else "-" for c in method)
