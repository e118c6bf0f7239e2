"""Instruction data to rows: files, folders, patterns, saved data sets and hub ids, read as a stream.

`read_rows` yields every record as a `Row`, good or bad: a record that cannot be used becomes a row that says why.
`sample_rows` takes a seeded sample per source in one pass.
"""

import glob
import heapq
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gradsift.data.conversation import Conversation, Message
from gradsift.data.readers import FORMATS, PoolError, Record, data_suffix, is_saved_dataset, read_hub, records_of
from gradsift.data.schemas import Reading, Unusable, kind, read_conversation
from gradsift.runtime.errors import UsageError
from gradsift.runtime.hashing import hash_file, hash_parts, raw_hash

__all__ = ["PoolError", "Row", "input_hashes", "make_row", "read_rows", "sample_rows", "unique_ids"]

_PLAIN = Reading()
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Row:
    """One record of an input: good (`reason` is empty) or bad (no messages, and `reason` says why in one clause)."""

    file: str  # base name; path relative to the folder or pattern; or hub id
    line: int  # from 1: line number (JSON Lines) or record number
    raw: bytes  # JSON Lines: the exact bytes of the line without its newline; otherwise the record as JSON
    source: str  # `dataset` or `source`, else the file's stem
    id: str  # its own `id`, else "SOURCE:LINE"; repeats get "#2", "#3", ... so that ids are unique
    task: str  # `task` or `category`, else ""
    subtask: str  # `subtask`, else ""
    messages: tuple[Message, ...]
    prefix: str  # start of the last assistant turn that is supplied, not learned; else ""
    schema: str  # messages | prompt-completion | alpaca | sharegpt | dolly; "" for a bad row
    reason: str  # "" when good
    tools: str = ""  # JSON text of the list of tools that the row offers, "" if none
    unused: tuple[str, ...] = ()  # columns that held text and were not used

    @property
    def conversation(self) -> Conversation:
        """The row as the encoder takes it."""
        return Conversation(self.messages, self.tools, self.prefix)


@dataclass(frozen=True, slots=True)
class _Input:
    name: str
    path: Path | None  # None: a hub id


def read_rows(paths: Sequence[str | Path], taken: Iterable[str] = (), reading: Reading = _PLAIN) -> Iterator[Row]:
    """Stream the rows of files, folders (recursively), glob patterns, saved data sets and hub ids, in that order.

    Within a folder or pattern, files are sorted and other file types are skipped. A file named twice is read once.
    taken: ids that are in use already. reading: how records are read where their own fields do not say it. Memory: one
    record and all ids.

    Raises:
        PoolError: a path does not exist or has an unknown type, or there is nothing to read. Problems with paths are
            raised at once, those that show only in the contents while streaming.
    """
    try:
        entries = [entry for path in paths for entry in _expand(path)]
    except OSError as error:
        raise PoolError(f"Cannot access {error.filename}: {error.strerror}. Check the path.") from error
    inputs: dict[Path | str, _Input] = {}
    for entry in entries:
        inputs.setdefault(entry.path or entry.name, entry)
    if not inputs:
        raise PoolError("No input: give a file, a folder, a pattern or a data set on the Hugging Face hub.")
    return _stream(list(inputs.values()), taken, reading)


def input_hashes(paths: Sequence[str | Path]) -> tuple[str, ...]:
    """ "NAME SHA256" of every input `read_rows` would read, in its order; a hub id stands for itself.

    Raises:
        PoolError: see `read_rows`.
    """
    inputs = [entry for path in paths for entry in _expand(path)]
    return tuple(f"{entry.name} {_content_hash(entry.path) if entry.path else 'hub'}" for entry in inputs)


def sample_rows(rows: Iterable[Row], per_source: int | None, seed: int) -> tuple[list[Row], dict[str, int]]:
    """A seeded sample of at most `per_source` rows of each source (None: all), in input order.

    It keeps the rows with the smallest SHA-256 of (seed, source, file, line), so a row's hash does not depend on other
    rows. Bad rows count like good ones. One pass; memory: the sample.

    Returns:
        The sample, and the number of rows read from each source.
    """
    if per_source is not None and per_source < 1:
        raise UsageError(f"A limit of {per_source} rows per source keeps nothing: give 1 or more, or no limit.")
    counts: Counter[str] = Counter()
    heaps: dict[str, list[tuple[int, int, Row]]] = {}  # the largest hash on top
    for order, row in enumerate(rows):
        counts[row.source] += 1
        heap = heaps.setdefault(row.source, [])
        entry = (0 if per_source is None else -_hash(seed, row), -order, row)
        if per_source is None or len(heap) < per_source:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)
    entries = [entry for heap in heaps.values() for entry in heap]
    return [row for _, _, row in sorted(entries, key=lambda entry: -entry[1])], dict(counts)


