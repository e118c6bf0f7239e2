"""Targets: the examples of what the model should learn, from a sample set, a saved one, a paste or a file."""

import streamlit as st

from app.state import session
from app.targets import examples, sources
from app.text import label
from app.views import store as data
from app.widgets import score

now = session.current()
st.title("Targets", anchor=False)
st.caption("A handful of examples of the skill you want. Methods look for training examples that serve them.")

chosen = sources.choose(now)
store, problem = data.store_or_error(now)
if problem:
    st.error(label(problem))
if chosen is not None:
    sources.show(chosen, store)
    examples.unreadable(chosen.bad)
    if chosen.rows:
        score.draw(now, store, chosen)
