"""What pages read from a store, in bounded caches keyed by its fingerprint: shared by all tabs, read-only.

Nothing here loads the text of a whole pool: `texts_of` reads the rows of one page.
"""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from app.state.session import Session
from gradsift.datastore.store import Store
from gradsift.runtime.errors import GradsiftError
from gradsift.workspace.workspace import MANIFEST


def store_of(session: Session) -> Store | None:
    """The open store, complete or not; None if nothing is open or the folder has no manifest."""
    path = session.store_path
    if path is None or not os.path.isfile(path / MANIFEST):  # also false for text that is not a path
        return None
    stat = (path / MANIFEST).stat()
    return _store(str(path), stat.st_mtime_ns, stat.st_size)


def store_or_error(session: Session) -> tuple[Store | None, str]:
    """The open store, or a sentence about why it cannot be read."""
    try:
        return store_of(session), ""
    except (GradsiftError, OSError) as error:
        return None, str(error)


def pool_of(store: Store) -> pd.DataFrame:
    """The store's rows without their text, indexed by row number."""
    return _pool(store.fingerprint, store)


def coverage_of(store: Store) -> pd.DataFrame:
    """Rows per source, from the file to the features."""
    return store.coverage()


def sources_of(store: Store) -> list[str]:
    """Names of the store's sources, sorted; the order decides their badges."""
    return sorted({source.source for source in store.manifest.sources})


def texts_of(store: Store, rows: list[int]) -> dict[int, dict[str, Any]]:
    """The conversation of some rows by row number; those of recent pages are cached."""
    return _texts(store.fingerprint, tuple(rows), store)


def sizes_of(store: Store) -> dict[str, int]:
    """Bytes on disk by part of the store."""
    return _sizes(store.fingerprint, _changes(store.path), store)


def _changes(path: Path) -> int:
    """A number that changes whenever a run reports or a scoring is added or removed."""
    signs = (path / "scorings", path / "job" / "status.json")
    return sum(sign.stat().st_mtime_ns for sign in signs if sign.exists())


@st.cache_resource(max_entries=4, show_spinner=False)
def _store(path: str, changed: int, size: int) -> Store:
    return Store.open(path)


@st.cache_resource(max_entries=3, show_spinner=False)
def _pool(fingerprint: str, _store: Store) -> pd.DataFrame:
    return _store.pool()


@st.cache_resource(max_entries=16, show_spinner=False)
def _texts(fingerprint: str, rows: tuple[int, ...], _store: Store) -> dict[int, dict[str, Any]]:
    return {record["row"]: record for record in _store.texts(rows, raw=False).to_dict("records")}


@st.cache_resource(max_entries=8, show_spinner=False)
def _sizes(fingerprint: str, changed: int, _store: Store) -> dict[str, int]:
    return _store.bytes_by_part()
