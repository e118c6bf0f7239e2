"""What every page of picks needs before anything else: an open store with features, and targets scored on it."""

from typing import NoReturn

import streamlit as st

from app import comparing, data, session
from app.components import empty
from app.components.text import label
from gradsift.errors import GradsiftError
from gradsift.influence import Scoring
from gradsift.store import Store


def scored(now: session.Session) -> tuple[Store, Scoring]:
    """The open store and the open target set's scoring on it; what is missing is said and ends the run."""
    store, problem = data.store_or_error(now)
    if store is None:
        if problem:
            st.error(label(problem))
        _no_store()
    if not now.targets:
        _no_targets()
    try:
        scoring = comparing.scoring_of(now, store)
    except (GradsiftError, OSError) as error:
        st.error(label(error))
        st.stop()
    if scoring is None:
        _not_scored(now)
    return store, scoring


def _no_store() -> NoReturn:
    empty.say(
        "No datastore is open",
        "A comparison needs a datastore with features: open one, or build the sample's.",
        "datastore",
        "Open a datastore",
    )
    st.stop()


def _no_targets() -> NoReturn:
    empty.say(
        "No targets yet",
        "Say what the model should learn: take one of the sample's target sets, or paste your own "
        "examples. Methods are compared by what they pick for them.",
        "targets",
        "Choose targets",
    )
    st.stop()


def _not_scored(now: session.Session) -> NoReturn:
    empty.say(
        "These targets are not scored on this datastore yet",
        "Scoring takes a pass over the targets and the kept "
        "features; after that, every budget and every option is instant.",
        "targets",
        f"Score {label(now.targets)}",
    )
    st.stop()
