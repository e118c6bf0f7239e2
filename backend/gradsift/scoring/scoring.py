"""A kept scoring, from which every later question is answered by arithmetic.

A `Scoring` holds, for one store and one set of targets, the inner products ⟨target k, unit row⟩ of every usable row and
checkpoint and the targets' Gram matrices. Both poolings, every aggregation, dot products and all
omissions follow from these without touching model or store again. It lies in `STORE/scorings/KEY/`; `score_targets`
makes it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from gradsift.config import GradientKind
from gradsift.data.pool import Row
from gradsift.data.targets import read_targets
from gradsift.datastore.store import Store
from gradsift.runtime.errors import StoreError, UsageError
from gradsift.runtime.hashing import hash_json
from gradsift.scoring.choices import RankingChoices
from gradsift.scoring.evidence import Evidence, ScoringFolder
from gradsift.scoring.methods import get_method


@dataclass(frozen=True)
class Scoring(ScoringFolder):
    """Kept evidence of every method for one store and one set of targets."""

    @classmethod
    def at(cls, path: Path, store: Store, targets: Sequence[Row]) -> "Scoring":
        """The scoring of `targets` at `path`, whether it exists yet or not."""
        gradient = store.manifest.config.gradients[0]
        return cls(path, list(targets), store.scored_rows, store.epochs, store.weights, gradient=gradient)

    def under(self, choices: RankingChoices) -> "Scoring":
        """The same evidence without the targets, subtasks and checkpoints that the choices leave out.

        The remaining checkpoints' weights are scaled to sum to 1, so that scores equal a scoring from scratch.

        Raises:
            UsageError: one of them is not in this scoring, or nothing would be left.
        """
        targets, subtasks, checkpoints = choices.without_targets, choices.without_subtasks, choices.without_checkpoints
        parts = (targets, range(len(self.targets))), (subtasks, self.subtask_names), (checkpoints, self.epochs)
        if unknown := [name for names, known in parts for name in names if name not in known]:
            raise UsageError(f"There is no {unknown[0]!r} among the scored targets, subtasks and checkpoints.")
        kept = [k for k, row in enumerate(self.targets) if k not in targets and row.subtask not in subtasks]
        epochs = [i for i, name in enumerate(self.epochs) if name not in checkpoints]
        if not kept or (self.epochs and not epochs):
            raise UsageError("Nothing is left to score with: keep at least one target example and one checkpoint.")
        if len(kept) == len(self.targets) and len(epochs) == len(self.epochs):
            return self
        columns = np.arange(len(self.targets)) if self.columns is None else self.columns
        return replace(
            self,
            targets=[self.targets[k] for k in kept],
            epochs=[self.epochs[i] for i in epochs],
            weights=self.weights[epochs] / self.weights[epochs].sum(),
            columns=columns[kept],
        )

    def has(self, method: str, gradient: GradientKind | None = None) -> bool:
        """Whether a method's evidence is kept here."""
        return get_method(method).computed(self, gradient or self.gradient)

    def evidence(
        self,
        method: str,
        gradient: GradientKind | None = None,
        seed: int = 0,
        rows: slice = slice(None),
        groups: np.ndarray | None = None,
    ) -> list[Evidence]:
        """A method's evidence, one entry per checkpoint; arrays are memory-mapped.

        seed: of a draw (random, DSIR). rows: the positions to return. groups: (K,) which targets DSIR takes together,
        by default those of a subtask; every target of a group has the group's score.

        Raises:
            StoreError: the evidence has not been computed; `score_targets` does that.
        """
        groups = self.subtask_of if groups is None else groups
        return get_method(method).evidence(self, gradient or self.gradient, seed, rows, groups)


def open_scoring(store: Store, path: Path) -> Scoring:
    """Open a scoring kept under the store.

    Raises:
        StoreError: there is no scoring at `path`, or its targets are not those that were scored.
    """
    if not (path / "targets.jsonl").is_file():
        raise StoreError(f"{path} holds no scoring; run gradsift score with the targets again.")
    targets = read_targets(path / "targets.jsonl").rows
    if scoring_key(store, targets) != path.name:
        raise StoreError(
            f"{path}/targets.jsonl is damaged: its targets are not those that were scored; delete the folder {path} "
            "and score them again."
        )
    return Scoring.at(path, store, targets)


def scoring_key(store: Store, targets: Sequence[Row]) -> str:
    """Name of the scoring of these targets in this store; equal content gives equal names."""
    return hash_json([store.fingerprint, targets_content(targets)])[:16]


def targets_content(targets: Sequence[Row]) -> list:
    """The content that distinguishes one set of targets from another."""
    return [[t.subtask, asdict(t.conversation)] for t in targets]


def scoring_path(store: Store, targets: Sequence[Row]) -> Path:
    """Path of the scoring of these targets in this store, whether it exists or not."""
    return store.path / "scorings" / scoring_key(store, targets)
