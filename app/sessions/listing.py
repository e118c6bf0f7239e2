"""The saved sessions, the last changed first: open, rename, link, delete."""

from pathlib import Path

import streamlit as st

from app.state.session import DEFAULT_BUDGET, GONE, Session, reopen
from app.text import clip, escape, label, plural
from app.views.comparison import budget_problem
from app.widgets import budget, empty, saved, tables
from gradsift.scoring.methods import METHODS
from gradsift.workspace.sessions import SessionRecord

PAGE = 10  # sessions on one page


def draw(session: Session, records: list[SessionRecord]) -> None:
    """Draw the list page by page."""
    if not records:
        empty.say(
            "No session yet",
            "A session keeps the view and what you accept, reject and note, and has an address of its own. "
            "It begins automatically with the first comparison.",
            "compare",
            "Compare picks",
        )
        return
    records = _worth_showing(session, records)
    pages = max(1, -(-len(records) // PAGE))
    page = st.pagination(pages, key=f"sessions-page-{pages}", width=280) if pages > 1 else 1
    first = (page - 1) * PAGE
    shown = records[first : first + PAGE]
    if pages > 1:
        st.caption(tables.position(first, len(shown), len(records), "sessions"))
    for record in shown:
        _line(session, record)


def _worth_showing(session: Session, records: list[SessionRecord]) -> list[SessionRecord]:
    """Named sessions, those with decisions and the open one, or all: every tab that compares begins a session."""
    relevant = [r for r in records if r.kept or r.id == session.session_id]
    passing = len(records) - len(relevant)
    if not passing or not relevant:
        return records
    every = st.toggle(f"Show {plural(passing, 'unnamed, undecided session')}", key="all-sessions")
    return records if every else relevant


def _line(session: Session, record: SessionRecord) -> None:
    opened = record.id == session.session_id
    with st.container(
        border=True,
        key=f"session-{record.id}",
        horizontal=True,
        horizontal_alignment="distribute",
        vertical_alignment="center",
    ):
        st.html(_about(record, opened), width="stretch")
        with st.container(horizontal=True, gap="small", width="content"):
            if st.button("Currently open" if opened else "Open", disabled=opened, key=f"open-session-{record.id}"):
                view = session.sessions.view(record.id)
                if view is None:
                    st.toast(GONE, icon=":material/info:")
                else:
                    reopen(view)
            with st.popover("More", key=f"more-{record.id}"):
                saved.name_field(session, record, "list")
                saved.link_field(record.id)
                _delete(session, record)


def _about(record: SessionRecord, opened: bool) -> str:
    address = record.address
    methods = ", ".join(
        METHODS[m].label if m in METHODS else m for m in address.get("methods", "").split(",") if m.strip()
    )
    parts = [
        Path(address["store"]).name if address.get("store") else "no store",
        address.get("targets") or "no targets",
        f"{methods or 'all methods'} at {_budget(address.get('budget') or DEFAULT_BUDGET)}",
    ]
    view = " · ".join(f"<bdi>{escape(clip(part, 48))}</bdi>" for part in parts)
    badge = ' <span class="gs-badge gs-plain">open in this tab</span>' if opened else ""
    return (
        f'<div class="gs-session"><b>{escape(saved.title(record, 80))}</b>{badge}'
        f'<div class="gs-small gs-dim">{view}</div>'
        f'<div class="gs-small gs-num">{escape(saved.counts(record))}'
        f'<span class="gs-dim"> · changed {escape(saved.when(record.changed))}</span></div></div>'
    )


def _budget(text: str) -> str:
    """A saved budget in words, or unchanged if it cannot be read."""
    return text if budget_problem(text) else budget.shown(text)


def _delete(session: Session, record: SessionRecord) -> None:
    """Draw the delete button, which asks for confirmation."""
    key = f"deleting-{record.id}"
    if not st.session_state.get(key):
        name = f"delete-{record.id}"
        st.button("Delete this session", icon=":material/delete:", key=name, on_click=_ask, args=(key, True))
        return
    st.markdown(f"Delete **{label(saved.title(record, 80))}** ({label(saved.counts(record))})? This cannot be undone.")
    with st.container(horizontal=True):
        yes = f"delete-yes-{record.id}"
        st.button("Delete for good", type="primary", key=yes, on_click=saved.delete, args=(session, record.id))
        st.button("Keep it", key=f"delete-no-{record.id}", on_click=_ask, args=(key, False))


def _ask(key: str, asking: bool) -> None:
    st.session_state[key] = asking
