"""The Compare page's search field, filters and order, and the active ones as chips that can be removed."""

from collections.abc import Callable, Mapping

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app.compare import overlap, search
from app.state import address
from app.text import clip, label
from app.views import filters
from app.views.comparison import ALL, SHOWS, Comparison
from app.views.filters import Facet, Filter
from app.views.view import View
from gradsift.datastore.store import Store
from gradsift.text.index import has_index
from gradsift.text.search import SEARCHED
from gradsift.workspace.sessions import Decisions

FEW = 24  # values that are shown as pills; more than that are searched by typing
_NAMES = {
    "source": "Source",
    "task": "Task",
    "script": "Script",
    "subtask": "Subtask served best",
    "verdict": "Verdict",
    "length": "Answer length",
}
_ROLES = {
    "any": "in any role",
    "user": "in user turns",
    "assistant": "in assistant turns",
    "system": "in the system prompt",
    "tool": "in tool results",
    "text": "in plain text",
}
_SORTS = {
    "rank": "By rank",
    "score": "By score",
    "long": "Longest answer first",
    "short": "Shortest answer first",
    "norm": "Largest gradient norm first",
}
_VERDICTS = {filters.UNDECIDED: "undecided"}  # address name -> title, where they differ
_SCOPES = {filters.PICKS: "Picks", filters.POOL: "Whole pool"}


def draw(view: View, decisions: Decisions, showing: DeltaGenerator) -> Filter:
    """Draw search, filters and order here and the choice of rows in `showing`; returns the filter."""
    comparison = view.comparison
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="finding"):
        q, role = _search(view.store)
        popover = st.container(width="content")
        sort = _sort()
    with popover:
        values, length, verdict = _facets(view, decisions)
    with address.bound("area", None, default=""):
        area = st.session_state.area = st.session_state.area if filters.area_of(st.session_state.area) else ""
    with showing:
        scope = _scope()
        show = _show(comparison) if scope == filters.PICKS else ALL
    return Filter(
        **values, length=length, q=q, role=role, area=area, verdict=verdict, show=show, scope=scope, sort=sort
    )


def chips(filter: Filter) -> None:
    """Draw every active filter as a button that removes it, and one button that clears all."""
    for key in (*filters.FACETS, "verdict"):
        for value in getattr(filter, key):
            _chip(f"{_NAMES[key]}: {clip(_VERDICTS.get(value, value), 40)}", f"{key}_{value}", _remove, key, value)
    if filter.q.strip():
        role = f" {_ROLES[filter.role]}" if filter.role != "any" else ""
        _chip(f"“{clip(filter.q, 40)}”{role}", "q", _clear, "q")
    if limits := filters.length_limits(filter.length):
        low, high = limits
        span = f"{low:,} or more" if high == 10**9 else f"{low:,} to {high:,}"
        _chip(f"Answer: {span} tokens", "length", _clear, "length")
    if area := filters.area_of(filter.area):
        _chip(f"Area marked on the norms at {area.epoch}", "area", _clear, "area")
    if filter.narrowing:
        st.button("Clear filters", key="clear", icon=":material/filter_alt_off:", type="tertiary", on_click=clear)


def clear() -> None:
    """Remove what narrows the rows; the choice of rows and their order stay."""
    for key in (*filters.FACETS, "verdict", "q", "length", "area"):
        _clear(key)


def _search(store: Store) -> tuple[str, str]:
    ready = has_index(store)
    q = search.draw(ready)
    with address.bound("role", SEARCHED, default="any"):
        role = st.selectbox("Role", SEARCHED, key="role", format_func=_ROLES.__getitem__, width=170, disabled=not ready)
    return q, role or "any"


def _sort() -> str:
    with address.bound("sort", filters.SORTS, default="rank"):
        return st.selectbox("Order", filters.SORTS, key="sort", format_func=_SORTS.__getitem__, width=220) or "rank"


def _scope() -> str:
    with address.bound("scope", filters.SCOPES, default=filters.PICKS):
        return (
            st.segmented_control(
                "Rows",
                filters.SCOPES,
                key="scope",
                required=True,
                label_visibility="collapsed",
                format_func=_SCOPES.__getitem__,
                help="The picks of every method, or all rows of the pool in each method's order.",
            )
            or filters.PICKS
        )


def _show(comparison: Comparison) -> str:
    shows = SHOWS if len(comparison.columns) > 1 else SHOWS[:1]
    with address.bound("show", shows, default=ALL):
        if len(shows) == 1:
            return ALL
        return (
            st.segmented_control(
                "Show",
                shows,
                key="show",
                required=True,
                label_visibility="collapsed",
                format_func=overlap.options(comparison).__getitem__,
            )
            or ALL
        )


