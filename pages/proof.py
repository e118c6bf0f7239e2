"""Proof: does it help here? Every method's picks, trained on and measured on held-out rows."""

import streamlit as st

from app.proof import form as proof
from app.state.session import current_session
from app.widgets import required

session = current_session()
st.title("Proof", anchor=False)
chosen = proof.choose(session)
if chosen is None:
    proof.nothing()
else:
    proof.show(chosen)
store, scoring = required.scored(session)
entry = session.workspace.target_set(session.targets)
if entry is not None:
    proof.form(session, store, entry, folded=chosen is not None)
