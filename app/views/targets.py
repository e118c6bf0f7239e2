"""Target examples and the open store's model: their tokens, which of them it refuses, and the run that scores them.

No drawing here. A run's folder is named after the store and the target file's content, so that an edited file never
finds the old file's scores.
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
    """A target example as the model sees it; `reason` says why it is left out, empty when it is taken."""

    n_prompt: int
    n_answer: int
    reason: str = ""


def count_tokens(store: Store, rows: Sequence[Row]) -> list[TokenCount]:
    """Tokens of every row with the store's own encoder, and why a row cannot be scored.

    Raises:
        GradsiftError: the store's model cannot be loaded here.
    """
    content = hash_parts(repr((row.messages, row.prefix)).encode("utf-8", "surrogatepass") for row in rows)
    return _count(_model(store), content, store, rows)


def scorable(rows: Sequence[Row], counts: Sequence[TokenCount]) -> list[Row]:
    """The rows that can be scored."""
    return [row for row, count in zip(rows, counts, strict=True) if not count.reason]


def scoring_folder(workspace: Workspace, store: Store, entry: TargetEntry) -> Path:
    """Where the run that scores this target set on this store keeps its state and its rows."""
    name = hash_text(f"{store.fingerprint} {store.path} {hash_file(entry.path)}")[:12]
    return workspace.job_folder(f"score-{name}")


def targets_file(workspace: Workspace, store: Store, entry: TargetEntry) -> Path:
    """The file with the rows that a scoring of this set is kept for: those the app's run took, else all of the set."""
    taken = scoring_folder(workspace, store, entry) / TARGETS
    return taken if taken.is_file() else entry.path


def scored_rows(workspace: Workspace, store: Store, entry: TargetEntry) -> list[Row]:
    """The rows a scoring of this set is kept for."""
    return read_targets(targets_file(workspace, store, entry)).rows


def start_scoring(
    workspace: Workspace, store: Store, entry: TargetEntry, rows: Sequence[Row], methods: Sequence[str]
) -> None:
    """Score `rows` (those of `entry` that are taken) as a process of its own."""
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


def _model(store: Store) -> str:
    """What decides a count: models of one tokenizer may have other windows."""
    return f"{store.manifest.encoder_fingerprint} {store.manifest.config.model}"


@st.cache_resource(max_entries=4, show_spinner=False)
def _encoder(model: str, _store: Store) -> "tuple[Encoder, int]":
    from gradsift.gradients.store_model import StoreModel

    of_store = StoreModel(_store)
    return of_store.encoder, of_store.window


@st.cache_resource(max_entries=16, show_spinner=False)
def _count(model: str, digest: str, _store: Store, _rows: Sequence[Row]) -> list[TokenCount]:
    encoder, window = _encoder(model, _store)
    return [_one(encoder, window, row) for row in _rows]


def _one(encoder: "Encoder", window: int, row: Row) -> TokenCount:
    from gradsift.scoring.target_features import encode_target

    encoded, reason = encode_target(encoder, window, row)
    return TokenCount(encoded.n_prompt, encoded.n_answer, reason) if encoded else TokenCount(0, 0, reason)
