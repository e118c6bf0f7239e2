"""Search in the pool's texts: which rows hold every word."""

import glob
import re

import numpy as np

from gradsift.errors import UsageError
from gradsift.index import ROLES, require_index
from gradsift.store import Store, StoreError

SEARCHED = ("any", *ROLES)  # whose turns can be searched

_TERM = re.compile(r'"([^"]*)"|([^\s"]+)')
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,  # nothing is ever downloaded
    "autoload_known_extensions": False,
    "threads": 2,
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
    query = f"select row from read_parquet(?) where {condition}"
    values = [glob.escape(str(path)), *(term for term in wanted for _ in columns)]
    try:
        with duckdb.connect(config=_SETTINGS) as connection:
            return np.sort(connection.execute(query, values).fetchnumpy()["row"])
    except duckdb.Error as error:
        raise StoreError(f"{path} cannot be searched ({error}); delete it and run gradsift score again.") from error
