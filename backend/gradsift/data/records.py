"""What every reader yields: a `Record`, which is either an object or the reason why there is none."""

import json
import re
from typing import Any, NamedTuple

from gradsift.data.fields import encodable
from gradsift.data.reasons import kind
from gradsift.runtime.errors import GradsiftError

TOO_DEEP = "not valid JSON: nested too deeply, or a number with too many digits"
HALF_SURROGATE = "holds half of a surrogate pair, which UTF-8 cannot write"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class PoolError(GradsiftError):
    """An input cannot be read at all: it is missing, of an unknown type, empty or unreachable."""


class Record(NamedTuple):
    """One record of an input: its `value` if it is an object, otherwise the `reason` why not."""

    line: int
    raw: bytes
    value: dict[str, Any] | None
    reason: str


def parse_object(raw: bytes) -> tuple[dict[str, Any] | None, str]:
    """Parse one line: (the object, "") or (None, why not)."""
    try:
        value = json.loads(raw.decode())
    except UnicodeDecodeError as error:
        return None, f"not valid UTF-8 at byte {error.start + 1}"
    except json.JSONDecodeError as error:
        return None, syntax_reason(error, error.pos + 1)
    except (ValueError, RecursionError):
        return None, TOO_DEEP
    if not isinstance(value, dict):
        return None, f"not a JSON object but {kind(value)}"
    if _SURROGATE.search(raw) and not encodable(value):
        return None, HALF_SURROGATE
    return value, ""


def syntax_reason(error: json.JSONDecodeError, column: int) -> str:
    """The clause for a JSON syntax error at a column counted from 1."""
    return f"not valid JSON: {error.msg.removesuffix(' at')} at column {column}"


def to_record(line: int, value: Any, kept: Any = None) -> Record:
    """A record of an input that does not consist of lines: `raw` is the value as JSON.

    kept: what `raw` keeps, if that is not all of the value.
    """
    try:
        text = json.dumps(value if kept is None else kept, ensure_ascii=False, default=str)
    except (RecursionError, ValueError, TypeError):
        return Record(line, b"", None, "nested too deeply to be written as JSON")
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raw = json.dumps(value, default=str).encode()
        return Record(line, raw, None, HALF_SURROGATE)
    if not isinstance(value, dict):
        return Record(line, raw, None, f"not a JSON object but {kind(value)}")
    return Record(line, raw, value, "")
