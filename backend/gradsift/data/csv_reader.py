"""Separated text: rows under a header, with a quote that is never closed contained."""

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from gradsift.data.reasons import shorten
from gradsift.data.records import PoolError, Record, to_record
from gradsift.data.schemas import has_schema
from gradsift.data.streams import BREAKS, LONGEST_LINE, break_reason


def read_csv(stream: IO[bytes], path: Path) -> Iterator[Record]:
    """CSV (or tab- or semicolon-separated) with a header; a `messages` column holds JSON."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield from csv_records(text, str(path))
    finally:
        text.detach()


def csv_records(lines: Iterable[str], where: str, by_line: bool = False) -> Iterator[Record]:
    """Records of separated text, numbered from 1 or, with `by_line`, by the line on which each starts.

    Where a quote is not closed as it should be, the lines that it took with it are read again as rows of their own if
    each of them is one; otherwise the row says how many they are.

    Raises:
        PoolError: the header is invalid or names a column twice.
    """
    source = _Watched(lines)
    first = next((line for line in source if line.strip()), "")
    csv.field_size_limit(LONGEST_LINE)
    delimiter = max(",\t;", key=first.count)
    source.take()
    source.put_back([first] if first else [])
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    header: list[str] = []
    number = 0
    while True:
        start, reason = source.number + 1, ""
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            cells, reason = [], f"not valid CSV: {error}"
        taken = source.take()
        if not header:
            header = _header(cells, where)
        elif cells or reason:
            number += 1
            if reason and _are_rows(taken[1:], len(header), delimiter):
                source.put_back(taken[1:])
                taken, reason = taken[:1], "not valid CSV: a quote is opened and not closed"
            elif len(taken) > 1 and reason:
                reason += f", and {len(taken) - 1:,} more lines were read as part of this row"
            yield _csv_record(start if by_line else number, header, cells, "".join(taken), reason)
    if source.broken:
        yield Record(source.number + 1 if by_line else number + 1, b"", None, source.broken)


class _Watched:
    """The physical lines that a CSV reader consumes, counted and kept; they end where the file breaks off."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.number = 0
        self.broken = ""
        self._lines = iter(lines)
        self._seen: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = next(self._lines)
        except BREAKS as error:
            self.broken = break_reason(error)
            raise StopIteration from error
        self.number += 1
        self._seen.append(line)
        return line

    def take(self) -> list[str]:
        """The lines since the last call."""
        seen, self._seen = self._seen, []
        return seen

    def put_back(self, lines: list[str]) -> None:
        """Have lines read once more."""
        self.number -= len(lines)
        self._lines = itertools.chain(lines, self._lines)


def _are_rows(lines: list[str], width: int, delimiter: str) -> bool:
    """Whether lines that a quote has taken with it are rows of their own; the last may have a broken quote itself."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    fits: list[bool] = []
    while width > 1:
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error:
            fits.append(False)
        else:
            fits += [len(cells) == width] if cells else []
    return bool(fits) and all(fits[:-1]) and (fits[-1] or len(fits) > 2)


def _csv_record(line: int, header: list[str], cells: list[str], text: str, reason: str) -> Record:
    if reason:
        return Record(line, _bytes(text), None, reason)
    if len(cells) != len(header):
        reason = f"has {len(cells)} cells where the header has {len(header)}"
        return Record(line, _bytes(text), None, reason)
    if not text.isascii() and any("\udc80" <= character <= "\udcff" for character in text):
        return Record(line, _bytes(text), None, "not valid UTF-8")
    value: dict[str, Any] = dict(zip(header, cells, strict=True))
    for name in ("messages", "conversations", "conversation", "history"):
        if name in value:
            value[name] = _cell_json(value[name])
    return to_record(line, value)


def _cell_json(cell: str) -> Any:
    try:
        return json.loads(cell) if cell.lstrip().startswith("[") else cell or None
    except (ValueError, RecursionError):
        return cell


def _header(cells: list[str], where: str) -> list[str]:
    if not cells:
        raise PoolError(f"The first line of {where} is not a valid CSV header: name the columns there.")
    names = [cell.strip() for cell in cells]
    lower = [name.lower() for name in names]
    if has_schema(frozenset(lower)):
        names = lower
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise PoolError(f"The header of {where} names the column {shorten(duplicates[0])} twice: rename one of them.")
    return names


def _bytes(text: str) -> bytes:
    return text.rstrip("\r\n").encode("utf-8", "surrogateescape")
