"""Search in the pool's texts: which rows contain every word."""

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
HELD = 2**30  # bytes: texts up to this size stay in memory after a search; larger ones are read from the file each time

_TERM = re.compile(r'"([^"]*)"|([^\s"]+)')
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,  # nothing is ever downloaded
    "autoload_known_extensions": False,
    "memory_limit": "2GB",
}


def terms(words: str) -> list[str]:
    """The distinct terms of a query, lower-cased: words, and phrases between double quotes."""
    matches = (phrase or word for phrase, word in _TERM.findall(words.lower()))
    return list(dict.fromkeys(term for term in matches if term.strip()))


def search_rows(store: Store, words: str, role: str = "any") -> np.ndarray:
    """Ascending int64 numbers of the pool rows whose text contains every term of `words`; all rows if it has no terms.

    Terms match anywhere, also inside words, regardless of case. role: one of `SEARCHED`; with "any" the terms may be in
    turns of different roles.

    Raises:
        StoreError: the index is missing or damaged. UsageError: unknown role.
    """
    import duckdb  # takes 0.1 s, which only searches should cost

    if role not in SEARCHED:
        raise UsageError(f"There is no role {role!r}: search in {', '.join(SEARCHED)}.")
    columns = ROLES if role == "any" else (role,)
    path, query = require_index(store), terms(words)
    one = " or ".join(f'contains("{column}", ?)' for column in columns)
    condition = " and ".join(f"({one})" for _ in query) or "true"
    values = [term for term in query for _ in columns]
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
    """This process's one empty database, whose cursors are connections; a new database each time would take 10 ms."""
    import duckdb

    return duckdb.connect(config=_SETTINGS)


@lru_cache(maxsize=1)
def _texts(path: Path, changed: tuple[int, int]) -> pa.Table | None:
    """The texts in memory, which takes a third of the time to search; None if they exceed `HELD` bytes.

    changed: the file's time and inode.
    """
    with pq.ParquetFile(path) as file:
        groups = (file.metadata.row_group(at) for at in range(file.num_row_groups))
        size = sum(group.total_byte_size for group in groups)
        return file.read(["row", *ROLES]) if size <= HELD else None
