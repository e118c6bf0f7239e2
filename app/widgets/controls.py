"""The row of controls that every page with picks begins with: whose picks, at which budget, under which what-ifs."""

from dataclasses import dataclass

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app.state import address
from app.state.session import Session
from app.views import comparison as comparing
from app.widgets import budget, score
from app.widgets import what_if as options
from gradsift.datastore.store import Store
from gradsift.scoring.choices import Choices
from gradsift.scoring.scoring import Scoring


@dataclass(frozen=True, slots=True)
class Controls:
    """What the row says. methods: in the order of the registry, maybe none. row: for what a page adds at its end."""

    methods: list[str]
    budget: str
    choices: Choices
    row: DeltaGenerator


def several(now: Session, store: Store, scoring: Scoring) -> Controls:
    """Draw the row where a page compares methods."""
    known = comparing.methods_of(scoring)
    row = _row()
    with row:
        with address.held("methods", known, default=known):
            chosen = st.pills("Methods", known, selection_mode="multi", format_func=score.method_label, key="methods")
        methods = [name for name in known if name in chosen]
        return Controls(methods, budget.draw(now), options.draw(store, scoring), row)


def one(now: Session, store: Store, scoring: Scoring, label: str) -> Controls:
    """Draw the row where a page shows the picks of one method, which `label` names."""
    known = comparing.methods_of(scoring)
    row = _row()
    with row:
        with address.held("method", known, default=known[0]):
            chosen = st.segmented_control(label, known, key="method", required=True, format_func=score.method_label)
        return Controls([chosen or known[0]], budget.draw(now), options.draw(store, scoring), row)


def _row() -> DeltaGenerator:
    return st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="controls")
