"""A scoring that is kept: what every later question is answered from by arithmetic.

A `Scoring` holds, for one store and one set of targets, the inner products ⟨target k, unit row⟩ of every usable row and
checkpoint and the targets' Gram matrices. Both poolings, every aggregation, dot products and leaving something out all
follow from these without touching model or store again. It lies under `STORE/scorings/KEY/`; influence.py makes it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from gradsift.config import GradientKind
from gradsift.data.pool import Row
from gradsift.data.targets import read_targets
from gradsift.datastore.shards import read_tensors
from gradsift.datastore.store import Store
from gradsift.runtime.errors import StoreError, UsageError
from gradsift.runtime.hashing import hash_json
from gradsift.scoring.dsir import Ngrams, gumbel_noise
from gradsift.scoring.methods import get_method
from gradsift.scoring.random import random_scores

WORDS = "bm25-words.json"  # BM25's weight (idf) of every word of the targets that the pool has


@dataclass(frozen=True)
class Products:
    """One checkpoint's evidence (for methods that know no checkpoint: the only one).

    products: (n, K) ⟨target k, unit row⟩. gram: (K, K) ⟨target k, target l⟩, or None where products are scores already.
    norms: (n,) length of each projected row, or None likewise. weight: w_i.
    """

    products: np.ndarray
    gram: np.ndarray | None
    norms: np.ndarray | None
    weight: float


@dataclass(frozen=True)
class Scoring:
    """Kept evidence for one store and one set of targets. rows: (n,) pool row numbers that are scored.

    columns: which of the kept targets these are, (K,), or None for all of them.
    """

    path: Path
    targets: list[Row]
    rows: np.ndarray
    epochs: list[str]
    weights: np.ndarray
    columns: np.ndarray | None = None

    @classmethod
    def at(cls, path: Path, store: Store, targets: Sequence[Row]) -> "Scoring":
        """The scoring of `targets` that lies, or shall lie, at `path`."""
        return cls(path, list(targets), store.scored_rows, store.epochs, store.weights)

    @property
    def subtask_names(self) -> list[str]:
        """Distinct subtasks in order of first appearance."""
        return list(dict.fromkeys(target.subtask for target in self.targets))

    @property
    def subtask_of(self) -> np.ndarray:
        """(K,) index into `subtask_names` of every target."""
        names = {name: index for index, name in enumerate(self.subtask_names)}
        return np.array([names[target.subtask] for target in self.targets])

    def without(
        self, targets: Sequence[int] = (), subtasks: Sequence[str] = (), checkpoints: Sequence[str] = ()
    ) -> "Scoring":
        """The same evidence less some targets (by index), subtasks and checkpoints (by name).

        The remaining checkpoints' weights are scaled to sum to 1, so that scores equal a scoring from scratch.

        Raises:
            UsageError: one of them is not here, or nothing would be left.
        """
        asked = (targets, range(len(self.targets))), (subtasks, self.subtask_names), (checkpoints, self.epochs)
        if unknown := [name for names, known in asked for name in names if name not in known]:
            raise UsageError(f"There is no {unknown[0]!r} among the scored targets, subtasks and checkpoints.")
        kept = [k for k, row in enumerate(self.targets) if k not in targets and row.subtask not in subtasks]
        left = [i for i, name in enumerate(self.epochs) if name not in checkpoints]
        if not kept or (self.epochs and not left):
            raise UsageError("Nothing is left to score by: keep at least one target example and one checkpoint.")
        if len(kept) == len(self.targets) and len(left) == len(self.epochs):
            return self
        columns = np.arange(len(self.targets)) if self.columns is None else self.columns
        return replace(
            self,
            targets=[self.targets[k] for k in kept],
            epochs=[self.epochs[i] for i in left],
            weights=self.weights[left] / self.weights[left].sum(),
            columns=columns[kept],
        )

    def has(self, method: str, gradient: GradientKind = "adam") -> bool:
        """Whether a method's evidence is kept here."""
        files = self._files(method, gradient)  # none at all where a method by checkpoints meets a store without one
        return get_method(method).evidence == "none" or (bool(files) and all(path.is_file() for path in files))

    def evidence(
        self,
        method: str,
        gradient: GradientKind = "adam",
        seed: int = 0,
        rows: slice = slice(None),
        groups: np.ndarray | None = None,
    ) -> list[Products]:
        """A method's evidence, one entry per checkpoint; arrays are memory-mapped.

        seed: of a draw (random, DSIR). rows: those that are wanted. groups: (K,) which targets DSIR takes together,
        those of a subtask unless given; every target of a group has the group's score.

        Raises:
            StoreError: it was not computed; `score_targets` does.
        """
        kind = get_method(method).evidence
        if kind == "none":
            return [self._repeated(random_scores(len(self.rows), seed)[rows], 1.0)]
        files = self._files(method, gradient)
        if missing := [path for path in files if not path.is_file()]:
            raise StoreError(
                f"{missing[0]} is missing: the targets are not scored by {method} yet; run gradsift score."
            )
        stats = [(path, path.stat()) for path in files]
        arrays = [_mapped(path, (stat.st_mtime_ns, stat.st_ino)) for path, stat in stats]
        weights = [float(w) for w in self.weights] if len(files) == len(self.weights) else [1.0]
        keep = slice(None) if self.columns is None else self.columns
        if kind == "ngrams":
            groups = self.subtask_of if groups is None else groups
            ngrams = Ngrams(**{**arrays[0], "targets": arrays[0]["targets"][keep]})
            drawn = ngrams.log_weights(groups, rows) + gumbel_noise(len(self.rows), seed)[rows, None]
            return [Products(drawn[:, groups], None, None, 1.0)]
        if kind in ("rows", "metrics"):
            return [self._repeated(a["scores"][rows], w) for a, w in zip(arrays, weights, strict=True)]
        if kind == "text":
            return [Products(arrays[0]["products"][rows][:, keep], None, None, 1.0)]
        return [
            Products(a["products"][rows][:, keep], a["gram"][keep][:, keep], a["norms"][rows], w)
            for a, w in zip(arrays, weights, strict=True)
        ]

    def _repeated(self, scores: np.ndarray, weight: float) -> Products:
        """Scores (n,) that are the same for every target."""
        return Products(np.broadcast_to(scores[:, None], (len(scores), len(self.targets))), None, None, weight)

    @cached_property
    def word_weights(self) -> dict[str, float]:
        """BM25's weight (idf) of every word of the scored targets that the pool has; empty where it was not kept."""
        try:
            return {str(word): float(idf) for word, idf in json.loads((self.path / WORDS).read_bytes()).items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}

    def _files(self, method: str, gradient: GradientKind) -> list[Path]:
        evidence = get_method(method).evidence
        if evidence == "none":
            return []
        if not get_method(method).by_checkpoint:
            return [self.path / f"{method}.safetensors"]
        kind = gradient if evidence == "features" else method
        return [self.path / f"{kind}-{epoch}.safetensors" for epoch in self.epochs]


