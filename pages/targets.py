"""Targets: the examples of what the model should learn, from a sample set, a saved one, a paste or a file."""

import streamlit as st

from app.state.session import current_session
from app.targets import examples, score, sources
from app.text import label
from app.views.store import store_or_error

session = current_session()
st.title("Targets", anchor=False)
st.caption("A handful of examples of the skill you want. Methods look for training examples that serve them.")

chosen = sources.choose(session)
store, problem = store_or_error(session)
if problem:
    st.error(label(problem))
if chosen is not None:
    sources.show(chosen, store)
    examples.unreadable(chosen.bad)
    if chosen.rows:
        score.draw(session, store, chosen)
