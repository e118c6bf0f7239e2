"""Gradient norms: long answers have small gradients, which is why LESS compares by cosine."""

import streamlit as st

from app import address, comparing, session
from app.charting import View
from app.components import budget, empty, norms, opening, options, score
from app.components.text import label
from gradsift.errors import GradsiftError

now = session.current()
st.title("Gradient norms", anchor=False)
store, scoring = opening.scored(now)
known = comparing.methods_of(scoring, store.manifest.config.gradients[0])
with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="controls"):
    with address.held("method", known, default=known[0]):
        method = st.segmented_control("Picks of", known, key="method", required=True, format_func=score.method_label)
    wanted = budget.draw(now)
    chosen = options.draw(store, scoring)
method = method or known[0]
try:
    comparison = comparing.compare(store, scoring, [method], wanted, chosen)
    epoch, kind, sources = norms.choose(store)
except GradsiftError as error:
    st.error(label(error))
    st.stop()
if not len(comparison.columns[0].picks):
    empty.say("Nothing is picked", "These choices leave no row: allow more in What if.")
    st.stop()
norms.draw(View(store, scoring, comparison, wanted, chosen), method, epoch, kind, sources)
