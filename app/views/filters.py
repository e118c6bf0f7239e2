"""Which rows the Compare page shows and in what order: masks over the scored rows. Draws nothing.

All of it is in the address bar under the names in `KEYS`; meaningless text there does not filter anything. Masks and
orders are in positions: position i is the i-th scored row.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

import numpy as np
import pandas as pd
import streamlit as st

from app.pages import room
from app.state import address
from app.views.comparison import ALL, Column, Comparison
from app.views.figures import norm_tables
from app.views.store import pool_of
from app.views.view import View
from gradsift.analysis.norms import Area
from gradsift.datastore.store import Store
from gradsift.runtime.errors import UsageError
from gradsift.text.index import has_index, scripts
from gradsift.text.search import search_rows
from gradsift.workspace.sessions import Decisions

FACETS = ("source", "task", "script", "subtask")
KEYS = (*FACETS, "length", "q", "role", "area", "verdict", "show", "scope", "sort", "page")
ACCEPTED, REJECTED, UNDECIDED = VERDICTS = ("accepted", "rejected", "open")
PICKS, POOL = SCOPES = ("picks", "pool")
NO_TASK = "(no task)"
SORTS = ("rank", "score", "long", "short", "norm")
_LENGTH = re.compile(r"(\d{0,9})-(\d{0,9})")


@dataclass(frozen=True, slots=True)
class Filter:
    """What a person filters by.

    subtask: in every column, the rows that serve one of these best according to that column's method. length: answer
    tokens "10-400"; either end may be missing. area: as `str(Area)` writes it.
    """

    source: tuple[str, ...] = ()
    task: tuple[str, ...] = ()
    script: tuple[str, ...] = ()
    subtask: tuple[str, ...] = ()
    length: str = ""
    q: str = ""
    role: str = "any"
    area: str = ""
    verdict: tuple[str, ...] = ()
    show: str = ALL
    scope: str = PICKS
    sort: str = "rank"

    @property
    def narrowing(self) -> bool:
        """Whether it narrows the rows themselves, beyond `show`, `scope` and `sort`."""
        of_rows = self.source or self.task or self.script or self.subtask or self.verdict
        return bool(of_rows or self.length or self.q or self.area)


@dataclass(frozen=True, slots=True)
class Facet:
    """Values of one trait. codes: (n,) index into `values` of each position; total: (values,) rows in the pool."""

    values: tuple[str, ...]
    codes: np.ndarray
    total: np.ndarray

    def counts(self, mask: np.ndarray) -> np.ndarray:
        """(values,) how many of the positions in `mask` have each value."""
        return np.bincount(self.codes[mask], minlength=len(self.values))

    def mask(self, chosen: tuple[str, ...]) -> np.ndarray:
        """(n,) which positions have one of the chosen values."""
        return np.isin(np.array(self.values, dtype=object), chosen)[self.codes]


def facets_of(view: View) -> dict[str, Facet]:
    """The facets of the scored rows, cached; `script` only if the pool has an index."""
    store = view.store
    return _facets(store.fingerprint, has_index(store), store, np.asarray(view.scoring.rows))


@lru_cache(maxsize=8)
def subtasks_of(comparison: Comparison) -> dict[str, tuple[int, int]]:
    """Every subtask with two counts: rows that any column picks for it, and pool rows that serve it in any column.

    A row that several columns assign to one subtask counts once. Empty with fewer than two subtasks.
    """
    names = comparison.columns[0].ranking.subtasks
    if len(names) < 2:
        return {}
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    counts = np.zeros((2, len(names)), dtype=np.int64)
    for column in comparison.columns:
        best = column.ranking.serves()
        picks, rows = column.picked & (best >= 0), best >= 0
        for earlier, picked in seen:
            picks &= ~(picked & (earlier == best))
            rows &= earlier != best
        counts += [np.bincount(best[mask], minlength=len(names)) for mask in (picks, rows)]
        seen.append((best, column.picked))
    if not counts.any():  # no column's method looks at the targets
        return {}
    return {name: (int(picks), int(rows)) for name, picks, rows in zip(names, *counts, strict=True)}


def matching(view: View, filter: Filter, decisions: Decisions) -> np.ndarray:
    """(n,) bool, which rows themselves pass the filter, whatever their ranks.

    Raises:
        StoreError: the filter has words, but the pool's index is missing or damaged.
    """
    store, rows = view.store, np.asarray(view.scoring.rows)
    mask = np.ones(len(rows), dtype=bool)
    facets = facets_of(view)
    for name in FACETS:
        values = getattr(filter, name)
        if values and name in facets:
            mask &= facets[name].mask(values)
    if limits := length_limits(filter.length):
        n_answer = view.traits.n_answer
        mask &= (n_answer >= limits[0]) & (n_answer <= limits[1])
    if filter.verdict:
        mask &= _verdicts(rows, filter.verdict, decisions)
    if area := area_of(filter.area):
        mask &= _inside(store.fingerprint, str(area), store)
    if filter.q.strip():
        mask &= _holding(store.fingerprint, filter.q.strip(), filter.role, store, rows)
    return mask


def base(comparison: Comparison, column: Column, filter: Filter) -> np.ndarray:
    """Positions that a column shows before filtering, in rank order: its picks, or the whole pool."""
    if filter.scope == POOL:
        return column.ranking.order
    return comparison.shown(column, filter.show)


def listed(view: View, column: Column, filter: Filter, mask: np.ndarray) -> np.ndarray:
    """Positions that a column shows, in the filter's order, ties by rank. mask: from `matching`."""
    positions = base(view.comparison, column, filter)
    positions = positions[mask[positions]]
    if filter.subtask:
        chosen = [at for at, name in enumerate(column.ranking.subtasks) if name in filter.subtask]
        positions = positions[np.isin(column.ranking.serves(positions), chosen)]
    keys = _sort_keys(view, column, filter.sort)
    return positions if keys is None else positions[np.argsort(keys[positions], kind="stable")]


