"""Datastore: open one, watch its build, see what is in it, or build another."""

import streamlit as st

from app.datastore import form, stores
from app.datastore.stores import ALL, BUILD, OPEN
from app.state.session import current_session

session = current_session()
if "datastore_next" in st.session_state:
    st.session_state.datastore_room = st.session_state.pop("datastore_next")
st.session_state.setdefault("datastore_room", OPEN if session.store else ALL)
st.title("Datastore", anchor=False)
opened, every, new = st.tabs([OPEN, ALL, BUILD], key="datastore_room", on_change="rerun")

if opened.open:
    with opened:
        stores.show(session)
if every.open:
    with every:
        stores.choose(session.workspace, session.store)
if new.open:
    with new:
        form.draw()
