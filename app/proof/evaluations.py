"""Evaluations of the workspace: where they lie, the command that makes one, and what a report says. No drawing here.

An evaluation is a folder below `WORKSPACE/evaluations/` with the report, the targets, the held-out file, and its job.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from app.state.session import Session
from app.views.targets import scoring_folder
from gradsift.datastore.store import Store
from gradsift.evaluation.report import RANDOM, VALIDATION, ZERO_SHOT, Report, read_report
from gradsift.runtime import atomic, jobs
from gradsift.scoring.methods import METHODS
from gradsift.selection.choices import Choices
from gradsift.workspace.workspace import TargetEntry, Workspace

REPORT = "report.json"
ALONE = {ZERO_SHOT: "Zero-shot", VALIDATION: "Targets alone", "full": "Whole pool"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One evaluation of the workspace."""

    name: str
    folder: Path

    @property
    def store(self) -> Path | None:
        """The store that picks, as far as the run's command tells."""
        command = jobs.command(self.folder)
        return Path(command[1]) if len(command) > 1 else None

    @property
    def report(self) -> Path:
        """Its report, which appears with the first picks."""
        return self.folder / REPORT


def entries(workspace: Workspace) -> list[Entry]:
    """Every evaluation, the one that changed last first."""
    root = workspace.root / "evaluations"
    folders = (
        [path for path in root.iterdir() if (path / "job").is_dir() or (path / REPORT).is_file()]
        if root.is_dir()
        else []
    )
    return [Entry(path.name, path) for path in sorted(folders, key=_changed, reverse=True)]


def start(
    session: Session,
    store: Store,
    entry: TargetEntry,
    heldout: Path,
    methods: Sequence[str],
    seeds: int,
    recipe: Mapping[str, float],
) -> Entry:
    """Run `gradsift evaluate` as a process of its own; the same question again goes on where it stopped.

    recipe: what the store's own does not say, or is to be otherwise: epochs, batch_size, lr.

    Raises:
        JobError: it is running already.
    """
    targets = scoring_folder(session.workspace, store, entry) / "targets.jsonl"
    targets = targets if targets.is_file() else entry.path
    asked = [store.fingerprint, _hash(targets), _hash(heldout), session.budget, seeds, *sorted(recipe.items())]
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:6]
    made = Entry(f"{entry.name}-{session.budget.replace('%', 'pct')}-{key}", session.workspace.root / "evaluations")
    made = Entry(made.name, made.folder / made.name)
    made.folder.mkdir(parents=True, exist_ok=True)
    kept = made.folder / f"{entry.name}.jsonl"  # the set is named by this file
    test = made.folder / "held-out" / f"rows{''.join(heldout.suffixes[-2:])}"
    test.parent.mkdir(exist_ok=True)
    for file, path in ((targets, kept), (heldout, test)):  # resuming finds them, whatever becomes of the originals
        if not path.is_file():  # the folder is named by their hashes: it is this one
            atomic.write_bytes(path, file.read_bytes())
    arguments = ["evaluate", str(store.path), "--targets", str(kept), "--test", str(test), "--budget", session.budget]
    arguments += ["--seeds", str(seeds), "--out", str(made.report)]
    for name, value in recipe.items():
        arguments += [f"--{name.replace('_', '-')}", str(value)]
    for method in methods:
        arguments += ["--method", _spec(method, store)]
    jobs.start(made.folder, arguments)
    return made


def again(entry: Entry) -> None:
    """Start the run of an evaluation again as it was started; what ended is kept."""
    jobs.start(entry.folder, jobs.command(entry.folder))


def report_of(entry: Entry) -> Report | None:
    """The report as it is now, or None before there is one.

    Raises:
        EvaluationError: the file is damaged.
    """
    if not entry.report.is_file():
        return None
    return _report(str(entry.report), entry.report.stat().st_mtime_ns)


def label_of(method: str) -> str:
    """A method of a report in words: LESS, LESS by aggregate round-robin, Zero-shot."""
    name, *choices = method.split(":")
    said = METHODS[name].label if name in METHODS else ALONE.get(name, name)
    return " ".join([said, *(f"by {choice.replace('=', ' ').replace('_', ' ')}" for choice in choices)])


def verdict(report: Report) -> list[str]:
    """A sentence for each target set: does the best method's loss lie below random's, and on how many seeds."""
    from gradsift.evaluation.report import summary

    table, sentences = summary(report), []
    for name, lines in table.groupby("target_set", sort=False):
        picked = lines[(lines["paired"] > 0) & lines["method"].map(lambda m: m.split(":")[0] in METHODS)]
        if RANDOM not in set(lines["method"]) or picked.empty:
            continue
        best = picked[picked["paired"] == picked["paired"].max()].iloc[0]  # what more seeds say
        gap, how = best["against_random"], f"on {best['better']} of {best['paired']} seeds"
        said = f"{abs(gap):.3f} below" if gap < 0 else f"{abs(gap):.3f} above"
        sentences.append(f"{name}: {label_of(best['method'])} ends {said} random's loss, lower {how}.")
    return sentences


@st.cache_resource(max_entries=8, show_spinner=False)
def _report(path: str, changed: int) -> Report:
    return read_report(Path(path))


def _spec(method: str, store: Store) -> str:
    """The method as the command takes it: by the store's own gradient where that is not the default one."""
    gradient = store.manifest.config.gradients[0]
    by_gradient = METHODS[method].evidence == "features" and gradient != Choices().gradient
    return f"{method}:gradient={gradient}" if by_gradient else method


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _changed(folder: Path) -> float:
    return max((path.stat().st_mtime for path in (folder / REPORT, folder / "job") if path.exists()), default=0.0)
