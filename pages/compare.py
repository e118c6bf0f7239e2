"""Compare: what every method would pick, side by side at one budget."""

import streamlit as st

from app.compare import overlap, picks
from app.state import session
from app.text import label
from app.views import comparison as comparing
from app.widgets import controls, empty
from app.widgets import required as opening
from gradsift.runtime.errors import GradsiftError

now = session.current()
st.title("Compare", anchor=False)
store, scoring = opening.scored(now)
asked = controls.several(now, store, scoring)
with asked.row:
    beside = st.container(width="content")
if not asked.methods:
    empty.say("No method is chosen", "Choose at least one above.")
    st.stop()
try:
    comparison = comparing.compare(store, scoring, asked.methods, asked.budget, asked.choices)
    with beside:
        overlap.draw(comparison)
except GradsiftError as error:
    st.error(label(error))
    st.stop()
picks.draw(store, scoring, asked, comparison)
