"""The row of controls on top of every page with picks: methods, budget and what-ifs."""

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import theme
from app.state import address
from app.state.session import Session
from app.views.comparison import methods_of
from app.views.view import View
from app.widgets import budget, what_if
from gradsift.datastore.store import Store
from gradsift.scoring.methods import METHODS
from gradsift.scoring.scoring import Scoring


def row() -> DeltaGenerator:
    """The row itself, in which a page draws `several` or `one` and its own additions."""
    return st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="controls")


def several(session: Session, store: Store, scoring: Scoring) -> View:
    """Draw the controls of a page that compares methods; the view may have no methods."""
    known = methods_of(scoring)
    with address.bound("methods", known, default=known):
        chosen = st.pills("Methods", known, selection_mode="multi", format_func=method_label, key="methods")
    methods = tuple(name for name in known if name in chosen)
    return View(session, store, scoring, methods, budget.draw(session), what_if.draw(store, scoring))


def one(session: Session, store: Store, scoring: Scoring, label: str) -> View:
    """Draw the controls of a page that shows the picks of one method. label: of the method's field."""
    known = methods_of(scoring)
    with address.bound("method", known, default=known[0]):
        method = st.segmented_control(label, known, key="method", required=True, format_func=method_label)
    return View(session, store, scoring, (method or known[0],), budget.draw(session), what_if.draw(store, scoring))


def method_label(name: str) -> str:
    """A method's mark and name for a widget."""
    look = theme.look(name)
    return f":{look.ink}[{look.mark}] {METHODS[name].label}"
