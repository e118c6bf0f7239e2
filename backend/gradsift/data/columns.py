"""Columns of Arrow data to records: batch by batch, row by row where a cell is bad; media and embeddings are not read.

A cell that holds an image, a recording or a film becomes `MEDIA` and is left out of `raw`. A bad cell costs its row.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from gradsift.data.reasons import shorten
from gradsift.data.records import MEDIA, PoolError, Record, to_record
from gradsift.data.streams import clause

BATCH = 64  # rows that are turned into Python objects at a time

_NAMES = re.compile(
    r"(?i)(^|[_\W\d])(image|img|picture|photo|screenshot|audio|speech|wav|mp3|video|frame|jpe?g|png)s?($|[_\W\d])"
)
_NUMBERS = re.compile(r"(?i)embed|vector|logit")
_FEATURES = frozenset({"Image", "Audio", "Video", "Pdf", "Nifti"})  # of `datasets`
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"OggS", b"fLaC", b"ID3", b"%PDF", b"II*\x00", b"MM\x00*")


class Columns:
    """How the columns of a schema are read.

    media: columns of which only the presence matters. skipped: columns of numbers for machines, which no schema uses.
    """

    def __init__(self, schema: pa.Schema, where: str) -> None:
        twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
        if twice:
            raise PoolError(f"{where} has two columns named {shorten(twice[0])}: rename one of them.")
        features = _features(schema)
        self.media = [field.name for field in schema if _is_media(field) or _FEATURES & features.get(field.name, set())]
        self.skipped = [field.name for field in schema if _is_embedding(field)]
        self._binary = [field.name for field in schema if _is_binary(field.type) and field.name not in self.media]

    def records(self, batch: pa.RecordBatch, first: int) -> Iterator[Record]:
        """The records of a batch, numbered from `first`."""
        present = {name: _present(batch.column(name)) for name in self.media if name in batch.schema.names}
        batch = batch.drop_columns([name for name in (*self.media, *self.skipped) if name in batch.schema.names])
        for start in range(0, batch.num_rows, BATCH):
            piece = batch.slice(start, BATCH)
            try:
                values: list[Any] = piece.to_pylist() if piece.num_columns else [{} for _ in range(piece.num_rows)]
            except Exception:  # whatever a bad cell makes the library raise: the rows are tried one by one
                values = [None] * piece.num_rows
            for at, value in enumerate(values):
                media = {name: MEDIA for name, flags in present.items() if flags[start + at]}
                number = first + start + at
                yield (
                    self._record(number, value, media)
                    if value is not None
                    else self._mended(number, piece.slice(at, 1), media)
                )

    def _record(self, number: int, value: dict[str, Any], media: dict[str, Any]) -> Record:
        for name in self._binary:
            cell = value.get(name)
            if isinstance(cell, bytes):
                if cell.startswith(_MAGIC):
                    del value[name]
                    media[name] = MEDIA
                else:
                    value[name] = _as_text(cell)
        return to_record(number, {**value, **media}, value) if media else to_record(number, value)

    def _mended(self, number: int, row: pa.RecordBatch, media: dict[str, Any]) -> Record:
        """A row in which at least one cell is bad: as text if that is possible, otherwise excluded."""
        value, reason = {}, ""
        for name, column in zip(row.schema.names, row.columns, strict=True):
            try:
                value[name] = column[0].as_py()
            except UnicodeDecodeError:
                reason = f"not valid UTF-8 in the column {shorten(name)}"
            except Exception as error:
                try:
                    value[name] = str(column.cast(pa.string())[0].as_py())
                except Exception:
                    reason = f"a cell that cannot be read in the column {shorten(name)}: {clause(error)}"
        record = self._record(number, value, media)
        return record._replace(value=None, reason=reason) if reason else record


def without_media(value: Any) -> tuple[Any, Any]:
    """A record as `datasets` streams it, undecoded: (with `MEDIA` for its media, without them for `raw`)."""
    if not isinstance(value, dict):
        return value, None
    media = [name for name, cell in value.items() if _is_blob(cell)]
    if not media:
        return value, None
    return {**value, **dict.fromkeys(media, MEDIA)}, {name: value[name] for name in value if name not in media}


def _is_blob(cell: Any) -> bool:
    if isinstance(cell, list):
        return bool(cell) and _is_blob(cell[0])
    if isinstance(cell, dict):
        return set(cell) == {"bytes", "path"}
    return isinstance(cell, bytes) and cell.startswith(_MAGIC)


def _features(schema: pa.Schema) -> dict[str, set[str]]:
    """Each column's types as `datasets` noted them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: set(re.findall(r'"_type": "(\w+)"', json.dumps(feature))) for name, feature in features.items()}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def _is_media(field: pa.Field) -> bool:
    kind = field.type
    while _is_list(kind):
        kind = kind.value_type
    if kinds.is_struct(kind):
        return {kind.field(at).name for at in range(kind.num_fields)} == {"bytes", "path"}
    return _is_binary(kind) and _NAMES.search(field.name) is not None


def _is_embedding(field: pa.Field) -> bool:
    kind = field.type
    if not _is_list(kind):
        return False
    fixed = kinds.is_fixed_size_list(kind)
    while _is_list(kind):
        kind = kind.value_type
    return kinds.is_floating(kind) and (fixed or _NUMBERS.search(field.name) is not None)


def _is_list(kind: pa.DataType) -> bool:
    return bool(kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_fixed_size_binary(kind))


def _present(column: pa.Array) -> list[bool]:
    """For each cell whether it holds anything."""
    if _is_list(column.type):
        return [bool(length) for length in pc.list_value_length(column).to_pylist()]
    return list(column.is_valid().to_pylist())


def _as_text(cell: bytes) -> Any:
    try:
        return cell.decode()
    except UnicodeDecodeError:
        return cell
