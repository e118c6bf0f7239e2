"""The thin line on every page: which store, target set, budget and session are open, each a way to choose another."""

import os

import streamlit as st

from app.pages import room
from app.state.session import Session
from app.text import clip, label
from app.widgets import saved
from gradsift.workspace.sessions import NAME_LENGTH
from gradsift.workspace.workspace import MANIFEST, is_store


def draw(now: Session) -> None:
    """Draw the line."""
    with st.container(key="gs-context", horizontal=True, gap="medium", vertical_alignment="center"):
        st.page_link(room("datastore"), label=f"Store **{_store(now)}**", icon=":material/database:")
        targets = clip(now.targets, 32) if now.targets else "none chosen"
        st.page_link(room("targets"), label=f"Targets **{label(targets)}**", icon=":material/target:")
        st.page_link(room("compare"), label=f"Budget **{label(now.budget)}**", icon=":material/tune:")
        _session(now)
    if problem := st.session_state.get("session_problem"):
        st.warning(label(problem))


def _session(now: Session) -> None:
    view = now.saved
    name = label(saved.title(view, 32).removeprefix("Session ")) if view else "unsaved"
    with st.popover(f"Session **{name}**", icon=":material/bookmark:", type="tertiary", key="gs-session"):
        if view:
            saved.name_field(now, view, "header")
            st.caption("Saved by itself. The address in your browser opens it again, for a colleague too.")
        else:
            st.caption("A session keeps the view and what you accept, reject and note. It begins by itself on Compare.")
            st.text_input("Name of the session", key="header-new-name", max_chars=NAME_LENGTH)
        with st.container(horizontal=True, vertical_alignment="center"):
            said, named = ("Start a new one", "") if view else ("Start it now", "header-new-name")
            st.button(said, icon=":material/add:", on_click=saved.begin, args=(now, named), key="session-new")
            st.page_link(room("sessions"), label="All sessions", icon=":material/list:")


def _store(now: Session) -> str:
    if now.store_path is None:
        return "none open"
    name = label(clip(now.store_title, 32))
    if os.path.isfile(now.store_path / MANIFEST):
        return name
    return f"{name} (no features yet)" if is_store(now.store_path) else f"{name} (not found)"
