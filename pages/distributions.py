"""Distributions: what each method's picks are made of, against the pool and against each other."""

import streamlit as st

from app import address, comparing, curves, data, session
from app.components import budget, empty, opening, options, score, spreads
from app.components.text import label
from gradsift.errors import GradsiftError
from gradsift.methods import METHODS

now = session.current()
st.title("Distributions", anchor=False)
store, scoring = opening.scored(now)
known = comparing.methods_of(scoring, store.manifest.config.gradients[0])
with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="controls"):
    with address.held("methods", known, default=known):
        methods = st.pills("Methods", known, selection_mode="multi", format_func=score.method_label, key="methods")
    wanted = budget.draw(now)
    choices = options.draw(store, scoring)
if not methods:
    empty.say("No method is chosen", "Choose at least one above.")
    st.stop()
try:
    columns = comparing.compare(store, scoring, [m for m in known if m in methods], wanted, choices).columns
except GradsiftError as error:
    st.error(label(error))
    st.stop()
cut = max(len(column.picks) for column in columns)
if not cut:
    empty.say("Nothing is picked", "No row is left under these choices: allow more of them.")
    st.stop()

pool = data.pool_of(store).loc[scoring.rows]
left, right = st.columns(2, gap="large")
with left:
    spreads.sources(columns, pool["source"].to_numpy())
with right:
    spreads.lengths(columns, pool["n_prompt_tokens"].to_numpy(), pool["n_answer_tokens"].to_numpy())
if len(columns) > 1:
    left, right = st.columns(2, gap="large")
    with left:
        spreads.overlap(columns)
    with right:
        spreads.overlap_at_k(columns, cut)

st.divider()
compared = [column.method for column in columns]
with address.held("method", compared, default=compared[0]):
    name = st.segmented_control("One method", compared, key="method", required=True, format_func=score.method_label)
column = next(column for column in columns if column.method == (name or compared[0]))
left, right = st.columns(2, gap="large")
with left:
    spreads.scores(column, len(column.picks))
if METHODS[column.method].evidence != "none":
    with right:
        spreads.winners(column)
    spreads.targets(curves.target_curves(scoring, column.method, choices), column.method)
