"""The open session's decisions on a store, and how to make more: accept, reject, note, undo.

A session begins automatically, with the first decision or the first comparison on the screen. Nothing here raises if a
session is gone or a file cannot be written: a toast says so, and the page carries on.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import streamlit as st

from app.state.session import GONE, Session, current_session, leave_session, start_session
from app.text import label
from app.views.comparison import scoring_of
from app.views.store import store_of
from gradsift.datastore.store import Store
from gradsift.runtime.errors import GradsiftError, UsageError
from gradsift.workspace.sessions import Decisions, Sessions

WITHOUT_PICKS = ("datastore", "targets", "proof", "sessions")  # pages that show no comparison
NO_DECISIONS = Decisions(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), {}, 0)


def keep_session(session: Session, page: str) -> Session:
    """Begin a session if `page` is about to show a comparison without one; returns what is open."""
    if session.session_id or page in WITHOUT_PICKS or st.session_state.get("session_problem"):
        return session
    with suppress(GradsiftError, OSError):  # the page itself says what is wrong with the store or the scores
        store = store_of(session)
        if store is not None and scoring_of(session, store) is not None:
            start_session(session)
    return current_session()


def current_decisions(session: Session, store: Store) -> Decisions:
    """What the open session decided on this store; its arrays are shared and read-only."""
    return decisions_of(session.sessions, current_session().session_id, store)


def decisions_of(sessions: Sessions, id: str, store: Store) -> Decisions:
    """What the session `id` decided on this store; empty if it is unknown or its file cannot be read."""
    if not id:
        return NO_DECISIONS
    with suppress(GradsiftError):
        version = sessions.version(id, store.lineage)
        return _decisions(str(sessions.path), id, store.lineage, version, sessions) if version else NO_DECISIONS
    return NO_DECISIONS


def decide(session: Session, store: Store, rows: Sequence[int] | np.ndarray, verdict: str) -> None:
    """Accept ("accept"), reject ("reject") or clear ("") pool rows, in one step that `undo` reverts."""
    _write(session, lambda id: session.sessions.decide(id, store.lineage, rows, verdict))


def write_note(session: Session, store: Store, row: int, text: str) -> None:
    """Keep a note on a pool row; "" removes it."""
    _write(session, lambda id: session.sessions.note(id, store.lineage, row, text))


def undo(session: Session, store: Store) -> str:
    """Revert the latest step on this store; returns a sentence about it, "" if there was no step."""
    id = current_session().session_id
    if not id:
        return ""
    try:
        return session.sessions.undo(id, store.lineage)
    except UsageError:
        leave_session()
        st.toast(GONE, icon=":material/info:")
    except GradsiftError as error:
        st.toast(label(error), icon=":material/error:")
    return ""


def last_step(session: Session, store: Store) -> str:
    """What `undo` would revert ("12 rows accepted"), or ""."""
    id = current_session().session_id
    if id:
        with suppress(GradsiftError):
            return session.sessions.last_step(id, store.lineage)
    return ""


def _write(session: Session, step: Callable[[str], object]) -> None:
    """Do `step` in the open session, or in a new one if there is no open session or it is gone."""
    id = current_session().session_id
    try:
        try:
            if id:
                step(id)
                return
        except UsageError:
            st.toast(GONE, icon=":material/info:")
        step(start_session(session))
    except GradsiftError as error:
        st.toast(label(error), icon=":material/error:")


@st.cache_resource(max_entries=16, show_spinner=False)
def _decisions(path: str, id: str, fingerprint: str, version: int, _sessions: Sessions) -> Decisions:
    return _sessions.decisions(id, fingerprint)
