"""What scores are made of: `Evidence`, the arrays of one checkpoint, and the folder where methods keep theirs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from gradsift.config import GradientKind
from gradsift.data.pool import Row
from gradsift.datastore.shards import read_tensors
from gradsift.runtime.errors import StoreError

WORDS = "bm25-words.json"  # BM25's weight (idf) of every word of the targets that the pool has


@dataclass(frozen=True)
class Evidence:
    """A method's evidence at one checkpoint (for methods that know no checkpoint: the only one).

    products: (n, K) ⟨target k, unit row⟩. gram: (K, K) ⟨target k, target l⟩, or None where products are scores already.
    norms: (n,) length of each projected row, or None likewise. weight: w_i.
    """

    products: np.ndarray
    gram: np.ndarray | None
    norms: np.ndarray | None
    weight: float


@dataclass(frozen=True)
class ScoringFolder:
    """The folder of one store's scoring by one set of targets, where every method keeps its files.

    rows: (n,) pool row numbers that are scored. epochs, weights: the store's checkpoints and their w_i. columns: which
    of the kept targets these are, (K,), or None for all of them. gradient: the store's first kind, which LESS compares
    unless another is named.
    """

    path: Path
    targets: list[Row]
    rows: np.ndarray
    epochs: list[str]
    weights: np.ndarray
    columns: np.ndarray | None = None
    gradient: GradientKind = "adam"

    @property
    def subtask_names(self) -> list[str]:
        """Distinct subtasks in order of first appearance."""
        return list(dict.fromkeys(target.subtask for target in self.targets))

    @property
    def subtask_of(self) -> np.ndarray:
        """(K,) index into `subtask_names` of every target."""
        names = {name: index for index, name in enumerate(self.subtask_names)}
        return np.array([names[target.subtask] for target in self.targets])

    @property
    def kept_columns(self) -> np.ndarray | slice:
        """What picks these targets from the kept ones."""
        return slice(None) if self.columns is None else self.columns

    @property
    def texts(self) -> list[str]:
        """Each target's whole text, its turns joined by line ends."""
        return ["\n".join(content for _, content in target.messages) for target in self.targets]

    @cached_property
    def word_weights(self) -> dict[str, float]:
        """BM25's weight (idf) of every word of the scored targets that the pool has; empty where it was not kept."""
        try:
            return {str(word): float(idf) for word, idf in json.loads((self.path / WORDS).read_bytes()).items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}

    def arrays(self, files: Sequence[Path], method: str) -> list[dict[str, np.ndarray]]:
        """The arrays in each of a method's files, memory-mapped.

        Raises:
            StoreError: a file is missing; `score_targets` makes it.
        """
        if missing := [path for path in files if not path.is_file()]:
            raise StoreError(
                f"{missing[0]} is missing: the targets are not scored by {method} yet; run gradsift score."
            )
        stats = [(path, path.stat()) for path in files]
        return [_mapped(path, (stat.st_mtime_ns, stat.st_ino)) for path, stat in stats]

    def for_every_target(self, scores: np.ndarray, weight: float) -> Evidence:
        """Scores (n,) that are the same for every target."""
        return Evidence(np.broadcast_to(scores[:, None], (len(scores), len(self.targets))), None, None, weight)


@lru_cache(maxsize=64)
def _mapped(path: Path, changed: tuple[int, int]) -> dict[str, np.ndarray]:
    """A kept file's arrays, memory-mapped; its hash is checked once a process, since what-ifs ask again and again.

    changed: its time and inode. While the old file is mapped, a new one at its path cannot have the same inode.
    """
    return {name: tensor.numpy() for name, tensor in read_tensors(path)[0].items()}
