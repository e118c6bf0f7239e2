"""Two sides whose picks are compared: two sessions, two methods in one, or two stores. No drawing here.

What their difference is says gradsift/analysis/difference.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.state.session import DEFAULT_BUDGET, Session, view_of
from app.views import choices as choosing
from app.views import comparison as comparing
from app.views import decisions as deciding
from app.views import store as data
from app.views.comparison import Column
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
    """What may stand on a side. key: its name in the address; record: of a saved session, None for a store."""

    key: str
    store: str
    targets: str
    address: Mapping[str, str]
    record: SessionRecord | None

    @property
    def budget(self) -> str:
        """The budget that its view was left at."""
        return self.address.get("budget") or DEFAULT_BUDGET


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A source with its store and scores; methods: those with kept scores."""

    source: Source
    store: Store
    scoring: Scoring
    methods: tuple[str, ...]
    choices: Choices
    decided: Decisions


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One method's picks of an opened source. rows: (k,) pool row numbers in rank order."""

    opened: Opened
    column: Column
    rows: np.ndarray

    @property
    def store(self) -> Store:
        """The store that the rows are of."""
        return self.opened.store


def sources_of(now: Session, records: Sequence[SessionRecord]) -> list[Source]:
    """The sessions that have a comparison, the open one first, then those that are kept, then the stores under the open
    view.
    """
    found = [
        Source(SESSION + r.id, r.address["store"], r.address["targets"], r.address, r)
        for r in sorted(records, key=lambda record: (record.id != now.session_id, not record.kept))
        if r.address.get("store") and r.address.get("targets")
    ]
    if now.targets:
        view = view_of(now.saved.address) if now.saved else {"budget": now.budget}
        found += [Source(STORE + e.name, e.name, now.targets, view, None) for e in now.workspace.stores()]
    return found


def opened(now: Session, source: Source) -> Opened:
    """Open a source's store and scores.

    Raises:
        UsageError: a sentence about what is missing. GradsiftError: something cannot be read.
    """
    there = replace(now, store=source.store, targets=source.targets)
    store = data.store_of(there)
    if store is None:
        raise UsageError(f"There is no finished datastore {source.store}: choose another side.")
    scoring = comparing.scoring_of(there, store)
    if scoring is None:
        raise UsageError(
            f"The target set {source.targets} is not scored on {there.store_title}: open both, score it under Targets."
        )
    gradients = choosing.gradients(store, scoring)
    decided = deciding.decisions_of(now.sessions, source.record.id, store) if source.record else deciding.NOTHING
    choices = choosing.restored(scoring, gradients, has_index(store), source.address, decided)
    methods = tuple(comparing.methods_of(scoring, choices.gradient))
    return Opened(source, store, scoring, methods, choices, decided)


def side(of: Opened, method: str, budget: str) -> Side:
    """One method's picks of an opened source, with its what-ifs and decisions.

    Raises:
        UsageError: the budget cannot be read, or a choice leaves nothing.
    """
    comparison = comparing.compare(of.store, of.scoring, [method], budget, of.choices)
    column = comparison.columns[0]
    return Side(of, column, comparison.rows[column.picks])


def differ(a: Side, b: Side) -> Difference:
    """Match the picks of two sides."""
    table_a, table_b = (side.column.selection.table(data.pool_of(side.store)) for side in (a, b))
    return difference(table_a, table_b, a.store.fingerprint == b.store.fingerprint)


def places(of: Side, other: Side, rows: Sequence[int]) -> dict[int, int]:
    """The best rank at which `of` has the content of some of `other`'s pool rows; no entry where it has not.

    rows: pool row numbers in `other`'s store. Returns rank by those numbers.
    """
    if of.store.fingerprint == other.store.fingerprint:
        return ranks_there(of.column.ranking, rows)
    contents = data.pool_of(other.store)["sha256"], data.pool_of(of.store)["sha256"]
    return ranks_there(of.column.ranking, rows, contents)