@lru_cache(maxsize=64)
def _mapped(path: Path, changed: tuple[int, int]) -> dict[str, np.ndarray]:
    """A kept file's arrays, memory-mapped; its hash is checked once a process, since what-ifs ask again and again.

    changed: its time and inode. While the old file is mapped, a new one at its path cannot have the same inode.
    """
    return {name: tensor.numpy() for name, tensor in read_tensors(path)[0].items()}


def open_scoring(store: Store, path: Path) -> Scoring:
    """Open a scoring kept under the store.

    Raises:
        StoreError: there is none at `path`, or its targets are not those that were scored.
    """
    if not (path / "targets.jsonl").is_file():
        raise StoreError(f"{path} holds no scoring; run gradsift score with the targets again.")
    targets = read_targets(path / "targets.jsonl").rows
    if scoring_key(store, targets) != path.name:
        raise StoreError(
            f"{path}/targets.jsonl is damaged: it holds other targets than were scored; delete the folder {path} and "
            "score them again."
        )
    return Scoring.at(path, store, targets)


def scoring_key(store: Store, targets: Sequence[Row]) -> str:
    """Name of the scoring of these targets in this store; equal content, equal name."""
    return hash_json([store.fingerprint, targets_content(targets)])[:16]


def targets_content(targets: Sequence[Row]) -> list:
    """What tells one set of targets from another."""
    return [[t.subtask, t.prefix, list(map(list, t.messages))] for t in targets]


def scoring_path(store: Store, targets: Sequence[Row]) -> Path:
    """Where the scoring of these targets lies in this store, if it is kept."""
    return store.path / "scorings" / scoring_key(store, targets)
