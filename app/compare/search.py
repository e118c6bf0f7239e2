"""The search field of the Compare page, which searches after every key and is one step of the browser's Back.

Streamlit's own field, with a run for every key, sometimes resets what was typed to an earlier text.
"""

from pathlib import Path

import streamlit as st

from app.state import address

_PAUSE = 20  # milliseconds without a key before a search: less than people take between two keys
_LONGEST = 400  # characters
_KEY, _SEEN = "search", "search_seen"
_field = st.components.v2.component(
    "gradsift_search", js=Path(__file__).with_name("search.js").read_text(encoding="utf-8"), isolate_styles=False
)


def draw(ready: bool) -> str:
    """Draw the field and return the words to search for. ready: whether there is an index to search in."""
    with address.bound("q", None, default=""):
        data = {
            "text": st.session_state.q,
            "seen": st.session_state.get(_SEEN, 0),
            "disabled": not ready,
            "placeholder": 'words, or "a phrase"' if ready else "score a target set to build the index",
            "pause": _PAUSE,
            "longest": _LONGEST,
        }
        _field(key=_KEY, data=data, on_typed_change=_take)
    return str(st.session_state.q) if ready else ""


def _take() -> None:
    """Search for what was typed, unless that was done already: the field sends it with every run."""
    typed = st.session_state[_KEY].get("typed")
    if typed and typed["number"] > st.session_state.get(_SEEN, 0):
        st.session_state.q, st.session_state[_SEEN] = typed["text"], typed["number"]
