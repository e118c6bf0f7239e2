"""The rows of a store on disk: one Parquet file per intake (builder/ingest.py), read as if they were one file.

Row numbers continue from file to file, and every row group holds consecutive rows.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gradsift.data.conversation import Conversation, read_messages
from gradsift.datastore.tokens import TOKEN_COLUMNS, StoredTokens
from gradsift.runtime.errors import StoreError

_TEXT = ("row", "messages", "tools", "prefix")
_AT_ONCE = 256_000_000  # bytes of row groups that are read together; from 2 GB on pyarrow refuses nested columns


def pool_file(part: int) -> str:
    """Name of the file of the part with this index: pool.parquet, pool-2.parquet, ..."""
    return f"pool-{part + 1}.parquet" if part else "pool.parquet"


@dataclass(frozen=True)
class PoolFiles:
    """The files in the order of their rows.

    Every read raises `StoreError` if one of them is missing or damaged.
    """

    paths: Sequence[Path]

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Some columns of every row."""
        return pa.concat_tables([self._columns(path, names) for path in self.paths])

    def texts(self, rows: Any, raw: bool) -> pd.DataFrame:
        """Columns row, conversation and, on request, raw of `rows`, in that order; reads only their row groups."""
        numbers = np.asarray(rows, dtype=np.int64)
        columns = [*_TEXT, "raw"] if raw else list(_TEXT)
        names = ["row", "conversation", *columns[len(_TEXT) :]]
        if not len(numbers):
            return pd.DataFrame(columns=names)
        records = {
            record["row"]: _text(record) for piece in self._pieces(numbers, columns) for record in piece.to_pylist()
        }
        return pd.DataFrame([records[row] for row in numbers.tolist()], columns=names)

    def tokens(self, rows: Any) -> StoredTokens:
        """The tokens of `rows`, in that order; reads only their row groups. An excluded row has none."""
        numbers = np.asarray(rows, dtype=np.int64)
        pieces = self._pieces(numbers, ["row", *TOKEN_COLUMNS])
        place = {row: at for at, row in enumerate(row for piece in pieces for row in piece["row"].to_pylist())}
        return StoredTokens.of(pieces).take(place[row] for row in numbers.tolist())

    def _pieces(self, numbers: np.ndarray, columns: list[str]) -> list[pa.Table]:
        """Some columns of the rows with these numbers, each row once, in ascending order."""
        pieces, first = [], 0
        for path in self.paths:
            with _reading(path), pq.ParquetFile(path, metadata=_footer(path, *_version(path))) as file:
                stop = first + file.metadata.num_rows
                own = np.unique(numbers[(numbers >= first) & (numbers < stop)])
                pieces += _groups(file, own, first, columns)
                first = stop
        return pieces

    def _columns(self, path: Path, names: Sequence[str]) -> pa.Table:
        with _reading(path):
            return pq.read_table(path, columns=list(names))


def _text(record: dict[str, Any]) -> dict[str, Any]:
    messages, tools, prefix = read_messages(record.pop("messages")), record.pop("tools"), record.pop("prefix")
    return {"row": record.pop("row"), "conversation": Conversation(messages, tools or "", prefix or ""), **record}


def _groups(file: pq.ParquetFile, rows: np.ndarray, first: int, columns: list[str]) -> list[pa.Table]:
    """Columns of some of a file's rows. rows: ascending; first: number of the file's first row."""
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    bounds, values = first + np.cumsum(sizes), pa.array(rows)
    groups = np.unique(np.searchsorted(bounds, rows, side="right")).tolist()
    bytes_of = {group: file.metadata.row_group(group).total_byte_size for group in groups}
    tables = (file.read_row_groups(batch, columns=columns) for batch in _batches(bytes_of))  # a batch uses all cores
    return [table.filter(pc.is_in(table["row"], values)) for table in tables]


def _batches(bytes_of: dict[int, int]) -> Iterator[list[int]]:
    """The groups in turn, as many at once as fit into `_AT_ONCE`, but at least one."""
    batch: list[int] = []
    size = 0
    for group, own in bytes_of.items():
        if batch and size + own > _AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append(group)
        size += own
    if batch:
        yield batch


def _version(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_ino


@lru_cache(maxsize=8)
def _footer(path: Path, changed: int, inode: int) -> pq.FileMetaData:
    """Where the row groups of a file lie, cached between reads: for 270,000 rows it takes 10 ms to read."""
    return pq.read_metadata(path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise StoreError(f"{path} is missing; restore it, or build again with --restart.") from None
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise StoreError(f"{path} is damaged ({error}); restore it, or build with --restart.") from error
