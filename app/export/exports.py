"""Exports: what one consists of, the run that writes it, and the files it wrote. Draws nothing."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from app.text import label
from app.views.commands import Select
from app.views.store import pool_of
from app.views.targets import targets_file
from app.views.view import View
from gradsift.export.files import COMPRESSIONS
from gradsift.export.formats import preview
from gradsift.export.holdings import Holdings, refusal, survey
from gradsift.runtime import atomic
from gradsift.runtime.hashing import hash_file, hash_json
from gradsift.scoring.choices import Choices
from gradsift.selection.picks import Pick
from gradsift.workspace.sessions import Decisions
from gradsift.workspace.workspace import TargetEntry

SAMPLE = 20  # picks from which the size is estimated
NOTES = {
    "messages": "`messages` as OpenAI's, with tools, calls and reasoning: TRL, axolotl, most trainers.",
    "prompt-completion": "`prompt` and `completion` as messages: TRL trains on the completion only.",
    "alpaca": "`instruction`, `input`, `output`, `system`, `history`: LLaMA-Factory.",
    "sharegpt": "`conversations` with from and value, and tools: LLaMA-Factory, axolotl, older trainers.",
    "less": "The original lines byte for byte, and sorted.csv, as the LESS authors' code writes them.",
    "parquet": "A Parquet file with a `messages` column, as `messages`.",
}
DECIDED, RANKED, ACCEPTED = "decided", "ranked", "accepted"
TAKES = {
    DECIDED: "Picks, with my decisions",
    RANKED: "Picks as ranked",
    ACCEPTED: "Only what I accepted",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What one export consists of; equal requests share a folder. view: of one method, its choices with decisions."""

    view: View
    entry: TargetEntry
    format: str
    compress: str
    evaluation: tuple[Path, ...]
    drop_leaks: bool
    report: bool

    @property
    def out(self) -> Path:
        """The folder of its files."""
        view = self.view
        files = [(str(path), path.stat().st_mtime_ns) for path in self.evaluation if path.exists()]
        parts: list[Any] = [view.store.fingerprint, str(view.store.path), hash_file(self.entry.path)]
        parts += [view.method, view.budget, self.record]
        parts += [self.format, self.compress, files, self.drop_leaks, self.report]
        key = hash_json(parts)[:8]
        stem = f"{self.entry.name}-{view.method}-{view.budget.replace('%', 'pct')}-{self.format}"
        return view.session.workspace.export_folder(f"{stem}-{key}")

    @property
    def record(self) -> dict[str, Any]:
        """The content of its choices.json; empty if nothing differs from the defaults."""
        return self.view.choices.record(self.view.store.manifest.config.gradients[0])

    def differs_by_decisions(self, other: "Request") -> bool:
        """Whether the other differs only in what is accepted and rejected."""
        mine, theirs = (
            (
                *(one.view.store.fingerprint, one.entry.name, one.view.method, one.view.budget),
                *(one.format, one.compress, one.evaluation, one.drop_leaks, one.report),
                one.view.choices.model_copy(update={"accepted": (), "rejected": (), "only_accepted": False}),
            )
            for one in (self, other)
        )
        return self.view.choices != other.view.choices and mine == theirs

    def start(self) -> None:
        """Write the files in a separate process; the choices are in the job's folder.

        Raises:
            JobError: they are being written already. OSError: something cannot be written.
        """
        view, out = self.view, self.out
        choices = out / "job" / "choices.json" if self.record else None
        if choices is not None:
            choices.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_json(choices, self.record)
        command = Select(
            store=view.store.path,
            targets=targets_file(view.session.workspace, view.store, self.entry),
            out=out,
            method=view.method,
            top=view.budget,
            format=self.format,
            compress=self.compress,
            evaluation=self.evaluation,
            drop_leaks=self.drop_leaks,
            report=self.report,
            choices=choices,
        )
        command.start(out)


def with_decisions(choices: Choices, take: str, decisions: Decisions) -> Choices:
    """The what-ifs with those of the session's decisions that `take` asks for."""
    if take == RANKED:
        return choices
    accepted, rejected = tuple(decisions.accepted.tolist()), tuple(decisions.rejected.tolist())
    update = {"accepted": accepted, "rejected": rejected, "only_accepted": take == ACCEPTED}
    return choices.model_copy(update=update)


def picks_of(view: View, limit: int) -> Iterator[Pick]:
    """The first `limit` picks of the view's method with their text."""
    column = view.comparison.columns[0]
    return column.selection.read(column.picks[:limit], pool_of(view.store))


def holdings_of(view: View) -> Holdings:
    """What the picks hold, which decides the formats that have a place for it."""
    column = view.comparison.columns[0]
    return _holdings(str(view.store.path), column.ranking.rows[column.picks].tobytes(), view)


def note(format: str, holdings: Holdings) -> str:
    """The line below a format: what it is for, or why these picks cannot be written in it."""
    return f":orange[{label(refusal(format, holdings))}]" if refusal(format, holdings) else NOTES[format]


def size_of(view: View, format: str) -> int:
    """Approximate bytes of the picks in this format before compression, from a sample's bytes per token."""
    return _size(str(view.scoring.path), view.comparison.columns[0].picks.tobytes(), format, view)


def manifest_of(out: Path) -> dict[str, Any] | None:
    """The manifest of a finished export, or None."""
    try:
        manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and isinstance(manifest.get("data"), dict) else None


def files_of(out: Path) -> list[Path]:
    """The files of a finished export, the data first, without the zip of them all."""
    names = {"train.parquet", *(f"train.jsonl{end}" for end in COMPRESSIONS.values())}
    files = [f for f in out.iterdir() if f.is_file() and not f.name.startswith(".") and f.suffix != ".zip"]
    return sorted(files, key=lambda f: (f.name not in names, f.name))


def leaks_of(out: Path) -> list[dict[str, Any]]:
    """The flagged picks in leakage.json of a finished export; empty without that file."""
    path = out / "leakage.json"
    return _leaks(str(path), path.stat().st_mtime_ns) if path.is_file() else []


@st.cache_resource(max_entries=8, show_spinner=False)
def _leaks(path: str, changed: int) -> list[dict[str, Any]]:
    return list(json.loads(Path(path).read_text(encoding="utf-8"))["leaks"])


@st.cache_resource(max_entries=64, show_spinner="Looking at what the rows hold …")
def _holdings(path: str, rows: bytes, _view: View) -> Holdings:
    column = _view.comparison.columns[0]
    picks = column.selection.read(column.picks, pool_of(_view.store))
    return survey((pick.id, pick.conversation) for pick in picks)


@st.cache_resource(max_entries=64, show_spinner=False)
def _size(path: str, picks: bytes, format: str, _view: View) -> int:
    column, traits, pool = _view.comparison.columns[0], _view.traits, pool_of(_view.store)
    n = len(column.picks)
    sample = column.picks[np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).round().astype(int))]
    lines = preview(format, column.selection.read(sample, pool), SAMPLE, holdings_of(_view))
    tokens = traits.n_tokens + pool.loc[traits.rows, "n_cut"].to_numpy()  # rows are exported uncut
    return int(len(lines.encode()) / tokens[sample].sum() * tokens[column.picks].sum())
