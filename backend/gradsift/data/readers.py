"""From an input to a stream of records: JSON Lines, JSON, CSV, Parquet, a `datasets` folder or a hub id.

`records_of` chooses the reader by the file's name. A record that cannot be parsed has a reason instead of a value, and
reading continues. Where the file itself breaks off (a truncated archive), all earlier records are kept and a last one
says why.
"""

import csv
import io
import itertools
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from gradsift.data.schemas import has_schema, kind, shorten
from gradsift.data.streams import BREAKS, COMPRESSIONS, LONGEST_LINE, break_reason, clause, open_stream, split_lines
from gradsift.runtime.errors import GradsiftError

FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
LARGEST_JSON = 2 * 2**30  # bytes; a JSON list has to fit in memory
LIST_NAMES = ("data", "rows", "train", "examples", "instances", "items", "records")
TOO_DEEP = "not valid JSON: nested too deeply, or a number with too many digits"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class PoolError(GradsiftError):
    """An input cannot be read at all: it is missing, of an unknown type, empty or unreachable."""


class Record(NamedTuple):
    """One record of an input: its `value` if it is an object, otherwise the `reason` why not."""

    line: int
    raw: bytes
    value: dict[str, Any] | None
    reason: str


def data_suffix(path: Path) -> str:
    """The suffix of the format, compression aside: `.jsonl` for `a.jsonl.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def records_of(path: Path) -> Iterator[Record]:
    """Stream the records of one file or `datasets` folder.

    Raises:
        PoolError: the file cannot be opened, or is not of the type that its name says.
    """
    if path.is_dir():
        yield from read_saved_dataset(path)
        return
    readers = {".json": read_json, ".csv": read_csv, ".tsv": read_csv, ".parquet": read_parquet}
    try:
        with open_stream(path) as stream:
            yield from readers.get(data_suffix(path), read_lines)(stream, path)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise PoolError(f"Cannot read {path}: {error.strerror}. Check the path and its permissions.") from error


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
    if _SURROGATE.search(raw) and not _encodable(value):
        return None, "holds half of a surrogate pair, which UTF-8 cannot write"
    return value, ""


def syntax_reason(error: json.JSONDecodeError, column: int) -> str:
    """The clause for a JSON syntax error at a column counted from 1."""
    return f"not valid JSON: {error.msg.removesuffix(' at')} at column {column}"


def to_record(line: int, value: Any) -> Record:
    """A record of an input that does not consist of lines: `raw` is the value as JSON."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (RecursionError, ValueError):
        return Record(line, b"", None, "nested too deeply to be written as JSON")
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raw = json.dumps(value, default=str).encode()
        return Record(line, raw, None, "holds half of a surrogate pair, which UTF-8 cannot write")
    if not isinstance(value, dict):
        return Record(line, raw, None, f"not a JSON object but {kind(value)}")
    return Record(line, raw, value, "")


def read_lines(stream: IO[bytes], path: Path) -> Iterator[Record]:
    """JSON Lines: one object per line."""
    yield from _parsed(split_lines(stream))


def read_json(stream: IO[bytes], path: Path) -> Iterator[Record]:
    """A JSON list, an object that wraps a list of records, a single record, or JSON Lines in a file called .json."""
    lines = split_lines(stream, LARGEST_JSON)
    head = next(lines, None)
    if head is None:
        return
    start, end = head[1].lstrip()[:1], head[1].rstrip()[-1:]
    if start == b"{" and end == b"}":
        second = next(lines, None)
        value, _ = parse_object(head[1])
        listed = None if value is None or second is not None else list_in(value)
        if listed is None:
            yield from _parsed(itertools.chain([head], [] if second is None else [second], lines))
        else:
            yield from itertools.starmap(to_record, enumerate(listed, 1))
        return
    yield from _whole_json(itertools.chain([head], lines), path)


def list_in(value: dict[str, Any]) -> list[Any] | None:
    """The list of records that an object wraps, or None: the one under a usual name, or its only list of objects.

    A record wraps no list: its own lists (`messages`, ...) hold turns.
    """
    if has_schema(frozenset(value)):
        return None
    named = [value[name] for name in LIST_NAMES if _holds_objects(value.get(name))]
    if named:
        return list(named[0])
    lists = [item for item in value.values() if _holds_objects(item)]
    return list(lists[0]) if len(lists) == 1 else None


def read_csv(stream: IO[bytes], path: Path) -> Iterator[Record]:
    """CSV (or tab- or semicolon-separated) with a header; a `messages` column holds JSON."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield from csv_records(text, str(path))
    finally:
        text.detach()


def csv_records(lines: Iterable[str], where: str, by_line: bool = False) -> Iterator[Record]:
    """Records of separated text, numbered from 1 or, with `by_line`, by the line on which each starts.

    Raises:
        PoolError: the header is invalid or names a column twice.
    """
    source = _Watched(lines)
    header: list[str] = []
    number = 0
    try:
        first = next((line for line in source if line.strip()), "")
    except BREAKS as error:
        yield Record(1, b"", None, break_reason(error))
        return
    if not first:
        return
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(itertools.chain([first], source), delimiter=max(",\t;", key=first.count), strict=True)
    while True:
        start = source.number + 1
        try:
            cells, reason = next(reader, None), ""
        except csv.Error as error:
            cells, reason = [], f"not valid CSV: {error}"
        except BREAKS as error:
            yield Record(start if by_line else number + 1, _bytes(source.take()), None, break_reason(error))
            return
        if cells is None:
            return
        if not header:
            header = _header(cells, where)
        elif cells or reason:
            number += 1
            yield _csv_record(start if by_line else number, header, cells, source.take(), reason)
        source.take()


def read_parquet(stream: IO[bytes], path: Path) -> Iterator[Record]:
    """Parquet, in batches of 64 records."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    with _seekable(stream, path) as file:
        try:
            table = ParquetFile(file)
        except (pyarrow.ArrowException, OSError) as error:
            raise PoolError(f"{path} is not a readable Parquet file: {clause(error)}.") from error
        batches = (batch.to_pylist() for batch in table.iter_batches(batch_size=64))
        yield from _until_break(itertools.chain.from_iterable(batches))


