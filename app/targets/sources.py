"""Where target examples come from (a saved set, a paste or an upload), and the table of what was read."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import streamlit as st

from app.state.session import Session, remember
from app.targets import examples
from app.text import clip, label
from app.views.targets import TokenCount, count_tokens
from app.widgets import uploads
from gradsift.data.pool import Row
from gradsift.data.targets import TargetSet, parse_targets, read_targets
from gradsift.datastore.store import Store
from gradsift.runtime.errors import GradsiftError
from gradsift.runtime.hashing import hash_bytes
from gradsift.workspace.workspace import TargetEntry

SETS, PASTE, UPLOAD = "Saved sets", "Paste", "Upload"
SAVED = "targets_saved"  # in the session, for one run: a set was just saved and is shown next
FEW = 12  # sets that are offered as pills; more become a list
_UPLOADED = "targets_uploaded"  # in the session: name and bytes
_EXAMPLE = """Subtask: geography
Q: Which river flows through Cairo?
A: The Nile.

Q: Is Lisbon the capital of Portugal? Answer yes or no.
A: Yes."""


@dataclass
class Chosen:
    """Examples on the page. entry: their saved set, None if they are not saved."""

    key: str
    rows: list[Row]
    bad: list[Row]
    entry: TargetEntry | None = None
    counts: list[TokenCount] | None = field(default=None)


def choose(session: Session) -> Chosen | None:
    """Draw the choice of examples; returns None while there are none."""
    if st.session_state.pop(SAVED, False):
        st.session_state.targets_from = SETS
        st.session_state.pop("targets_name", None)
    if "targets_from" not in st.session_state and not session.targets:
        st.session_state.targets_from = SETS
    origin = st.segmented_control(
        "Examples from",
        [SETS, PASTE, UPLOAD],
        key="targets_from",
        required=True,
        default=None if "targets_from" in st.session_state else SETS,
        persist_state="session",
        label_visibility="collapsed",
    )
    return {PASTE: _paste, UPLOAD: _upload}.get(origin or SETS, _from_disk)(session)


def show(chosen: Chosen, store: Store | None) -> None:
    """Draw the table, with token counts if a store is open; edited subtasks end up in `chosen`."""
    if not chosen.rows:
        st.warning("No row can be used.")
        return
    slot = st.container()
    problem = ""
    if store is not None:
        with st.spinner("Counting tokens"):
            try:
                chosen.counts = count_tokens(store, chosen.rows)
            except (GradsiftError, OSError) as error:
                problem = str(error)
    with slot:
        line = st.empty()  # filled after the table, to include edits
        chosen.rows = examples.table(chosen.rows, chosen.counts, f"examples-{chosen.key}", chosen.entry is None)
        line.markdown(f"**{label(examples.summary(chosen.rows, chosen.bad, chosen.counts))}**")
        examples.reader(chosen.rows, chosen.key, None if problem else store)
    if chosen.counts:
        examples.refused(chosen.rows, chosen.counts)
    if problem:
        st.warning(label(problem))
    elif store is None:
        st.caption("Open a datastore to count the examples' tokens and to score them.")


def _from_disk(session: Session) -> Chosen | None:
    entries = {entry.name: entry for entry in session.workspace.target_sets()}
    if not entries:
        st.caption("There are no saved sets yet: paste examples or upload a file.")
        return None
    st.session_state.targets_set = session.targets if session.targets in entries else None
    names, choose = list(entries), lambda: remember(targets=st.session_state.targets_set or "")
    if len(names) <= FEW:
        st.pills("Target set", names, key="targets_set", format_func=lambda n: _named(entries[n]), on_change=choose)
    else:
        st.selectbox("Target set", names, key="targets_set", index=None, placeholder="Choose a set", on_change=choose)
    entry = entries.get(session.targets)
    if entry is None:
        if session.targets:
            st.warning(label(f"There is no target set called {clip(session.targets, 80)}: choose another one."))
        else:
            st.caption("Choose one to see its examples, or paste your own.")
        return None
    try:
        result = _read(str(entry.path), entry.path.stat().st_mtime_ns)
    except (GradsiftError, OSError) as error:
        st.error(label(error))
        return None
    return Chosen(entry.name, list(result.rows), list(result.bad), entry)


def _named(entry: TargetEntry) -> str:
    return label(entry.name) + ("  :gray[sample]" if entry.shipped else "")


def _paste(session: Session) -> Chosen | None:
    text = st.text_area(
        "Examples: JSONL, a JSON list, CSV with a header, or plain blocks of Q: and A:",
        key="targets_text",
        height=220,
        placeholder=_EXAMPLE,
        persist_state="session",
    )
    st.button("Read the examples", type="secondary", key="read-paste")
    if not (text or "").strip():
        return None
    return _parsed(text, "paste")


def _upload(session: Session) -> Chosen | None:
    file = st.file_uploader(
        "A file of examples", type=uploads.FORMATS, key="targets_file", max_upload_size=50, on_change=_take
    )
    name, data = st.session_state.get(_UPLOADED, ("", b""))
    if not name:
        return None
    if file is None:  # Streamlit forgets an upload when the page changes
        st.caption(label(f"From {clip(name, 80)}"))
    if name.lower().endswith(".txt"):
        return _parsed(data.decode("utf-8", "replace"), "upload")
    digest = hash_bytes(data)
    try:
        result = _read_upload(digest, name, data)
    except (GradsiftError, OSError) as error:
        st.error(label(error))
        return None
    return Chosen(f"upload-{digest[:8]}", list(result.rows), list(result.bad))


def _take() -> None:
    file = st.session_state.targets_file
    st.session_state[_UPLOADED] = (Path(file.name).name, file.getvalue()) if file is not None else ("", b"")


def _parsed(text: str, kind: str) -> Chosen | None:
    digest = hash_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        result = _parse(digest, text)
    except GradsiftError as error:
        st.error(label(error))
        return None
    return Chosen(f"{kind}-{digest[:8]}", list(result.rows), list(result.bad))


@st.cache_resource(max_entries=8, show_spinner=False)
def _read(path: str, changed: int) -> TargetSet:
    return read_targets(Path(path))


@st.cache_resource(max_entries=8, show_spinner=False)
def _parse(digest: str, _text: str) -> TargetSet:
    return parse_targets(_text)


@st.cache_resource(max_entries=4, show_spinner=False)
def _read_upload(digest: str, name: str, _data: bytes) -> TargetSet:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(_data)
        return read_targets(path)
