"""SHA-256 of a file, bytes, text, a JSON value or several parts, in hexadecimal; names and checks are made of these.

Stores, kept scorings and exports hold such hashes, so what each function feeds to SHA-256 must never change.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def hash_file(path: Path) -> str:
    """The hash of a file's content, read in pieces.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_bytes(data: bytes | memoryview) -> str:
    """The hash of `data`."""
    return hashlib.sha256(data).hexdigest()


def hash_text(text: str) -> str:
    """The hash of `text` as UTF-8.

    Raises:
        UnicodeEncodeError: the text holds half of a surrogate pair.
    """
    return hash_bytes(text.encode())


def hash_json(value: Any) -> str:
    """The hash of `value` as JSON; the order of a dict's keys does not matter, and a tuple is hashed as a list.

    Raises:
        TypeError: JSON has no form for the value.
    """
    return hash_text(json.dumps(value, sort_keys=True))


def hash_parts(parts: Iterable[bytes | memoryview]) -> str:
    """The hash of all parts as if they were one, without joining them in memory."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def raw_hash(data: bytes) -> bytes:
    """The 32 raw bytes, for a number or the key of a random stream."""
    return hashlib.sha256(data).digest()
