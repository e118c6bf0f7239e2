"""Everything on Compare below its controls: search, filters, the board, and what is opened from it.

A fragment: what happens here redraws only this part of the page, which saves most of the waiting.
"""

from collections.abc import Callable

import numpy as np
import streamlit as st

from app.compare import board, facets, review
from app.compare.board import Board
from app.state.run import guarded
from app.text import label, plural
from app.views import filters
from app.views.filters import Filter
from app.views.view import View
from app.widgets import empty
from gradsift.runtime.errors import GradsiftError


@st.fragment
def draw(view: View, explain: Callable[[View, int], None]) -> None:
    """Draw the picks that pass the search and the filters. explain: opens a pool row in a drawer."""
    with guarded("compare"):
        _draw(view, explain)


def _draw(view: View, explain: Callable[[View, int], None]) -> None:
    decisions, comparison = view.decisions, view.comparison
    finding = st.container()
    showing = st.container(horizontal=True, vertical_alignment="center", gap="small", key="showing")
    try:
        with finding:
            filter = facets.draw(view, decisions, showing)
        mask = filters.matching(view, filter, decisions)
    except GradsiftError as error:
        st.error(label(error))
        return
    lists = {column.method: filters.listed(view, column, filter, mask) for column in comparison.columns}
    rows = comparison.rows[filters.union(list(lists.values()), len(comparison.rows))]
    listing = Board(view, filter, decisions, lists)
    with showing:
        review.bar(view, rows, decisions)
    _active(listing, len(rows))
    if len(rows):
        board.draw(listing)
    else:
        _nothing(filter)
    kind, row = review.request()
    if kind == "why":
        explain(view, row)
    elif kind == "note":
        review.note(view, row, decisions.notes.get(row, ""))


def _active(listing: Board, rows: int) -> None:
    """Draw what narrows the rows, and the page's position in their lists."""
    filter, comparison = listing.filter, listing.comparison
    if not filter.narrowing and listing.longest <= board.PAGE:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="active"):
        if filter.narrowing:
            base = [filters.base(comparison, column, filter) for column in comparison.columns]
            whole = int(np.sum(filters.union(base, len(comparison.rows))))
            st.markdown(f"**{rows:,} of {plural(whole, 'row')}** match", width="content")
            facets.chips(filter)
        board.pagination(listing)


def _nothing(filter: Filter) -> None:
    if filter.narrowing:
        wider = ", or look at the whole pool instead of the picks" if filter.scope == filters.PICKS else ""
        empty.say("No row matches", f"Remove a filter above{wider}.")
    else:
        empty.say("No row is left", "Show all picks, or another overlap of the methods.")
