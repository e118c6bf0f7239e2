"""DSIR: importance weights from hashed uni- and bigrams (Xie et al. 2023, arXiv 2302.03169, section 4).

A text is a bag of its words and pairs of adjacent words, hashed into 10,000 buckets. Word splitting and hash are those
of the authors' package `data-selection`, whose numbers these equal (tests/scoring/test_dsir.py). A row's log importance
weight for a set of targets is

    log w(z) = Σ_b c_z[b] · (log(p_target[b] + ε) − log(p_pool[b] + ε)),

with c_z the row's counts, p_target the share of each bucket in all targets of the set together, and p_pool the share in
all scored rows. Rows are then drawn without replacement with probability proportional to w: those with the highest
log w + Gumbel noise. The package itself is not used: it works on files, draws without a seed, and skips short texts.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from gradsift.runtime.hashing import raw_hash

BUCKETS = 10_000
EPSILON = 1e-8  # as in the package
_WORD = re.compile(r"\w+|[^\w\s]+")  # NLTK's WordPunctTokenizer
_REMEMBERED = 1 << 21  # most n-grams whose buckets are remembered
_BLOCK = 8192  # rows weighed at once


@dataclass(frozen=True)
class Ngrams:
    """What a scoring keeps of the pool's n-grams for some targets, enough for any grouping of them.

    others: (n,) float64, a row's log weight for targets that share no n-gram with it. starts: (n + 1,) where each
    row's entries begin in buckets and counts (m,), which list only n-grams that some target has. targets:
    (K, BUCKETS) counts.
    """

    others: np.ndarray
    starts: np.ndarray
    buckets: np.ndarray
    counts: np.ndarray
    targets: np.ndarray

    def log_weights(self, groups: np.ndarray, rows: slice = slice(None)) -> np.ndarray:
        """(rows, G) float32: log w of some rows for each group of targets; groups: (K,) numbers 0..G-1."""
        member = groups == np.arange(groups.max() + 1)[:, None]  # (G, K)
        together = member @ self.targets.astype(np.float64)  # (G, BUCKETS)
        share = together / together.sum(1, keepdims=True).clip(1)
        gain = torch.from_numpy(np.ascontiguousarray((np.log(share + EPSILON) - np.log(EPSILON)).T))
        first, stop, _ = rows.indices(len(self.others))
        result = np.empty((stop - first, len(member)), dtype=np.float32)
        for at in range(first, stop, _BLOCK):
            bounds = self.starts[at : min(at + _BLOCK, stop) + 1]
            entries = slice(int(bounds[0]), int(bounds[-1]))
            block = torch.nn.functional.embedding_bag(
                torch.from_numpy(self.buckets[entries].astype(np.int64)),
                gain,
                torch.from_numpy(bounds - bounds[0]),
                mode="sum",
                per_sample_weights=torch.from_numpy(self.counts[entries].astype(np.float64)),
                include_last_offset=True,
            )
            size = len(bounds) - 1
            result[at - first : at - first + size] = block.numpy() + self.others[at : at + size, None]
        return result


def bucket(ngram: str) -> int:
    """The bucket of an n-gram."""
    return int.from_bytes(raw_hash(ngram.encode("utf-8", "replace"))) % BUCKETS


def gumbel_noise(rows: int, seed: int) -> np.ndarray:
    """(rows,) float32 standard Gumbel noise, a function of (rows, seed): sorting by log w + noise is a draw by w."""
    return np.random.default_rng([seed, 5]).gumbel(size=rows).astype(np.float32)


def count_ngrams(
    documents: Iterable[str], targets: Sequence[str], done: Callable[[int], None] = lambda rows: None
) -> Ngrams:
    """Count the n-grams of the pool's documents and the targets. `done(1)` is called after each document."""
    known = _Buckets()
    by_target = np.array([np.bincount(_of(text, known), minlength=BUCKETS) for text in targets]).reshape(-1, BUCKETS)
    pool = np.zeros(BUCKETS)
    buckets, counts = [np.empty(0, np.int16)], [np.empty(0, np.int32)]
    for text in documents:
        unique, times = np.unique(_of(text, known), return_counts=True)
        pool[unique] += times
        buckets.append(unique.astype(np.int16))
        counts.append(times.astype(np.int32))
        if len(known) > _REMEMBERED:
            known.clear()
        done(1)
    base = np.log(EPSILON) - np.log(pool / max(pool.sum(), 1) + EPSILON)
    others = np.array([base[unique] @ times for unique, times in zip(buckets[1:], counts[1:], strict=True)])
    starts = np.cumsum([len(unique) for unique in buckets])
    in_pool, times = np.concatenate(buckets), np.concatenate(counts)
    shared = (by_target.sum(0) > 0)[in_pool]
    starts = np.concatenate([[0], shared.cumsum()])[starts]
    return Ngrams(others, starts, in_pool[shared], times[shared], by_target)


class _Buckets(dict[str, int]):
    """Buckets of n-grams, remembered because a hash takes ten times as long as a lookup."""

    def __missing__(self, ngram: str) -> int:
        at = self[ngram] = bucket(ngram)
        return at


def _of(text: str, known: _Buckets) -> np.ndarray:
    """The bucket of every word and of every pair of adjacent words."""
    words = _WORD.findall(text.lower())
    pairs = map(" ".join, pairwise(words))
    return np.array([known[ngram] for ngram in (*words, *pairs)], dtype=np.int64)
