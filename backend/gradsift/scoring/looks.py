"""How a method looks wherever it is drawn, on a page or in a report: one color and one mark.

The hues keep apart under the common color blindnesses (blue, amber, teal, grey differ in lightness as well), and the
mark says the same without color.
"""

import zlib
from dataclasses import dataclass


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
    "length": Look("▼", "triangle-down", "#6b7c05", "#c3d354", "green"),
    "loss": Look("✦", "star", "#b0236a", "#f08cbc", "red"),
    "draft": Look("◗", "hexagon", "#0b6fa8", "#7cc7f2", "blue"),
}
_OTHERS = (
    Look("✖", "x", "#8a4b20", "#d9a27c", "orange"),
    Look("⬟", "pentagon", "#6d5a00", "#e0c85a", "orange"),
    Look("★", "star-square", "#7a2e2e", "#e79a9a", "red"),
)


def look(method: str) -> Look:
    """The look of `method`; one that has none of its own gets a steady one."""
    return LOOKS.get(method) or _OTHERS[zlib.crc32(method.encode()) % len(_OTHERS)]
