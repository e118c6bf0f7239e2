"""A widget's value in the address bar by its own name; `bind="query-params"` would write its label there.

    with address.held("methods", known, default=known):
        st.pills("Methods", known, selection_mode="multi", format_func=..., key="methods")

The address wins when it changed since we last wrote it (a link, the back button); otherwise the widget does. A run may
have been asked for before our latest write reached the browser: what it brings then is late, and no link. Values are
joined by commas and the default is left out. The value survives a change of page, where Streamlit clears the address.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

Value = str | list[str]
_SHOWN = "addresses_shown"  # whole addresses that this tab has had
_ASKED = "address_asked"  # the address that this run began with
_DRAWN = "address_drawn"  # the names that this run's page has in the address, there or left out as a default
_REPLACED = "address_replaced"  # (name, text) -> when we wrote another text in its place, in seconds
_LATE = 3.0  # seconds within which the browser has our write; an older text that comes after them is a link


@contextmanager
def held(key: str, options: Sequence[str] | None, default: Value) -> Iterator[None]:
    """Put the value for the widget `key` in place before it is drawn, and write it to the address after.

    options: what the widget can take; None where it takes any text.
    """
    own(key)
    state = st.session_state
    there = st.query_params.get(key, "")
    if given(key):
        state[key] = _read(there, options, default)
    elif not there and _went_back():
        state[key] = default
    elif key not in state:
        kept = state.get(f"held_{key}", default)
        state[key] = _read(kept, options, default) if isinstance(kept, str) else _allowed(kept, options, default)
    yield
    value = state.get(key)
    state[f"held_{key}"] = None if value == default else value  # no choice: the default may be another one next time
    _write(key, there, "" if value == default or not value else written(value))


def turn_to(page: str) -> None:
    """Call at the beginning of a run: nothing is drawn yet; on another page, `held` puts every value in place anew.

    Two pages may have a widget of the same key. Streamlit still knows the first page's value by that key while the
    second page is drawn, but gives the second widget its default.
    """
    state = st.session_state
    state[_DRAWN] = set()
    if state.get("address_of") != page:
        for name in [str(name) for name in state if str(name).startswith("held_")]:
            state.pop(name.removeprefix("held_"), None)
        state.pop(_REPLACED, None)
    if navigated():  # then every text means what it says, also one that we wrote ourselves
        for name in [name for name in state if str(name).startswith("written_")]:
            del state[name]
        state.pop(_REPLACED, None)
    state["address_of"] = page
    state[_ASKED] = _view()


def own(*names: str) -> None:
    """Say that this run's page writes these names into the address, by other means than `held`."""
    st.session_state.setdefault(_DRAWN, set()).update(names)


def drawn() -> frozenset[str]:
    """The names that this run's page has written, or left out of the address as a default, so far."""
    return frozenset(st.session_state.get(_DRAWN, ()))


def given(key: str) -> bool:
    """Whether the address has a value for `key` that this tab did not write there."""
    there = st.query_params.get(key, "")
    return bool(there) and there != st.session_state.get(f"written_{key}") and not _late(key, there)


def settle() -> None:
    """Call at the end of a run: the address is whole, and where the browser's Back leads to it, means what it says."""
    st.session_state.setdefault(_SHOWN, set()).add(_view())


def navigated() -> bool:
    """Whether Back or Forward asks for this run."""
    context = get_script_run_ctx()
    return context is not None and context.is_history_navigation


def _went_back() -> bool:
    """Whether Back or Forward leads to a whole address of this page: then what it leaves out is the default.

    The browser also keeps those of which a part was written yet, as after a change of page; they say nothing.
    """
    state = st.session_state
    return navigated() and state.get(_ASKED) in state.get(_SHOWN, ())


def _late(key: str, there: str) -> bool:
    """Whether the address says `there` only because the browser did not have our latest write yet.

    No link leads to a part of a page. In a run of the whole page it cannot be told: a text counts as late for a while.
    """
    context, state = get_script_run_ctx(), st.session_state
    if state.get(f"written_{key}", there) == there:
        return False
    if context is not None and context.fragment_ids_this_run:
        return True
    replaced = state.get(_REPLACED, {}).get((key, there))
    return replaced is not None and time.monotonic() - replaced < _LATE


def _write(key: str, there: str, text: str) -> None:
    """Write `text` into the address, or take the name out where it is empty. there: what this run's address says."""
    state, late, now = st.session_state, _late(key, there), time.monotonic()
    before = state.get(f"written_{key}", text)
    if before != text:
        recent = {replaced: when for replaced, when in state.get(_REPLACED, {}).items() if now - when < _LATE}
        state[_REPLACED] = {**recent, (key, before): now}
    state[f"written_{key}"] = text
    if text and (late or there != text):
        st.query_params[key] = text
    elif there and not text:
        del st.query_params[key]
    elif late:  # the browser is about to get what we wrote before
        st.query_params.update({})


def _view() -> tuple[Any, ...]:
    return st.session_state.get("address_of"), *sorted(st.query_params.to_dict().items())


def forget(key: str) -> None:
    """Set `key` back to its default: in the address, in this tab's memory and in its widget."""
    own(key)
    for name in (key, f"held_{key}", f"written_{key}"):
        st.session_state.pop(name, None)
    if key in st.query_params:
        del st.query_params[key]


def recall(address: Mapping[str, str]) -> None:
    """Put a whole address, which is about to be written, into this tab's memory: other pages show parts of it."""
    for key, text in address.items():
        st.session_state[f"held_{key}"] = st.session_state[f"written_{key}"] = text


def changed(key: str, default: Value) -> bool:
    """Whether the widget `key`, which is drawn later in this run, has another value than its default."""
    if given(key):
        return True
    state = st.session_state
    value = state.get(key, state.get(f"held_{key}"))
    return bool(value) and value != default


def written(value: Value) -> str:
    """The value as the address has it: a list joined by commas, which its own parts have escaped."""
    return value if isinstance(value, str) else ",".join(part.replace("%", "%25").replace(",", "%2C") for part in value)


def _read(text: str, options: Sequence[str] | None, default: Value) -> Value:
    return _allowed(
        [unquote(part) for part in text.split(",")] if isinstance(default, list) else text, options, default
    )


def _allowed(value: Value | None, options: Sequence[str] | None, default: Value) -> Value:
    """`value` as far as it is among the options; the default where nothing is left."""
    if options is None:
        return default if value is None else value
    if isinstance(value, list):
        return [part for part in value if part in options] or default
    return default if value is None or value not in options else value
