"""Compare: what every method would pick, side by side at one budget."""

import streamlit as st

from app.compare import overlap, picks
from app.state.session import current_session
from app.text import label
from app.why import explanation
from app.widgets import controls, empty, required
from gradsift.runtime.errors import GradsiftError

session = current_session()
st.title("Compare", anchor=False)
store, scoring = required.scored(session)
with controls.row():
    view = controls.several(session, store, scoring)
    beside = st.container(width="content")
if not view.methods:
    empty.say("No method is chosen", "Choose at least one above.")
    st.stop()
try:
    with beside:
        overlap.draw(view.comparison)
except GradsiftError as error:
    st.error(label(error))
    st.stop()
picks.draw(view, explanation.drawer)
