"""Export: the picks of one method as files for a trainer."""

import streamlit as st

from app import address, comparing, data, exporting, session
from app.components import budget, download, empty, options, running, score
from app.components.text import label
from gradsift import jobs
from gradsift.errors import GradsiftError
from gradsift.formats import FORMATS, preview

PREVIEW = 3

now = session.current()
st.title("Export", anchor=False)
store, problem = data.store_or_error(now)
entry = now.workspace.target_set(now.targets) if now.targets else None
if store is None:
    if problem:
        st.error(label(problem))
    empty.say("No datastore is open", "Open a datastore and score a target set first.", "datastore", "Open a datastore")
    st.stop()
try:
    scoring = comparing.scoring_of(now, store)
except (GradsiftError, OSError) as error:
    st.error(label(error))
    st.stop()
if entry is None or scoring is None:
    empty.say(
        "Nothing to export yet",
        "An export holds the picks for a target set: choose one and score it.",
        "targets",
        "Choose targets",
    )
    st.stop()

known = comparing.methods_of(scoring, store.manifest.config.gradients[0])
with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
    with address.held("method", known, default=known[0]):
        method = st.segmented_control("Method", known, key="method", required=True, format_func=score.method_label)
    wanted = budget.draw(now)
    chosen = options.draw(store, scoring)
try:
    comparison = comparing.compare(store, scoring, [method or known[0]], wanted, chosen)
except GradsiftError as error:
    st.error(label(error))
    st.stop()
column = comparison.columns[0]
left, right = st.columns([2, 3], gap="large")
with left:
    format = st.radio(
        "Format", FORMATS, key="format", bind="query-params", captions=[exporting.ABOUT[f] for f in FORMATS]
    )
    download.summary(store, comparison, column)
with right:
    st.markdown(f"**The first {min(PREVIEW, len(column.picks))} rows**, as they will stand in the file")
    shown = preview(format, exporting.picks_of(store, scoring, column, PREVIEW), PREVIEW)
    st.code(download.shortened(shown), language="json", wrap_lines=True)
    out = exporting.folder_of(now, store, entry, column.method, wanted, format, chosen)
    status = jobs.status(out)
    request = (now, store, entry, out, column.method, wanted, format, chosen)
    if status is not None and status.state == "running":
        running.watch(out, "Writing the files")
    elif exporting.written(out):
        download.draw(out)
    elif status is not None and status.state != "finished":
        running.ended(out, status, lambda: exporting.start(*request), "export")
    else:
        st.button(
            "Write the files",
            type="primary",
            key="write",
            icon=":material/description:",
            on_click=exporting.start,
            args=request,
        )
