"""What each method's picks consist of: tables for charts (the paper's figures 9 and 10, table 12); nothing is drawn.

`picks` maps a method's name to the positions it picks; pool columns (source, answer tokens) are aligned with positions,
that is, with the n scored rows. A share is a fraction of 1.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gradsift.config import GradientKind
from gradsift.runtime.errors import UsageError
from gradsift.scoring.methods import get_method

if TYPE_CHECKING:
    from gradsift.scoring.scoring import Scoring
    from gradsift.selection.ranking import Ranking

POOL = "pool"  # value of the column `method` in lines about the whole pool
MOST_POINTS = 20_000  # on one chart
_TARGETS_AT_ONCE = 16
_QUANTILES = (5, 25, 50, 75, 95)

Picks = Mapping[str, np.ndarray]


def shares(picks: Picks, sources: np.ndarray) -> pd.DataFrame:
    """How many of each method's picks come from each source, compared with the pool (the paper's figure 10).

    sources: (n,) names. One line per method and source, in the pool's order, including sources without picks: method,
    source, rows, share, pool_rows, pool_share, lift (share / pool_share: 1 means as often as by chance).
    """
    codes, names = pd.factorize(sources)
    in_pool = np.bincount(codes, minlength=len(names))
    frames = []
    for method, positions in picks.items():
        rows = np.bincount(codes[positions], minlength=len(names))
        columns = {"source": names, "rows": rows, "share": rows / max(len(positions), 1), "pool_rows": in_pool}
        frames.append(pd.DataFrame({"method": method, **columns, "pool_share": in_pool / len(codes)}))
    table = pd.concat(frames, ignore_index=True)
    return table.assign(lift=table["share"] / table["pool_share"])


def lengths(picks: Picks, n_prompt: np.ndarray, n_answer: np.ndarray) -> pd.DataFrame:
    """Lengths of each method's picks and of the pool, in tokens (the paper's table 12).

    n_prompt, n_answer: (n,) tokens. One line per method and one for the pool: method, rows, mean_answer, answer_5,
    answer_25, answer_50, answer_75, answer_95 (percentiles), mean_prompt, total (prompt and answer tokens together).
    Without picks the means and percentiles are missing.
    """
    lines = []
    for method, positions in _with_pool(picks, len(n_answer)):
        answer, prompt = n_answer[positions], n_prompt[positions]
        quantiles = np.percentile(answer, _QUANTILES) if len(answer) else np.full(len(_QUANTILES), np.nan)
        lines.append(
            {
                "method": method,
                "rows": len(answer),
                "mean_answer": answer.mean() if len(answer) else np.nan,
                **{f"answer_{q}": value for q, value in zip(_QUANTILES, quantiles, strict=True)},
                "mean_prompt": prompt.mean() if len(answer) else np.nan,
                "total": int(answer.sum() + prompt.sum()),
            }
        )
    return pd.DataFrame(lines)


def length_histogram(picks: Picks, n_answer: np.ndarray, bins: int = 40) -> pd.DataFrame:
    """Rows of each method and of the pool by answer length, in common bins of equal ratio.

    One line per method and bin: method, low, high (tokens, low <= length < high), rows, share, and density (share per
    factor of ten in length, for bars on a logarithmic axis: whole tokens make the first bins wider).
    """
    low, high = max(int(n_answer.min()), 1), int(n_answer.max()) + 1
    edges = np.unique(np.geomspace(low, max(high, low + 1), bins + 1).round().astype(np.int64))
    bin_of = np.searchsorted(edges, n_answer.clip(low), side="right") - 1
    frames = []
    for method, positions in _with_pool(picks, len(n_answer)):
        rows = np.bincount(bin_of[positions], minlength=len(edges) - 1)
        share = rows / max(rows.sum(), 1)
        frame = pd.DataFrame({"method": method, "low": edges[:-1], "high": edges[1:], "rows": rows, "share": share})
        frames.append(frame.assign(density=share / np.log10(edges[1:] / edges[:-1])))
    return pd.concat(frames, ignore_index=True)


def overlap(picks: Picks) -> pd.DataFrame:
    """Rows that two methods both pick, for every pair in both orders and each method with itself.

    Columns: method, other, rows, jaccard (rows / rows that either picks).
    """
    size = max((int(positions.max()) + 1 for positions in picks.values() if len(positions)), default=0)
    masks = {method: np.zeros(size, dtype=bool) for method in picks}
    for method, positions in picks.items():
        masks[method][positions] = True
    lines = []
    for method in picks:
        for other in picks:
            both = int((masks[method] & masks[other]).sum())
            either = int((masks[method] | masks[other]).sum())
            lines.append({"method": method, "other": other, "rows": both, "jaccard": both / max(either, 1)})
    return pd.DataFrame(lines)


def overlap_at_k(rankings: Sequence["Ranking"], ks: np.ndarray) -> pd.DataFrame:
    """How much of the top k every pair of methods shares, for many k: method, other, k, rows, share (rows / k).

    ks: values from 1 to n, such as those of `sampled_ranks`. Two random rankings share k/n.
    """
    frames = []
    for one, other in combinations(rankings, 2):
        reached = np.maximum(one.rank, other.rank)  # the least k at which both have the row
        rows = np.bincount(reached, minlength=len(one.rank) + 1).cumsum()[ks]
        pair = {"method": one.method, "other": other.method}
        frames.append(pd.DataFrame({**pair, "k": ks, "rows": rows, "share": rows / ks}))
    if not frames:
        return pd.DataFrame(columns=["method", "other", "k", "rows", "share"])
    return pd.concat(frames, ignore_index=True)


def sampled_ranks(n: int, points: int, *also: int) -> np.ndarray:
    """At most `points` + len(also) ranks from 1 to n: half of them in equal ratios, half in equal steps, and `also`.

    1 and n are always among them. Both kinds are needed because one chart shows head and tail.
    """
    half = max(points // 2, 1)
    ranks = np.concatenate([np.geomspace(1, n, half), np.linspace(1, n, max(points - half, 2)), also]).round()
    return np.unique(ranks.clip(1, n)).astype(np.int64)


def score_by_rank(ranking: "Ranking", cut: int, points: int = 300) -> pd.DataFrame:
    """Score against rank (the paper's figure 9, by method), sampled; first rank, last rank and cut are included.

    Columns: method, rank (from 1), score. Scores fall with rank, unless the ranking is round-robin or length-matched.
    """
    ranks = sampled_ranks(len(ranking.order), points, max(cut, 1))
    return pd.DataFrame({"method": ranking.method, "rank": ranks, "score": ranking.score[ranking.order[ranks - 1]]})


def winners(ranking: "Ranking", picks: np.ndarray, subtask_names: Sequence[str]) -> pd.DataFrame:
    """How many picks serve each subtask best: subtask, rows, share; every subtask has a line."""
    served = ranking.serves(picks)
    rows = np.bincount(served[served >= 0], minlength=len(subtask_names))
    return pd.DataFrame({"subtask": list(subtask_names), "rows": rows, "share": rows / max(len(picks), 1)})


def target_curves(
    scoring: "Scoring", method: str, gradient: GradientKind | None = None, points: int = 300
) -> pd.DataFrame:
    """Similarity of all rows to each single target example, in descending order (the paper's figure 9).

    Σ_i w_i cos(target k, row), or the score of a method that compares words. One line per target and sampled rank:
    target (index), subtask, rank (from 1), similarity. Each curve has at most `points` points, fewer with
    many targets: 20,000 in all.

    Sorts all rows once per target, 16 targets at a time: n x 16 x 4 bytes of memory, and about 12 ms per target at
    270,000 rows and 4 checkpoints.

    Raises:
        UsageError: the method does not look at the targets. StoreError: it has not scored them yet.
    """
    if not get_method(method).sees_targets:
        raise UsageError(f"{get_method(method).label} does not look at the targets: choose another method.")
    from gradsift.scoring.influence import pooling_matrix

    k = len(scoring.targets)
    each, subtasks = np.arange(k), np.array(scoring.subtask_names, dtype=object)[scoring.subtask_of]
    evidence = scoring.evidence(method, gradient, groups=each)
    to_cosine = [
        part.weight * np.diag(pooling_matrix(part.gram, each, k, "cosine", "mean-of-cosines")) for part in evidence
    ]
    ranks = sampled_ranks(len(scoring.rows), min(points, MOST_POINTS // k))
    frames = []
    for start in range(0, k, _TARGETS_AT_ONCE):
        block = slice(start, start + _TARGETS_AT_ONCE)
        similarity = np.zeros((len(each[block]), len(scoring.rows)), dtype=np.float32)
        for part, scale in zip(evidence, to_cosine, strict=True):
            similarity += part.products[:, block].T * scale[block, None].astype(np.float32)
        similarity.sort(axis=1)
        for target, column in zip(each[block], similarity, strict=True):
            curve = {"target": target, "subtask": subtasks[target], "rank": ranks, "similarity": column[-ranks]}
            frames.append(pd.DataFrame(curve))
    return pd.concat(frames, ignore_index=True)


def _with_pool(picks: Picks, n: int) -> Iterable[tuple[str, np.ndarray | slice]]:
    return [*picks.items(), (POOL, slice(0, n))]
