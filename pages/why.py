"""Why: one row in full, under every method, with its tokens; and the rows that oppose the targets."""

import streamlit as st

from app.state import address, session
from app.text import label, plural
from app.views import comparison as comparing
from app.why import opponents as why_opponents
from app.why import row as why
from app.why import subject as explaining
from app.widgets import controls, empty
from app.widgets import required as opening
from gradsift.datastore.store import Store
from gradsift.runtime.errors import GradsiftError
from gradsift.scoring.choices import Choices
from gradsift.scoring.methods import METHODS
from gradsift.scoring.scoring import Scoring

ROW, OPPONENTS = "row", "opponents"
VIEWS = {ROW: "This row", OPPONENTS: "Opponents"}


def page() -> None:
    """Draw the page."""
    now = session.current()
    st.title("Why", anchor=False)
    store, scoring = opening.scored(now)
    asked = controls.several(now, store, scoring)
    methods, wanted, choices = asked.methods, asked.budget, asked.choices
    if not methods:
        empty.say("No method is chosen", "Choose at least one above.")
        return
    row = _row(store, scoring, methods, wanted, choices)
    if row is None or _view() == OPPONENTS:
        st.subheader("Opponents", anchor=False)
        why_opponents.draw(now, store, scoring, choices)
        return
    why.draw(now, store, scoring, row, methods, wanted, choices)


def _view() -> str:
    with address.held("view", list(VIEWS), default=ROW):
        view = st.segmented_control(
            "View",
            list(VIEWS),
            format_func=lambda name: VIEWS[name],
            key="view",
            required=True,
            label_visibility="collapsed",
        )
    return view or ROW


def _row(store: Store, scoring: Scoring, methods: list[str], wanted: str, choices: Choices) -> int | None:
    """The row that the address names, and the ways to another one."""
    with address.held("row", None, default=""):
        asked = str(st.session_state.get("row", ""))
        row, problem = explaining.find(store, asked) if asked else (None, "")
        if row is not None:
            st.session_state["row"] = str(row)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="why-way"):
        st.text_input("Go to a row", key="why-go", placeholder="its number or id", width=240, on_change=_go)
        by = _ways(store, scoring, row, methods, wanted, choices)
    if problem:
        st.error(label(problem))
    elif row is None:
        empty.say(
            "No row is open",
            f"Next opens the best pick of {METHODS[by].label}; or give a row's number or id, or press Why on a card of "
            "Compare. Below are the rows that oppose the targets.",
        )
    return row


def _ways(store: Store, scoring: Scoring, row: int | None, methods: list[str], wanted: str, choices: Choices) -> str:
    """Buttons to the previous and the next pick of one method, which is returned."""
    with address.held("by", methods, default=methods[0]):
        by = str(st.selectbox("Picks of", methods, key="by", format_func=lambda m: METHODS[m].label, width=140))
    try:
        column = comparing.compare(store, scoring, [by], wanted, choices).columns[0]
    except GradsiftError as error:
        st.error(label(error))
        st.stop()
    at = None if row is None else explaining.position(scoring.rows, row)
    place, before, after = explaining.neighbors(column, at)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
        for name, icon, to, key in (
            ("Previous", ":material/arrow_back:", before, "K"),
            ("Next", ":material/arrow_forward:", after, "J"),
        ):
            st.button(
                name,
                icon=icon,
                key=f"why-{name.lower()}",
                shortcut=key,
                disabled=to is None,
                on_click=_open,
                args=(str(int(scoring.rows[to])) if to is not None else "",),
            )
        of = plural(len(column.picks), "pick")
        said = f"pick {place:,} of {len(column.picks):,}" if place else of if row is None else f"not among the {of}"
        st.caption(said, width="content")
    return by


def _go() -> None:
    if text := (st.session_state["why-go"] or "").strip():
        _open(text)
        st.session_state["why-go"] = ""


def _open(row: str) -> None:
    st.session_state["row"], st.session_state["view"] = row, ROW


page()
