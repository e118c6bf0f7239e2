"""Compare: what every method would pick, side by side at one budget."""

import streamlit as st

from app import comparing, deciding, filters, session
from app.components import board, controls, empty, facets, opening, overlap, review, why
from app.components.text import label, plural
from gradsift.errors import GradsiftError

now = session.current()
st.title("Compare", anchor=False)
store, scoring = opening.scored(now)
asked = controls.several(now, store, scoring)
with asked.row:
    beside = st.container(width="content")
if not asked.methods:
    empty.say("No method is chosen", "Choose at least one above.")
    st.stop()
decided = deciding.decisions(now, store)
try:
    comparison = comparing.compare(store, scoring, asked.methods, asked.budget, asked.choices)
    with beside:
        overlap.draw(comparison)
    finding = st.container()
    showing = st.container(horizontal=True, vertical_alignment="center", gap="small", key="showing")
    with finding:
        wanted = facets.draw(store, scoring, comparison, decided, showing)
    found = filters.matching(store, scoring, wanted, decided)
except GradsiftError as error:
    st.error(label(error))
    st.stop()
lists = {c.method: filters.listed(store, scoring, comparison, c, wanted, found) for c in comparison.columns}
all_rows = filters.union([filters.base(comparison, c, wanted) for c in comparison.columns], len(comparison.rows))
rows = comparison.rows[filters.union(list(lists.values()), len(comparison.rows))]
view = board.View(store, scoring, comparison, asked.choices, wanted, decided, lists)
with showing:
    review.bar(now, store, rows, decided)
if wanted.narrowing or view.longest > board.PAGE:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="active"):
        if wanted.narrowing:
            st.markdown(f"**{len(rows):,} of {plural(int(all_rows.sum()), 'row')}** match", width="content")
            facets.chips(wanted)
        board.turner(view)
if len(rows):
    board.draw(now, view)
elif wanted.narrowing:
    wider = ", or look at the whole pool instead of the picks" if wanted.scope == filters.PICKS else ""
    empty.say("No row matches", f"Take a filter off above{wider}.")
else:
    empty.say("No row is left", "Show all picks, or another overlap of the methods.")
kind, row = review.asked()
if kind == "why":
    why.drawer(now, store, scoring, row, asked.methods, asked.budget, asked.choices)
elif kind == "note":
    review.note(now, store, row, decided.notes.get(row, ""))
