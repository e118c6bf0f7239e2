"""Colors and marks: each method has one color and mark everywhere, each source one badge.

The methods' looks are in `gradsift.scoring.methods`. `css` turns them all into variables that follow light and dark
through the `color-scheme` that Streamlit sets on the page.
"""

import zlib
from pathlib import Path

from gradsift.scoring.methods import METHODS, look

__all__ = ["color", "css", "css_name", "look", "tint"]

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

# A diverging scale (below, zero, above), light then dark: amber and blue stay distinct under every color blindness, and
# the page's text color is readable on all of it.
DIVERGING = (("#d6a078", "#f7f7f4", "#8da1e6"), ("#88623b", "#20242c", "#56659a"))
INK = ("#1b1f27", "#e6e8ee")


def diverging(dark: bool) -> list[tuple[float, str]]:
    """Plotly's color scale for values around zero."""
    return list(zip((0.0, 0.5, 1.0), DIVERGING[dark], strict=True))


def color(method: str, dark: bool) -> str:
    """The method's color on a dark or a light page."""
    return look(method).dark if dark else look(method).light


def tint(source: str, sources: list[str]) -> int:
    """Number of the badge that `source` has among the store's sorted `sources`."""
    return (sources.index(source) if source in sources else zlib.crc32(source.encode())) % len(TINTS)


def css(kind: str | None) -> str:
    """The page's style sheet: the file beside this one, with variables for the colors above.

    kind: "light" or "dark", as far as Streamlit knows; drawers lie outside the page and take it from the body.
    """
    scheme = f"body{{color-scheme:{kind}}}" if kind in ("light", "dark") else ""
    methods = "".join(f".gs-m-{css_name(m)}{{--m:light-dark({look(m).light},{look(m).dark})}}" for m in METHODS)
    tints = "".join(
        f".gs-t-{i}{{background:light-dark({a},{c});color:light-dark({b},{d})}}" for i, (a, b, c, d) in enumerate(TINTS)
    )
    return f"<style>{Path(__file__).with_name('style.css').read_text(encoding='utf-8')}{scheme}{methods}{tints}</style>"


def css_name(method: str) -> str:
    """`method` as part of a class name."""
    return "".join(c if c.isalnum() else "-" for c in method)
