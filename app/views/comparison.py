"""The picks of several methods at one budget and what they share: arithmetic on stored scores. Draws nothing.

Everything is in positions: position i is `scoring.rows[i]`, the i-th usable row of the pool.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st

from app.state.session import Session
from app.views.targets import scored_rows, scoring_folder
from gradsift.config import GradientKind
from gradsift.datastore.store import Store
from gradsift.runtime import jobs
from gradsift.runtime.errors import UsageError
from gradsift.scoring.choices import Choices, RankingChoices
from gradsift.scoring.methods import METHODS
from gradsift.scoring.scoring import Scoring, open_scoring, scoring_path
from gradsift.selection.budget import Budget
from gradsift.selection.picks import Picks, Traits, picked, ranked, read_traits
from gradsift.selection.ranking import Ranking
from gradsift.text.index import has_index

ALL, ONLY, SHARED, EVERY, OTHERS = "all", "only", "shared", "every", "others"
SHOWS = (ALL, ONLY, SHARED, EVERY, OTHERS)


@dataclass(frozen=True, slots=True)
class Column:
    """One method's picks. picked: (n,) bool, their positions as a mask."""

    selection: Picks
    picked: np.ndarray

    @property
    def method(self) -> str:
        """The method's name."""
        return self.selection.method

    @property
    def ranking(self) -> Ranking:
        """All rows as the method ranks them."""
        return self.selection.ranking

    @property
    def picks(self) -> np.ndarray:
        """(k,) positions of the picks in rank order."""
        return self.selection.positions

    @property
    def tokens(self) -> int:
        """Total tokens of the picks."""
        return self.selection.tokens

    @property
    def last(self) -> int:
        """The rank of the last pick: larger than the number of picks if a choice skips rows; 0 without picks."""
        return int(self.ranking.rank[self.picks].max(initial=0))


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Columns at one budget. shared: (n,) int, how many of the columns pick each row.

    Equality is identity, so that slow counts can be cached by comparison (`functools.lru_cache`).
    """

    columns: tuple[Column, ...]
    rows: np.ndarray
    shared: np.ndarray

    def column(self, method: str) -> Column:
        """The column of a method that is compared."""
        return next(column for column in self.columns if column.method == method)

    def shown(self, column: Column, show: str) -> np.ndarray:
        """The column's picks that `show` keeps, or with `OTHERS` what only other columns pick; in rank order."""
        if show == OTHERS:
            order = column.ranking.order
            return order[((self.shared > 0) & ~column.picked)[order]]
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
    """The stored scoring of the open target set on the open store, or None before there is one.

    A run's folder exists before its first scores. While it holds only methods that need no scores, such as random,
    there is no scoring, unless a finished run or the command line computed nothing else.
    """
    entry = session.workspace.target_set(session.targets) if session.targets else None
    if entry is None or not store.complete:
        return None
    rows = scored_rows(session.workspace, store, entry)
    path = scoring_path(store, rows)
    if not (path / "targets.jsonl").is_file():
        return None
    scoring = open_scoring(store, path)
    known = methods_of(scoring)
    if all(METHODS[name].needs == "nothing" for name in known):
        status = jobs.status(scoring_folder(session.workspace, store, entry))
        if status is not None and status.state != "finished":
            return None
    return scoring


def methods_of(scoring: Scoring, gradient: GradientKind | None = None) -> list[str]:
    """The methods with stored scores, in the order of the registry."""
    return [name for name in METHODS if scoring.has(name, gradient)]


def compare(store: Store, scoring: Scoring, methods: Sequence[str], budget: str, choices: Choices) -> Comparison:
    """Rank with each method under the same choices and cut at the same budget; recent results are cached.

    Raises:
        UsageError: the budget cannot be read, or a choice leaves nothing.
    """
    path, chosen = str(scoring.path), choices.model_dump_json()  # thousands of accepted rows hash faster as one string
    return _comparison(path, has_index(store), tuple(methods), budget, chosen, store, scoring, choices)


def ranking_of(store: Store, scoring: Scoring, method: str, choices: RankingChoices) -> Ranking:
    """One method's ranking, cached."""
    return _ranking(str(scoring.path), method, choices.for_ranking, scoring, traits_of(store, scoring))


def traits_of(store: Store, scoring: Scoring) -> Traits:
    """Tokens, source and near-duplicates of every scored row, cached."""
    return _traits(str(store.path), store.fingerprint, has_index(store), store, scoring)


def budget_problem(text: str) -> str:
    """Why `text` is not a budget; empty if it is one."""
    try:
        Budget.parse(text)
    except UsageError as error:
        return str(error)
    return ""


@st.cache_resource(max_entries=8, show_spinner=False)
def _comparison(
    path: str,
    indexed: bool,
    methods: tuple[str, ...],
    budget: str,
    chosen: str,
    _store: Store,
    _scoring: Scoring,
    _choices: Choices,
) -> Comparison:
    parsed, traits = Budget.parse(budget), traits_of(_store, _scoring)
    columns = []
    for method in methods:
        ranking = ranking_of(_store, _scoring, method, _choices)
        picks = picked(ranking, parsed, _choices, traits)
        mask = np.zeros(len(_scoring.rows), dtype=bool)
        mask[picks] = True
        columns.append(Column(Picks(_store, _scoring, traits, ranking, parsed, _choices, picks), mask))
    shared = np.stack([column.picked for column in columns]).sum(axis=0, dtype=np.int64)
    return Comparison(tuple(columns), np.asarray(_scoring.rows), shared)


@st.cache_resource(max_entries=24, show_spinner=False)
def _ranking(path: str, method: str, choices: RankingChoices, _scoring: Scoring, _traits: Traits) -> Ranking:
    return ranked(_scoring, method, choices, _traits)


@st.cache_resource(max_entries=4, show_spinner=False)
def _traits(path: str, fingerprint: str, indexed: bool, _store: Store, _scoring: Scoring) -> Traits:
    return read_traits(_store, _scoring)
