"""Eq. 2 in loops, and random cases for it in memory and on disk, for tests of influence, rankings and resampling."""

from pathlib import Path

import numpy as np
import torch
from reference import cosine

from gradsift.data.pool import Row
from gradsift.datastore.shards import write_tensors
from gradsift.scoring.evidence import Evidence
from gradsift.scoring.scoring import Scoring

SIMILARITIES = ["cosine", "dot"]
POOLINGS = ["cosine-of-mean", "mean-of-cosines"]


def case(n: int, sizes: list[int], epochs: int = 2, dim: int = 24, seed: int = 0):
    """Random pool rows and targets in ragged, shuffled subtasks: (rows and targets per epoch, subtask_of, weights)."""
    rng = np.random.default_rng(seed)
    subtask_of = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = [rng.normal(size=(n, dim)) * np.exp(rng.normal(size=(n, 1)) * 2) for _ in range(epochs)]
    lengths = np.exp(rng.normal(size=(len(subtask_of), 1)) * 2)
    targets = [rng.normal(size=(len(subtask_of), dim)) * lengths for _ in range(epochs)]
    weights = rng.random(epochs) + 0.1
    return rows, targets, subtask_of, weights / weights.sum()


def evidence_of(rows, targets, weights) -> list[Evidence]:
    """The evidence that `score_targets` stores for such vectors."""
    result = []
    for x, t, w in zip(rows, targets, weights, strict=True):
        norms = np.linalg.norm(x, axis=1)
        products = (x / norms[:, None]) @ t.T
        result.append(Evidence(*(a.astype(np.float32) for a in (products, t @ t.T, norms)), float(w)))
    return result


def by_hand(rows, targets, subtask_of, weights, similarity: str, pooling: str) -> np.ndarray:
    """Inf(z, j) row by row, subtask by subtask, checkpoint by checkpoint."""
    n, subtasks = len(rows[0]), max(subtask_of) + 1
    scores = np.zeros((n, subtasks))
    for x, t, weight in zip(rows, targets, weights, strict=True):
        for z in range(n):
            for j in range(subtasks):
                mine = [t[k] for k in range(len(t)) if subtask_of[k] == j]
                mean = sum(mine) / len(mine)
                if similarity == "dot":
                    value = float(mean @ x[z])
                elif pooling == "cosine-of-mean":
                    value = cosine(mean, x[z])
                else:
                    value = sum(cosine(one, x[z]) for one in mine) / len(mine)
                scores[z, j] += weight * value
    return scores


def scoring_of(path: Path, evidence, subtask_of, rows=None, name="adam", method="less") -> Scoring:
    """A scoring on disk with this evidence."""
    epochs = [f"epoch-{i + 1}" for i in range(len(evidence))]
    targets = [Row("t", k + 1, b"", "t", f"t{k}", "", f"task {j}", (), "", "", "") for k, j in enumerate(subtask_of)]
    for epoch, part in zip(epochs, evidence, strict=True):
        arrays = {"products": part.products, "gram": part.gram, "norms": part.norms}
        file = f"{name}-{epoch}" if method == "less" else method
        tensors = {key: torch.from_numpy(value) for key, value in arrays.items() if value is not None}
        write_tensors(path / f"{file}.safetensors", tensors, {})
    n = len(evidence[0].products)
    weights = np.array([part.weight for part in evidence])
    return Scoring(path, targets, np.arange(n) if rows is None else np.asarray(rows), epochs, weights)


def tied(path: Path, scores, subtask_of, rows=None) -> Scoring:
    """A scoring with a score for every single target, as BM25's."""
    part = Evidence(np.asarray(scores, dtype=np.float32), None, None, 1.0)
    return scoring_of(path, [part], subtask_of, rows, method="bm25")
