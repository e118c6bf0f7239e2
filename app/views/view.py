"""The view of a page of picks: what is open there and what follows from it. Draws nothing."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import streamlit as st

from app.state.session import Session
from app.views.comparison import Comparison, compare, traits_of
from app.views.decisions import current_decisions
from app.views.store import pool_of
from gradsift.datastore.store import Store
from gradsift.scoring.choices import Choices
from gradsift.scoring.methods import METHODS
from gradsift.scoring.scoring import Scoring
from gradsift.selection.picks import Traits
from gradsift.workspace.sessions import Decisions


@dataclass(frozen=True)
class RowColumns:
    """Columns of the pool, aligned with positions: source (n,) names, n_prompt and n_answer (n,) tokens."""

    source: np.ndarray
    n_prompt: np.ndarray
    n_answer: np.ndarray


@dataclass(frozen=True, eq=False)
class View:
    """Which methods' picks a page shows, at which budget and under which choices.

    methods: names, in the order of the registry. budget: as text. choices: the what-ifs, on Export and Sessions
    together with the session's decisions.
    """

    session: Session
    store: Store
    scoring: Scoring
    methods: tuple[str, ...]
    budget: str
    choices: Choices

    @property
    def method(self) -> str:
        """The method of a page that shows one, or the first of several."""
        return self.methods[0]

    @cached_property
    def comparison(self) -> Comparison:
        """The picks of every method.

        Raises:
            UsageError: the budget cannot be read, or a choice leaves nothing.
        """
        return compare(self.store, self.scoring, self.methods, self.budget, self.choices)

    @cached_property
    def left(self) -> Scoring:
        """The scoring that ranks the rows: without the targets, subtasks and checkpoints that the choices leave out.

        Raises:
            UsageError: nothing would be left.
        """
        return self.scoring.under(self.choices)

    @property
    def traits(self) -> Traits:
        """Tokens, source and near-duplicates of every scored row."""
        return traits_of(self.store, self.scoring)

    @property
    def decisions(self) -> Decisions:
        """What the open session has decided on this store so far."""
        return current_decisions(self.session, self.store)

    @cached_property
    def key(self) -> str:
        """Equal keys mean equal picks."""
        methods = ",".join(self.methods)
        return f"{self.scoring.path} {self.store.fingerprint} {methods} {self.budget} {self.choices.model_dump_json()}"

    @cached_property
    def picks(self) -> dict[str, np.ndarray]:
        """Positions by method, (k,) each, in rank order."""
        return {column.method: column.picks for column in self.comparison.columns}

    @cached_property
    def row_columns(self) -> RowColumns:
        """The pool's columns by position."""
        return _row_columns(str(self.scoring.path), self.store.fingerprint, self.store, self.scoring)

    @property
    def targeted(self) -> list[str]:
        """The methods shown that look at the targets."""
        return [name for name in self.methods if METHODS[name].sees_targets]


@st.cache_resource(max_entries=3, show_spinner=False)
def _row_columns(path: str, fingerprint: str, _store: Store, _scoring: Scoring) -> RowColumns:
    pool = pool_of(_store).loc[_scoring.rows]
    return RowColumns(
        pool["source"].to_numpy(object), pool["n_prompt_tokens"].to_numpy(), pool["n_answer_tokens"].to_numpy()
    )
