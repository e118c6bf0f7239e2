"""Files from the browser for a field of paths: kept in the workspace, and named in the field, which lasts."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from app.export import exports
from app.state.session import Session
from app.widgets import running

FORMATS = ["jsonl", "ndjson", "json", "csv", "tsv", "parquet", "gz", "zst", "txt"]


def into(field: str, session: Session, said: str, several: bool, help: str | None = None) -> None:
    """An upload whose files' paths come into the text widget `field`, one a line; without `several` in place of what
    stood there.

    Streamlit forgets an upload when the page changes. A field keeps its text, shows what counts, and lets it go.
    """
    turn = st.session_state.setdefault(f"{field}_uploads", 0)  # another number is an empty uploader again
    key = f"{field}-upload-{turn}"
    st.file_uploader(
        said, type=FORMATS, accept_multiple_files=several, key=key, max_upload_size=200, help=help,
        on_change=running.attempt, args=(_take, field, session, key, several),
    )  # fmt: skip


def _take(field: str, session: Session, key: str, several: bool) -> None:
    state = st.session_state
    given: Sequence[Any] = state[key] if several else [state[key]]
    paths = [str(path) for path in exports.keep(session, [upload for upload in given if upload is not None])]
    before = (state.get(field) or "").splitlines() if several else []
    state[field] = "\n".join([line for line in before if line.strip() and line not in paths] + paths)
    state[f"{field}_uploads"] += 1
