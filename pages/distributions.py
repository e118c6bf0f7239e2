"""Distributions: what the picks are made of, how the methods differ, and whether the targets are enough."""

import streamlit as st

from app.distributions.sections import SECTIONS
from app.state import address
from app.state.session import current_session
from app.text import label
from app.widgets import controls, empty, required
from gradsift.runtime.errors import GradsiftError

session = current_session()
st.title("Distributions", anchor=False)
store, scoring = required.scored(session)
with controls.row():
    view = controls.several(session, store, scoring)
with address.bound("chart", list(SECTIONS), default="sources"):
    section = st.segmented_control(
        "Chart",
        list(SECTIONS),
        key="chart",
        required=True,
        label_visibility="collapsed",
        format_func=lambda name: SECTIONS[name][0],
    )
if not view.methods:
    empty.say("No method is chosen", "Choose at least one above.")
    st.stop()
try:
    picks = view.picks
except GradsiftError as error:
    st.error(label(error))
    st.stop()
if not any(map(len, picks.values())):
    empty.say("Nothing is picked", "These choices leave no rows: loosen them in What if.")
    st.stop()
SECTIONS[section or "sources"][1](view)
