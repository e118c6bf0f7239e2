"""JSON in the layouts that people have: a value a line, spread over lines, in a list, or in a list in an object.

`read_json` finds out from the first line. JSON Lines are read line by line and kept byte for byte. In any other layout,
values are scanned one after another, and a broken one costs only itself: reading resumes behind it.
"""

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from gradsift.data.json_scanner import LARGEST, Line, Scanner
from gradsift.data.records import PoolError, Record, parse_object, to_record
from gradsift.data.schemas import has_schema
from gradsift.data.streams import LONGEST_LINE, data_suffix, peek, split_lines

LIST_NAMES = ("data", "rows", "train", "examples", "instances", "items", "records")
_SCALAR = r'"[^"\\]*"|[-+\w.]+'
_WRAPPER = re.compile(rf'\s*\{{(?:\s*"[^"\\]*"\s*:\s*(?:{_SCALAR})\s*,)*\s*"(?:{"|".join(LIST_NAMES)})"\s*:\s*\[')
_SPACE = re.compile(r"[\s,]*")
_RETURN = re.compile(rb"\r[^\n]")
_PADDING = b"\x00 \t\r"
_MARK = b"\xef\xbb\xbf"


def read_json(stream: IO[bytes], path: Path, left_out: list[str]) -> Iterator[Record]:
    """JSON Lines, a JSON list, an object that wraps a list of records, concatenated or pretty-printed objects.

    left_out: gets the names of lists that stand beside the one that is read.

    Raises:
        PoolError: JSON that is not made of lines is larger than 2 GiB a value.
    """
    head = peek(stream)
    is_lines = data_suffix(path) != ".json"
    whole = not is_lines or head.removeprefix(_MARK).lstrip()[:1] == b"["
    returns = b"\n" not in head and _RETURN.search(head) is not None
    lines = split_lines(stream, LARGEST if whole else LONGEST_LINE, returns)
    first = next(lines, None)
    while first and first[1].lstrip().startswith((b"//", b"#")):
        yield Record(first[0], first[1], None, "a comment, which JSON does not have; remove the line")
        first = next(lines, None)
    if first is None:
        return
    if whole and first[2].startswith("longer"):
        raise PoolError(f"{path} holds a JSON value of more than {LARGEST >> 30} GiB: convert it to JSON Lines.")
    second = next(lines, None)
    rest = itertools.chain([first], [second] if second else [], lines)
    value, complete = _complete(first)
    if complete and second is None:
        yield from _alone(value, first, left_out)
    elif complete or _by_line(first, is_lines, second is None):
        yield from _from_lines(rest)
    else:
        yield from _scanned(rest, path, left_out)


def list_in(value: dict[str, Any]) -> str:
    """The name under which an object wraps a list of records, or "": a usual one, or that of its only list of objects.

    A record wraps no list: its own lists (`messages`, ...) hold turns.
    """
    if has_schema(frozenset(value)):
        return ""
    lists = [name for name, item in value.items() if _holds_objects(item)]
    named = [name for name in LIST_NAMES if name in lists]
    return (named or (lists if len(lists) == 1 else [""]))[0]


def _complete(first: Line) -> tuple[Any, bool]:
    """The value of the first line, and whether it is one."""
    try:
        return json.loads(first[1].strip(_PADDING).removeprefix(_MARK).decode()), not first[2]
    except (ValueError, RecursionError):
        return None, False


def _by_line(first: Line, is_lines: bool, alone: bool) -> bool:
    """Whether a first line that is not one JSON value holds whole records, or is a broken one; else it goes on."""
    _, raw, problem = first
    text = raw.strip(_PADDING)
    if text.startswith((b"{'", b"[{'")) or (is_lines and not text.startswith((b"{", b"["))):
        return True
    if alone:
        return bool(_pieces(text)) or (is_lines and bool(problem))
    if text.startswith(b"[") or not is_lines:
        return text.startswith(b"{") and text.rstrip(b", \t").endswith(b"}")
    try:
        decoded = text.decode()
        json.JSONDecoder().raw_decode(decoded)
    except json.JSONDecodeError as error:
        return error.pos < len(decoded)
    except (ValueError, RecursionError):
        pass
    return True


def _from_lines(lines: Iterable[Line]) -> Iterator[Record]:
    for number, raw, problem in lines:
        value, reason = (None, problem) if problem else parse_object(raw)
        if reason and not problem:
            yield from _mended(number, raw, reason)
        else:
            yield Record(number, raw, value, reason)


