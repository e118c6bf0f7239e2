"""An export: what is asked for, the command that writes it, and what it wrote. No drawing here."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from app.state.session import Session
from app.views.comparison import Column, traits_of
from app.views.store import pool_of
from app.views.targets import scoring_folder
from gradsift.datastore.store import Store
from gradsift.export.files import COMPRESSIONS
from gradsift.export.formats import Pick, preview
from gradsift.runtime import atomic, jobs
from gradsift.scoring.scoring import Scoring
from gradsift.selection.choices import Choices
from gradsift.selection.picks import iter_picks
from gradsift.workspace.sessions import Decisions
from gradsift.workspace.workspace import TargetEntry

SAMPLE = 20  # picks by which the size is estimated
ABOUT = {
    "messages": "`messages` with role and content: TRL, axolotl, LLaMA-Factory, most trainers.",
    "prompt-completion": "`prompt` and `completion` as messages: TRL learns the completion only.",
    "alpaca": "`instruction`, `input`, `output`, `system`, `history`: LLaMA-Factory.",
    "sharegpt": "`conversations` with from and value: LLaMA-Factory, axolotl, older trainers.",
    "less": "The original lines byte for byte, and sorted.csv, as the LESS authors' code writes them.",
    "parquet": "A Parquet file with a `messages` column.",
}
DECIDED, RANKED, ACCEPTED = "decided", "ranked", "accepted"
TAKES = {
    DECIDED: "Picks, with my decisions",
    RANKED: "Picks as ranked",
    ACCEPTED: "Only what I accepted",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What one export is made of; equal requests go into the same folder."""

    session: Session
    store: Store
    entry: TargetEntry
    method: str
    budget: str
    choices: Choices
    format: str
    compress: str
    evaluation: tuple[Path, ...]
    drop_leaks: bool
    report: bool

    @property
    def out(self) -> Path:
        """The folder it goes into."""
        content = hashlib.sha256(self.entry.path.read_bytes()).hexdigest()
        files = [(str(path), path.stat().st_mtime_ns) for path in self.evaluation if path.exists()]
        asked: list[Any] = [
            self.store.fingerprint,
            str(self.store.path),
            content,
            self.method,
            self.budget,
            self.choices.changed,
        ]
        asked += [self.format, self.compress, files, self.drop_leaks, self.report]
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
        stem = f"{self.entry.name}-{self.method}-{self.budget.replace('%', 'pct')}-{self.format}"
        return self.session.workspace.export_folder(f"{stem}-{key}")

    def differs_by_decisions(self, other: "Request") -> bool:
        """Whether the other asks for the same but for what is accepted and rejected."""
        mine, theirs = (
            (
                *(one.store.fingerprint, one.entry.name, one.method, one.budget, one.format, one.compress),
                *(one.evaluation, one.drop_leaks, one.report),
                one.choices.model_copy(update={"accepted": (), "rejected": (), "only_accepted": False}),
            )
            for one in (self, other)
        )
        return self.choices != other.choices and mine == theirs

    def arguments(self, out: Path) -> list[str]:
        """The command line that writes it, `gradsift` aside; the choices lie in the job's own folder."""
        taken = scoring_folder(self.session.workspace, self.store, self.entry) / "targets.jsonl"
        targets = taken if taken.is_file() else self.entry.path
        arguments = ["select", str(self.store.path), "--targets", str(targets), "--out", str(out)]
        arguments += ["--method", self.method, "--top", self.budget, "--format", self.format]
        arguments += ["--compress", self.compress, "--bundle"]
        for path in self.evaluation:
            arguments += ["--evaluation", str(path)]
        arguments += ["--drop-leaks"] * self.drop_leaks + ["--report"] * self.report
        return arguments + (["--choices", str(_choices_file(out))] if self.choices.changed else [])


