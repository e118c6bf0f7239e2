"""How kept scores become a ranking: aggregation, similarity, pooling; folded, since the paper's are the defaults."""

from typing import Any, get_args

import streamlit as st

from app import address
from gradsift.config import Aggregate, Similarity, TargetPooling

_ABOUT = {
    "max": "best subtask (the paper)",
    "mean": "mean over subtasks",
    "round-robin": "each target example picks in turn",
    "cosine": "cosine (the paper)",
    "dot": "dot product",
    "cosine-of-mean": "cosine with the subtask's mean (the paper)",
    "mean-of-cosines": "mean of cosines (the released code)",
}


def draw(gradients: tuple[str, ...]) -> dict[str, Any]:
    """Draw the controls in a popover and return the arguments of `selection.rank`."""
    with st.popover("Ranking", icon=":material/tune:"):
        options = {
            "aggregate": _choice("Over subtasks", Aggregate, "aggregate"),
            "similarity": _choice("Similarity", Similarity, "similarity"),
            "target_pooling": _choice("Within a subtask", TargetPooling, "pooling"),
        }
        options["gradient"] = gradients[0]
        if len(gradients) > 1:
            options["gradient"] = st.selectbox("Gradient", gradients, key="gradient", bind="query-params")
        st.caption("These are arithmetic on the kept scores: nothing is computed again.")
    return options


def _choice(name: str, kinds: Any, key: str) -> str:
    options = get_args(kinds)
    with address.held(key, options, default=options[0]):
        return st.radio(name, options, key=key, format_func=lambda value: _ABOUT.get(value, value))