def _mended(number: int, raw: bytes, reason: str) -> Iterator[Record]:
    """The records of a line that is not one object, if it is objects side by side, or one with a comma behind it."""
    data = raw.strip(_PADDING).removeprefix(_MARK)
    if not data:
        reason = "nothing but NUL bytes, as an interrupted write leaves them"
    elif data.startswith((b"{'", b"[{'")):
        reason = "not valid JSON: written with single quotes, as Python prints it; write it with json.dumps"
    elif data.startswith(b"{"):
        pieces = _pieces(data)
        parsed = [parse_object(piece) for piece in pieces]
        if pieces and (len(pieces) > 1 or pieces[0] != raw):
            for piece, (value, problem) in zip(pieces, parsed, strict=True):
                yield Record(number, piece, value, problem)
            return
    yield Record(number, raw, None, reason)


def _pieces(data: bytes) -> list[bytes]:
    """The values of a line, apart from commas and white space between them; none if anything else is there."""
    decoder, pieces, position = json.JSONDecoder(), [], 0
    try:
        text = data.decode()
        while position < len(text):
            _, end = decoder.raw_decode(text, position)
            pieces.append(text[position:end].encode())
            position = _SPACE.match(text, end).end()  # type: ignore[union-attr]  # also matches the empty string
    except (ValueError, RecursionError):
        return []
    return pieces


def _alone(value: Any, first: Line | None, left_out: list[str]) -> Iterator[Record]:
    """The records of a file that is one JSON value."""
    records: list[Any] | None = value if isinstance(value, list) else None
    if isinstance(value, dict):
        records = _unwrapped(value, left_out)
    if records is not None:
        yield from itertools.starmap(to_record, enumerate(records, 1))
    elif first:
        yield from _from_lines([first])
    else:
        yield to_record(1, value)


def _unwrapped(value: dict[str, Any], left_out: list[str]) -> list[Any] | None:
    """The records of an object that is none itself: a list in it, objects by id, or columns as pandas writes them."""
    name = list_in(value)
    if name:
        others = [other for other, item in value.items() if other != name and _holds_objects(item)]
        left_out += [f"the list {other} ({len(value[other]):,})" for other in others]
        return list(value[name])
    columns: Any = value.get("columns")
    rows: Any = value.get("data")
    if _is_list(columns, str) and _is_list(rows, list) and all(len(row) == len(columns) for row in rows):
        return [dict(zip(columns, row, strict=True)) for row in rows]
    cells = list(value.values())
    if has_schema(frozenset(value)):
        return _columns(value)
    if cells and all(isinstance(cell, dict) and has_schema(frozenset(cell)) for cell in cells):
        return [{"id": name, **cell} for name, cell in value.items()]
    return None


def _columns(value: dict[str, Any]) -> list[Any] | None:
    """The records of an object of columns: lists of one length, or objects with the same keys; else None."""
    cells = list(value.values())
    if all(isinstance(cell, dict) for cell in cells):
        keys = list(cells[0])
        if keys and all(list(cell) == keys for cell in cells) and all(key.isdecimal() for key in keys):
            return [{name: cell[key] for name, cell in value.items()} for key in keys]
    if not all(isinstance(cell, list) and cell and len(cell) == len(cells[0]) for cell in cells):
        return None
    if any(isinstance(item, dict) for cell in cells for item in cell):  # a record whose fields are turns
        return None
    return [dict(zip(value, row, strict=True)) for row in zip(*cells, strict=True)]


def _scanned(lines: Iterable[Line], path: Path, left_out: list[str]) -> Iterator[Record]:
    """The records of a text that is not one value a line."""
    scanner = Scanner(lines, path)
    first = scanner.next()
    if first is None:
        return
    wrapper = _WRAPPER.match(first.text) if first.reason and not first.listed else None
    if wrapper:
        scanner.enter(first, wrapper.end())
        first = scanner.next()
    second = scanner.next()
    if first and second is None and not first.reason and not first.listed:
        yield from _alone(first.value, None, left_out)
        return
    number = 0
    for found in itertools.chain([first, second], iter(scanner.next, None)):
        if found is None:
            continue
        number += 1
        line = number if found.listed else found.line
        if found.reason:
            yield Record(line, found.text.strip().encode("utf-8", "surrogateescape"), None, found.reason)
        else:
            yield to_record(line, found.value)
    if scanner.rest:
        left_out.append("what follows the list that is read")


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, kind) for item in value)


def _holds_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
