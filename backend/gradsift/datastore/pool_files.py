"""The rows of a store on disk: one Parquet file (ingest.py) for every intake, read as if they were one.

Row numbers go on from file to file, and every row group holds consecutive rows.
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

from gradsift.runtime.errors import StoreError

_TEXT = ("row", "messages", "prefix")
_AT_ONCE = 256_000_000  # bytes of row groups that are read together; from 2 GB on pyarrow refuses nested columns


def pool_file(part: int) -> str:
    """Name of the file of the part with this index: pool.parquet, pool-2.parquet, ..."""
    return f"pool-{part + 1}.parquet" if part else "pool.parquet"


@dataclass(frozen=True)
class PoolFiles:
    """The files in the order of their rows.

    Every read raises `StoreError` where one of them is missing or damaged.
    """

    paths: Sequence[Path]

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Some columns of every row."""
        return pa.concat_tables([self._columns(path, names) for path in self.paths])

    def texts(self, rows: Any, raw: bool) -> pd.DataFrame:
        """row, messages, prefix and, if asked, raw of some rows, in their order, from the row groups that hold them."""
        wanted, pieces, first = np.asarray(rows, dtype=np.int64), [], 0
        columns = [*_TEXT, "raw"] if raw else list(_TEXT)
        if not len(wanted):
            return pd.DataFrame(columns=columns)
        for path in self.paths:
            with _reading(path), pq.ParquetFile(path, metadata=_footer(path, *_version(path))) as file:
                stop = first + file.metadata.num_rows
                here = np.unique(wanted[(wanted >= first) & (wanted < stop)])
                pieces += _groups(file, here, first, columns)
                first = stop
        found = {record["row"]: record for piece in pieces for record in piece.to_pylist()}
        return pd.DataFrame([found[row] for row in wanted.tolist()])

    def _columns(self, path: Path, names: Sequence[str]) -> pa.Table:
        with _reading(path):
            return pq.read_table(path, columns=list(names))


def _groups(file: pq.ParquetFile, rows: np.ndarray, first: int, columns: list[str]) -> list[pa.Table]:
    """The text of some of a file's rows. rows: ascending; first: number of the file's first row."""
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    bounds, values = first + np.cumsum(sizes), pa.array(rows)
    groups = np.unique(np.searchsorted(bounds, rows, side="right")).tolist()
    bytes_of = {group: file.metadata.row_group(group).total_byte_size for group in groups}
    tables = (file.read_row_groups(few, columns=columns) for few in _some(bytes_of))  # side by side on the cores
    return [table.filter(pc.is_in(table["row"], values)) for table in tables]


def _some(bytes_of: dict[int, int]) -> Iterator[list[int]]:
    """The groups in turn, as many at once as fit into `_AT_ONCE`; at least one."""
    some: list[int] = []
    size = 0
    for group, own in bytes_of.items():
        if some and size + own > _AT_ONCE:
            yield some
            some, size = [], 0
        some.append(group)
        size += own
    if some:
        yield some


def _version(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_ino


@lru_cache(maxsize=8)
def _footer(path: Path, changed: int, inode: int) -> pq.FileMetaData:
    """Where the row groups of a file lie, kept between reads: of 270,000 rows it takes 10 ms to read."""
    return pq.read_metadata(path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise StoreError(f"{path} is missing; restore it, or build again with --restart.") from None
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise StoreError(f"{path} is damaged ({error}); restore it, or build with --restart.") from error
