"""Inf(z, j): influence of a pool row on a subtask, Eq. 2 of the paper and its variants."""

from collections.abc import Sequence

import numpy as np

from gradsift.config import Similarity, TargetPooling
from gradsift.scoring.evidence import Evidence


def influence(
    evidence: Sequence[Evidence],
    subtask_of: np.ndarray,
    n_subtasks: int,
    similarity: Similarity = "cosine",
    pooling: TargetPooling = "cosine-of-mean",
) -> np.ndarray:
    """Inf(z, j) of every row and subtask, (n, J) float32: Eq. 2 and its variants.

    cosine-of-mean (the paper): Σ_i w_i cos(mean of j's targets, row); mean-of-cosines (the released code): the mean of
    the targets' cosines; dot: Σ_i w_i ⟨mean of j's targets, row⟩. Evidence without a Gram matrix is averaged in j.
    """
    total = np.zeros((len(evidence[0].products), n_subtasks), dtype=np.float32)
    for part in evidence:
        scores = part.products @ pooling_matrix(part.gram, subtask_of, n_subtasks, similarity, pooling)
        if similarity == "dot" and part.norms is not None:
            scores *= part.norms[:, None]
        total += np.float32(part.weight) * scores
    return total


def pooling_matrix(
    gram: np.ndarray | None,
    subtask_of: np.ndarray,
    n_subtasks: int,
    similarity: Similarity,
    pooling: TargetPooling,
    counts: np.ndarray | None = None,
) -> np.ndarray:
    """(K, J) matrix that turns products with single targets into subtask scores.

    counts: (K,) how often each target counts, by default once; a subtask whose targets all count 0 gets zeros.
    """
    member = (subtask_of[:, None] == np.arange(n_subtasks)).astype(np.float64)  # (K, J)
    if counts is not None:
        member *= counts[:, None]
    mean = member / member.sum(0).clip(1)
    if gram is None or similarity == "dot":
        return mean.astype(np.float32)
    gram = gram.astype(np.float64)
    if pooling == "mean-of-cosines":
        return (mean * _inverse(np.diag(gram))[:, None]).astype(np.float32)
    return (mean * _inverse(np.einsum("kj,kl,lj->j", mean, gram, mean, optimize=True))).astype(np.float32)


def _inverse(squared: np.ndarray) -> np.ndarray:
    """1 / length from squared lengths; 0 for a zero vector (an answer the model is certain of), which helps no one."""
    length = np.sqrt(squared.clip(0))
    return np.divide(1, length, out=np.zeros_like(length), where=length > 0)
