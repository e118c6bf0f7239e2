"""Instruction data to rows: files, folders, patterns, saved data sets and hub ids, read as a stream.

`read_rows` yields every record as a `Row`, good or bad: a record that cannot be used becomes a row that says why.
`sample_rows` takes a seeded sample per source in one pass.
"""

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gradsift.data.conversation import Conversation, Message
from gradsift.data.fields import Fields
from gradsift.data.hub_reader import read_hub
from gradsift.data.inputs import Input, Inputs, find_inputs
from gradsift.data.readers import records_of
from gradsift.data.reasons import Unusable, kind, shorten
from gradsift.data.records import PoolError, Record
from gradsift.data.schemas import Reading, Recognized, read_conversation
from gradsift.runtime.errors import UsageError
from gradsift.runtime.hashing import hash_file, hash_parts, raw_hash

__all__ = ["PoolError", "Row", "Rows", "input_hashes", "make_row", "read_rows", "sample_rows", "unique_ids"]

_AS_IT_IS = Reading()


@dataclass(frozen=True, slots=True)
class Row:
    """One record of an input: good (`reason` is empty) or bad (no messages, and `reason` says why in one clause)."""

    file: str  # base name; path relative to the folder or pattern; or hub id
    line: int  # from 1: line number (JSON Lines) or record number
    raw: bytes  # JSON Lines: the exact bytes of the line without its newline; otherwise the record as JSON
    source: str  # `dataset` or `source`, else the file's stem, or the folder that tells it from others of that stem
    id: str  # its own `id`, else "SOURCE:LINE"; repeats get "#2", "#3", ... so that ids are unique
    task: str  # `task` or `category`, else ""
    subtask: str  # `subtask`, else ""
    messages: tuple[Message, ...]
    prefix: str  # start of the last assistant turn that is supplied, not learned; else ""
    schema: str  # as `data.schemas` names it; "" for a bad row
    reason: str  # "" when good
    tools: str = ""  # JSON text of the list of tools that the row offers, "" if none
    unused: tuple[str, ...] = ()  # columns that held text and were not used, sorted; () for a bad row

    @property
    def conversation(self) -> Conversation:
        """The row as the encoder takes it."""
        return Conversation(self.messages, self.tools, self.prefix)


class Rows(Iterator[Row]):
    """A stream of rows.

    left_out: what was found and is not read: test and validation files of a folder, and, once the stream has come to
    them, other splits of a saved data set and other lists of a JSON file. One clause each.
    """

    def __init__(self, inputs: Inputs, taken: Iterable[str], reading: Reading) -> None:
        self.left_out = list(inputs.left_out)
        self._inputs = inputs.read
        self._reading = reading
        self._rows = self._stream(taken)

    def __next__(self) -> Row:
        return next(self._rows)

    def _stream(self, taken: Iterable[str]) -> Iterator[Row]:
        empty = True
        for row in unique_ids((row for entry in self._inputs for row in self._rows_of(entry)), taken):
            empty = False
            yield row
        if empty:
            names = ", ".join(entry.name for entry in self._inputs[:3]) + (", ..." if len(self._inputs) > 3 else "")
            raise PoolError(f"There is no row in {names}: check that this is the right data.")

    def _rows_of(self, entry: Input) -> Iterator[Row]:
        notes: list[str] = []
        records = read_hub(entry.name) if entry.path is None else records_of(entry.path, notes)
        for record in records:
            if notes:
                self.left_out += [f"{entry.name}: {note}" for note in notes]
                notes.clear()
            yield make_row(_named(record, entry) if entry.given else record, entry.name, entry.source, self._reading)
        self.left_out += [f"{entry.name}: {note}" for note in notes]


def read_rows(
    paths: Sequence[str | Path], taken: Iterable[str] = (), reading: Reading = _AS_IT_IS, *, whole: bool = False
) -> Rows:
    """Stream the rows of files, folders (recursively), glob patterns, saved data sets and hub ids, in that order.

    Within a folder or pattern, files are sorted, other file types are skipped, and test and validation files are left
    out, unless the pattern names them. A file named twice is read once. `NAME=PATH` names the source of what PATH
    stands for. `org/name@revision:configuration:split` is a data set on the hub; only `org/name` is needed.
    Memory: one record and all ids.

    taken: ids that are in use already. reading: how records are read. whole: also read the test and validation files.

    Raises:
        PoolError: a path does not exist or has an unknown type, or there is nothing to read. Problems with paths are
            raised at once, those that show only in the contents while streaming.
    """
    return Rows(find_inputs(paths, whole), taken, reading)


def input_hashes(paths: Sequence[str | Path]) -> tuple[str, ...]:
    """ "NAME SHA256" of every input `read_rows` would read, in its order; a hub id stands for itself.

    Raises:
        PoolError: see `read_rows`.
    """
    inputs = find_inputs(paths).read
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


def make_row(record: Record, file: str, source: str, reading: Reading = _AS_IT_IS) -> Row:
    """Turn a record into a row; `source` is used if the record names none.

    A record without the column that `reading` names for sources is bad; one with a blank there has the usual source.
    """
    value = Fields(record.value or {})
    mapped = {column for _, column in reading.columns}
    named = [name for name in ("dataset", "source") if name not in mapped]
    source = _label(value.peek(reading.source_column)) or _first_text(value, *named) or source
    read, reason, prefix = Recognized("", ()), record.reason, value.peek("prefix")
    if not reason:
        try:
            if reading.source_column and reading.source_column not in value:
                raise Unusable(f"has no column {shorten(reading.source_column)}, which is to name the source")
            if prefix is not None and not isinstance(prefix, str):
                raise Unusable(f"prefix is not a string but {kind(prefix)}")
            read = read_conversation(value.values, reading)
        except Unusable as unusable:
            reason = str(unusable)
    return Row(
        file=file,
        line=record.line,
        raw=record.raw,
        source=source,
        id=_label(value.peek("id")) or f"{source}:{record.line}",
        task=_first_text(value, "task", "category"),
        subtask=_label(value.peek("subtask")),
        messages=read.messages,
        prefix=prefix if isinstance(prefix, str) and not reason else "",
        schema=read.schema,
        reason=reason,
        tools=read.tools,
        unused=read.unused,
    )


def _named(record: Record, entry: Input) -> Record:
    """A record whose `dataset` is the source that a person named with NAME=PATH."""
    return record if record.value is None else record._replace(value={**record.value, "dataset": entry.source})


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


def _content_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return hash_parts(f"{file.name} {hash_file(file)}\n".encode() for file in files if file.is_file())


def _hash(seed: int, row: Row) -> int:
    key = json.dumps([seed, row.source, row.file, row.line]).encode()
    return int.from_bytes(raw_hash(key))


def _first_text(value: Fields, *names: str) -> str:
    return next((found for name in names if isinstance(found := value.peek(name), str) and found), "")


def _label(value: object) -> str:
    """A name that is a string or a whole number; "" for anything else."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