def start(request: Request) -> None:
    """Write the files as a process of its own (`gradsift select`)."""
    out = request.out
    if request.choices.changed:
        _choices_file(out).parent.mkdir(parents=True, exist_ok=True)
        atomic.write_json(_choices_file(out), request.choices.changed)
    jobs.start(out, request.arguments(out))


def with_decisions(choices: Choices, take: str, decisions: Decisions) -> Choices:
    """The what-ifs with what the open session decided, as far as `take` says."""
    if take == RANKED:
        return choices
    accepted, rejected = tuple(decisions.accepted.tolist()), tuple(decisions.rejected.tolist())
    update = {"accepted": accepted, "rejected": rejected, "only_accepted": take == ACCEPTED}
    return choices.model_copy(update=update)


def picks_of(store: Store, scoring: Scoring, column: Column, limit: int) -> Iterator[Pick]:
    """The column's first `limit` picks with their text."""
    about = traits_of(store, scoring)
    return iter_picks(store, column.ranking, column.picks[:limit], about, pool_of(store))


def size_of(store: Store, scoring: Scoring, column: Column, format: str) -> int:
    """About how many bytes the column's picks take in this format before compression: by a sample's bytes per token."""
    return _size(str(scoring.path), column.picks.tobytes(), format, store, scoring, column)


def keep(session: Session, uploads: Sequence[Any]) -> list[Path]:
    """Uploaded files kept in the workspace, each once however often it comes."""
    paths: list[Path] = []
    for upload in uploads:
        content = upload.getvalue()
        folder = f"evaluation-{hashlib.sha256(content).hexdigest()[:12]}"
        kept = session.workspace.root / "uploads" / folder / Path(upload.name).name
        paths += [kept] if kept.is_file() else session.workspace.keep_uploads(folder, [(upload.name, content)])
    return paths


def evaluation_files(typed: str) -> tuple[list[Path], list[str]]:
    """The files named, one a line, that are there; and the paths where nothing lies."""
    paths = [Path(os.path.expanduser(line.strip())) for line in typed.splitlines() if line.strip()]
    missing = [str(path) for path in paths if not os.path.exists(path)]  # of any text, other than Path.exists
    return [path for path in paths if os.path.exists(path)], missing


def written(out: Path) -> dict[str, Any] | None:
    """The manifest of a finished export, or None."""
    try:
        manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and isinstance(manifest.get("data"), dict) else None


def files_of(out: Path) -> list[Path]:
    """The files of a finished export, the data first; the bundle of them is not one."""
    names = {"train.parquet", *(f"train.jsonl{end}" for end in COMPRESSIONS.values())}
    files = [f for f in out.iterdir() if f.is_file() and not f.name.startswith(".") and f.suffix != ".zip"]
    return sorted(files, key=lambda f: (f.name not in names, f.name))


def leaks_of(out: Path) -> list[dict[str, Any]]:
    """The flagged picks of a finished export as leakage.json has them; none where that file is not there."""
    path = out / "leakage.json"
    return _leaks(str(path), path.stat().st_mtime_ns) if path.is_file() else []


def _choices_file(out: Path) -> Path:
    return out / "job" / "choices.json"


@st.cache_resource(max_entries=8, show_spinner=False)
def _leaks(path: str, changed: int) -> list[dict[str, Any]]:
    return list(json.loads(Path(path).read_text(encoding="utf-8"))["leaks"])


@st.cache_resource(max_entries=64, show_spinner=False)
def _size(path: str, picks: bytes, format: str, _store: Store, _scoring: Scoring, _column: Column) -> int:
    about, n = traits_of(_store, _scoring), len(_column.picks)
    sample = _column.picks[np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).round().astype(int))]
    lines = preview(format, iter_picks(_store, _column.ranking, sample, about, pool_of(_store)), SAMPLE)
    tokens = about.n_tokens + pool_of(_store).loc[about.rows, "n_cut"].to_numpy()  # all of a row is exported
    return int(len(lines.encode()) / tokens[sample].sum() * tokens[_column.picks].sum())
