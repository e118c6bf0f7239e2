"""Target examples and the open store's model: their tokens, which of them it refuses, and the run that scores them.

Draws nothing. A run's folder is named after the store and the target file's content, so that an edited file never
gets the old file's scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from app.views.commands import Score
from gradsift.data.pool import Row
from gradsift.data.targets import read_targets, write_targets
from gradsift.datastore.store import Store
from gradsift.runtime.hashing import hash_file, hash_parts, hash_text
from gradsift.workspace.workspace import TargetEntry, Workspace

if TYPE_CHECKING:
    from gradsift.data.encode import Encoder


TARGETS = "targets.jsonl"  # in a run's folder: the rows that it scores


@dataclass(frozen=True, slots=True)
class TokenCount:
    """A target example as the model sees it. reason: why it is left out, empty if it is not."""

    n_prompt: int
    n_answer: int
    reason: str = ""


def count_tokens(store: Store, rows: Sequence[Row]) -> list[TokenCount]:
    """Tokens of every row by the store's own encoder, and why a row cannot be scored.

    Raises:
        GradsiftError: the store's model cannot be loaded here.
    """
    content = hash_parts(repr(row.conversation).encode("utf-8", "surrogatepass") for row in rows)
    return _count(_model(store), content, store, rows)


def scorable(rows: Sequence[Row], counts: Sequence[TokenCount]) -> list[Row]:
    """The rows that can be scored."""
    return [row for row, count in zip(rows, counts, strict=True) if not count.reason]


def scoring_folder(workspace: Workspace, store: Store, entry: TargetEntry) -> Path:
    """The folder for the state and rows of the run that scores this target set on this store."""
    name = hash_text(f"{store.fingerprint} {store.path} {hash_file(entry.path)}")[:12]
    return workspace.job_folder(f"score-{name}")


def targets_file(workspace: Workspace, store: Store, entry: TargetEntry) -> Path:
    """The file with the rows that are scored for this set: those that the app's run took, else all of the set."""
    taken = scoring_folder(workspace, store, entry) / TARGETS
    return taken if taken.is_file() else entry.path


def scored_rows(workspace: Workspace, store: Store, entry: TargetEntry) -> list[Row]:
    """The rows that are scored for this set."""
    return read_targets(targets_file(workspace, store, entry)).rows


def start_scoring(
    workspace: Workspace, store: Store, entry: TargetEntry, rows: Sequence[Row], methods: Sequence[str]
) -> None:
    """Score `rows` (those of `entry` that can be scored) in a separate process."""
    folder = scoring_folder(workspace, store, entry)
    folder.mkdir(parents=True, exist_ok=True)
    write_targets(folder / TARGETS, rows)
    command = Score(
        store=store.path,
        targets=folder / TARGETS,
        method=tuple(methods),
        out=folder / "scores.parquet",
    )
    command.start(folder)


def encoder_of(store: Store) -> "tuple[Encoder, int]":
    """The store's own encoder, and its model's window; cached, no weights are loaded.

    Raises:
        GradsiftError: the store's model cannot be loaded here.
    """
    return _encoder(_model(store), store)


def _model(store: Store) -> str:
    """Cache key of a count: models with the same tokenizer may differ in their windows."""
    return f"{store.manifest.encoder_fingerprint} {store.manifest.config.model}"


@st.cache_resource(max_entries=4, show_spinner=False)
def _encoder(model: str, _store: Store) -> "tuple[Encoder, int]":
    from gradsift.gradients.store_model import StoreModel

    of_store = StoreModel(_store)
    return of_store.encoder, of_store.window


@st.cache_resource(max_entries=16, show_spinner=False)
def _count(model: str, digest: str, _store: Store, _rows: Sequence[Row]) -> list[TokenCount]:
    encoder, window = encoder_of(_store)
    return [_one(encoder, window, row) for row in _rows]


def _one(encoder: "Encoder", window: int, row: Row) -> TokenCount:
    from gradsift.scoring.target_features import encode_target

    encoded, reason = encode_target(encoder, window, row)
    return TokenCount(encoded.n_prompt, encoded.n_answer, reason) if encoded else TokenCount(0, 0, reason)
