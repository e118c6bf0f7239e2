"""What every page of picks needs first: an open store with features, and targets scored on it."""

from typing import NoReturn

import streamlit as st

from app.pages import room
from app.state.session import Session
from app.text import clip, label
from app.views.comparison import scoring_of
from app.views.store import store_or_error
from app.widgets import empty
from gradsift.datastore.store import Store
from gradsift.runtime.errors import GradsiftError
from gradsift.scoring.scoring import Scoring
from gradsift.workspace.workspace import is_store


def scored(session: Session) -> tuple[Store, Scoring]:
    """The open store and the open target set's scoring on it; if either is missing, the page says so and stops."""
    store, problem = store_or_error(session)
    if store is None:
        _no_store(session, problem)
    if not session.targets:
        _no_targets()
    try:
        scoring = scoring_of(session, store)
    except (GradsiftError, OSError) as error:
        st.error(label(error))
        st.stop()
    if scoring is None:
        if not store.complete:
            _not_finished()
        _not_scored(session)
    return store, scoring


def _no_store(session: Session, problem: str) -> NoReturn:
    if problem:
        st.error(label(problem))
        st.page_link(
            room("datastore"), label="Choose another datastore", icon=":material/arrow_forward:", icon_position="right"
        )
        st.stop()
    if session.store_path is not None:
        if is_store(session.store_path):
            _not_finished()
        empty.say(
            "There is no datastore here",
            f"Nothing exists at {clip(str(session.store_path), 200)}: it was moved or deleted, or the address is "
            "mistyped.",
            "datastore",
            "Choose another datastore",
        )
        st.stop()
    empty.say(
        "No datastore is open",
        "A comparison needs a datastore with features: open one, or build the sample.",
        "datastore",
        "Open a datastore",
    )
    st.stop()


def _not_finished() -> NoReturn:
    empty.say(
        "This datastore is not finished",
        "Methods compare rows by the features that the build computes: let it finish, or resume it.",
        "datastore",
        "Back to the datastore",
    )
    st.stop()


def _no_targets() -> NoReturn:
    empty.say(
        "No targets yet",
        "Say what the model should learn: choose one of the sample target sets, or paste your own "
        "examples. Each method then picks rows for them.",
        "targets",
        "Choose targets",
    )
    st.stop()


def _not_scored(session: Session) -> NoReturn:
    if session.workspace.target_set(session.targets) is None:
        empty.say(
            "There is no such target set",
            f"No target set is called {clip(session.targets, 80)}: it was deleted, or the address is mistyped.",
            "targets",
            "Choose targets",
        )
        st.stop()
    empty.say(
        "These targets are not scored on this datastore yet",
        "Scoring takes one pass over the targets and the stored "
        "features; after that, every budget and every option is instant.",
        "targets",
        f"Score {label(clip(session.targets, 60))}",
    )
    st.stop()
