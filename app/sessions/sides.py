"""Two sides whose picks are compared: two sessions, two methods in one, or two stores. Draws nothing.

`gradsift.analysis.difference` says what their difference is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.state.session import DEFAULT_BUDGET, Session, view_of
from app.views.choices import gradients_of, restored_choices
from app.views.comparison import Column, compare, methods_of, scoring_of
from app.views.decisions import NO_DECISIONS, decisions_of
from app.views.store import pool_of, store_of
from gradsift.analysis.difference import Difference, difference, ranks_there
from gradsift.datastore.store import Store
from gradsift.runtime.errors import UsageError
from gradsift.scoring.choices import Choices
from gradsift.scoring.scoring import Scoring
from gradsift.text.index import has_index
from gradsift.workspace.sessions import Decisions, SessionRecord

SESSION, STORE = "session:", "store:"


@dataclass(frozen=True, slots=True)
class Source:
    """What a side can show. key: its name in the address; record: the saved session's, None for a store."""

    key: str
    store: str
    targets: str
    address: Mapping[str, str]
    record: SessionRecord | None

    @property
    def budget(self) -> str:
        """The budget of its saved view."""
        return self.address.get("budget") or DEFAULT_BUDGET


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A source with its store and scores. methods: those with stored scores."""

    source: Source
    store: Store
    scoring: Scoring
    methods: tuple[str, ...]
    choices: Choices
    decisions: Decisions


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One method's picks of an opened source."""

    opened: Opened
    column: Column

    @property
    def rows(self) -> np.ndarray:
        """(k,) pool row numbers of the picks, in rank order."""
        return self.column.selection.rows

    @property
    def store(self) -> Store:
        """The store of the rows."""
        return self.opened.store


def sources_of(session: Session, records: Sequence[SessionRecord]) -> list[Source]:
    """The sessions with a comparison (the open one first, then those to keep), then all stores in this view."""
    sources = [
        Source(SESSION + r.id, r.address["store"], r.address["targets"], r.address, r)
        for r in sorted(records, key=lambda record: (record.id != session.session_id, not record.kept))
        if r.address.get("store") and r.address.get("targets")
    ]
    if session.targets:
        view = view_of(session.saved.address) if session.saved else {"budget": session.budget}
        sources += [Source(STORE + e.name, e.name, session.targets, view, None) for e in session.workspace.stores()]
    return sources


def opened(session: Session, source: Source) -> Opened:
    """Open a source's store and scores.

    Raises:
        UsageError: something is missing. GradsiftError: something cannot be read.
    """
    other = replace(session, store=source.store, targets=source.targets)
    store = store_of(other)
    if store is None:
        raise UsageError(f"There is no finished datastore {source.store}: choose another side.")
    scoring = scoring_of(other, store)
    if scoring is None:
        raise UsageError(
            f"The target set {source.targets} is not scored on {other.store_title}: open both, score it under Targets."
        )
    gradients = gradients_of(store, scoring)
    decisions = decisions_of(session.sessions, source.record.id, store) if source.record else NO_DECISIONS
    choices = restored_choices(scoring, gradients, has_index(store), source.address, decisions)
    methods = tuple(methods_of(scoring, choices.gradient))
    return Opened(source, store, scoring, methods, choices, decisions)


def side(of: Opened, method: str, budget: str) -> Side:
    """One method's picks of an opened source, with its what-ifs and decisions.

    Raises:
        UsageError: the budget cannot be read, or a choice leaves nothing.
    """
    return Side(of, compare(of.store, of.scoring, [method], budget, of.choices).columns[0])


def differ(a: Side, b: Side) -> Difference:
    """Match the picks of two sides."""
    table_a, table_b = (side.column.selection.table(pool_of(side.store)) for side in (a, b))
    return difference(table_a, table_b, a.store.fingerprint == b.store.fingerprint)


def places(of: Side, other: Side, rows: Sequence[int]) -> dict[int, int]:
    """The best ranks in `of` of the content of some of `other`'s pool rows.

    rows: pool row numbers in `other`'s store. Returns row number -> rank, without rows that `of` does not have.
    """
    if of.store.fingerprint == other.store.fingerprint:
        return ranks_there(of.column.ranking, rows)
    contents = pool_of(other.store)["sha256"], pool_of(of.store)["sha256"]
    return ranks_there(of.column.ranking, rows, contents)
