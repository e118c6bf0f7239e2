"""Compare: what every method would pick, side by side at one budget."""

import streamlit as st

from app import address, comparing, data, session
from app.components import board, budget, empty, options, overlap, score
from app.components.text import label
from gradsift.errors import GradsiftError

now = session.current()
st.title("Compare", anchor=False)
store, problem = data.store_or_error(now)
if store is None:
    if problem:
        st.error(label(problem))
    empty.say(
        "No datastore is open",
        "A comparison needs a datastore with features: open one, or build the sample's.",
        "datastore",
        "Open a datastore",
    )
    st.stop()
if not now.targets:
    empty.say(
        "No targets yet",
        "Say what the model should learn: take one of the sample's target sets, or paste your own "
        "examples. Methods are compared by what they pick for them.",
        "targets",
        "Choose targets",
    )
    st.stop()
try:
    scoring = comparing.scoring_of(now, store)
except (GradsiftError, OSError) as error:
    st.error(label(error))
    st.stop()
if scoring is None:
    empty.say(
        "These targets are not scored on this datastore yet",
        "Scoring takes a pass over the targets and the kept "
        "features; after that, every budget and every option is instant.",
        "targets",
        f"Score {label(now.targets)}",
    )
    st.stop()

known = comparing.methods_of(scoring, store.manifest.config.gradients[0])
with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="controls"):
    with address.held("methods", known, default=known):
        methods = st.pills("Methods", known, selection_mode="multi", format_func=score.method_label, key="methods")
    wanted = budget.draw(now)
    chosen = options.draw(store, scoring)
    beside = st.container(width="content")
if not methods:
    empty.say("No method is chosen", "Choose at least one above.")
    st.stop()
try:
    comparison = comparing.compare(store, scoring, [name for name in known if name in methods], wanted, chosen)
except GradsiftError as error:
    st.error(label(error))
    st.stop()
shows = comparing.SHOWS if len(comparison.columns) > 1 else comparing.SHOWS[:1]
with beside:
    overlap.draw(comparison)
with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
    with address.held("show", shows, default=comparing.ALL):
        show = st.segmented_control(
            "Show",
            shows,
            key="show",
            required=True,
            label_visibility="collapsed",
            format_func=lambda name: overlap.option(name, comparison),
        )
    pages = st.container(
        horizontal=True, horizontal_alignment="right", vertical_alignment="center", gap="small", width="content"
    )
board.draw(store, comparison, show or comparing.ALL, pages)
