"""Deciding on the Compare page: the board's keys and buttons, notes, and decisions on all filtered rows."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from app.text import label, plural
from app.views.decisions import decide, last_step, undo, write_note
from app.views.view import View
from gradsift.workspace.sessions import Decisions

MANY = 1_000  # rows above which a decision on all of them asks for confirmation
_KEY, _SEEN, _REQUEST = "board", "board_seen", "board_request"
_board = st.components.v2.component(
    "gradsift_board", js=Path(__file__).with_name("board.js").read_text(encoding="utf-8"), isolate_styles=False
)


def mount(view: View, columns: Sequence[dict[str, Any]]) -> None:
    """Draw the columns (board.js lays them out) and handle what a person does with their cards."""
    content = {"columns": columns, "seen": st.session_state.get(_SEEN, 0)}
    data = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")  # Streamlit's own JSON is ASCII
    _board(key=_KEY, data=data, on_acts_change=partial(_take, view))


def request() -> tuple[str, int]:
    """What a card's button requests of this run: ("why" or "note", pool row), or ("", -1)."""
    kind, row = st.session_state.pop(_REQUEST, ("", -1))
    return kind, row


def _take(view: View) -> None:
    """Do what the board sent and is not done yet; it resends whatever has no answer."""
    seen = st.session_state.get(_SEEN, 0)
    for action in st.session_state[_KEY].get("acts") or ():
        if action["number"] > seen:
            st.session_state[_SEEN] = seen = action["number"]
            _do(view, action)


def _do(view: View, action: dict[str, Any]) -> None:
    kind, row = action["kind"], int(action.get("row", -1))
    if kind == "undo":
        _undo(view)
    elif 0 <= row < view.store.manifest.rows:
        if kind == "decide":
            decide(view.session, view.store, [row], action["verdict"])
        else:
            st.session_state[_REQUEST] = (kind, row)


def _undo(view: View) -> None:
    st.toast(label(undo(view.session, view.store) or "There is nothing to undo."), icon=":material/undo:")


def bar(view: View, rows: np.ndarray, decisions: Decisions) -> None:
    """Draw counts of decisions, Undo, and decisions on all filtered rows. rows: their pool row numbers."""
    counts = [plural(len(decisions.notes), "note")] if decisions.notes else []
    counts += [f"{len(theirs):,} {name}" for name, theirs in _verdicts(decisions) if len(theirs)]
    with st.container(
        horizontal=True, horizontal_alignment="right", vertical_alignment="center", gap="small", key="reviewing"
    ):
        if counts:
            st.caption(" · ".join(counts), width="content")
        if step := last_step(view.session, view.store):
            st.button("Undo", icon=":material/undo:", key="undo", help=label(step), on_click=_undo, args=(view,))
        if len(rows):
            with st.popover(f"Decide on all {len(rows):,}", icon=":material/checklist:", key="bulk"):
                _bulk(view, rows)


def _verdicts(decisions: Decisions) -> tuple[tuple[str, np.ndarray], ...]:
    return ("accepted", decisions.accepted), ("rejected", decisions.rejected)


def _bulk(view: View, rows: np.ndarray) -> None:
    count = plural(len(rows), "filtered row")
    st.markdown(f"**{count}**: every row that any column shows, on all pages, not just this one.")
    sure = len(rows) <= MANY or st.checkbox(f"Yes, all {len(rows):,}", key=f"sure_{len(rows)}")
    with st.container(horizontal=True, gap="small"):
        for verdict, name, icon in (
            ("accept", f"Accept all {len(rows):,}", ":material/check:"),
            ("reject", f"Reject all {len(rows):,}", ":material/close:"),
            ("", "Clear all decisions", ":material/remove:"),
        ):
            st.button(
                name,
                key=f"all_{verdict or 'open'}",
                icon=icon,
                disabled=not sure,
                on_click=decide,
                args=(view.session, view.store, rows, verdict),
            )
    st.caption("This is one step: Undo reverts it.")


@st.dialog("Note")
def note(view: View, row: int, text: str) -> None:
    """Edit the note on a pool row."""
    with st.form("note", border=False):
        st.text_area(f"Note on row {row:,}", text, key=f"note_{row}", max_chars=4_000, height=160)
        if st.form_submit_button("Save", type="primary", key="save_note", on_click=_keep_note, args=(view, row)):
            st.rerun()


def _keep_note(view: View, row: int) -> None:
    write_note(view.session, view.store, row, st.session_state[f"note_{row}"])
