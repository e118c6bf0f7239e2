"""Datastore: open one, watch its build, look at what is in it, or build another."""

import streamlit as st

from app import data, session
from app.components import build_form, overview, running, stores
from app.components.stores import ALL, BUILD, OPEN
from app.components.text import label
from gradsift import jobs

now = session.current()
if "datastore_next" in st.session_state:
    st.session_state.datastore_room = st.session_state.pop("datastore_next")
st.session_state.setdefault("datastore_room", OPEN if now.store else ALL)
st.title(label(now.store_title) or "Datastore", anchor=False)
opened, every, new = st.tabs([OPEN, ALL, BUILD], key="datastore_room", on_change="rerun")

if opened.open:
    with opened:
        if now.store_path is None:
            st.caption(
                "A gradient datastore holds one feature vector per training example and checkpoint. None is open yet."
            )
            stores.choose(now.workspace, now.store)
        else:
            store, problem = data.store_or_error(now)
            status = jobs.status(now.store_path)
            if status is not None and status.state == "running":
                running.watch(now.store_path, f"Building {now.store_title}")
                st.caption("The build is a process of its own: close this page, come back, it goes on.")
                if store is not None:
                    overview.figures(store)
            elif problem:
                st.error(label(problem))
            elif store is None or not store.complete:
                stores.unfinished(now.store_path, store)
            else:
                overview.draw(store)
if every.open:
    with every:
        stores.choose(now.workspace, now.store)
if new.open:
    with new:
        build_form.draw()
