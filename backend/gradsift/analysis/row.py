"""One row in detail: its score against every target example at every checkpoint (method, section 2.4)."""

from dataclasses import replace

import numpy as np

from gradsift.config import GradientKind, Similarity, TargetPooling
from gradsift.runtime.errors import UsageError
from gradsift.scoring.evidence import Evidence
from gradsift.scoring.influence import influence
from gradsift.scoring.methods import get_method
from gradsift.scoring.scoring import Scoring
from gradsift.selection.ranking import Ranking


def by_target(scoring: Scoring, method: str, position: int, gradient: GradientKind | None = None) -> np.ndarray:
    """(K, N + 1) float64: cos(target k, row) at each of N checkpoints, then their sum weighted by w_i.

    A method that compares words has no checkpoints: (K, 2) with its score twice.

    Raises:
        UsageError: the method does not look at the targets. StoreError: it has not scored the targets.
    """
    each = np.arange(len(scoring.targets))
    parts = _of_row(scoring, method, position, gradient, each)
    return _columns(parts, each, len(each), "cosine", "cosine-of-mean")


def by_subtask(
    scoring: Scoring,
    method: str,
    position: int,
    gradient: GradientKind | None = None,
    similarity: Similarity = "cosine",
    pooling: TargetPooling = "cosine-of-mean",
) -> np.ndarray:
    """(J, N + 1) float64: each of N checkpoints' term in Inf(z, j) without its weight, then Inf(z, j) itself.

    Raises:
        UsageError, StoreError: as `by_target`.
    """
    parts = _of_row(scoring, method, position, gradient)
    return _columns(parts, scoring.subtask_of, len(scoring.subtask_names), similarity, pooling)


def best_target(cosines: np.ndarray, subtask_of: np.ndarray, subtask: int) -> int:
    """Index of the subtask's target that the row serves best. cosines: (K, N + 1) of `by_target`; subtask_of: (K,)."""
    members = np.flatnonzero(subtask_of == subtask)
    return int(members[cosines[members, -1].argmax()])


def opponents(ranking: Ranking) -> np.ndarray:
    """(n,) positions from the lowest score to the highest; ties go to the lower row number."""
    return np.argsort(ranking.score, kind="stable")


def _of_row(
    scoring: Scoring, method: str, position: int, gradient: GradientKind | None, groups: np.ndarray | None = None
) -> list[Evidence]:
    """The evidence of this one row; that of other rows is not copied, even if some targets are left out."""
    if not get_method(method).sees_targets:
        raise UsageError(f"{get_method(method).label} does not look at the targets, so its score has no parts to show.")
    return scoring.evidence(method, gradient, rows=slice(position, position + 1), groups=groups)


def _columns(
    parts: list[Evidence], subtask_of: np.ndarray, n_subtasks: int, similarity: Similarity, pooling: TargetPooling
) -> np.ndarray:
    """(J, N + 1) the influence at each checkpoint alone, then at all of them with their weights."""
    alone = [[replace(part, weight=1.0)] for part in parts]
    rows = [influence(group, subtask_of, n_subtasks, similarity, pooling)[0] for group in [*alone, parts]]
    return np.stack(rows, axis=1).astype(np.float64)
