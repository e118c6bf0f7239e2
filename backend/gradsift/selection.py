"""From scores per subtask to picks: aggregation, ranking, budgets (method, sections 2.5 and 3)."""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gradsift.config import Aggregate, GradientKind, Similarity, TargetPooling
from gradsift.errors import UsageError
from gradsift.influence import Scoring, influence
from gradsift.methods import get_method
from gradsift.store import Store

_BUDGET = re.compile(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*(%|tokens)?\s*")


@dataclass(frozen=True)
class Ranking:
    """All scored rows of one method. Arrays (n,) in pool order; `order` lists positions from best to worst.

    best_subtask: index of the subtask that won the max (max, mean) or whose target picked the row (round-robin).
    """

    method: str
    rows: np.ndarray
    score: np.ndarray
    rank: np.ndarray
    best_subtask: np.ndarray
    order: np.ndarray


@dataclass(frozen=True)
class Budget:
    """How much to pick: a share of the usable rows, a number of rows, or a number of tokens (prompt and answer)."""

    amount: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read `5%`, `200` or `50000tokens`.

        Raises:
            UsageError: it is none of these, or nothing would be picked.
        """
        match = _BUDGET.fullmatch(text.replace(",", ""))
        amount, unit = (float(match[1]), match[2] or "rows") if match else (0.0, "")
        if amount <= 0 or (unit == "%" and amount > 100) or (unit != "%" and amount != int(amount)):
            raise UsageError(
                f"The budget {text!r} is none: say a share like 5%, a number of rows like 200, or 50000tokens."
            )
        return cls(amount, unit)

    def __str__(self) -> str:
        number = f"{self.amount:g}" if self.unit == "%" else f"{int(self.amount)}"
        return number + {"%": "%", "rows": "", "tokens": "tokens"}[self.unit]

    def take(self, ranking: Ranking, n_tokens: np.ndarray) -> np.ndarray:
        """Positions of the picks in rank order. n_tokens: (n,) tokens of every scored row, in pool order.

        A share is rounded down but at least 1 (method, section 2.5). A token budget takes the longest run of best rows
        that fits.

        Raises:
            UsageError: the token budget is smaller than the best row.
        """
        if self.unit == "tokens":
            count = int(np.searchsorted(np.cumsum(n_tokens[ranking.order]), self.amount, side="right"))
            if count == 0:
                best = int(n_tokens[ranking.order[0]])
                raise UsageError(
                    f"A budget of {int(self.amount)} tokens is less than the best row's {best}; give more."
                )
        elif self.unit == "%":
            count = max(1, int(len(ranking.rows) * self.amount / 100 + 1e-9))
        else:
            count = min(int(self.amount), len(ranking.rows))
        return ranking.order[:count]


def rank(
    scoring: Scoring,
    method: str,
    *,
    aggregate: Aggregate = "max",
    similarity: Similarity = "cosine",
    target_pooling: TargetPooling = "cosine-of-mean",
    gradient: GradientKind = "adam",
    seed: int = 0,
) -> Ranking:
    """Rank every scored row by one method; ties go to the lower row number.

    aggregate: `max` over subtasks (the paper), `mean`, or `round-robin`, where each target example picks in turn.
    similarity, target_pooling and gradient concern methods that compare vectors; seed concerns random.
    """
    get_method(method)
    evidence = scoring.evidence(method, gradient, seed)
    subtask_of = scoring.subtask_of
    if aggregate == "round-robin":
        each = np.arange(len(subtask_of))
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
        order = np.lexsort((scoring.rows, -score))
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(1, len(order) + 1)
    return Ranking(method, scoring.rows, score, ranks, best, order)


def round_robin(scores: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each column of `scores` (n, K) picks its best row not yet picked, in turn, until all are picked.

    Returns:
        (n,) positions in the order picked, and (n,) the column that picked each.
    """
    n, k = scores.shape
    wishes = [np.lexsort((rows, -scores[:, column])) for column in range(k)]
    at = [0] * k
    taken = np.zeros(n, dtype=bool)
    order, picker = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    for turn in range(n):
        column = turn % k
        wish, position = wishes[column], at[column]
        while taken[wish[position]]:
            free = ~taken[wish[position : position + 1024]]  # look ahead in strides: a Python step a row is slow
            position += int(free.argmax()) if free.any() else len(free)
        at[column] = position + 1
        taken[wish[position]] = True
        order[turn], picker[turn] = wish[position], column
    return order, picker


def scores_table(store: Store, scoring: Scoring, rankings: list[Ranking]) -> pd.DataFrame:
    """One line per method and scored row: row, id, source, method, score, rank, best_subtask."""
    pool = store.pool().loc[scoring.rows]
    names = np.array(scoring.subtask_names, dtype=object)
    frames = [
        pd.DataFrame(
            {
                "row": ranking.rows,
                "id": pool["id"].to_numpy(),
                "source": pool["source"].to_numpy(),
                "method": ranking.method,
                "score": ranking.score.astype(np.float64),
                "rank": ranking.rank,
                "best_subtask": names[ranking.best_subtask],
            }
        )
        for ranking in rankings
    ]
    return pd.concat(frames, ignore_index=True)
