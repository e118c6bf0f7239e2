"""Text from data made harmless, as HTML and as a widget's label."""

import html
import re

# invisible characters and those that change the writing direction; the common marks U+200E and U+200F are left out
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# what Streamlit turns into an icon, an arrow or a link even if escaped; an invisible word joiner breaks it up
_MAGIC = re.compile(
    r"(?<!\S)(?:<->|->|<-|--|>=|<=|~=)(?!\S)|:(?=material[/_]|streamlit:)|:(?=//)|(?<=www)(?=\.)|(?<=\w)@(?=\w)",
    re.IGNORECASE,
)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:^=&])")


def escape(text: object) -> str:
    """`text` as HTML that shows exactly its characters, invisible ones by number: [U+0000]."""
    return html.escape(visible(str(text)), quote=True)


def visible(text: str) -> str:
    """`text` with the number of every character that is invisible or changes the writing direction."""
    return _UNSEEN.sub(lambda match: f"[U+{ord(match[0]):04X}]", text)


def label(text: object) -> str:
    """`text` for a widget's label, which Streamlit reads as Markdown: every special character is escaped."""
    return _MARKDOWN.sub(r"\\\1", _MAGIC.sub("\\g<0>\u2060", visible(" ".join(str(text).split()))))


def clip(text: str, length: int) -> str:
    """The first `length` characters on one line, with an ellipsis where more follow."""
    line = " ".join(text[: length * 4].split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def ends(text: str, length: int) -> str:
    """The beginning and the end of `text` on one line of at most `length` characters: long names often begin alike."""
    line, tail = " ".join(text.split()), length // 3
    return line if len(line) <= length else f"{line[: length - tail - 1].rstrip()}…{line[-tail:].lstrip()}"


def size(count: float) -> str:
    """A number of bytes in readable form: 1.2 MB."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:,.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:,.1f} {unit}"
        count /= 1000
    raise AssertionError


def duration(seconds: float | None) -> str:
    """Seconds in readable form: 42 s, 3 min 05 s, 2 h 10 min."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def plural(count: int, noun: str, many: str = "") -> str:
    """`1 row`, `1,204 rows`."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"