def _facets(view: View, decisions: Decisions) -> tuple[dict[str, tuple[str, ...]], str, tuple[str, ...]]:
    """Draw the filters' popover; returns the chosen values by facet, the length and the verdicts."""
    active = sum(address.changed(key, []) for key in (*filters.FACETS, "length", "verdict"))
    name = f"Filters ({active})" if active else "Filters"
    with st.popover(name, icon=":material/filter_alt:", key="filters"), st.container(width=520):
        st.caption("The numbers: rows among the picks / rows in the pool.")
        comparison = view.comparison
        picked = comparison.shared > 0
        numbers = {
            key: dict(zip(facet.values, zip(facet.counts(picked), facet.total, strict=True), strict=True))
            for key, facet in filters.facets_of(view).items()
        }
        numbers["subtask"] = filters.subtasks_of(comparison)
        values = {key: _values(key, counts) for key, counts in numbers.items()}
        length = _length(view)
        verdict = _verdict(comparison, decisions)
    return values, length, verdict


def _values(key: str, counts: Mapping[str, tuple[int, int]]) -> tuple[str, ...]:
    """Draw a facet's values, those with most picks first. counts: value -> (picks, rows in the pool)."""
    options = sorted(counts, key=lambda value: (-counts[value][0], -counts[value][1]))
    numbers = {value: f"{picks:,} / {rows:,}" for value, (picks, rows) in counts.items()}

    def shown(value: str) -> str:
        return f"{label(clip(value, 48))} :gray[{numbers.get(value, '')}]"

    with address.bound(key, options, default=[]):
        if len(options) < 2 and not st.session_state[key]:
            return ()
        if len(options) > FEW:
            # a multiselect does not render Markdown
            plain = _plain(numbers)
            _resend(key, [plain(value) for value in options])
            values = st.multiselect(_NAMES[key], options, key=key, format_func=plain, placeholder="all")
        else:
            values = st.pills(_NAMES[key], options, selection_mode="multi", key=key, format_func=shown)
    return tuple(values or ())


def _resend(key: str, labels: list[str]) -> None:
    """If a multiselect's labels changed, send its choices to the browser again under the new labels.

    The browser sends back the labels it last received, and Streamlit drops those that no option has any longer.
    """
    state = st.session_state
    if state.get(f"labels_{key}") != labels:
        state[key], state[f"labels_{key}"] = list(state[key]), labels


def _plain(numbers: dict[str, str]) -> Callable[[str], str]:
    return lambda value: f"{clip(value, 60)}  {numbers.get(value, '')}"


def _length(view: View) -> str:
    """Draw two fields that write the range into the address."""
    with address.bound("length", None, default=""):
        limits = filters.length_limits(st.session_state.length)
        if limits is None:
            st.session_state.length = ""
        low, high = limits or (0, 10**9)
        st.session_state.length_low, st.session_state.length_high = low or None, high if high < 10**9 else None
        n_answer = view.traits.n_answer
        shortest, middle, longest = (int(np.quantile(n_answer, at, method="nearest")) for at in (0, 0.5, 1))
        with st.container(horizontal=True, gap="small"):
            for key, name in (("length_low", "Answer tokens, from"), ("length_high", "to")):
                st.number_input(name, min_value=0, step=1, key=key, on_change=_range, placeholder="any", width=170)
        st.caption(f"Answers in the pool have {shortest:,} to {longest:,} tokens, half of them {middle:,} or fewer.")
    return str(st.session_state.length)


def _verdict(comparison: Comparison, decisions: Decisions) -> tuple[str, ...]:
    accepted, rejected = np.isin(comparison.rows, decisions.accepted), np.isin(comparison.rows, decisions.rejected)
    masks = {filters.ACCEPTED: accepted, filters.REJECTED: rejected, filters.UNDECIDED: ~accepted & ~rejected}
    totals = np.array([mask.sum() for mask in masks.values()])
    facet = Facet(filters.VERDICTS, rejected + 2 * masks[filters.UNDECIDED], totals)
    counts = dict(zip(facet.values, facet.counts(comparison.shared > 0), strict=True))
    numbers = {name: f"{counts[name]:,} / {masks[name].sum():,}" for name in masks}
    with address.bound("verdict", filters.VERDICTS, default=[]):
        values = st.pills(
            _NAMES["verdict"],
            filters.VERDICTS,
            selection_mode="multi",
            key="verdict",
            format_func=lambda name: f"{_VERDICTS.get(name, name)} :gray[{numbers[name]}]",
        )
    return tuple(values or ())


def _range() -> None:
    state = st.session_state
    state.length = filters.written_length(state.length_low, state.length_high)


def _chip(name: str, key: str, on_click: Callable[..., None], *args: str) -> None:
    st.button(
        label(name),
        key=f"chip_{key}",
        icon=":material/close:",
        icon_position="right",
        on_click=on_click,
        args=args,
        help="Remove this filter",
    )


def _remove(key: str, value: str) -> None:
    st.session_state[key] = [other for other in st.session_state[key] if other != value]


def _clear(key: str) -> None:
    st.session_state[key] = "" if key in ("q", "length", "area") else []
