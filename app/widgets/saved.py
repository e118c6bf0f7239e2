"""A saved session on the page: its title and link, and the fields that rename it, start another or delete it."""

from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import streamlit as st

from app.pages import ROOMS
from app.state.session import Session, leave_session, start_session
from app.text import clip, label, plural
from gradsift.runtime.errors import GradsiftError
from gradsift.workspace.sessions import NAME_LENGTH, SessionRecord, SessionView

View = SessionView | SessionRecord


def title(view: View, length: int = 40) -> str:
    """The session's name, or when it began if it is unnamed."""
    return clip(view.name, length) if view.name.strip() else f"Session {when(view.created)}"


def when(seconds: float) -> str:
    """A time in the browser's time zone: 22 Nov 09:41, with the year unless it is this one."""
    moment = datetime.fromtimestamp(seconds, UTC).astimezone(_zone())
    this_year = datetime.now(UTC).astimezone(_zone()).year
    return f"{moment:%-d %b %H:%M}" if moment.year == this_year else f"{moment:%-d %b %Y %H:%M}"


def counts(record: SessionRecord) -> str:
    """What was decided: 12 accepted · 3 rejected · 1 note."""
    parts = {
        f"{record.accepted:,} accepted": record.accepted,
        f"{record.rejected:,} rejected": record.rejected,
        plural(record.notes, "note"): record.notes,
    }
    return " · ".join(text for text, count in parts.items() if count) or "nothing decided yet"


def link(id: str) -> str:
    """The address that opens the session; relative if the browser does not send the server's."""
    url = (st.context.url or "").partition("?")[0]
    root, _, last = url.rpartition("/")
    base = root if any(last == known.stem for known in ROOMS) else url.rstrip("/")
    return f"{base}/?session={id}"


def name_field(session: Session, view: View, prefix: str) -> None:
    """Draw the field that renames the session. prefix: distinguishes several fields on one page."""
    key = f"{prefix}-name-{view.id}"
    st.text_input(
        "Name of the session",
        value=view.name,
        key=key,
        max_chars=NAME_LENGTH,
        placeholder=title(view),
        on_change=_rename,
        args=(session, view.id, key),
    )


def link_field(id: str) -> None:
    """Draw the session's link, with a button that copies it."""
    st.caption("Link: anyone who opens it works in this session and shares its decisions.")
    st.code(link(id), language=None, wrap_lines=True)


def begin(session: Session, key: str = "") -> None:
    """Start another session in this tab. key: the field with its name."""
    _try(lambda: start_session(session, st.session_state.get(key, "")))


def delete(session: Session, id: str) -> None:
    """Delete a session; the tab goes on without one if it was open."""
    _try(lambda: session.sessions.delete(id))
    if id == session.session_id:
        leave_session()


def _rename(session: Session, id: str, key: str) -> None:
    _try(lambda: session.sessions.rename(id, st.session_state[key]))


def _try(step: Callable[[], object]) -> None:
    try:
        step()
    except GradsiftError as error:
        st.toast(label(error), icon=":material/error:")


def _zone() -> ZoneInfo | None:
    """The browser's time zone, or None (the server's) if it is unknown."""
    try:
        return ZoneInfo(st.context.timezone) if st.context.timezone else None
    except (KeyError, ValueError, OSError):
        return None
