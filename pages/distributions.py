"""Distributions: what the picks are made of, how the methods differ, and whether the targets are enough."""

import streamlit as st

from app.distributions import sections as distributions
from app.state import address, session
from app.text import label
from app.views import comparison as comparing
from app.views.figures import View
from app.widgets import controls, empty
from app.widgets import required as opening
from gradsift.runtime.errors import GradsiftError

now = session.current()
st.title("Distributions", anchor=False)
store, scoring = opening.scored(now)
asked = controls.several(now, store, scoring)
with address.held("chart", list(distributions.SECTIONS), default="sources"):
    section = st.segmented_control(
        "Chart",
        list(distributions.SECTIONS),
        key="chart",
        required=True,
        label_visibility="collapsed",
        format_func=lambda name: distributions.SECTIONS[name][0],
    )
if not asked.methods:
    empty.say("No method is chosen", "Choose at least one above.")
    st.stop()
try:
    comparison = comparing.compare(store, scoring, asked.methods, asked.budget, asked.choices)
except GradsiftError as error:
    st.error(label(error))
    st.stop()
if not any(len(column.picks) for column in comparison.columns):
    empty.say("Nothing is picked", "These choices leave no row: allow more in What if.")
    st.stop()
distributions.SECTIONS[section or "sources"][1](View(store, scoring, comparison, asked.budget, asked.choices))
