"""The budget of all methods: a share of the usable rows, a number of rows, or a number of tokens."""

import streamlit as st

from app.state.session import Session, remember
from app.text import plural
from gradsift.selection.budget import Budget

UNITS = {"percent": "% of the pool", "rows": "rows", "tokens": "tokens"}
_FIRST = {"percent": 5.0, "rows": 50.0, "tokens": 10_000.0}


def parts(text: str) -> tuple[str, float]:
    """Unit and value of a budget as text: `5%`, `200`, `50000tokens`."""
    budget = Budget.parse(text)
    return {"%": "percent"}.get(budget.unit, budget.unit), budget.amount


def written(unit: str, value: float) -> str:
    """The budget as text, as the command line takes it."""
    return str(Budget(value, "%" if unit == "percent" else unit))


def shown(text: str) -> str:
    """A budget in words: 5%, 200 rows, 50,000 tokens."""
    unit, amount = parts(text)
    return text if unit == "percent" else plural(int(amount), unit.removesuffix("s"))


def draw(session: Session) -> str:
    """Draw the two fields and return the budget as text; a change is remembered for every page."""
    unit, value = parts(session.budget)
    st.session_state.budget_unit, st.session_state.budget_value = unit, value
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", width="content"):
        st.number_input(
            "Budget",
            min_value=min(0.1, value) if unit == "percent" else 1.0,
            max_value=100.0 if unit == "percent" else None,
            step={"percent": 1.0, "rows": 10.0, "tokens": 1000.0}[unit],
            format="%g" if unit == "percent" else "%.0f",
            key="budget_value",
            on_change=_change,
            width=150,
            help="The same for every method, so that columns can be compared.",
        )
        st.segmented_control(
            "Unit",
            list(UNITS),
            format_func=lambda name: UNITS[name],
            key="budget_unit",
            required=True,
            on_change=_switch,
            label_visibility="collapsed",
        )
    return written(unit, value)


def _change() -> None:
    value = st.session_state.budget_value
    if value:
        remember(budget=written(st.session_state.budget_unit, value))


def _switch() -> None:
    remember(budget=written(st.session_state.budget_unit, _FIRST[st.session_state.budget_unit]))
