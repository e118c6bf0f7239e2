"""Two sides' picks as a difference: of two sessions, of two methods in one, or of two stores. No drawing here.

Within one store rows are told apart by their number. Across stores a row is the same where its line in the pool file is
the same, byte for byte (`sha256` of pool.parquet); of a line that a side picks several times, as many match as the
other side picks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from app.state.session import DEFAULT_BUDGET, Session, view_of
from app.views.choices import gradients_of, restored_choices
from app.views.comparison import Column, compare, methods_of, scoring_of
from app.views.decisions import NO_DECISIONS, decisions_of
from app.views.store import pool_of, store_of
from gradsift.datastore.store import Store
from gradsift.runtime.errors import UsageError
from gradsift.scoring.scoring import Scoring
from gradsift.selection.choices import Choices
from gradsift.selection.ranking import count_within
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
    decisions: Decisions


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


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """Places in the two sides' picks, in rank order. both: (m, 2), a place in A and the matching one in B."""

    both: np.ndarray
    only_a: np.ndarray
    only_b: np.ndarray

    @property
    def overlap(self) -> float:
        """Rows in both over rows in either (Jaccard), 0 where nothing is picked."""
        union = len(self.both) + len(self.only_a) + len(self.only_b)
        return len(self.both) / union if union else 0.0


def sources_of(session: Session, records: Sequence[SessionRecord]) -> list[Source]:
    """The sessions that have a comparison, the open one first, then those that are kept, then the stores under the open
    view.
    """
    found = [
        Source(SESSION + r.id, r.address["store"], r.address["targets"], r.address, r)
        for r in sorted(records, key=lambda record: (record.id != session.session_id, not record.kept))
        if r.address.get("store") and r.address.get("targets")
    ]
    if session.targets:
        view = view_of(session.saved.address) if session.saved else {"budget": session.budget}
        found += [Source(STORE + e.name, e.name, session.targets, view, None) for e in session.workspace.stores()]
    return found


def opened(session: Session, source: Source) -> Opened:
    """Open a source's store and scores.

    Raises:
        UsageError: a sentence about what is missing. GradsiftError: something cannot be read.
    """
    there = replace(session, store=source.store, targets=source.targets)
    store = store_of(there)
    if store is None:
        raise UsageError(f"There is no finished datastore {source.store}: choose another side.")
    scoring = scoring_of(there, store)
    if scoring is None:
        raise UsageError(
            f"The target set {source.targets} is not scored on {there.store_title}: open both, score it under Targets."
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
    comparison = compare(of.store, of.scoring, [method], budget, of.choices)
    column = comparison.columns[0]
    return Side(of, column, comparison.rows[column.picks])


def differ(a: Side, b: Side) -> Difference:
    """Match the picks of two sides."""
    if a.store.fingerprint == b.store.fingerprint:
        keys_a, keys_b = pd.Index(a.rows), pd.Index(b.rows)
    else:
        keys_a, keys_b = _contents(a, b)
    at = keys_b.get_indexer(keys_a)
    inside = np.flatnonzero(at >= 0)
    missing = np.ones(len(keys_b), dtype=bool)
    missing[at[inside]] = False
    return Difference(np.stack([inside, at[inside]], axis=1), np.flatnonzero(at < 0), np.flatnonzero(missing))


def by_source(a: Side, b: Side, found: Difference) -> pd.DataFrame:
    """One line per source: source, picks of A and of B, in both, only in A, only in B; a row counts as A has it."""
    of_a, of_b = (pool_of(s.store)["source"].loc[s.rows].to_numpy(str) for s in (a, b))
    parts = {
        "picks_a": of_a,
        "picks_b": of_b,
        "both": of_a[found.both[:, 0]],
        "only_a": of_a[found.only_a],
        "only_b": of_b[found.only_b],
    }
    counts = {name: pd.Series(values).value_counts() for name, values in parts.items()}
    table = pd.DataFrame(counts).fillna(0).astype(int).sort_index()
    return table.rename_axis("source").reset_index()


def places(of: Side, other: Side, rows: Sequence[int]) -> dict[int, int]:
    """The best rank at which `of` has the content of some of `other`'s pool rows; no entry where it has not.

    rows: pool row numbers in `other`'s store. Returns rank by those numbers.
    """
    scored = of.column.ranking.rows
    if of.store.fingerprint == other.store.fingerprint:
        found = pd.Series(rows, index=rows)
    else:
        wanted = pool_of(other.store)["sha256"].loc[list(rows)]
        contents = pool_of(of.store)["sha256"]
        hits = contents[contents.isin(wanted)]
        owners = wanted.reset_index().merge(hits.reset_index(), on="sha256", suffixes=("", "_there"))
        found = pd.Series(owners["row_there"].to_numpy(), index=owners["row"].to_numpy())
    at = np.searchsorted(scored, found.to_numpy())
    usable = (at < len(scored)) & (scored[np.minimum(at, len(scored) - 1)] == found.to_numpy())
    ranks = pd.Series(of.column.ranking.rank[at[usable]], index=found.index[usable])
    return {int(row): int(rank) for row, rank in ranks.groupby(level=0).min().items()}


def table_of(a: Side, b: Side, found: Difference) -> pd.DataFrame:
    """The whole difference for a file: where, source, id, file, line, sha256, then row, rank and score on each side."""
    left, right = _described(a), _described(b)
    both = left.iloc[found.both[:, 0]].assign(where="both").reset_index(drop=True)
    theirs = right.iloc[found.both[:, 1]].reset_index(drop=True)
    numbers = ["row", "rank", "score"]
    both = both.rename(columns={n: f"{n}_a" for n in numbers}).assign(**{f"{n}_b": theirs[n] for n in numbers})
    only_a = left.iloc[found.only_a].assign(where="only A").rename(columns={n: f"{n}_a" for n in numbers})
    only_b = right.iloc[found.only_b].assign(where="only B").rename(columns={n: f"{n}_b" for n in numbers})
    whole = pd.concat([both, only_a, only_b], ignore_index=True)
    columns = ["where", "source", "id", "file", "line", "sha256", *(f"{n}_{s}" for s in "ab" for n in numbers)]
    return whole[columns].astype({f"{n}_{s}": "Int64" for s in "ab" for n in ("row", "rank")})


def _contents(a: Side, b: Side) -> tuple[pd.Index, pd.Index]:
    """A number for every pick, its side's own: of its content, and of the how-manieth pick with this content it is."""
    contents = [pool_of(side.store)["sha256"].loc[side.rows].to_numpy(object) for side in (a, b)]
    codes = pd.factorize(np.concatenate(contents))[0]
    sides = np.split(codes, [len(a.rows)])
    keys = [code * np.int64(len(codes)) + count_within(code) for code in sides]
    return pd.Index(keys[0]), pd.Index(keys[1])


def _described(of: Side) -> pd.DataFrame:
    """The picks as a table: source, id, file, line, sha256, row, rank, score."""
    about = pool_of(of.store).loc[of.rows, ["source", "id", "file", "line", "sha256"]]
    ranking, picks = of.column.ranking, of.column.picks
    return about.assign(row=of.rows, rank=ranking.rank[picks], score=ranking.score[picks]).reset_index(drop=True)
