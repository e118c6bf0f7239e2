"""Why: one row in full, under every method, with its tokens; and the rows that oppose the targets."""

import streamlit as st

from app.state import address
from app.state.session import current_session
from app.text import label, plural
from app.views.view import View
from app.why import explanation, opponents
from app.why.subject import find_row, neighbors, position_of
from app.widgets import controls, empty, required
from gradsift.runtime.errors import GradsiftError
from gradsift.scoring.methods import METHODS

ROW, OPPONENTS = "row", "opponents"
PARTS = {ROW: "This row", OPPONENTS: "Opponents"}


def page() -> None:
    """Draw the page."""
    session = current_session()
    st.title("Why", anchor=False)
    store, scoring = required.scored(session)
    with controls.row():
        view = controls.several(session, store, scoring)
    if not view.methods:
        empty.say("No method is chosen", "Choose at least one above.")
        return
    row = _row(view)
    if row is None or _part() == OPPONENTS:
        opponents.draw(view)
        return
    explanation.draw(view, row)


def _part() -> str:
    with address.bound("view", list(PARTS), default=ROW):
        part = st.segmented_control(
            "View",
            list(PARTS),
            format_func=lambda name: PARTS[name],
            key="view",
            required=True,
            label_visibility="collapsed",
        )
    return part or ROW


def _row(view: View) -> int | None:
    """Draw the ways to another row; returns the row in the address."""
    with address.bound("row", None, default=""):
        name = str(st.session_state.get("row", ""))
        row, problem = find_row(view.store, name) if name else (None, "")
        if row is not None:
            st.session_state["row"] = str(row)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="why-way"):
        st.text_input("Go to a row", key="why-go", placeholder="its number or id", width=240, on_change=_go)
        method = _ways(view, row)
    if problem:
        st.error(label(problem))
    elif row is None:
        empty.say(
            "No row is open",
            f"Next opens the best pick of {METHODS[method].label}. Or enter a row's number or id, or press Why "
            "on a card in Compare. Below are the rows that score lowest.",
        )
    return row


def _ways(view: View, row: int | None) -> str:
    """Draw buttons to the previous and the next pick of one method; returns the method."""
    methods = list(view.methods)
    with address.bound("by", methods, default=methods[0]):
        method = str(st.selectbox("Picks of", methods, key="by", format_func=lambda m: METHODS[m].label, width=140))
    try:
        column = view.comparison.column(method)
    except GradsiftError as error:
        st.error(label(error))
        st.stop()
    rows = view.scoring.rows
    place, before, after = neighbors(column, None if row is None else position_of(rows, row))
    with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
        for name, icon, position, key in (
            ("Previous", ":material/arrow_back:", before, "K"),
            ("Next", ":material/arrow_forward:", after, "J"),
        ):
            st.button(
                name,
                icon=icon,
                key=f"why-{name.lower()}",
                shortcut=key,
                disabled=position is None,
                on_click=_open,
                args=(str(int(rows[position])) if position is not None else "",),
            )
        count = plural(len(column.picks), "pick")
        if place:
            st.caption(f"pick {place:,} of {len(column.picks):,}", width="content")
        else:
            st.caption(count if row is None else f"not among the {count}", width="content")
    return method


def _go() -> None:
    if text := (st.session_state["why-go"] or "").strip():
        _open(text)
        st.session_state["why-go"] = ""


def _open(row: str) -> None:
    st.session_state["row"], st.session_state["view"] = row, ROW


page()
