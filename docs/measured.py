"""The measured part of a page: a script writes the text between the two markers, the rest is written by hand."""

from collections.abc import Sequence
from pathlib import Path

from gradsift.runtime import atomic

BEGIN = "<!-- measured: a script replaces what stands from here to the end mark -->"
END = "<!-- end of the measured part -->"


def fill(page: Path, text: str) -> None:
    """Put `text` between the markers of `page`, which is created if it is missing."""
    old = page.read_text(encoding="utf-8") if page.is_file() else f"{BEGIN}\n{END}\n"
    before, rest = old.split(BEGIN)
    atomic.write_text(page, f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{rest.split(END)[1]}")


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are right-aligned."""
    marks = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, marks, *lines))
