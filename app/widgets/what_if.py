"""What-ifs: how stored scores become picks, in a popover since the paper's choices are the defaults."""

from collections import Counter
from typing import Any, get_args

import streamlit as st

from app.state import address
from app.text import clip, label
from app.views.choices import DIVERSE, MATCHED, UNIQUE, choice_fields, extras, gradients_of, parts_of
from gradsift.config import Aggregate, Similarity, TargetPooling
from gradsift.datastore.store import Store
from gradsift.runtime.errors import UsageError
from gradsift.scoring.choices import Choices, make_choices
from gradsift.scoring.scoring import Scoring
from gradsift.text.index import has_index

_LABELS = {
    "max": "best subtask (the paper)",
    "mean": "mean over subtasks",
    "round-robin": "each target example picks in turn",
    "cosine": "cosine (the paper)",
    "dot": "dot product",
    "cosine-of-mean": "cosine with the subtask's mean (the paper)",
    "mean-of-cosines": "mean of cosines (the released code)",
    UNIQUE: "Drop near-duplicates",
    DIVERSE: "Penalise near-copies of earlier picks",
    MATCHED: "Match the pool's answer lengths",
}
_DEFAULTS: dict[str, str | list[str]] = {
    "aggregate": get_args(Aggregate)[0],
    "similarity": get_args(Similarity)[0],
    "pooling": get_args(TargetPooling)[0],
    "without": [],
    "also": [],
    "cap": "",
}


def draw(store: Store, scoring: Scoring) -> Choices:
    """Draw the controls in a popover and return the choices they make."""
    gradients = gradients_of(store, scoring)
    defaults = {**_DEFAULTS, "gradient": gradients[0]} if len(gradients) > 1 else _DEFAULTS
    changed = sum(address.changed(key, default) for key, default in defaults.items())
    with st.popover(f"What if ({changed})" if changed else "What if", icon=":material/tune:", key="what-if"):
        left, right = st.columns(2, gap="medium")
        with left:
            chosen: dict[str, Any] = {
                "aggregate": _choice("Over subtasks", get_args(Aggregate), "aggregate"),
                "similarity": _choice("Similarity", get_args(Similarity), "similarity"),
                "target_pooling": _choice("Within a subtask", get_args(TargetPooling), "pooling"),
            }
            if len(gradients) > 1:
                chosen["gradient"] = _choice("Gradient", gradients, "gradient")
        with right:
            more = choice_fields(scoring, _without(scoring), _also(store), _cap())
        if changed:
            st.button("Reset to the paper's choices", on_click=_reset, key="what-if-reset", icon=":material/undo:")
        st.caption("All of this is arithmetic on stored scores and features; no model runs.")
    try:
        return make_choices(**chosen, **more)
    except UsageError as error:
        st.error(label(error))
        return make_choices(**chosen, **{**more, "cap": ""})


def _choice(name: str, options: tuple[str, ...], key: str) -> str:
    with address.bound(key, options, default=options[0]):
        return st.radio(name, options, key=key, format_func=lambda value: _LABELS.get(value, value))


def _without(scoring: Scoring) -> list[str]:
    names = parts_of(scoring)
    short = {key: clip(name, 60) for key, name in names.items()}
    counts = Counter(short.values())  # a browser sends back what it shows, so the names must differ
    shown = {key: name if counts[name] == 1 else f"{name} ({key})" for key, name in short.items()}
    with address.bound("without", list(names), default=[]):
        return st.multiselect(
            "Leave out",
            list(names),
            key="without",
            format_func=shown.__getitem__,
            placeholder="target examples, subtasks, checkpoints",
        )


def _also(store: Store) -> list[str]:
    ways = extras(has_index(store))
    with address.bound("also", ways, default=[]):
        also = st.pills(
            "Also", ways, selection_mode="multi", key="also", wrap=True, format_func=lambda name: _LABELS[name]
        )
    if UNIQUE not in ways:
        st.caption("This pool's near-duplicates are not indexed yet: score a target set to index them.")
    return also


def _cap() -> str:
    with address.bound("cap", None, default=""):
        cap = st.text_input("Limit per source", key="cap", placeholder="30% of the picks, or 200 rows", max_chars=20)
    return (cap or "").strip()


def _reset() -> None:
    for key in (*_DEFAULTS, "gradient"):
        address.forget(key)
