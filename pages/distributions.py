"""Distributions: what the picks are made of, how the methods differ, and whether the targets are enough."""

import streamlit as st

from app import address, comparing, session
from app.charting import View
from app.components import budget, distributions, empty, opening, options, score
from app.components.text import label
from gradsift.errors import GradsiftError

now = session.current()
st.title("Distributions", anchor=False)
store, scoring = opening.scored(now)
known = comparing.methods_of(scoring, store.manifest.config.gradients[0])
with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="controls"):
    with address.held("methods", known, default=known):
        methods = st.pills("Methods", known, selection_mode="multi", format_func=score.method_label, key="methods")
    wanted = budget.draw(now)
    chosen = options.draw(store, scoring)
with address.held("chart", list(distributions.SECTIONS), default="sources"):
    section = st.segmented_control(
        "Chart",
        list(distributions.SECTIONS),
        key="chart",
        required=True,
        label_visibility="collapsed",
        format_func=lambda name: distributions.SECTIONS[name][0],
    )
if not methods:
    empty.say("No method is chosen", "Choose at least one above.")
    st.stop()
try:
    comparison = comparing.compare(store, scoring, [name for name in known if name in methods], wanted, chosen)
except GradsiftError as error:
    st.error(label(error))
    st.stop()
if not any(len(column.picks) for column in comparison.columns):
    empty.say("Nothing is picked", "These choices leave no row: allow more in What if.")
    st.stop()
distributions.SECTIONS[section or "sources"][1](View(store, scoring, comparison, wanted, chosen))
