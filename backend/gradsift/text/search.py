"""Search in the pool's texts: which rows hold every word."""

import glob
import re
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gradsift.datastore.store import Store
from gradsift.runtime.errors import StoreError, UsageError
from gradsift.text.index import ROLES, require_index

if TYPE_CHECKING:
    import duckdb

SEARCHED = ("any", *ROLES)  # whose turns can be searched
HELD = 2**30  # bytes of text that are kept in memory after the first search; more is read from the file each time

_TERM = re.compile(r'"([^"]*)"|([^\s"]+)')
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,  # nothing is ever downloaded
    "autoload_known_extensions": False,
    "memory_limit": "2GB",
}


def terms(words: str) -> list[str]:
    """What a query asks for, lower-cased, each once: its words, and what stands between double quotes as it is."""
    found = (quoted or word for quoted, word in _TERM.findall(words.lower()))
    return list(dict.fromkeys(term for term in found if term.strip()))


def search_rows(store: Store, words: str, role: str = "any") -> np.ndarray:
    """Pool row numbers, ascending int64, whose text holds every term of `words`; every row where there is no term.

    A term is found anywhere in the text, inside words too, whatever its case. role: one of `SEARCHED`; with
    "any" the terms may be in turns of different roles.

    Raises:
        StoreError: the store has no index, or a damaged one. UsageError: unknown role.
    """
    import duckdb  # 0.1 s, which a page that does not search need not wait for

    if role not in SEARCHED:
        raise UsageError(f"There is no role {role!r}: search in {', '.join(SEARCHED)}.")
    columns = ROLES if role == "any" else (role,)
    path, wanted = require_index(store), terms(words)
    one = " or ".join(f'contains("{column}", ?)' for column in columns)
    condition = " and ".join(f"({one})" for _ in wanted) or "true"
    values = [term for term in wanted for _ in columns]
    try:
        stat = path.stat()
        texts = _texts(path, (stat.st_mtime_ns, stat.st_ino))
        with _database().cursor() as cursor:
            if texts is None:
                source, values = "read_parquet(?)", [glob.escape(str(path)), *values]
            else:
                source = "texts"
                cursor.register(source, texts)
            return np.sort(cursor.execute(f"select row from {source} where {condition}", values).fetchnumpy()["row"])
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise StoreError(f"{path} cannot be searched ({error}); delete it and run gradsift score again.") from error


@cache
def _database() -> "duckdb.DuckDBPyConnection":
    """An empty database of this process, whose cursors are connections: another one each time takes 10 ms."""
    import duckdb

    return duckdb.connect(config=_SETTINGS)


@lru_cache(maxsize=1)
def _texts(path: Path, changed: tuple[int, int]) -> pa.Table | None:
    """The texts in memory, in a third of the file's time to search; None where they are more than `HELD` bytes.

    changed: the file's time and inode.
    """
    with pq.ParquetFile(path) as file:
        groups = (file.metadata.row_group(at) for at in range(file.num_row_groups))
        size = sum(group.total_byte_size for group in groups)
        return file.read(["row", *ROLES]) if size <= HELD else None
