"""The thin line on every page: which store, target set and budget are open, each a link to where it is chosen."""

import streamlit as st

from app.components.text import clip, label
from app.rooms import room
from app.session import Session
from gradsift.workspace import MANIFEST


def draw(session: Session) -> None:
    """Draw the line for `session`."""
    with st.container(key="gs-context", horizontal=True, gap="medium", vertical_alignment="center"):
        st.page_link(room("datastore"), label=f"Store **{_store(session)}**", icon=":material/database:")
        targets = clip(session.targets, 32) if session.targets else "none chosen"
        st.page_link(room("targets"), label=f"Targets **{label(targets)}**", icon=":material/target:")
        st.page_link(room("compare"), label=f"Budget **{label(session.budget)}**", icon=":material/tune:")


def _store(session: Session) -> str:
    if session.store_path is None:
        return "none open"
    name = label(clip(session.store_title, 32))
    return name if (session.store_path / MANIFEST).exists() else f"{name} (no features yet)"
