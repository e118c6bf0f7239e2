"""What is open in this tab: the workspace, the store, the target set, the budget and the saved session.

The names are in the address bar, so that a reload, a second tab or a link sent to a colleague shows the same thing;
everything else is read from disk. Streamlit clears the address when the page changes, so `begin_run` (called once a run
by the entry script) takes each name from the address, else from this tab's memory, and writes it back to both.

A saved session holds decisions and the view. It begins automatically, with the first comparison on the screen or the
first decision, whichever comes first. An address with nothing but a session opens the view where it was left.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import streamlit as st

from app.pages import ROOMS, room
from app.state import address
from gradsift.runtime.errors import GradsiftError, UsageError
from gradsift.selection.budget import Budget
from gradsift.workspace.sessions import Sessions, SessionView
from gradsift.workspace.workspace import SAMPLE_STORE, StoreEntry, Workspace

WORKSPACE_VARIABLE = "GRADSIFT_WORKSPACE"
DEFAULT_BUDGET = "5%"
GONE = "That session is gone, perhaps deleted in another tab. New decisions go into a new session."
_NAMES = ("store", "targets", "budget", "session")


@dataclass(frozen=True, slots=True)
class Session:
    """The names of what is open, empty if nothing is. saved: the saved session, None before there is one."""

    workspace: Workspace
    store: str
    targets: str
    budget: str
    saved: SessionView | None = None

    @property
    def store_path(self) -> Path | None:
        """The open store's folder."""
        return self.workspace.store_path(self.store) if self.store else None

    @property
    def store_title(self) -> str:
        """The open store's name for a heading."""
        return Path(self.store).name if self.store else ""

    @property
    def session_id(self) -> str:
        """The saved session's id, as the address has it; empty before there is one."""
        return self.saved.id if self.saved else ""

    @property
    def sessions(self) -> Sessions:
        """Every saved session of the workspace."""
        return Sessions(self.workspace.sessions_path)


def begin_run(page: str) -> Session:
    """Determine what is open in this run, in memory and in the address bar. page: the stem of the requested page.

    May switch to the page at which a saved session was left; the run then begins again.
    """
    address.begin_run(page)
    workspace = Workspace(os.environ.get(WORKSPACE_VARIABLE))
    st.session_state.workspace = workspace
    _find_saved(Sessions(workspace.sessions_path), page)
    if not (st.query_params.get("store") or st.session_state.get("open_store")):
        st.session_state.open_store = _first(workspace.stores())
    opened = {name: address.text_or(name, st.session_state.get(f"open_{name}", "")) for name in _NAMES}
    opened["budget"] = _readable(opened["budget"])
    for name, value in opened.items():
        st.session_state[f"open_{name}"] = value
    missing = {name: value for name, value in opened.items() if value and st.query_params.get(name) != value}
    address.note(opened)
    if missing:  # in one go: each change of the address is a step of the browser's Back
        st.query_params.update(missing)
    pair = (opened["store"], opened["targets"])
    # left-out examples go by number, which is another example in another set; a link brings its own numbers
    if st.session_state.get("left_out_of", pair) != pair and not address.from_link("without"):
        address.forget("without")
    st.session_state.left_out_of = pair
    return current_session()


def current_session() -> Session:
    """What is open, as `begin_run` determined it."""
    state = st.session_state
    budget = state.open_budget or DEFAULT_BUDGET
    return Session(state.workspace, state.open_store, state.open_targets, budget, state.get("saved_session"))


def remember(**names: str) -> None:
    """Open another store, target set or budget (`store=`, `targets=`, `budget=`); it takes effect in the next run."""
    for name, value in names.items():
        if name not in _NAMES:
            raise KeyError(name)
        st.session_state[f"open_{name}"] = value
        address.write(name, value)


def start_session(session: Session, name: str = "") -> str:
    """Begin a saved session in this tab and return its id; the view stays, the decisions start empty.

    Raises:
        GradsiftError: it cannot be written, or the name is too long.
    """
    record = session.sessions.create(name)
    st.session_state.saved_session = SessionView(record.id, record.name, record.created, record.page, record.address)
    remember(session=record.id)
    return record.id


def leave_session() -> None:
    """Go on without a saved session: the open one is gone, or about to go."""
    st.session_state.saved_session = None
    remember(session="")


def save_view(page: str) -> None:
    """Keep the page and the address in the open saved session, so that it reopens where it was left.

    A page has only its own names in its address; those of other pages, such as Compare's filters, stay as they were.
    """
    address.end_run()
    saved = current_session().saved
    if saved is None or page == "sessions":  # the list of sessions is not a view of one
        return
    claimed = address.claimed()  # includes values at their default, which the address leaves out
    others = {name: value for name, value in saved.address.items() if name not in claimed}
    view = {**others, **view_of(st.query_params.to_dict())}
    # The next run reports a session that is gone, the next decision a full disk.
    with suppress(GradsiftError):
        current_session().sessions.save_view(saved.id, page, view)


def reopen(view: SessionView) -> NoReturn:
    """Open a saved session in this tab, at the page and address where it was left; forget what is open now."""
    st.session_state.clear()
    address.recall(view.address)
    stem = view.page if any(view.page == known.stem for known in ROOMS) else "compare"
    st.switch_page(room(stem), query_params={**view.address, "session": view.id})


def view_of(address: Mapping[str, str]) -> dict[str, str]:
    """The part of an address that is a view: all of it but the session's id."""
    return {name: value for name, value in address.items() if name != "session"}


def _readable(budget: str) -> str:
    """A budget as the fields write it; the default if it cannot be read, so that all pages agree."""
    try:
        return str(Budget.parse(budget)) if budget else ""
    except UsageError:
        return DEFAULT_BUDGET


def _find_saved(sessions: Sessions, page: str) -> None:
    """Find the saved session of the address or this tab; open its view if the address holds nothing else."""
    state = st.session_state
    id = st.query_params.get("session") or state.get("open_session", "")
    state.session_problem = ""
    if not id:
        state.saved_session = None
        return
    fresh = "open_session" not in state
    try:
        state.saved_session = sessions.view(id)
    except GradsiftError as error:  # the page works without it; the id stays in the address in case the file comes back
        state.saved_session, state.session_problem = None, str(error)
        return
    if state.saved_session is None:
        leave_session()
        st.toast(GONE, icon=":material/info:")
    elif fresh and state.saved_session.address and not view_of(st.query_params.to_dict()):
        _restore(state.saved_session, page)


def _restore(view: SessionView, page: str) -> None:
    """Restore the saved address, and the saved page if the address has no page of its own."""
    if page == ROOMS[0].stem and view.page != page and any(view.page == known.stem for known in ROOMS):
        reopen(view)
    address.recall(view.address)
    for name, value in view.address.items():
        st.query_params[name] = value


def _first(stores: list[StoreEntry]) -> str:
    """The store that a new tab opens: the one changed last; of stores changed at the same time, the sample."""
    ordered = sorted(stores, key=lambda store: (store.changed, store.name == SAMPLE_STORE))
    return ordered[-1].name if ordered else ""