def union(lists: list[np.ndarray], n: int) -> np.ndarray:
    """(n,) bool, the positions that are in any of the lists."""
    mask = np.zeros(n, dtype=bool)
    for positions in lists:
        mask[positions] = True
    return mask


def length_limits(text: str) -> tuple[int, int] | None:
    """The shortest and longest answer that `text` ("10-400", "10-", "-400") allows; None if it sets no limit."""
    match = _LENGTH.fullmatch(text.strip())
    if match is None or not (match[1] or match[2]):
        return None
    return int(match[1] or 0), int(match[2] or 10**9)


def written_length(low: int | None, high: int | None) -> str:
    """The range as the address bar writes it; empty without limits."""
    return "" if low is None and high is None else f"{'' if low is None else low}-{'' if high is None else high}"


def area_of(text: str) -> Area | None:
    """The area that `text` spells, None if it does not."""
    try:
        return Area.parse(text) if text else None
    except UsageError:
        return None


def open_compare(**parameters: str | list[str]) -> NoReturn:
    """Show Compare with these filters alone, named as in `KEYS` (`source=["flan", "cot"]`); call it in a page's run."""
    forget()
    texts = {key: address.encoded(value) for key, value in parameters.items()}
    st.switch_page(room("compare"), query_params=texts)


def forget() -> None:
    """Reset all filters, in the address and in this tab's memory."""
    for key in KEYS:
        address.forget(key)


def _sort_keys(view: View, column: Column, sort: str) -> np.ndarray | None:
    """(n,) sort keys, smallest first; None to keep the order of ranks."""
    if sort == "score":
        return -column.ranking.score
    if sort in ("long", "short"):
        n_answer = view.traits.n_answer
        return -n_answer if sort == "long" else n_answer
    return -_norms(view.store.fingerprint, view.store) if sort == "norm" else None


def _verdicts(rows: np.ndarray, chosen: tuple[str, ...], decisions: Decisions) -> np.ndarray:
    accepted, rejected = np.isin(rows, decisions.accepted), np.isin(rows, decisions.rejected)
    masks = {ACCEPTED: accepted, REJECTED: rejected, UNDECIDED: ~accepted & ~rejected}
    return np.any([masks[name] for name in chosen], axis=0)


@st.cache_resource(max_entries=4, show_spinner=False)
def _facets(fingerprint: str, indexed: bool, _store: Store, _rows: np.ndarray) -> dict[str, Facet]:
    pool = pool_of(_store).loc[_rows]
    columns = {"source": pool["source"].astype(str), "task": pool["task"].fillna("").astype(str)}
    columns["task"] = columns["task"].where(columns["task"] != "", NO_TASK)
    if indexed:
        columns["script"] = pd.Series(scripts(_store)[_rows])
    facets = {}
    for name, column in columns.items():
        codes, values = pd.factorize(column, sort=True)
        facets[name] = Facet(tuple(map(str, values)), codes, np.bincount(codes, minlength=len(values)))
    return facets


@st.cache_resource(max_entries=64, show_spinner=False)
def _holding(fingerprint: str, words: str, role: str, _store: Store, _rows: np.ndarray) -> np.ndarray:
    hit = np.zeros(_store.manifest.rows, dtype=bool)
    hit[search_rows(_store, words, role)] = True
    return hit[_rows]


@st.cache_resource(max_entries=8, show_spinner=False)
def _inside(fingerprint: str, area: str, _store: Store) -> np.ndarray:
    outline, tables = Area.parse(area), norm_tables(_store)
    if outline.epoch not in tables:
        return np.ones(len(_store.scored_rows), dtype=bool)
    table = tables[outline.epoch]
    return outline.inside(table["length"].to_numpy(), table[outline.kind].to_numpy())


@st.cache_resource(max_entries=2, show_spinner=False)
def _norms(fingerprint: str, _store: Store) -> np.ndarray:
    """(n,) gradient norm of every scored row, the mean over the checkpoints."""
    table = _store.metrics()
    norms = table["grad_norm"].to_numpy().reshape(len(_store.epochs), -1)
    return norms[:, _store.scored].mean(0, dtype=np.float64)
