"""From examples to scores: save the set under a name, start the run, watch it, continue to Compare."""

from collections.abc import Sequence

import streamlit as st

from app.pages import room
from app.state.session import Session, remember
from app.targets.sources import SAVED, Chosen
from app.text import label, plural
from app.views.comparison import methods_of, scoring_of
from app.views.targets import scorable, scoring_folder, start_scoring
from app.widgets import running
from app.widgets.controls import method_label
from gradsift.data.pool import Row
from gradsift.datastore.store import Store
from gradsift.runtime import jobs
from gradsift.runtime.errors import GradsiftError, UsageError
from gradsift.scoring.methods import DEFAULT_METHODS, METHODS
from gradsift.workspace.workspace import TargetEntry, Workspace

_PROBLEM = "score_problem"
_STEM = "my-targets"
_PROPOSED = "targets_proposed"  # the name that the field started with


def draw(session: Session, store: Store | None, chosen: Chosen) -> None:
    """Draw the part of the Targets page below the examples."""
    rows = scorable(chosen.rows, chosen.counts) if chosen.counts else chosen.rows
    ready = store is not None and store.complete and bool(chosen.counts) and bool(rows)
    if chosen.entry is None:
        _save(session, store, chosen, rows, ready)
    elif store is not None:
        _score(session, store, chosen.entry, rows, ready)
    if problem := st.session_state.pop(_PROBLEM, ""):
        st.error(label(problem))
    if store is None:
        st.page_link(
            room("datastore"), label="Open a datastore", icon=":material/arrow_forward:", icon_position="right"
        )
    elif not store.complete:
        st.caption("The open datastore is not finished: targets can be scored once its build is.")
        st.page_link(
            room("datastore"), label="Back to the datastore", icon=":material/arrow_forward:", icon_position="right"
        )


def _save(session: Session, store: Store | None, chosen: Chosen, rows: list[Row], ready: bool) -> None:
    if "targets_name" not in st.session_state:
        st.session_state.targets_name = st.session_state[_PROPOSED] = session.workspace.free_target_name(_STEM)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input("Name of the set", key="targets_name", max_chars=64, width=260, persist_state="session")
        # no callbacks: pressed right after an edit, they would get the examples from before it
        if st.button("Save", key="save-targets"):
            _keep(session, chosen, None, [])
        if ready and st.button(f"Save and score {plural(len(rows), 'example')}", key="save-and-score", type="primary"):
            _keep(session, chosen, store, rows)


def _keep(session: Session, chosen: Chosen, store: Store | None, rows: list[Row]) -> None:
    """Save the set under the name in the field, never over another set, which may be somebody else's."""
    workspace, name = session.workspace, (st.session_state.targets_name or "").strip()
    if name == st.session_state.get(_PROPOSED):  # only a proposal, which may have been taken since
        name = workspace.free_target_name(_STEM)
    try:
        if workspace.target_set(name) is not None:
            raise UsageError(f"A target set named {name} exists already: choose another name.")
        entry = workspace.save_targets(name, chosen.rows)
    except (GradsiftError, OSError) as error:
        st.session_state[_PROBLEM] = str(error)
        return
    remember(targets=entry.name)
    st.session_state[SAVED] = True
    if store is not None:
        running.attempt(start_scoring, workspace, store, entry, rows, DEFAULT_METHODS)
    st.rerun()


def _score(session: Session, store: Store, entry: TargetEntry, rows: list[Row], ready: bool) -> None:
    folder = scoring_folder(session.workspace, store, entry)
    status = jobs.status(folder)
    if status is not None and status.state == "running":
        running.watch(folder, f"Scoring {entry.name} on {session.store_title}")
        return
    scoring = scoring_of(session, store)
    # scores from another window or the command line have no run of ours
    if scoring is not None and (status is None or status.state == "finished"):
        known = methods_of(scoring)
        names = ", ".join(METHODS[name].label for name in known)
        st.caption(f"Scored on {label(session.store_title)} with {names}.")
        if st.button(
            "Compare the picks",
            type="primary",
            icon=":material/arrow_forward:",
            icon_position="right",
            key="to-compare",
        ):
            st.switch_page(room("compare"))
        _more(known, (session.workspace, store, entry, rows), ready)
        return
    if not ready:
        return
    methods = _methods("Methods", list(METHODS), DEFAULT_METHODS, "score_methods")
    if not methods:
        st.caption("Choose at least one method.")
        return
    again = (session.workspace, store, entry, rows, methods)
    if status is not None and status.state != "finished":
        running.ended(folder, status, lambda: start_scoring(*again), "scoring")
    else:
        st.button(
            f"Score {plural(len(rows), 'example')}",
            key="score",
            type="primary",
            on_click=running.attempt,
            args=(start_scoring, *again),
        )


def _more(known: list[str], request: tuple[Workspace, Store, TargetEntry, list[Row]], ready: bool) -> None:
    """Offer the methods that the set is not scored with yet."""
    others = [name for name in METHODS if name not in known]
    if not ready or not others:
        return
    with st.expander("Score with more methods", key="more-methods"):
        chosen = _methods("Not scored yet", others, (), "more_methods")
        st.button(
            "Score with these as well",
            key="score-more",
            disabled=not chosen,
            on_click=running.attempt,
            args=(start_scoring, *request, [*known, *chosen]),
        )


def _methods(name: str, options: list[str], default: Sequence[str], key: str) -> list[str]:
    """Draw pills to choose methods, and below them what each method beyond the default ones means and costs."""
    chosen = st.pills(
        name,
        options,
        selection_mode="multi",
        default=default,
        format_func=method_label,
        key=key,
        persist_state="session",
    )
    for method in (METHODS[option] for option in options if option not in DEFAULT_METHODS):
        cost = "; takes one pass of the base model over the pool, once" if method.needs == "base model" else ""
        st.caption(f"{method_label(method.name)}: {method.description}{cost}.")
    return chosen
