"""Duplicate-aware selection: greedy picks in feature space, where a copy of a chosen row gains less.

The gain of a row, given the set S of chosen rows, is

    gain(z | S) = score(z) · (1 − max over s in S of cos⁺(z, s)²),      cos(z, s) = Σ_i w_i ⟨Γ̂(z; θ_i), Γ̂(s; θ_i)⟩.

Of the squared length of z's unit update, the share cos² lies along s's update and 1 − cos² across it: the gain is z's
score times the part of its step that no chosen row makes already. A copy gains nothing; a row unlike all chosen ones
gains its whole score. The nearest chosen row decides, not the span of all of them: a few hundred updates in d
dimensions would span nearly everything, and what remains of the target after a few dozen picks (as in matching pursuit)
is noise. Gains never rise as S grows, so they are computed only for rows that may be next (lazy greedy: Minoux 1978).

Cosines come from sketches of the rows' stored features, 1,024 numbers per row, which add noise of about 0.03.
"""

import numpy as np
import torch

from gradsift.config import GradientKind
from gradsift.datastore.store import Store
from gradsift.gradients.projection import make_projector

HEAD = 4  # times the budget: the first attempt chooses among so many of the best rows
MOST = 1 << 16  # rows to choose among, however many of them are copies: 270 MB of sketches
DIM = 1024
_BLOCK = 256  # rows whose gains are updated at once


def load_updates(store: Store, positions: np.ndarray, gradient: GradientKind | None = None) -> torch.Tensor:
    """Sketches of the updates of scored rows at `positions`, (k, DIM) fp32 of length one (or zero).

    Their inner products approximate Σ_i w_i cos(z, z') over the checkpoints. Reads and checks the shards that hold
    these rows. gradient: which update; None means the store's first kind.

    Raises:
        ShardError: a shard is missing or damaged.
    """
    gradient = gradient or store.manifest.config.gradients[0]
    usable = np.flatnonzero(store.scored)[positions]
    shapes = dict.fromkeys(store.epochs, (store.manifest.config.dim,))
    projector = make_projector("sparse", 0, 0, DIM, shapes, torch.device("cpu"))
    sketches = torch.zeros(len(usable), DIM)
    shard_of = np.searchsorted([start for start, _ in store.shard_ranges], usable, side="right") - 1
    for epoch, name in enumerate(store.epochs):
        for index in np.unique(shard_of).tolist():
            mine = torch.from_numpy(np.flatnonzero(shard_of == index))
            shard = store.shard(gradient, epoch, index)
            rows = shard.take(torch.from_numpy(usable)[mine] - shard.start)
            part = torch.zeros(len(rows), DIM)
            projector.add(name, rows * store.weights[epoch] ** 0.5, part)
            sketches[mine] += part
    return sketches / sketches.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def diverse_order(score: np.ndarray, updates: torch.Tensor, taken: int = 0, enough: int | None = None) -> np.ndarray:
    """(k,) the rows in the order in which they are chosen, greedily by gain; ties go to the earlier row.

    score: (k,); if some are negative, all are raised so that the lowest is zero. updates: (k, D) of length one. taken:
    how many of the first are chosen already. enough: after so many picks the rest follows in the given order.
    """
    score = _lifted(score)
    left = np.ones(len(score), dtype=bool)
    left[:taken] = False
    order = list(range(taken))
    nearest, seen, gain = np.zeros(len(score)), np.zeros(len(score), dtype=np.int64), score.copy()
    enough = len(score) if enough is None else min(enough, len(score))
    while len(order) < enough:
        block, bound, rival = _next_block(gain, left)
        _catch_up(block, order, updates, nearest, seen)
        gain[block] = score[block] * (1 - nearest[block] ** 2)
        inside = (updates[block] @ updates[block].T).clamp(0, 1).numpy()
        while len(order) < enough and left[block].any():
            here = np.where(left[block], gain[block], -np.inf)
            at = int(here.argmax())
            if (-here[at], block[at]) > (-bound, rival):  # a row outside the block may gain more
                break
            order.append(int(block[at]))
            left[block[at]] = False
            nearest[block] = np.maximum(nearest[block], inside[at])
            seen[block] = len(order)
            gain[block] = score[block] * (1 - nearest[block] ** 2)
    return np.concatenate([np.array(order, dtype=np.int64), np.flatnonzero(left)])


def last_gain(score: np.ndarray, updates: torch.Tensor, chosen: np.ndarray) -> float:
    """The gain of the last of `chosen` when rows are chosen in this order, as in `diverse_order`; 0 without rows."""
    if not len(chosen):
        return 0.0
    cosines = updates[chosen[:-1]] @ updates[chosen[-1]]
    nearest = float(cosines.clamp(0, 1).max()) if len(cosines) else 0.0
    return float(_lifted(score)[chosen[-1]]) * (1 - nearest**2)


def _lifted(score: np.ndarray) -> np.ndarray:
    return score.astype(np.float64) - min(0.0, float(score.min(initial=0.0)))


def _next_block(gain: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, float, int]:
    """The rows that may gain most, ascending; then gain and number of the best row outside this block."""
    candidates = np.flatnonzero(left)
    if len(candidates) <= _BLOCK:
        return candidates, -np.inf, len(gain)
    mine = gain[candidates]
    least = np.partition(mine, len(mine) - _BLOCK - 1)[len(mine) - _BLOCK - 1]  # gain of the best row outside
    above = candidates[mine > least]
    level = candidates[mine == least]
    inside = _BLOCK - len(above)
    return np.sort(np.concatenate([above, level[:inside]])), float(least), int(level[inside])


def _catch_up(
    block: np.ndarray, order: list[int], updates: torch.Tensor, nearest: np.ndarray, seen: np.ndarray
) -> None:
    """Compare the block's rows with the chosen rows they have not been compared with yet."""
    for start in np.unique(seen[block]).tolist():
        rows = block[seen[block] == start]
        if start < len(order):
            cosines = updates[rows] @ updates[order[start:]].T
            nearest[rows] = np.maximum(nearest[rows], cosines.amax(1).clamp(0, 1).numpy())
            seen[rows] = len(order)