def is_saved_dataset(folder: Path) -> bool:
    """Whether a folder was written by `datasets`' `save_to_disk`."""
    names = ("state.json", "dataset_dict.json")
    return any((folder / name).is_file() for name in names)


def read_saved_dataset(folder: Path) -> Iterator[Record]:
    """A folder written by `save_to_disk`; of several splits, `train`.

    Raises:
        PoolError: it cannot be loaded, or has several splits but no `train`.
    """
    from datasets import Dataset, load_from_disk

    try:
        dataset = load_from_disk(str(folder))
    except Exception as error:  # a damaged folder makes the library raise anything
        raise PoolError(f"{folder} cannot be loaded as a saved data set: {clause(error)}.") from error
    if not isinstance(dataset, Dataset):
        splits = list(dataset)
        split = "train" if "train" in splits else splits[0]
        if split != "train" and len(splits) > 1:
            raise PoolError(f"{folder} has the splits {', '.join(splits)}; name one of them, as {folder}/{split}.")
        dataset = dataset[split]
    yield from _until_break(dataset)


def read_hub(name: str) -> Iterator[Record]:
    """Stream the train split of a data set on the Hugging Face hub.

    Raises:
        PoolError: no such data set, no such split, or no connection.
    """
    from datasets import load_dataset

    try:
        for number, value in enumerate(load_dataset(name, split="train", streaming=True), 1):
            yield to_record(number, value)
    except Exception as error:  # the hub client raises many types: no network, missing, gated, unreadable
        raise PoolError(
            f"{name} is not a local file or folder, and the Hugging Face hub did not stream its train split: "
            f"{clause(error)}. Check the name and the connection, or give a downloaded file."
        ) from error


def _parsed(lines: Iterable[tuple[int, bytes, str]]) -> Iterator[Record]:
    for number, raw, problem in lines:
        value, reason = (None, problem) if problem else parse_object(raw)
        yield Record(number, raw, value, reason)


def _whole_json(lines: Iterable[tuple[int, bytes, str]], path: Path) -> Iterator[Record]:
    """Parse the whole text; a syntax error anywhere makes the whole file unusable and is reported with its line."""
    parts: list[bytes] = []
    size = 0
    for number, raw, problem in lines:
        if problem.startswith("longer") or (size := size + len(raw)) > LARGEST_JSON:
            raise PoolError(f"{path} is a JSON list of more than {LARGEST_JSON >> 30} GiB: convert it to JSON Lines.")
        if problem:
            yield Record(number, raw, None, problem)
            return
        parts += [b""] * (number - 1 - len(parts)) + [raw]  # blank lines put back, so that line numbers are right
    try:
        value = json.loads(b"\n".join(parts).decode())
    except json.JSONDecodeError as error:
        raw = parts[error.lineno - 1]
        yield Record(error.lineno, raw, None, syntax_reason(error, error.colno))
    except UnicodeDecodeError as error:
        yield Record(1, b"", None, f"not valid UTF-8 at byte {error.start + 1}")
    except (ValueError, RecursionError):
        yield Record(1, b"", None, TOO_DEEP)
    else:
        listed = list_in(value) if isinstance(value, dict) else value
        records = listed if isinstance(listed, list) else [value]
        yield from itertools.starmap(to_record, enumerate(records, 1))


class _Watched:
    """The physical lines that a CSV reader consumes: counted, and collected for the current record's `raw`."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.number = 0
        self._lines = iter(lines)
        self._seen: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        self._seen.append(line)
        return line

    def take(self) -> str:
        """The lines since the last call."""
        text = "".join(self._seen)
        self._seen.clear()
        return text


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


def _until_break(values: Iterable[Any]) -> Iterator[Record]:
    """Number the values; where the library fails halfway, keep all earlier values and report the break."""
    number = 0
    iterator = iter(values)
    while True:
        number += 1
        try:
            value = next(iterator)
        except StopIteration:
            return
        except Exception as error:  # a damaged page makes the library raise many types
            yield Record(number, b"", None, break_reason(error))
            return
        yield to_record(number, value)


@contextmanager
def _seekable(stream: IO[bytes], path: Path) -> Iterator[IO[bytes]]:
    """A stream that can seek, which Parquet needs: a compressed file is unpacked into a temporary one."""
    if path.suffix.lower() not in COMPRESSIONS:
        yield stream
        return
    with tempfile.TemporaryFile() as file:
        try:
            shutil.copyfileobj(stream, file)
        except BREAKS as error:
            raise PoolError(f"{path} cannot be decompressed: {clause(error)}.") from error
        file.seek(0)
        yield file


def _holds_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _bytes(text: str) -> bytes:
    return text.rstrip("\r\n").encode("utf-8", "surrogateescape")
