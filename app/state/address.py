"""A widget's value in the address bar under its own name; `bind="query-params"` would write its label there.

    with address.bound("methods", known, default=known):
        st.pills("Methods", known, selection_mode="multi", format_func=..., key="methods")

The address wins if it changed since we last wrote it (a link, the back button); otherwise the widget does. A run may
have been requested before our latest write reached the browser: the value it brings is outdated, not a link. Values
are joined by commas, and defaults are left out. Values survive a change of page, where Streamlit clears the address.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

Value = str | list[str]
_VISITED = "addresses_visited"  # complete addresses that this tab has had
_REQUESTED = "address_requested"  # the address that this run began with
_CLAIMED = "address_claimed"  # the names that this run's page has in the address, or leaves out as a default
_REPLACED = "address_replaced"  # (name, text) -> when we wrote another text in its place, in seconds
_DELAY = 3.0  # seconds within which our write reaches the browser; a replaced text that comes later is a link


@contextmanager
def bound(key: str, options: Sequence[str] | None, default: Value) -> Iterator[None]:
    """Set the value of the widget `key` before it is drawn, and write it to the address afterwards.

    options: the values that the widget allows; None if it takes any text.
    """
    claim(key)
    state = st.session_state
    text = st.query_params.get(key, "")
    if from_link(key):
        state[key] = _read(text, options, default)
    elif not text and _went_back():
        state[key] = default
    elif key not in state:
        last = state.get(f"remembered_{key}", default)
        state[key] = _read(last, options, default) if isinstance(last, str) else _allowed(last, options, default)
    yield
    value = state.get(key)
    state[f"remembered_{key}"] = None if value == default else value  # the default may be another one next time
    _write(key, text, "" if value == default or not value else encoded(value))


def begin_run(page: str) -> None:
    """Call at the beginning of a run; on a change of page, `bound` then sets every value anew.

    Two pages may have a widget with the same key. While the second page is drawn, Streamlit still has the first page's
    value under that key, but gives the second widget its default.
    """
    state = st.session_state
    state[_CLAIMED] = set()
    if state.get("address_of") != page:
        for name in [str(name) for name in state if str(name).startswith("remembered_")]:
            state.pop(name.removeprefix("remembered_"), None)
        state.pop(_REPLACED, None)
    if navigated():  # then every text counts as a link's, even one that we once wrote
        for name in [name for name in state if str(name).startswith("written_")]:
            del state[name]
        state.pop(_REPLACED, None)
    state["address_of"] = page
    state[_REQUESTED] = _current()


def claim(*names: str) -> None:
    """Declare that this run's page writes these names into the address, with or without `bound`."""
    st.session_state.setdefault(_CLAIMED, set()).update(names)


def claimed() -> frozenset[str]:
    """The names that this run's page has so far written into the address, or left out as a default."""
    return frozenset(st.session_state.get(_CLAIMED, ()))


def from_link(key: str) -> bool:
    """Whether the address has a value for `key` that this tab did not write there."""
    text = st.query_params.get(key, "")
    return bool(text) and text != st.session_state.get(f"written_{key}") and not _outdated(key, text)


def text_or(key: str, last: str) -> str:
    """The address's text for `key`, or `last`, what this tab has, if there is no text or an outdated one."""
    text = st.query_params.get(key, "")
    return last if last and (not text or _outdated(key, text)) else text


def write(key: str, text: str) -> None:
    """Write a text that no widget holds into the address, or remove the name if the text is empty."""
    _write(key, st.query_params.get(key, ""), text)


def note(texts: Mapping[str, str]) -> None:
    """Take down what the address says, or is about to say, of names that `write` writes."""
    for key, text in texts.items():
        st.session_state[f"written_{key}"] = text


def end_run() -> None:
    """Call at the end of a run: the address is complete, and holds every value if Back leads to it again."""
    st.session_state.setdefault(_VISITED, set()).add(_current())


def navigated() -> bool:
    """Whether Back or Forward requested this run."""
    context = get_script_run_ctx()
    return context is not None and context.is_history_navigation


def _went_back() -> bool:
    """Whether Back or Forward leads to a complete address of this page: what it leaves out is at its default.

    The browser also keeps addresses that were only partly written, as after a change of page; those do not count.
    """
    state = st.session_state
    return navigated() and state.get(_REQUESTED) in state.get(_VISITED, ())


def _outdated(key: str, text: str) -> bool:
    """Whether the address says `text` only because our latest write had not reached the browser yet.

    A link never runs just a part of a page. In a run of the whole page, a replaced text counts as outdated for a while.
    """
    context, state = get_script_run_ctx(), st.session_state
    if state.get(f"written_{key}", text) == text:
        return False
    if context is not None and context.fragment_ids_this_run:
        return True
    replaced = state.get(_REPLACED, {}).get((key, text))
    return replaced is not None and time.monotonic() - replaced < _DELAY


def _write(key: str, current: str, text: str) -> None:
    """Write `text` into the address, or remove the name if it is empty. current: the text in this run's address."""
    state, outdated, seconds = st.session_state, _outdated(key, current), time.monotonic()
    before = state.get(f"written_{key}", text)
    if before != text:
        recent = {replaced: when for replaced, when in state.get(_REPLACED, {}).items() if seconds - when < _DELAY}
        state[_REPLACED] = {**recent, (key, before): seconds}
    state[f"written_{key}"] = text
    if text and (outdated or current != text):
        st.query_params[key] = text
    elif current and not text:
        del st.query_params[key]
    elif outdated:  # the browser is about to receive our previous write
        st.query_params.update({})


def _current() -> tuple[Any, ...]:
    return st.session_state.get("address_of"), *sorted(st.query_params.to_dict().items())


def forget(key: str) -> None:
    """Reset `key` to its default: in the address, in this tab's memory and in its widget."""
    claim(key)
    for name in (key, f"remembered_{key}", f"written_{key}"):
        st.session_state.pop(name, None)
    if key in st.query_params:
        del st.query_params[key]


def recall(address: Mapping[str, str]) -> None:
    """Put a whole address that is about to be written into this tab's memory, since other pages show parts of it."""
    for key, text in address.items():
        st.session_state[f"remembered_{key}"] = st.session_state[f"written_{key}"] = text


def changed(key: str, default: Value) -> bool:
    """Whether the widget `key`, which is drawn later in this run, differs from its default."""
    if from_link(key):
        return True
    state = st.session_state
    value = state.get(key, state.get(f"remembered_{key}"))
    return bool(value) and value != default


def encoded(value: Value) -> str:
    """The value as the address has it: a list is joined by commas, and commas within its parts are escaped."""
    return value if isinstance(value, str) else ",".join(part.replace("%", "%25").replace(",", "%2C") for part in value)


def _read(text: str, options: Sequence[str] | None, default: Value) -> Value:
    return _allowed(
        [unquote(part) for part in text.split(",")] if isinstance(default, list) else text, options, default
    )


def _allowed(value: Value | None, options: Sequence[str] | None, default: Value) -> Value:
    """The part of `value` that is among the options, or the default if nothing is left."""
    if options is None:
        return default if value is None else value
    if isinstance(value, list):
        return [part for part in value if part in options] or default
    return default if value is None or value not in options else value
