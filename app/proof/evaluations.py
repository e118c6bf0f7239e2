"""Evaluations of the workspace: their folders, the run that makes one, and what a report says. Draws nothing.

An evaluation is a folder below `WORKSPACE/evaluations/` with its report, targets, held-out file and job.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from app.views.commands import Evaluate
from app.views.targets import targets_file
from app.views.view import View
from gradsift.datastore.store import Store
from gradsift.evaluation.report import RANDOM, VALIDATION, ZERO_SHOT, Report, read_report
from gradsift.runtime import atomic, jobs
from gradsift.runtime.hashing import hash_file, hash_json
from gradsift.scoring.methods import METHODS
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
        """The store that picks; None if the run's command cannot be read."""
        command = Evaluate.read(jobs.command(self.folder))
        return command.store if command else None

    @property
    def report(self) -> Path:
        """Its report, which appears with the first picks."""
        return self.folder / REPORT


def entries(workspace: Workspace) -> list[Entry]:
    """Every evaluation, the last changed first."""
    root = workspace.root / "evaluations"
    folders = (
        [path for path in root.iterdir() if (path / "job").is_dir() or (path / REPORT).is_file()]
        if root.is_dir()
        else []
    )
    return [Entry(path.name, path) for path in sorted(folders, key=_changed, reverse=True)]


def start(view: View, entry: TargetEntry, heldout: Path, seeds: int, recipe: Mapping[str, Any]) -> Entry:
    """Run `gradsift evaluate` in a separate process; the same evaluation again resumes where it stopped.

    view: its store, methods and budget are evaluated. recipe: epochs, batch_size or lr where they differ from the
    store's own recipe or are missing there.

    Raises:
        JobError: it is running already.
    """
    workspace, store, budget = view.session.workspace, view.store, view.budget
    targets = targets_file(workspace, store, entry)
    parts = [store.fingerprint, hash_file(targets), hash_file(heldout), budget, seeds, *sorted(recipe.items())]
    key = hash_json(parts)[:6]
    name = f"{entry.name}-{budget.replace('%', 'pct')}-{key}"
    evaluation = Entry(name, workspace.root / "evaluations" / name)
    target_copy = evaluation.folder / f"{entry.name}.jsonl"  # the set takes its name from this file
    test = evaluation.folder / "held-out" / f"rows{''.join(heldout.suffixes[-2:])}"
    test.parent.mkdir(parents=True, exist_ok=True)
    for file, path in ((targets, target_copy), (heldout, test)):  # so that a run can resume without the originals
        if not path.is_file():  # the folder's name has their hashes, so an existing file is the same
            atomic.write_bytes(path, file.read_bytes())
    methods = tuple(_spec(method, store) for method in view.methods)
    command = Evaluate(
        store=store.path,
        targets=target_copy,
        test=test,
        budget=budget,
        seeds=seeds,
        out=evaluation.report,
        method=methods,
        **recipe,
    )
    command.start(evaluation.folder)
    return evaluation


def again(entry: Entry) -> None:
    """Start an evaluation's run again with the same command; finished work is kept."""
    jobs.start(entry.folder, jobs.command(entry.folder))


def report_of(entry: Entry) -> Report | None:
    """The report so far, or None before there is one.

    Raises:
        EvaluationError: the file is damaged.
    """
    if not entry.report.is_file():
        return None
    return _report(str(entry.report), entry.report.stat().st_mtime_ns)


def label_of(method: str) -> str:
    """A report's method in words: LESS, LESS with aggregate round-robin, Zero-shot."""
    name, *choices = method.split(":")
    title = METHODS[name].label if name in METHODS else ALONE.get(name, name)
    return " ".join([title, *(f"with {choice.replace('=', ' ').replace('_', ' ')}" for choice in choices)])


def verdict(report: Report) -> list[str]:
    """A sentence per target set: is the best method's loss below random's, and on how many seeds?"""
    from gradsift.evaluation.report import summary

    table, sentences = summary(report), []
    for name, lines in table.groupby("target_set", sort=False):
        picked = lines[(lines["paired"] > 0) & lines["method"].map(lambda m: m.split(":")[0] in METHODS)]
        if RANDOM not in set(lines["method"]) or picked.empty:
            continue
        best = picked[picked["paired"] == picked["paired"].max()].iloc[0]  # backed by the most seeds
        gap, how = best["against_random"], f"on {best['better']} of {best['paired']} seeds"
        distance = f"{abs(gap):.3f} below" if gap < 0 else f"{abs(gap):.3f} above"
        sentences.append(f"{name}: {label_of(best['method'])} ends {distance} random's loss, lower {how}.")
    return sentences


@st.cache_resource(max_entries=8, show_spinner=False)
def _report(path: str, changed: int) -> Report:
    return read_report(Path(path))


def _spec(method: str, store: Store) -> str:
    """The method as the command takes it; the report names the gradient if it is not Adam's."""
    gradient = store.manifest.config.gradients[0]
    by_gradient = METHODS[method].needs == "gradients" and gradient != "adam"
    return f"{method}:gradient={gradient}" if by_gradient else method


def _changed(folder: Path) -> float:
    return max((path.stat().st_mtime for path in (folder / REPORT, folder / "job") if path.exists()), default=0.0)
