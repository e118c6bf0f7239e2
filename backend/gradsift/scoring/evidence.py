"""What scores are made of: `Evidence`, the arrays of one checkpoint, and the folder where each method keeps its own."""

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

WORDS = "bm25-words.json"  # BM25's weight (idf) of each word that targets and pool share


@dataclass(frozen=True)
class Evidence:
    """A method's evidence at one checkpoint (a method without checkpoints has a single one).

    products: (n, K) ⟨target k, unit row⟩. gram: (K, K) ⟨target k, target l⟩, or None if products already are scores.
    norms: (n,) length of each projected row, or None likewise. weight: w_i.
    """

    products: np.ndarray
    gram: np.ndarray | None
    norms: np.ndarray | None
    weight: float


@dataclass(frozen=True)
class ScoringFolder:
    """The folder of one store's scoring for one set of targets, where every method keeps its files.

    rows: (n,) pool row numbers that are scored. epochs, weights: the store's checkpoints and their w_i. columns: which
    of the kept targets these are, (K,), or None for all of them. gradient: the store's first kind, which LESS compares
    by default.
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
        """Index that selects these targets' columns in the kept arrays."""
        return slice(None) if self.columns is None else self.columns

    @property
    def texts(self) -> list[str]:
        """Each target's full text, its turns joined by line breaks."""
        return [target.conversation.text for target in self.targets]

    @cached_property
    def word_weights(self) -> dict[str, float]:
        """BM25's weight (idf) of each word that the scored targets and the pool share; empty if none were kept."""
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
            raise StoreError(f"{missing[0]} is missing: {method} has not scored these targets yet; run gradsift score.")
        stats = [(path, path.stat()) for path in files]
        return [_mapped(path, (stat.st_mtime_ns, stat.st_ino)) for path, stat in stats]

    def for_every_target(self, scores: np.ndarray, weight: float) -> Evidence:
        """Scores (n,) that are the same for every target."""
        return Evidence(np.broadcast_to(scores[:, None], (len(scores), len(self.targets))), None, None, weight)


@lru_cache(maxsize=64)
def _mapped(path: Path, changed: tuple[int, int]) -> dict[str, np.ndarray]:
    """A kept file's arrays, memory-mapped; its hash is checked once per process, since what-ifs reread it often.

    changed: the file's time and inode. While the old file is mapped, a new one at its path cannot have the same inode.
    """
    return {name: tensor.numpy() for name, tensor in read_tensors(path)[0].items()}
