"""Gradient norms: long answers have small gradients, which is why LESS compares by cosine."""

import streamlit as st

from app.norms import section
from app.state.session import current_session
from app.text import label
from app.widgets import controls, empty, required
from gradsift.runtime.errors import GradsiftError

session = current_session()
st.title("Gradient norms", anchor=False)
store, scoring = required.scored(session)
with controls.row():
    view = controls.one(session, store, scoring, "Picks of")
try:
    picks = view.picks[view.method]
    epoch, kind, sources = section.choose(store)
except GradsiftError as error:
    st.error(label(error))
    st.stop()
if not len(picks):
    empty.say("Nothing is picked", "These choices leave no rows: loosen them in What if.")
    st.stop()
section.draw(view, epoch, kind, sources)
