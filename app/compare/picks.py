"""All of Compare below its controls: search, filters, the board, and what is opened from it.

A fragment: what is done in here draws it anew and nothing else of the page, which is most of what a person waits for.
"""

import numpy as np
import streamlit as st

from app.compare import board, facets, review
from app.state import run as guarding
from app.state import session
from app.text import label, plural
from app.views import decisions as deciding
from app.views import filters
from app.views.comparison import Comparison
from app.views.filters import Filter
from app.why import row as why
from app.widgets import empty
from app.widgets.controls import Controls
from gradsift.datastore.store import Store
from gradsift.runtime.errors import GradsiftError
from gradsift.scoring.scoring import Scoring


@st.fragment
def draw(store: Store, scoring: Scoring, asked: Controls, comparison: Comparison) -> None:
    """Draw the picks of a comparison, as far as they are searched and filtered for."""
    with guarding.guarded("compare"):
        _draw(session.current(), store, scoring, asked, comparison)


def _draw(now: session.Session, store: Store, scoring: Scoring, asked: Controls, comparison: Comparison) -> None:
    decided = deciding.decisions(now, store)
    finding = st.container()
    showing = st.container(horizontal=True, vertical_alignment="center", gap="small", key="showing")
    try:
        with finding:
            wanted = facets.draw(store, scoring, comparison, decided, showing)
        found = filters.matching(store, scoring, wanted, decided)
    except GradsiftError as error:
        st.error(label(error))
        return
    lists = {c.method: filters.listed(store, scoring, comparison, c, wanted, found) for c in comparison.columns}
    rows = comparison.rows[filters.union(list(lists.values()), len(comparison.rows))]
    view = board.View(store, scoring, comparison, asked.choices, wanted, decided, lists)
    with showing:
        review.bar(now, store, rows, decided)
    _active(view, len(rows))
    if len(rows):
        board.draw(now, view)
    else:
        _nothing(wanted)
    kind, row = review.asked()
    if kind == "why":
        why.drawer(now, store, scoring, row, asked.methods, asked.budget, asked.choices)
    elif kind == "note":
        review.note(now, store, row, decided.notes.get(row, ""))


def _active(view: board.View, rows: int) -> None:
    """What narrows the rows, and where in their lists the page stands."""
    wanted, comparison = view.wanted, view.comparison
    if not wanted.narrowing and view.longest <= board.PAGE:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="active"):
        if wanted.narrowing:
            base = [filters.base(comparison, column, wanted) for column in comparison.columns]
            whole = int(np.sum(filters.union(base, len(comparison.rows))))
            st.markdown(f"**{rows:,} of {plural(whole, 'row')}** match", width="content")
            facets.chips(wanted)
        board.turner(view)


def _nothing(wanted: Filter) -> None:
    if wanted.narrowing:
        wider = ", or look at the whole pool instead of the picks" if wanted.scope == filters.PICKS else ""
        empty.say("No row matches", f"Take a filter off above{wider}.")
    else:
        empty.say("No row is left", "Show all picks, or another overlap of the methods.")
