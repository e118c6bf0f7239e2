"""What charts are drawn from: one view of the picks and its tables, kept between runs. No drawing here.

A table is kept under the view's key: the kept scoring, the methods, the budget and the choices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import streamlit as st

from app.views import comparison as comparing
from app.views import store as data
from app.views.comparison import Comparison
from gradsift.analysis import distributions, norms, stability
from gradsift.analysis.stability import SplitHalf
from gradsift.config import GradientKind, Similarity
from gradsift.datastore.store import Store
from gradsift.scoring.choices import Choices
from gradsift.scoring.methods import METHODS
from gradsift.scoring.scoring import Scoring
from gradsift.selection.budget import Budget
from gradsift.selection.picks import picked
from gradsift.selection.ranking import Ranking

MOST_PICKS = 600  # picks of one method that a chart draws one by one: each is an element of the page


@dataclass(frozen=True)
class RowColumns:
    """Columns of the pool, aligned with positions: source (n,) names, n_prompt and n_answer (n,) tokens."""

    source: np.ndarray
    n_prompt: np.ndarray
    n_answer: np.ndarray


@dataclass(frozen=True)
class View:
    """The picks that a page shows, with everything that they follow from."""

    store: Store
    scoring: Scoring
    comparison: Comparison
    wanted: str
    chosen: Choices

    @cached_property
    def key(self) -> str:
        """Equal keys mean equal picks."""
        methods = ",".join(column.method for column in self.comparison.columns)
        return f"{self.scoring.path} {self.store.fingerprint} {methods} {self.wanted} {self.chosen.model_dump_json()}"

    @cached_property
    def picks(self) -> dict[str, np.ndarray]:
        """Positions by method, (k,) each, in rank order."""
        return {column.method: column.picks for column in self.comparison.columns}

    @cached_property
    def columns(self) -> RowColumns:
        """The pool's columns by position."""
        return _row_columns(str(self.scoring.path), self.store.fingerprint, self.store, self.scoring)

    @property
    def left(self) -> Scoring:
        """The scoring without what the choices leave out."""
        return self.scoring.under(self.chosen)

    @property
    def targeted(self) -> list[str]:
        """The methods shown that look at the targets."""
        return [name for name in self.picks if METHODS[name].sees_targets]


