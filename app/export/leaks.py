"""Picks that share text with the targets or an evaluation: each beside its match, with ways to drop it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import streamlit as st

from app.export import exports
from app.export.exports import Request
from app.text import clip, escape, label, plural
from app.views.decisions import decide
from app.widgets import running
from app.widgets.tables import position
from gradsift.selection.leakage import TARGETS

PAGE = 5  # leaks on one page
_KINDS = {"equal": "a whole text", "contained": "a whole question", "run": "a run"}


def draw(request: Request, out: Path, manifest: Mapping[str, Any], rejecting: bool) -> None:
    """Draw what the check of the finished export in `out` found.

    request: the export that the page describes. rejecting: whether each leak has a button that rejects its row.
    """
    leakage = manifest.get("leakage")
    if not leakage:
        return
    against = [f"the {plural(leakage['targets'], 'target')}"]
    against += [f"the {plural(part['examples'], 'example')} of {part['file']}" for part in leakage["evaluation"]]
    flagged, dropped = leakage["flagged_rows"], leakage["dropped_rows"]
    if not flagged:
        replaced = (
            f" {plural(dropped, 'row')} that did {'was' if dropped == 1 else 'were'} replaced." if dropped else ""
        )
        st.success(label(f"No pick shares text with {' or '.join(against)}.{replaced}"), icon=":material/verified:")
    else:
        share = "pick shares" if flagged == 1 else "picks share"
        st.warning(label(f"{flagged:,} {share} text with {' or '.join(against)}."), icon=":material/warning:")
        st.button(
            "Drop and write again",
            key="drop-and-write",
            icon=":material/filter_alt_off:",
            on_click=_drop,
            args=(request,),
        )
    rows = exports.leaks_of(out)
    if rows:
        title = f"Dropped rows ({len(rows):,})" if not flagged else f"Leaking rows ({len(rows):,})"
        with st.expander(title, expanded=flagged > 0):
            _page(request, rows, rejecting)


def _page(request: Request, rows: Sequence[Mapping[str, Any]], rejecting: bool) -> None:
    pages = -(-len(rows) // PAGE)
    slot, page = st.container(), 1
    if pages > 1:
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            where = st.empty()
            page = st.pagination(pages, key=f"leaks-page-{pages}", width=280)
    shown = rows[(page - 1) * PAGE : page * PAGE]
    if pages > 1:
        where.caption(position((page - 1) * PAGE, len(shown), len(rows), "rows"), width="content")
    view, decisions = request.view, request.view.decisions
    with slot:
        for leak in shown:
            st.html(_card(leak))
            if rejecting and not leak["dropped"]:
                rejected = leak["row"] in decisions.rejected
                st.button(
                    "Rejected" if rejected else "Reject this row",
                    key=f"leak-{leak['row']}",
                    disabled=rejected,
                    on_click=decide,
                    args=(view.session, view.store, [leak["row"]], "reject"),
                )


def _card(leak: Mapping[str, Any]) -> str:
    hit = leak["hits"][0]
    where = f"Target {hit['line']}" if hit["file"] == TARGETS else f"{clip(hit['file'], 60)}, line {hit['line']:,}"
    more = len(leak["hits"]) - 1 + leak["more"]
    others = f" and {plural(more, 'more example')}" if more else ""
    kind = f"{_KINDS[hit['kind']]} of {plural(hit['words'], 'word')}{others}"
    badge = '<span class="gs-badge gs-plain">dropped</span> ' if leak["dropped"] else ""
    name = f"{clip(leak['source'], 60)} · {clip(leak['id'], 60)}"
    sides = [("The pick", hit["yours"]), (where, hit["theirs"])]
    panes = "".join(
        f'<div><span class="gs-role">{escape(title)}</span><p class="gs-said" dir="auto">{_quoted(quote)}</p></div>'
        for title, quote in sides
        if quote
    )
    return (
        f'<article class="gs-card gs-leak"><div class="gs-top"><span class="gs-rank">{leak["rank"]:,}</span>'
        f'<span class="gs-score">{escape(kind)}</span></div><p class="gs-foot">{badge}{escape(name)}</p>'
        f'<div class="gs-sides">{panes}</div></article>'
    )


def _quoted(quote: Mapping[str, str]) -> str:
    return f"{escape(quote['before'])}<mark>{escape(quote['shared'])}</mark>{escape(quote['after'])}"


def _drop(request: Request) -> None:
    st.session_state.drop_leaks = True
    running.attempt(replace(request, drop_leaks=True).start)
