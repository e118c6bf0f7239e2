"""Proof: does it help here? Every method's picks, trained on and measured on held-out rows."""

import streamlit as st

from app.proof import form as proof
from app.state import session
from app.widgets import required as opening

now = session.current()
st.title("Proof", anchor=False)
chosen = proof.choose(now)
if chosen is None:
    proof.nothing()
else:
    proof.show(chosen)
store, scoring = opening.scored(now)
entry = now.workspace.target_set(now.targets)
if entry is not None:
    proof.form(now, store, entry, folded=chosen is not None)
