"""The thin line on every page: the open store, target set, budget and session, each a link to choose another."""

import os

import streamlit as st

from app.pages import room
from app.state.session import Session
from app.text import clip, label
from app.widgets import budget, saved
from gradsift.workspace.sessions import NAME_LENGTH
from gradsift.workspace.workspace import MANIFEST, is_store


def draw(session: Session) -> None:
    """Draw the line."""
    with st.container(key="gs-context", horizontal=True, gap="medium", vertical_alignment="center"):
        st.page_link(room("datastore"), label=f"Store **{_store(session)}**", icon=":material/database:")
        targets = clip(session.targets, 32) if session.targets else "not chosen"
        st.page_link(room("targets"), label=f"Targets **{label(targets)}**", icon=":material/target:")
        st.page_link(room("compare"), label=f"Budget **{label(budget.shown(session.budget))}**", icon=":material/tune:")
        _session(session)
    if problem := st.session_state.get("session_problem"):
        st.warning(label(problem))


def _session(session: Session) -> None:
    view = session.saved
    name = label(saved.title(view, 32).removeprefix("Session ")) if view else "unsaved"
    with st.popover(f"Session **{name}**", icon=":material/bookmark:", type="tertiary", key="gs-session"):
        if view:
            saved.name_field(session, view, "header")
            st.caption("Saved automatically. Anyone with the address in your browser can reopen it.")
        else:
            st.caption("A session keeps the view and what you accept, reject and note. It begins with Compare.")
            st.text_input("Name of the session", key="header-new-name", max_chars=NAME_LENGTH)
        with st.container(horizontal=True, vertical_alignment="center"):
            action, field = ("Start a new session", "") if view else ("Start a session", "header-new-name")
            st.button(action, icon=":material/add:", on_click=saved.begin, args=(session, field), key="session-new")
            st.page_link(room("sessions"), label="All sessions", icon=":material/list:")


def _store(session: Session) -> str:
    if session.store_path is None:
        return "not open"
    name = label(clip(session.store_title, 32))
    if os.path.isfile(session.store_path / MANIFEST):
        return name
    return f"{name} (no features yet)" if is_store(session.store_path) else f"{name} (not found)"
