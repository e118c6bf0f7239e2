"""What the Why page shows of a row: its ranks, its neighbors, its near-duplicates, its tokens. Draws nothing."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from app.state.session import Session
from app.views.comparison import Column, ranking_of
from app.views.store import pool_of, texts_of
from app.views.view import View
from gradsift.analysis.row import opponents
from gradsift.data.conversation import Conversation
from gradsift.datastore.store import Store
from gradsift.scoring.choices import RankingChoices
from gradsift.scoring.scoring import Scoring
from gradsift.selection.ranking import Ranking
from gradsift.text.index import has_index, near

if TYPE_CHECKING:
    from gradsift.analysis.tokens import Agreement, TokenExplainer, TokenInfluence


@dataclass(frozen=True, slots=True)
class Subject:
    """A pool row under the open view.

    position: among the scored rows, or None where the row is excluded, for `reason`. record: its line of the pool.
    """

    view: View
    row: int
    position: int | None
    reason: str
    record: pd.Series
    conversation: Conversation

    @property
    def left(self) -> Scoring:
        """The scoring that ranks the row: without what the choices leave out."""
        return self.view.left


def subject_of(view: View, row: int) -> Subject:
    """Gather what is known about pool row `row`.

    Raises:
        UsageError: the budget cannot be read, or a choice leaves nothing.
    """
    store = view.store
    position = position_of(view.comparison.rows, row)
    record = pool_of(store).loc[row]
    reason = ""
    if position is None:
        reason = str(record["reason"]) if record["status"] != "usable" else "its gradient is not finite"
    return Subject(view, row, position, reason, record, texts_of(store, [row])[row]["conversation"])


def find_row(store: Store, text: str) -> tuple[int | None, str]:
    """The pool row that `text` names by number or id; otherwise None and a sentence about why."""
    pool, text = pool_of(store), text.strip()
    bare = text.removeprefix("#").replace(",", "")
    if bare.isascii() and bare.isdecimal() and len(bare) < 16 and int(bare) < len(pool):
        return int(bare), ""
    named = np.flatnonzero((pool["id"] == text).to_numpy())
    if len(named):
        return int(pool.index[named[0]]), ""
    if bare.isascii() and bare.isdecimal():
        return None, f"There is no row {text}: the rows of this store are 0 to {len(pool) - 1:,}."
    return None, f"There is no row with the id {text[:80]}: enter a row's number or its full id."


def position_of(rows: np.ndarray, row: int) -> int | None:
    """Position of `row` among the scored rows, which ascend; None if it is not one of them."""
    at = int(np.searchsorted(rows, row))
    return at if at < len(rows) and rows[at] == row else None


def neighbors(column: Column, at: int | None) -> tuple[int, int | None, int | None]:
    """The row's place among the method's picks (0 if not picked), and the positions of the previous and next pick.

    A row that is not picked lies between those that rank before and after it; an excluded one before the first.
    """
    ranks = column.ranking.rank[column.picks]
    place = 0 if at is None else int(np.searchsorted(ranks, column.ranking.rank[at]))
    inside = at is not None and place < len(ranks) and column.picks[place] == at
    after = place + 1 if inside else place
    before = int(column.picks[place - 1]) if place else None
    return place + 1 if inside else 0, before, int(column.picks[after]) if after < len(ranks) else None


def near_duplicates(store: Store, row: int) -> np.ndarray | None:
    """Pool rows of the same group of near-duplicates, ascending, without `row`; None if the pool has no index."""
    if not has_index(store):
        return None
    groups = _near(store.fingerprint, store)
    same = np.flatnonzero(groups == groups[row])
    return same[same != row]


def opponents_of(view: View, subtask: str) -> tuple[Ranking, np.ndarray]:
    """LESS's scores and the positions from the lowest up, for one subtask, or for all of them if `subtask` is empty.

    Round-robin has no score over subtasks, so the highest is used.
    """
    choices = view.choices
    others = tuple(name for name in view.left.subtask_names if subtask and name != subtask)
    narrowed = choices.for_ranking.model_copy(
        update={
            "aggregate": "mean" if choices.aggregate == "mean" else "max",
            "length_matched": False,
            "without_subtasks": (*choices.without_subtasks, *others),
        }
    )
    ranking = ranking_of(view.store, view.scoring, "less", narrowed)
    return ranking, _opponents(str(view.scoring.path), narrowed, ranking)


def token_influence(subject: Subject, subtask: int) -> "TokenInfluence":
    """Token-level influence of the row on one of the subtasks not left out, cached.

    Raises:
        GradsiftError: the model or the targets cannot be used here.
    """
    return _tokens(*_key(subject), subject.row, subtask, subject)


def agreement_of(subject: Subject, subtask: int) -> "Agreement":
    """How well the plain gradient's cosines and the LESS scores agree on a sample of rows, cached.

    Raises:
        GradsiftError: the model or the targets cannot be used here.
    """
    return _agreement(*_key(subject), subtask, subject)


def _key(subject: Subject) -> tuple[str, str, RankingChoices]:
    """What a result of the model depends on besides the row and the subtask."""
    view = subject.view
    return view.store.fingerprint, str(view.scoring.path), view.choices.for_ranking


@st.cache_resource(max_entries=3, show_spinner=False)
def _near(fingerprint: str, _store: Store) -> np.ndarray:
    return near(_store)


@st.cache_resource(max_entries=16, show_spinner=False)
def _opponents(path: str, choices: RankingChoices, _ranking: Ranking) -> np.ndarray:
    return opponents(_ranking)


@st.cache_resource(max_entries=1, show_spinner=False)
def _explainer(fingerprint: str, path: str, _store: Store) -> "TokenExplainer":
    from gradsift.analysis.tokens import TokenExplainer

    return TokenExplainer(_store)


@st.cache_resource(max_entries=64, show_spinner=False)
def _tokens(
    fingerprint: str, path: str, choices: RankingChoices, row: int, subtask: int, _subject: Subject
) -> "TokenInfluence":
    explainer = _explainer(fingerprint, str(_subject.view.store.path), _subject.view.store)
    return explainer.explain(_subject.left, row, subtask)


@st.cache_resource(max_entries=16, show_spinner=False)
def _agreement(fingerprint: str, path: str, choices: RankingChoices, subtask: int, _subject: Subject) -> "Agreement":
    explainer = _explainer(fingerprint, str(_subject.view.store.path), _subject.view.store)
    return explainer.correlate(_subject.left, subtask, gradient=choices.gradient)


def row_address(session: Session, row: int) -> dict[str, Any]:
    """The whole address of a row's page, with session, methods and what-ifs, so that it also opens in a new tab."""
    names = {"store": session.store, "targets": session.targets, "budget": session.budget}
    return {**st.query_params.to_dict(), **names, "row": str(row), "view": "row"}
