"""From scores per subtask to one ranking of all rows: aggregation, ties, round-robin (method, sections 2.5 and 3)."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from gradsift.config import Aggregate, GradientKind, Similarity, TargetPooling
from gradsift.datastore.store import Store
from gradsift.scoring.influence import influence
from gradsift.scoring.methods import get_method
from gradsift.scoring.scoring import Scoring


@dataclass(frozen=True)
class Ranking:
    """All scored rows, ranked by one method. Arrays (n,) in pool order; `order` lists positions from best to worst.

    best_subtask: index into `subtasks` of the one with the highest score (max, mean) or whose target picked the row
    (round-robin).
    """

    method: str
    rows: np.ndarray
    score: np.ndarray
    rank: np.ndarray
    best_subtask: np.ndarray
    order: np.ndarray
    subtasks: tuple[str, ...] = ("all",)

    def serves(self, at: int | np.ndarray | slice = slice(None)) -> np.ndarray:
        """Index into `subtasks` of the subtask that the positions `at` serve best, or -1 if they serve no subtask.

        A method that ignores the targets serves no subtask, nor does a row with a score of zero, such as BM25's for a
        row that shares no word.
        """
        best = self.best_subtask[at]
        if not get_method(self.method).sees_targets:
            return np.full_like(best, -1)
        return np.where(self.score[at] == 0, -1, best)

    def served(self, at: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Names of the subtasks that `serves` returns, as objects; "" for a row that serves no subtask."""
        return np.array([*self.subtasks, ""], dtype=object)[self.serves(at)]


def rank(
    scoring: Scoring,
    method: str,
    *,
    aggregate: Aggregate = "max",
    similarity: Similarity = "cosine",
    target_pooling: TargetPooling = "cosine-of-mean",
    gradient: GradientKind | None = None,
    seed: int = 0,
) -> Ranking:
    """Rank every scored row by one method; ties go to the lower row number.

    aggregate: `max` over subtasks (the paper), `mean`, or `round-robin`, where each target example picks in turn.
    similarity, target_pooling and gradient concern methods that compare vectors, gradient only LESS (None: the
    store's first kind); seed concerns random and DSIR.
    """
    get_method(method)
    subtask_of = scoring.subtask_of
    each = np.arange(len(subtask_of))
    evidence = scoring.evidence(method, gradient, seed, groups=each if aggregate == "round-robin" else None)
    if aggregate == "round-robin":
        by_target = influence(evidence, each, len(each), similarity, target_pooling)
        order, picker = round_robin(by_target, scoring.rows)
        best = np.empty(len(order), dtype=np.int64)
        best[order] = picker
        score = by_target[np.arange(len(best)), best]
        best = subtask_of[best]
    else:
        scores = influence(evidence, subtask_of, len(scoring.subtask_names), similarity, target_pooling)
        best = scores.argmax(1)
        score = scores.max(1) if aggregate == "max" else scores.mean(1)
        order = np.argsort(-score, kind="stable")  # rows ascend: ties go to the lower number
    ranks = _ranks(order)
    return Ranking(method, scoring.rows, score, ranks, best, order, tuple(scoring.subtask_names))


def round_robin(scores: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each column of `scores` (n, K) picks its best row not yet picked, in turn, until all are picked.

    Returns:
        (n,) positions in the order in which they are picked, and (n,) the column that picked each.
    """
    n, k = scores.shape
    by_row = np.argsort(rows, kind="stable")  # ties go to the lower row number
    lowest = np.ascontiguousarray(-scores[by_row].T)  # (k, n)
    with ThreadPoolExecutor() as threads:  # numpy releases the interpreter lock while sorting
        wishes = list(threads.map(lambda column: by_row[np.argsort(column, kind="stable")], lowest))
    at = [0] * k
    taken = np.zeros(n, dtype=bool)
    order, picker = np.empty(n, dtype=np.int64), np.arange(n) % k
    listed, views = n, [wish.data for wish in wishes]  # reading single items is faster from a view than an array
    for turn in range(n):
        if 2 * (n - turn) < listed:  # half of the rows in the lists are taken: remove them
            listed = n - turn
            wishes = [wish[~taken[wish]] for wish in wishes]
            at, views = [0] * k, [wish.data for wish in wishes]
        column = turn % k
        wish, position = views[column], at[column]
        while taken[wish[position]]:
            position += 1
        at[column] = position + 1
        order[turn] = wish[position]
        taken[wish[position]] = True
    return order, picker


def _ranks(order: np.ndarray) -> np.ndarray:
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(1, len(order) + 1)
    return ranks


def length_matched(ranking: Ranking, n_answer: np.ndarray, bins: int = 10) -> Ranking:
    """The same rows, reordered so that every head of the list has the pool's answer lengths.

    Rows are cut into `bins` of equal size by answer tokens, n_answer (n,), and ranked within their bin; the bins take
    turns in proportion to their size, the higher rank first. Scores stay the same.
    """
    n = len(ranking.rows)
    by_length = np.argsort(n_answer, kind="stable")
    bin_of = np.empty(n, dtype=np.int64)
    bin_of[by_length] = np.arange(n) * bins // n
    place = count_within(bin_of[ranking.order])  # (n,) in rank order
    share = (place + 0.5) / np.bincount(bin_of, minlength=bins)[bin_of[ranking.order]]
    order = ranking.order[np.argsort(share, kind="stable")]
    return replace(ranking, order=order, rank=_ranks(order))


def count_within(groups: np.ndarray) -> np.ndarray:
    """(n,) how many earlier entries have the same group as each; groups: (n,) integers."""
    by_group = np.argsort(groups, kind="stable")
    ordered = groups[by_group]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    counts = np.empty(len(groups), dtype=np.int64)
    counts[by_group] = np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))
    return counts


def scores_table(store: Store, scoring: Scoring, rankings: list[Ranking]) -> pd.DataFrame:
    """One line per method and scored row: row, id, source, method, score, rank, best_subtask."""
    pool = store.pool().loc[scoring.rows]
    frames = [
        pd.DataFrame(
            {
                "row": ranking.rows,
                "id": pool["id"].to_numpy(),
                "source": pool["source"].to_numpy(),
                "method": ranking.method,
                "score": ranking.score.astype(np.float64),
                "rank": ranking.rank,
                "best_subtask": ranking.served(),
            }
        )
        for ranking in rankings
    ]
    return pd.concat(frames, ignore_index=True)
