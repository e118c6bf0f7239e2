"""What is open in this tab: the workspace, the store, the target set and the budget.

The three names stand in the address bar, so that a reload, a second tab or a link sent to a colleague shows the same
thing; everything else is read from disk. Streamlit clears the address at a change of page, so `begin` (called once a
run, by the entry script) takes each name from the address, else from this tab's memory, and writes it back to both.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from gradsift.workspace import SAMPLE_STORE, StoreEntry, Workspace

WORKSPACE_VARIABLE = "GRADSIFT_WORKSPACE"
DEFAULT_BUDGET = "5%"
_NAMES = ("store", "targets", "budget")


@dataclass(frozen=True, slots=True)
class Session:
    """The names of what is open; empty where nothing is."""

    workspace: Workspace
    store: str
    targets: str
    budget: str

    @property
    def store_path(self) -> Path | None:
        """The open store's folder."""
        return self.workspace.store_path(self.store) if self.store else None

    @property
    def store_title(self) -> str:
        """What the open store is called in a heading."""
        return Path(self.store).name if self.store else ""


def begin() -> Session:
    """Settle what is open for this run, in memory and in the address bar."""
    workspace = Workspace(os.environ.get(WORKSPACE_VARIABLE))
    if not (st.query_params.get("store") or st.session_state.get("open_store")):
        st.session_state.open_store = _first(workspace.stores())
    for name in _NAMES:
        value = st.query_params.get(name) or st.session_state.get(f"open_{name}", "")
        st.session_state[f"open_{name}"] = value
        if value and st.query_params.get(name) != value:
            st.query_params[name] = value
    st.session_state.workspace = workspace
    return current()


def current() -> Session:
    """What is open, as `begin` settled it."""
    state = st.session_state
    return Session(state.workspace, state.open_store, state.open_targets, state.open_budget or DEFAULT_BUDGET)


def remember(**names: str) -> None:
    """Open another store, target set or budget (`store=`, `targets=`, `budget=`); takes effect with the next run."""
    for name, value in names.items():
        if name not in _NAMES:
            raise KeyError(name)
        st.session_state[f"open_{name}"] = value
        if value:
            st.query_params[name] = value
        elif name in st.query_params:
            del st.query_params[name]


def _first(stores: list[StoreEntry]) -> str:
    """The store a fresh tab opens: the only one, else the one that changed last; the sample before others untouched."""
    ordered = sorted(stores, key=lambda store: (store.changed, store.name == SAMPLE_STORE))
    return ordered[-1].name if ordered else ""
