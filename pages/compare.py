"""Compare: what every method would pick, side by side at one budget."""

import streamlit as st

from app import address, comparing, session
from app.components import board, budget, empty, opening, options, overlap, score
from app.components.text import label
from gradsift.errors import GradsiftError

now = session.current()
st.title("Compare", anchor=False)
store, scoring = opening.scored(now)
known = comparing.methods_of(scoring, store.manifest.config.gradients[0])
with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="controls"):
    with address.held("methods", known, default=known):
        methods = st.pills("Methods", known, selection_mode="multi", format_func=score.method_label, key="methods")
    wanted = budget.draw(now)
    chosen = options.draw(store, scoring)
    beside = st.container(width="content")
if not methods:
    empty.say("No method is chosen", "Choose at least one above.")
    st.stop()
try:
    comparison = comparing.compare(store, scoring, [name for name in known if name in methods], wanted, chosen)
except GradsiftError as error:
    st.error(label(error))
    st.stop()
shows = comparing.SHOWS if len(comparison.columns) > 1 else comparing.SHOWS[:1]
with beside:
    overlap.draw(comparison)
with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
    with address.held("show", shows, default=comparing.ALL):
        show = st.segmented_control(
            "Show",
            shows,
            key="show",
            required=True,
            label_visibility="collapsed",
            format_func=lambda name: overlap.option(name, comparison),
        )
    pages = st.container(
        horizontal=True, horizontal_alignment="right", vertical_alignment="center", gap="small", width="content"
    )
board.draw(store, comparison, show or comparing.ALL, pages)
