"""The tables behind the charts of a view, cached under the view's key. Draws nothing."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import streamlit as st

from app.views.comparison import ranking_of
from app.views.view import View
from gradsift.analysis import distributions, norms, stability
from gradsift.analysis.stability import SplitHalf
from gradsift.config import GradientKind, Similarity
from gradsift.datastore.store import Store
from gradsift.scoring.scoring import Scoring
from gradsift.selection.budget import Budget
from gradsift.selection.picks import picked
from gradsift.selection.ranking import Ranking

MOST_PICKS = 600  # picks of one method that a chart draws individually: each is an element of the page


def kept(view: View, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table `name` of a view, computed once."""
    return _kept(view.key, name, make)


def picked_by(view: View, method: str) -> pd.DataFrame:
    """Which subtask picked what, one line per subtask and source with picks: subtask, source, rows.

    Only subtasks of the ranking appear, so those left out are missing; a subtask without picks has one line with an
    empty source. Picks that serve no subtask are left out.
    """
    column = view.comparison.column(method)
    names = np.array(column.ranking.subtasks, dtype=object)
    best = column.ranking.serves(column.picks)
    winners = names[best[best >= 0]]
    pairs = pd.DataFrame({"subtask": winners, "source": view.row_columns.source[column.picks[best >= 0]]})
    table = pairs.value_counts(sort=False).rename("rows").reset_index()
    idle = pd.DataFrame({"subtask": [name for name in names if name not in set(winners)], "source": "", "rows": 0})
    return pd.concat([table, idle], ignore_index=True) if len(idle) else table


def target_curves(view: View, method: str) -> pd.DataFrame:
    """Similarity of all rows to each target that the choices keep (`distributions.target_curves`).

    `target` is the index among all scored targets, so that numbers do not change when others are left out.
    """
    choices = view.choices
    left_out = f"{choices.without_targets} {choices.without_subtasks} {choices.without_checkpoints}"
    return _target_curves(f"{view.scoring.path} {left_out} {choices.gradient}", method, choices.gradient, view.left)


def resampled(view: View, method: str) -> tuple[SplitHalf, pd.DataFrame]:
    """Are the targets enough for these picks? Takes seconds at 270,000 rows, so only on demand; cached.

    Returns what halves of the targets share, and one line per pick, the least certain first: position, row, low,
    median, high, stays (`stability.rank_intervals`), rank and source.

    Raises:
        UsageError: resampling is not offered for the method or a choice, or there is only one target.
    """
    return _resampled(view.key, method, view)


def norm_tables(store: Store) -> dict[str, pd.DataFrame]:
    """Logarithms of norms and lengths by checkpoint (`norms.norm_table`), cached."""
    return _norm_tables(store.fingerprint, store)


def norm_cells(store: Store, epoch: str, kind: str) -> pd.DataFrame:
    """Rows on a grid of answer length and norm by source (`norms.binned`)."""
    return _norm_cells(store.fingerprint, epoch, kind, store)


def norm_correlations(store: Store) -> pd.DataFrame:
    """Correlation of norm and length by checkpoint, source and kind (`norms.correlations`)."""
    return _norm_correlations(store.fingerprint, store)


def ranking_with(view: View, method: str, similarity: Similarity) -> Ranking:
    """The method's ranking under the same choices but with this similarity."""
    choices = view.choices.model_copy(update={"similarity": similarity})
    return ranking_of(view.store, view.scoring, method, choices)


def picks_with(view: View, method: str, similarity: Similarity) -> np.ndarray:
    """Positions that the method picks at the same budget and choices but with this similarity."""
    ranking = ranking_with(view, method, similarity)
    return picked(ranking, Budget.parse(view.budget), view.choices, view.traits)


def thinned(positions: np.ndarray, most: int = MOST_PICKS) -> np.ndarray:
    """At most `most` of the positions, spread evenly over their order."""
    if len(positions) <= most:
        return positions
    return positions[np.linspace(0, len(positions) - 1, most).round().astype(np.int64)]


@st.cache_data(max_entries=64, show_spinner=False)
def _kept(key: str, name: str, _make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    return _make()


@st.cache_data(max_entries=8, show_spinner="Sorting all rows by every target …")
def _target_curves(key: str, method: str, gradient: GradientKind | None, _left: Scoring) -> pd.DataFrame:
    table = distributions.target_curves(_left, method, gradient)
    return table if _left.columns is None else table.assign(target=_left.columns[table["target"]])


@st.cache_data(max_entries=8, show_spinner="Resampling the targets and ranking all rows each time …")
def _resampled(key: str, method: str, _view: View) -> tuple[SplitHalf, pd.DataFrame]:
    column = _view.comparison.column(method)
    half = stability.split_half(_view.scoring, method, len(column.picks), _view.choices)
    table = stability.rank_intervals(_view.scoring, method, column.picks, _view.choices)
    table["rank"] = column.ranking.rank[column.picks]
    table["source"] = _view.row_columns.source[column.picks]
    return half, table.sort_values(["stays", "high"], ascending=[True, False], kind="stable", ignore_index=True)


@st.cache_resource(max_entries=2, show_spinner="Reading the norms of every row …")
def _norm_tables(fingerprint: str, _store: Store) -> dict[str, pd.DataFrame]:
    return norms.norm_table(_store)


@st.cache_data(max_entries=16, show_spinner=False)
def _norm_cells(fingerprint: str, epoch: str, kind: str, _store: Store) -> pd.DataFrame:
    frame = norm_tables(_store)[epoch]
    bins = int(np.clip(1.5 * len(frame) ** 0.5, 20, 60))  # with few rows, small cells would show no shape
    return norms.binned(frame["length"].to_numpy(), frame[kind].to_numpy(), frame["source"].to_numpy(), bins)


@st.cache_data(max_entries=4, show_spinner=False)
def _norm_correlations(fingerprint: str, _store: Store) -> pd.DataFrame:
    return norms.correlations(norm_tables(_store))
