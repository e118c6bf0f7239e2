"""Proof: does it help here? Training on every method's picks, measured on held-out rows."""

import streamlit as st

from app.proof import form, results
from app.state.session import current_session
from app.widgets import required

session = current_session()
st.title("Proof", anchor=False)
evaluation = results.choose(session)
if evaluation is None:
    results.nothing()
else:
    results.show(evaluation)
store, scoring = required.scored(session)
entry = session.workspace.target_set(session.targets)
if entry is not None:
    form.draw(session, store, scoring, entry, folded=evaluation is not None)
