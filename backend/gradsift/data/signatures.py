"""What a file's first bytes show it to be, where that is not what its name says."""

import re
from pathlib import Path

TEXT_FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
HEAD = 4096  # bytes that are looked at

_POINTERS = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the data; run git lfs pull"),
    (b"/annex/objects/", "a git-annex pointer, not the data; run git annex get"),
)
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(!doctype html|html|head|body|\?xml|error>)", re.IGNORECASE)
_BINARY = (
    (b"PAR1", "Parquet", (".parquet",)),
    (b"ARROW1", "Arrow", (".arrow",)),
    (b"PK\x03\x04", "a zip archive", ()),
    (b"\x1f\x8b", "gzip", ()),
    (b"\x28\xb5\x2f\xfd", "Zstandard", ()),
)


def pointer(head: bytes) -> str:
    """Why these are not the data but a note of where they are, as a clause; "" if they are not that."""
    return next((reason for start, reason in _POINTERS if head.startswith(start)), "")


def disguise(head: bytes, suffix: str) -> str:
    """Why content that begins so cannot be read as the format of this suffix, as a clause; "" if it may be that."""
    if reason := pointer(head):
        return reason
    if match := _PAGE.match(head):
        page = "an XML page" if match[1].lower() in (b"?xml", b"error>") else "an HTML page"
        return f"{page}, not data; download the file again"
    if suffix in TEXT_FORMATS:
        if bits := _wide(head):
            return f"UTF-{bits} text; save it as UTF-8"
        for start, name, suffixes in _BINARY:
            if head.startswith(start) and suffix not in suffixes:
                return f"{name}, though the name ends with {suffix}; give the file its right name"
    return ""


def refusal(path: Path) -> str:
    """What to do about a file of a type that is not read, as a sentence with a space before it, or ""."""
    advice = {
        ".dvc": "It is a pointer of DVC: run dvc pull and give the file itself.",
        ".bz2": "Unpack it first, or compress it with gzip or Zstandard.",
        ".xz": "Unpack it first, or compress it with gzip or Zstandard.",
        ".zip": "Unpack it first.",
        ".tar": "Unpack it first.",
        ".tgz": "Unpack it first.",
        ".zstd": "Rename it to end with .zst.",
        ".xlsx": "Save it as CSV.",
        ".xls": "Save it as CSV.",
        ".pkl": "Pickles are never opened: save it as Parquet.",
        ".pickle": "Pickles are never opened: save it as Parquet.",
        ".pt": "Pickles are never opened: save it as Parquet.",
    }
    text = advice.get(path.suffix.lower(), "")
    return f" {text}" if text else ""


def _wide(head: bytes) -> int:
    """16 or 32 if the bytes are text of so many bits a unit, with or without a byte order mark; else 0."""
    if head.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        return 32
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return 16
    head = head[:64]
    if len(head) < 4 or not head.strip(b"\x00"):
        return 0
    if any(all(any(head[at::4]) == (at == text) for at in range(4)) for text in (0, 3)):
        return 32
    # Latin text has a zero in every second byte; in other scripts at least its punctuation has.
    odd, even = head[1::2].count(0), head[0::2].count(0)
    return 16 if (odd == 0 or even == 0) and max(odd, even) * 8 >= len(head) else 0
