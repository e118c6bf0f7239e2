"""The picks of several methods at one budget, and who shares which: arithmetic on kept scores, no drawing.

Everything is in positions: position i is `scoring.rows[i]`, the i-th usable row of the pool.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from app import data, targeting
from app.session import Session
from gradsift import influence, selection
from gradsift.config import GradientKind
from gradsift.errors import UsageError
from gradsift.influence import Scoring
from gradsift.methods import METHODS
from gradsift.selection import Budget, Ranking
from gradsift.store import Store

ALL, ONLY, SHARED, EVERY = "all", "only", "shared", "every"
SHOWS = (ALL, ONLY, SHARED, EVERY)


@dataclass(frozen=True, slots=True)
class Column:
    """One method's ranking and its picks.

    picks: (k,) positions in rank order. picked: (n,) bool, the same as a mask. score: (n,) float. rank: (n,) from 1.
    best: (n,) index of the subtask that won. tokens: of all the picks.
    """

    method: str
    picks: np.ndarray
    picked: np.ndarray
    score: np.ndarray
    rank: np.ndarray
    best: np.ndarray
    tokens: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Columns at one budget; `shared` counts for every row how many of the columns pick it, (n,) int."""

    columns: tuple[Column, ...]
    rows: np.ndarray
    subtasks: tuple[str, ...]
    shared: np.ndarray

    def shown(self, column: Column, show: str) -> np.ndarray:
        """The column's picks that the filter `show` leaves, in rank order."""
        counts = self.shared[column.picks]
        keep = {
            ONLY: counts == 1,
            SHARED: counts > 1,
            EVERY: counts == len(self.columns),
        }.get(show, np.ones(len(counts), dtype=bool))
        return column.picks[keep]

    def overlap(self, a: Column, b: Column) -> int:
        """How many rows two columns both pick."""
        return int((a.picked & b.picked).sum())


def scoring_of(session: Session, store: Store) -> Scoring | None:
    """The kept scoring of the open target set on the open store, or None where there is none yet."""
    entry = session.workspace.target_set(session.targets) if session.targets else None
    if entry is None or not store.complete:
        return None
    rows = targeting.scored_rows(session.workspace, store, entry)
    path = store.path / "scorings" / influence.scoring_key(store, rows)
    return influence.open_scoring(store, path) if (path / "targets.jsonl").is_file() else None


def methods_of(scoring: Scoring, gradient: GradientKind) -> list[str]:
    """The methods whose scores are kept, in the order of the registry."""
    return [name for name in METHODS if scoring.has(name, gradient)]


def compare(store: Store, scoring: Scoring, methods: Sequence[str], budget: str, options: dict[str, Any]) -> Comparison:
    """Rank with each method under the same options and cut at the same budget.

    Raises:
        UsageError: the budget cannot be read.
    """
    parsed = Budget.parse(budget)
    tokens = tokens_of(store, scoring)
    columns = []
    for method in methods:
        ranking = ranking_of(scoring, method, tuple(sorted(options.items())))
        picks = np.asarray(parsed.take(ranking, tokens))
        picked = np.zeros(len(scoring.rows), dtype=bool)
        picked[picks] = True
        columns.append(
            Column(method, picks, picked, ranking.score, ranking.rank, ranking.best_subtask, int(tokens[picks].sum()))
        )
    shared = np.stack([column.picked for column in columns]).sum(axis=0, dtype=np.int64)
    return Comparison(tuple(columns), np.asarray(scoring.rows), tuple(scoring.subtask_names), shared)


def ranking_of(scoring: Scoring, method: str, options: tuple[tuple[str, Any], ...]) -> Ranking:
    """One method's ranking, kept between runs."""
    return _ranking(str(scoring.path), method, options, scoring)


def tokens_of(store: Store, scoring: Scoring) -> np.ndarray:
    """Tokens of every scored row, (n,): what a token budget counts."""
    return _tokens(store.fingerprint, store, scoring.rows)


def budget_problem(text: str) -> str:
    """Why `text` is no budget; empty when it is one."""
    try:
        Budget.parse(text)
    except UsageError as error:
        return str(error)
    return ""


@st.cache_resource(max_entries=48, show_spinner=False)
def _ranking(path: str, method: str, options: tuple[tuple[str, Any], ...], _scoring: Scoring) -> Ranking:
    return selection.rank(_scoring, method, **dict(options))


@st.cache_resource(max_entries=4, show_spinner=False)
def _tokens(fingerprint: str, _store: Store, _rows: np.ndarray) -> np.ndarray:
    usable = data.pool_of(_store).loc[_rows]
    return (usable["n_prompt_tokens"] + usable["n_answer_tokens"]).to_numpy()
