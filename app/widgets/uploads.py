"""Files from the browser for a field of paths: kept in the workspace, with their paths in the field."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from app.state.session import Session
from app.widgets import running
from gradsift.runtime.hashing import hash_bytes

FORMATS = ["jsonl", "ndjson", "json", "csv", "tsv", "parquet", "gz", "zst", "txt"]


def into(field: str, session: Session, title: str, several: bool, help: str | None = None) -> None:
    """Draw an upload that puts its files' paths into the text widget `field`, one per line.

    several: add to the field; otherwise replace its text. Streamlit forgets an upload when the page changes, whereas a
    field keeps its text, shows what counts and can be edited.
    """
    count = st.session_state.setdefault(f"{field}_uploads", 0)  # a new number makes an empty uploader
    key = f"{field}-upload-{count}"
    st.file_uploader(
        title, type=FORMATS, accept_multiple_files=several, key=key, max_upload_size=200, help=help,
        on_change=running.attempt, args=(_take, field, session, key, several),
    )  # fmt: skip


def keep(session: Session, uploads: Sequence[Any]) -> list[Path]:
    """Keep uploaded files in the workspace, equal ones only once; returns their paths."""
    paths: list[Path] = []
    for upload in uploads:
        content = upload.getvalue()
        folder = f"evaluation-{hash_bytes(content)[:12]}"
        path = session.workspace.root / "uploads" / folder / Path(upload.name).name
        paths += [path] if path.is_file() else session.workspace.keep_uploads(folder, [(upload.name, content)])
    return paths


def named_files(text: str) -> tuple[list[Path], list[str]]:
    """The existing files that `text` names, one per line, and the paths that do not exist."""
    paths = [Path(os.path.expanduser(line.strip())) for line in text.splitlines() if line.strip()]
    missing = [str(path) for path in paths if not os.path.exists(path)]  # accepts any text, unlike Path.exists
    return [path for path in paths if os.path.exists(path)], missing


def _take(field: str, session: Session, key: str, several: bool) -> None:
    state = st.session_state
    files: Sequence[Any] = state[key] if several else [state[key]]
    paths = [str(path) for path in keep(session, [file for file in files if file is not None])]
    before = (state.get(field) or "").splitlines() if several else []
    state[field] = "\n".join([line for line in before if line.strip() and line not in paths] + paths)
    state[f"{field}_uploads"] += 1
