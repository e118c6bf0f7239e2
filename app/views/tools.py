"""Tools and their calls as people read them: JSON laid out in lines, a row's tools by name. Draws nothing."""

import json
from typing import Any

LONGEST = 100_000  # characters of JSON that are laid out; longer ones are shown as they stand


class _NotFaithful(ValueError):
    """Laying the JSON out would change what it says."""


def laid_out(text: str) -> str:
    """JSON text in indented lines; the text itself if it is not JSON, is too long, or would not keep what it says."""
    try:
        value = _read(text)
    except (ValueError, RecursionError):
        return text
    return _written(value) if isinstance(value, dict | list) and value else text


def tools_of(text: str) -> list[tuple[str, str]]:
    """A row's tools as (name, definition laid out), from JSON text; if it is not a list, one entry without a name."""
    try:
        tools = _read(text) if text else []
    except (ValueError, RecursionError):
        tools = None
    if not isinstance(tools, list):
        return [("", text)]
    return [(_name(tool) or f"tool {number}", _written(tool)) for number, tool in enumerate(tools, 1)]


def _name(tool: Any) -> str:
    inner = tool.get("function") if isinstance(tool, dict) else None
    named = inner if isinstance(inner, dict) else tool
    name = named.get("name") if isinstance(named, dict) else None
    return name if isinstance(name, str) else ""


def _read(text: str) -> Any:
    if len(text) > LONGEST:
        raise _NotFaithful
    return json.loads(text, object_pairs_hook=_object, parse_float=_number)


def _written(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):  # a name comes twice
        raise _NotFaithful
    return values


def _number(text: str) -> float:
    value = float(text)
    if repr(value) != text:  # more digits than a float keeps, or another way to write it
        raise _NotFaithful
    return value