def make_row(record: Record, file: str, source: str, reading: Reading = _PLAIN) -> Row:
    """Turn a record into a row; `source` is used if the record names none."""
    value = record.value or {}
    source = _first_text(value, "dataset", "source") or source
    messages: tuple[Message, ...] = ()
    schema, reason = "", record.reason
    prefix = value.get("prefix")
    if not reason:
        try:
            schema, pairs = read_conversation(value)
            messages = tuple(Message(role, content) for role, content in pairs)
            if prefix is not None and not isinstance(prefix, str):
                raise Unusable(f"prefix is not a string but {kind(prefix)}")
        except Unusable as unusable:
            schema, messages, reason = "", (), str(unusable)
    return Row(
        file=file,
        line=record.line,
        raw=record.raw,
        source=source,
        id=_label(value.get("id")) or f"{source}:{record.line}",
        task=_first_text(value, "task", "category"),
        subtask=_label(value.get("subtask")),
        messages=messages,
        prefix=prefix if isinstance(prefix, str) and not reason else "",
        schema=schema,
        reason=reason,
    )


def unique_ids(rows: Iterable[Row], taken: Iterable[str] = ()) -> Iterator[Row]:
    """The rows, with "#2", "#3", ... appended to ids that were used before or are `taken`."""
    seen = dict.fromkeys(taken, 1)
    for row in rows:
        name, count = row.id, seen.get(row.id, 0)
        while name in seen:
            count += 1
            name = f"{row.id}#{count}"
        seen[row.id] = max(count, 1)
        seen.setdefault(name, 1)
        yield row if name == row.id else replace(row, id=name)


def _expand(pattern: str | Path) -> Iterator[_Input]:
    path, text = Path(pattern).expanduser(), str(pattern)
    if path.is_dir():
        files = list(_inside(path))
        if not files:
            raise PoolError(f"The folder {path} holds no readable file; the formats are {_formats()}.")
        yield from files
    elif path.exists():
        if data_suffix(path) not in FORMATS:
            raise PoolError(f"{path} is of an unknown type; the formats are {_formats()}.")
        yield _Input(_printable(path.name), path.resolve())
    elif glob.has_magic(text):
        yield from _matching(path)
    elif _HUB_ID.fullmatch(text) and data_suffix(path) not in FORMATS:
        yield _Input(text, None)
    else:
        raise PoolError(f"{text} does not exist: check the path.")


def _inside(folder: Path, root: Path | None = None, above: tuple[Path, ...] = ()) -> Iterator[_Input]:
    """The readable files below a folder, sorted; a saved data set counts as one file; hidden files are skipped."""
    root = root or folder
    if folder.resolve() in above:  # a link to a folder above it
        return
    above = (*above, folder.resolve())
    if is_saved_dataset(folder):
        name = str(folder.relative_to(root)) if folder != root else folder.resolve().name
        yield _Input(_printable(name), folder.resolve())
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _inside(path, root, above)
        elif path.is_file() and data_suffix(path) in FORMATS:
            yield _Input(_printable(str(path.relative_to(root))), path.resolve())


def _matching(pattern: Path) -> Iterator[_Input]:
    magic = [glob.has_magic(part) for part in pattern.parts].index(True)
    root = Path(*pattern.parts[:magic])
    matched = False
    for path in sorted(Path(name) for name in glob.glob(str(pattern), recursive=True)):
        below = list(_inside(path, root)) if path.is_dir() else []
        if path.is_file() and data_suffix(path) in FORMATS:
            below = [_Input(_printable(str(path.relative_to(root))), path.resolve())]
        matched = matched or bool(below)
        yield from below
    if not matched:
        raise PoolError(f"No readable file matches {pattern}; the formats are {_formats()}.")


def _formats() -> str:
    return f"{', '.join(FORMATS)}, each also with .gz or .zst"


def _stream(inputs: list[_Input], taken: Iterable[str], reading: Reading) -> Iterator[Row]:
    empty = True
    for row in unique_ids((row for entry in inputs for row in _rows(entry, reading)), taken):
        empty = False
        yield row
    if empty:
        names = ", ".join(entry.name for entry in inputs[:3]) + (", ..." if len(inputs) > 3 else "")
        raise PoolError(f"There is no row in {names}: check that this is the right data.")


def _rows(entry: _Input, reading: Reading) -> Iterator[Row]:
    records = read_hub(entry.name) if entry.path is None else records_of(entry.path)
    source = _stem(entry.name)
    for record in records:
        yield make_row(record, entry.name, source, reading)


def _content_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return hash_parts(f"{file.name} {hash_file(file)}\n".encode() for file in files if file.is_file())


def _stem(name: str) -> str:
    base = name.rpartition("/")[2]
    while Path(base).suffix.lower() in (*FORMATS, ".gz", ".zst"):
        base = Path(base).stem
    return base


def _printable(name: str) -> str:
    """A file name as valid UTF-8 text, whatever bytes it has."""
    return os.fsencode(name).decode("utf-8", "replace")


def _hash(seed: int, row: Row) -> int:
    key = json.dumps([seed, row.source, row.file, row.line]).encode()
    return int.from_bytes(raw_hash(key))


def _first_text(value: dict[str, Any], *names: str) -> str:
    return next((value[name] for name in names if isinstance(value.get(name), str) and value[name]), "")


def _label(value: object) -> str:
    """A name that is a string or a whole number; "" for anything else."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
