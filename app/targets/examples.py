"""Target examples on the page: usable ones as a table, unusable ones with their line and reason."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st

from app.text import clip, escape, plural
from app.views.targets import TokenCount
from app.widgets import conversation, learned, tables
from gradsift.data.pool import Row
from gradsift.datastore.store import Store

FEW = 5  # up to so many unusable rows are listed unfolded
SHOWN = 50  # unusable rows that are listed; the rest are counted
NUMBER = st.column_config.NumberColumn


def summary(rows: Sequence[Row], bad: Sequence[Row], counts: Sequence[TokenCount] | None) -> str:
    """One line: 6 examples in 2 subtasks, 1,204 tokens; 1 line cannot be used."""
    names = {row.subtask for row in rows}
    text = f"{plural(len(rows), 'example')} in {plural(len(names), 'subtask')}"
    if counts:
        text += f", {plural(sum(c.n_prompt + c.n_answer for c in counts if not c.reason), 'token')}"
        left_out = sum(bool(c.reason) for c in counts)
        text += f"; {left_out} left out by the model" if left_out else ""
    return text + (f"; {plural(len(bad), 'row')} cannot be read" if bad else "")


def table(rows: list[Row], counts: Sequence[TokenCount] | None, key: str, editable: bool) -> list[Row]:
    """Draw the examples with their subtask and tokens; returns them with the edited subtasks.

    Streamlit forgets an edit when the page changes, so the names are kept beside the widget, and a new widget begins
    with them.
    """
    state, initial, current = st.session_state, f"{key}-begun", f"{key}-subtasks"
    if key not in state:
        state[initial] = state.get(current, [row.subtask for row in rows])
    frame = pd.DataFrame(
        {
            "subtask": state[initial],
            "question": [clip(_first(row, "user"), 240) for row in rows],
            "reply": [clip(next(turn.text for turn in row.messages if turn.is_learned), 160) for row in rows],
            "prompt": [c.n_prompt for c in counts] if counts else [None] * len(rows),
            "answer": [c.n_answer for c in counts] if counts else [None] * len(rows),
        }
    )
    config: tables.Columns = {
        "subtask": st.column_config.TextColumn("Subtask", max_chars=80, required=True, width="small"),
        "question": st.column_config.TextColumn("Question", width="large"),
        "reply": st.column_config.TextColumn("Answer", width="medium"),
        "prompt": NUMBER("Prompt tokens", width="small"),
        "answer": NUMBER("Answer tokens", width="small"),
    }
    order = list(frame) if counts else ["subtask", "question", "reply"]
    shared: dict[str, Any] = {
        "hide_index": True,
        "column_config": config,
        "column_order": order,
        "alt": "Target examples",
        "key": key,
    }
    if not editable:
        st.dataframe(frame, **shared)
        return rows
    edited = st.data_editor(frame, disabled=["question", "reply", "prompt", "answer"], **shared)
    names = [str(name or "").strip() or row.subtask for name, row in zip(edited["subtask"], rows, strict=True)]
    state[current] = names
    return [replace(row, subtask=name) for row, name in zip(rows, names, strict=True)]


def unreadable(bad: Sequence[Row]) -> None:
    """Draw rows that cannot be used, each with its line, the reason and its beginning; folded if many."""
    if not bad:
        return
    title = f"{plural(len(bad), 'row')} cannot be used; the others are kept"
    with st.expander(title, expanded=len(bad) <= FEW, icon=":material/error:"):
        _list([(f"Line {row.line}", row.reason, row.raw.decode("utf-8", "replace")) for row in bad])


def refused(rows: Sequence[Row], counts: Sequence[TokenCount]) -> None:
    """Draw the rows that the store's model refuses; they are left out of the scoring."""
    left_out = [(row, c.reason) for row, c in zip(rows, counts, strict=True) if c.reason]
    if not left_out:
        return
    st.subheader(f"{plural(len(left_out), 'example')} left out", anchor=False)
    st.caption("The open datastore's model cannot take these; the others are scored.")
    _list([(f"Line {row.line}", reason, _first(row, "user")) for row, reason in left_out])


def reader(rows: Sequence[Row], key: str, store: Store | None) -> None:
    """Draw one example in full, chosen by number, and with an open store what is learned of it."""
    with st.expander("Read an example in full"):
        number = st.number_input("Example", 1, len(rows), key=f"{key}-reader", width=160) if len(rows) > 1 else 1
        row = rows[min(int(number or 1), len(rows)) - 1]
        if store is not None and st.toggle("What is learned of it", key=f"{key}-learned"):
            learned.draw(store, row.conversation)
        else:
            st.html(f'<div class="gs-reader">{conversation.draw(row.conversation)}</div>')


def _list(items: Sequence[tuple[str, str, str]]) -> None:
    shown = "".join(
        f'<div class="gs-bad gs-small"><b>{escape(where)}</b>: {escape(reason)}'
        f"<code>{escape(clip(text, 200)) or '(empty)'}</code></div>"
        for where, reason, text in items[:SHOWN]
    )
    rest = f"<p class='gs-small gs-dim'>and {len(items) - SHOWN:,} more</p>" if len(items) > SHOWN else ""
    st.html(shown + rest)


def _first(row: Row, role: str) -> str:
    return next((message.text for message in row.messages if message.role == role), "")
