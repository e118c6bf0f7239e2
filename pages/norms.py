"""Gradient norms: long answers have small gradients, which is why LESS compares by cosine."""

import streamlit as st

from app.norms import section as norms
from app.state import session
from app.text import label
from app.views import comparison as comparing
from app.views.figures import View
from app.widgets import controls, empty
from app.widgets import required as opening
from gradsift.runtime.errors import GradsiftError

now = session.current()
st.title("Gradient norms", anchor=False)
store, scoring = opening.scored(now)
asked = controls.one(now, store, scoring, "Picks of")
try:
    comparison = comparing.compare(store, scoring, asked.methods, asked.budget, asked.choices)
    epoch, kind, sources = norms.choose(store)
except GradsiftError as error:
    st.error(label(error))
    st.stop()
if not len(comparison.columns[0].picks):
    empty.say("Nothing is picked", "These choices leave no row: allow more in What if.")
    st.stop()
view = View(store, scoring, comparison, asked.budget, asked.choices)
norms.draw(view, asked.methods[0], epoch, kind, sources)