def kept(view: View, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table `name` of a view, made once."""
    return _kept(view.key, name, make)


def picked_by(view: View, method: str) -> pd.DataFrame:
    """Which subtask picked what: one line per subtask and source that it takes something from: subtask, source, rows.

    Subtasks are those of the ranking, so that ones that are left out are missing; those that pick nothing have one line
    with no source. Picks that serve no subtask are not in it.
    """
    column = view.comparison.column(method)
    names = np.array(column.ranking.subtasks, dtype=object)
    best = column.ranking.serves(column.picks)
    won = names[best[best >= 0]]
    pairs = pd.DataFrame({"subtask": won, "source": view.columns.source[column.picks[best >= 0]]})
    table = pairs.value_counts(sort=False).rename("rows").reset_index()
    idle = pd.DataFrame({"subtask": [name for name in names if name not in set(won)], "source": "", "rows": 0})
    return pd.concat([table, idle], ignore_index=True) if len(idle) else table


def target_curves(view: View, method: str) -> pd.DataFrame:
    """Similarity of all rows to each single target that the choices leave (`distributions.target_curves`).

    `target` is the index among all kept targets, so that numbers stay when others are left out.
    """
    chosen = view.chosen
    parts = f"{chosen.without_targets} {chosen.without_subtasks} {chosen.without_checkpoints} {chosen.gradient}"
    return _target_curves(f"{view.scoring.path} {parts}", method, chosen.gradient, view.left)


def resampled(view: View, method: str) -> tuple[SplitHalf, pd.DataFrame]:
    """Are the targets enough for these picks? Seconds at 270,000 rows, so only when asked; kept between runs.

    Returns what halves of the targets share, and a line per pick, the least sure first: position, row, low, median,
    high, stays (`resampling.rank_intervals`), rank and source.

    Raises:
        UsageError: resampling is not offered for the method or a choice, or there is only one target.
    """
    return _resampled(view.key, method, view)


def norm_tables(store: Store) -> dict[str, pd.DataFrame]:
    """Logarithms of norms and lengths by checkpoint (`norms.norm_table`), kept between runs."""
    return _norm_tables(store.fingerprint, store)


def norm_cells(store: Store, epoch: str, kind: str) -> pd.DataFrame:
    """Rows on a grid of answer length and norm by source (`norms.binned`)."""
    return _norm_cells(store.fingerprint, epoch, kind, store)


def norm_correlations(store: Store) -> pd.DataFrame:
    """Correlation of norm and length by checkpoint, source and kind (`norms.correlations`)."""
    return _norm_correlations(store.fingerprint, store)


def ranking_with(view: View, method: str, similarity: Similarity) -> Ranking:
    """The method's ranking under the same choices, but by this similarity."""
    chosen = view.chosen.model_copy(update={"similarity": similarity})
    return comparing.ranking_of(view.store, view.scoring, method, chosen)


def picks_with(view: View, method: str, similarity: Similarity) -> np.ndarray:
    """Positions that the method picks at the same budget and choices, but by this similarity."""
    about = comparing.traits_of(view.store, view.scoring)
    return picked(ranking_with(view, method, similarity), Budget.parse(view.wanted), view.chosen, about)


def thinned(positions: np.ndarray, most: int = MOST_PICKS) -> np.ndarray:
    """At most `most` of the positions, evenly over their order."""
    if len(positions) <= most:
        return positions
    return positions[np.linspace(0, len(positions) - 1, most).round().astype(np.int64)]


@st.cache_data(max_entries=64, show_spinner=False)
def _kept(key: str, name: str, _make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    return _make()


@st.cache_data(max_entries=8, show_spinner="Sorting all rows by every target …")
def _target_curves(key: str, method: str, gradient: GradientKind | None, _part: Scoring) -> pd.DataFrame:
    table = distributions.target_curves(_part, method, gradient)
    return table if _part.columns is None else table.assign(target=_part.columns[table["target"]])


@st.cache_data(max_entries=8, show_spinner="Drawing the targets again and ranking all rows each time …")
def _resampled(key: str, method: str, _view: View) -> tuple[SplitHalf, pd.DataFrame]:
    column = _view.comparison.column(method)
    half = stability.split_half(_view.scoring, method, len(column.picks), _view.chosen)
    table = stability.rank_intervals(_view.scoring, method, column.picks, _view.chosen)
    table["rank"] = column.ranking.rank[column.picks]
    table["source"] = _view.columns.source[column.picks]
    return half, table.sort_values(["stays", "high"], ascending=[True, False], kind="stable", ignore_index=True)


@st.cache_resource(max_entries=3, show_spinner=False)
def _row_columns(path: str, fingerprint: str, _store: Store, _scoring: Scoring) -> RowColumns:
    pool = data.pool_of(_store).loc[_scoring.rows]
    return RowColumns(
        pool["source"].to_numpy(object), pool["n_prompt_tokens"].to_numpy(), pool["n_answer_tokens"].to_numpy()
    )


@st.cache_resource(max_entries=2, show_spinner="Reading the norms of every row.")
def _norm_tables(fingerprint: str, _store: Store) -> dict[str, pd.DataFrame]:
    return norms.norm_table(_store)


@st.cache_data(max_entries=16, show_spinner=False)
def _norm_cells(fingerprint: str, epoch: str, kind: str, _store: Store) -> pd.DataFrame:
    frame = norm_tables(_store)[epoch]
    bins = int(np.clip(1.5 * len(frame) ** 0.5, 20, 60))  # few rows in small cells would show no shape
    return norms.binned(frame["length"].to_numpy(), frame[kind].to_numpy(), frame["source"].to_numpy(), bins)


@st.cache_data(max_entries=4, show_spinner=False)
def _norm_correlations(fingerprint: str, _store: Store) -> pd.DataFrame:
    return norms.correlations(norm_tables(_store))
