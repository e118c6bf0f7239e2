"""Export: the picks of one method as files for a trainer."""

from dataclasses import replace

import streamlit as st

from app.export import download, exports
from app.state import address
from app.state.session import current_session
from app.text import label
from app.widgets import controls, empty, required, running
from gradsift.export.files import COMPRESSIONS
from gradsift.export.formats import FORMATS, preview
from gradsift.export.holdings import refusal
from gradsift.runtime import jobs
from gradsift.runtime.errors import GradsiftError

PREVIEW = 3

session = current_session()
st.title("Export", anchor=False)
store, scoring = required.scored(session)
entry = session.workspace.target_set(session.targets)
if entry is None:  # another tab deleted it since `required` looked
    st.rerun()
with controls.row():
    undecided = controls.one(session, store, scoring, "Method")
decisions = undecided.decisions
take = download.take(decisions)
view = replace(undecided, choices=exports.with_decisions(undecided.choices, take, decisions))
try:
    count, ranked = len(view.picks[view.method]), undecided.picks[undecided.method]
except GradsiftError as error:
    st.error(label(error))
    st.stop()
if not count:
    if take == exports.ACCEPTED and not len(decisions.accepted):
        text = "Accept rows on Compare, or export the picks."
        empty.say("Nothing is accepted yet", text, "compare", "Review the picks")
    else:
        empty.say("Nothing is picked", "These choices leave no rows: loosen them in What if.")
    st.stop()

holdings = exports.holdings_of(view)
left, right = st.columns([2, 3], gap="large")
with left:
    figures = st.container()
    with address.bound("format", list(FORMATS), default=FORMATS[0]):
        format = st.radio("Format", FORMATS, key="format", captions=[exports.note(f, holdings) for f in FORMATS])
    reason = refusal(format, holdings)
    compress = "none"
    if format != "parquet":
        with address.bound("compress", list(COMPRESSIONS), default="none"):
            packed = st.segmented_control("Compression", list(COMPRESSIONS), key="compress", required=True)
        compress = packed or "none"
    with figures:
        download.summary(view, ranked, format, compress, fits=not reason)
with right:
    if reason:
        st.error(label(reason))
        st.stop()
    st.markdown(f"**The first {min(PREVIEW, count)} rows**, as they will appear in the file")
    lines = preview(format, exports.picks_of(view, PREVIEW), PREVIEW, holdings)
    st.code(download.shortened(lines), language="json", wrap_lines=True)
    files = download.evaluation(session, scoring)
    with st.container(horizontal=True, gap="medium"):
        drop = st.toggle("Drop leaking rows", key="drop_leaks", persist_state="session", help=download.DROP)
        report = st.toggle("Include a report", value=True, key="report", persist_state="session", help=download.REPORT)
    request = exports.Request(view, entry, format, compress, files, drop, report)
    out = request.out
    status = jobs.status(out)
    manifest = exports.manifest_of(out)
    rejecting = take == exports.DECIDED
    if status is not None and status.state == "running":
        running.watch(out, "Writing the files")
    elif manifest is not None:
        st.session_state.exported = request
        download.draw(request, out, manifest, rejecting)
    elif status is not None and status.state != "finished":
        running.ended(out, status, request.start, "export")
    else:
        # no callback: pressed right after an edit, it would get the request from before it
        if st.button("Write the files", type="primary", key="write", icon=":material/description:"):
            running.attempt(request.start)
            if jobs.status(out) != status:
                st.rerun()
        download.earlier(request, rejecting)
