"""The workspace's stores, ways to open one, and what an unfinished one needs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import streamlit as st

from app.datastore import overview
from app.state.session import Session, remember
from app.text import escape, label, plural
from app.views.commands import Build
from app.views.store import store_or_error
from app.widgets import empty, running
from gradsift.datastore.store import Store
from gradsift.runtime import jobs
from gradsift.runtime.errors import GradsiftError
from gradsift.workspace.workspace import SAMPLE_STORE, StoreEntry, Workspace

OPEN, ALL, BUILD = "This store", "All stores", "New store"  # tabs of the Datastore page


def show(session: Session) -> None:
    """Draw the open store, be it finished, unfinished, being built or unreadable; without one, what to do."""
    if session.store_path is None:
        choose(session.workspace, session.store)
        return
    store, problem = store_or_error(session)
    status = jobs.status(session.store_path)
    st.subheader(label(session.store_title), anchor=False)
    if status is not None and status.state == "running":
        running.watch(session.store_path, f"Building {session.store_title}")
        st.caption("The build runs as a process of its own and continues if you close this page.")
        if store is not None:
            overview.figures(store)
    elif problem:
        st.error(label(problem))
    elif store is None or not store.complete:
        unfinished(session, session.store_path, store)
    else:
        overview.draw(store)


def choose(workspace: Workspace, opened: str) -> None:
    """Draw the known stores with their state and a button each, and below a field to open one by path."""
    entries = workspace.stores()
    if not entries:
        empty.say(
            "No datastore yet",
            "A gradient datastore holds, for every training example of a pool, the direction in which training on it "
            "would move the model. Once one is open, you give a few examples of a skill and see which training "
            "examples serve it. Start with the sample, or build one from your own pool.",
        )
    for entry in entries:
        _line(entry, entry.name == opened)
    if not any(entry.name == SAMPLE_STORE for entry in entries):
        _sample(workspace)
    st.space("small")
    _by_path(workspace)


def unfinished(session: Session, path: Path, store: Store | None) -> None:
    """Draw a store whose build is neither finished nor running: what is missing, and how to continue."""
    status = jobs.status(path)
    again = _again(session, path)
    if status is not None and again is not None and status.state in ("failed", "cancelled", "interrupted"):
        running.ended(path, status, again, "build")
    elif store is None and status is None:
        st.warning(label(f"There is no datastore at {path}. Choose another one under “{ALL}”."))
    else:
        st.warning("The build of this datastore is not finished.")
        if again is not None:
            st.button("Resume the build", type="primary", on_click=running.attempt, args=(again,), key="resume-build")
        else:
            st.caption("It was started on the command line: run the same `gradsift build` again to resume it.")
    if store is not None:
        missing = store.missing()
        st.caption(f"Still to do: {plural(len(missing), 'file')} of the datastore.")
        names = "\n".join(str(file.relative_to(store.path)) for file in missing[:200])
        with st.expander("What is missing"):
            st.code(names, language=None, height=200)


def _again(session: Session, path: Path) -> Callable[[], None] | None:
    """The call that resumes the build at `path`; None if it is unknown."""
    command = Build.read(jobs.command(path))
    if (
        command is not None and command.out.resolve() == path.resolve()
    ):  # the command of a store from elsewhere is not trusted
        return partial(command.start, path)
    if path == session.workspace.store_path(SAMPLE_STORE) and path.exists():
        return lambda: build_sample(session.workspace)
    return None


def _line(entry: StoreEntry, opened: bool) -> None:
    where = f"<div class='gs-small gs-dim'>{escape(entry.path)}</div>" if entry.elsewhere else ""
    with _row(f"store-{entry.name}", f"<b>{escape(entry.path.name)}</b>", _state(entry), where):
        key = f"open-{entry.name}"
        if opened:
            st.button("Currently open", disabled=True, key=key)
        else:
            st.button("Open", on_click=_open, args=(entry.name,), key=key)


@contextmanager
def _row(key: str, name: str, note: str, more: str = "") -> Iterator[None]:
    """A bordered line: the name and note on the left, the block's button on the right."""
    line = st.container(
        border=True, key=key, horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"
    )
    with line:
        st.html(f"<div>{name} <span class='gs-small gs-dim'>{escape(note)}</span>{more}</div>", width="content")
        yield


def _state(entry: StoreEntry) -> str:
    status = jobs.status(entry.path)
    if status is not None and status.state == "running":
        return f"being built: {status.label}"
    try:
        store = Store.open(entry.path)
    except (GradsiftError, OSError) as error:
        return "not started yet" if status is None else f"build {status.state}" if not _exists(entry) else str(error)
    manifest = store.manifest
    text = (
        f"{plural(manifest.rows, 'row')} from {plural(len(manifest.sources), 'source')}, model {manifest.config.model}"
    )
    return text if store.complete else f"unfinished · {text}"


def _exists(entry: StoreEntry) -> bool:
    return (entry.path / "manifest.json").is_file()


def _sample(workspace: Workspace) -> None:
    note = "about 150 short examples from four sources, a real small model; a few minutes on two cores"
    with _row("sample-offer", "<b>Sample</b>", note):
        st.button(
            "Build the sample",
            type="primary",
            on_click=running.attempt,
            args=(build_sample, workspace),
            key="build-sample",
        )


def build_sample(workspace: Workspace) -> None:
    """Start or resume the sample's build in this workspace, and open it."""
    from gradsift.workspace.demo import demo_command

    jobs.start(workspace.store_path(SAMPLE_STORE), demo_command(workspace.root))
    _open(SAMPLE_STORE)


def _open(name: str) -> None:
    remember(store=name)
    st.session_state.datastore_next = OPEN  # the tabs may be drawn already: the page reads it in its next run


def _by_path(workspace: Workspace) -> None:
    with st.form("open-by-path", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        text = st.text_input(
            "Open a datastore elsewhere on this machine", placeholder="/path/to/store", key="open_path"
        )
        opening = st.form_submit_button("Open")
    if opening:
        try:
            entry = workspace.open_store(text or "")
            Store.open(entry.path) if (entry.path / "manifest.json").is_file() else None
        except (GradsiftError, OSError) as error:
            st.error(label(error))
            return
        _open(entry.name)
        st.rerun()
