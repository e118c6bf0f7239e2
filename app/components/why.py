"""Why a row is picked: everything known about one row, on its page and in a drawer over any other page."""

from collections.abc import Sequence

import streamlit as st

from app.session import Session
from gradsift.choices import Choices
from gradsift.influence import Scoring
from gradsift.store import Store


def drawer(
    now: Session, store: Store, scoring: Scoring, row: int, methods: Sequence[str], budget: str, choices: Choices
) -> None:
    """Open the drawer on pool row `row`; call it once in a run, from a button's branch or after its callback."""
    _drawer(now, store, scoring, row, methods, budget, choices)


def draw(
    now: Session, store: Store, scoring: Scoring, row: int, methods: Sequence[str], budget: str, choices: Choices
) -> None:
    """Draw everything known about pool row `row` under the methods' rankings at this budget and these choices."""
    st.caption(f"Row {row:,}")


@st.dialog("Why this row", position="right", width="large", on_dismiss="rerun")
def _drawer(
    now: Session, store: Store, scoring: Scoring, row: int, methods: Sequence[str], budget: str, choices: Choices
) -> None:
    draw(now, store, scoring, row, methods, budget, choices)
