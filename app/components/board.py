"""The board of the Compare page: a column per method, the same ranks side by side, page by page."""

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import data
from app.comparing import Column, Comparison
from app.components import cards, tables
from app.components.text import plural
from gradsift.methods import METHODS
from gradsift.store import Store

PAGE = 20  # picks of a column on one page
WIDE = 280  # pixels; left to itself the pagination hides pages that would fit


def draw(store: Store, comparison: Comparison, show: str, beside: DeltaGenerator) -> None:
    """Draw the columns for the picks that `show` leaves, with the pages below and in the container `beside`."""
    lists = {column.method: comparison.shown(column, show) for column in comparison.columns}
    longest = max((len(picks) for picks in lists.values()), default=0)
    first = (_pages(longest, beside) - 1) * PAGE
    visible = {method: picks[first : first + PAGE] for method, picks in lists.items()}
    texts = data.texts(store, _rows(comparison, visible))
    pool = data.pool_of(store)
    with st.container(key="board"):
        places = st.columns(len(comparison.columns), gap="medium", wrap=False)
        for place, column in zip(places, comparison.columns, strict=True):
            picks, here = lists[column.method], visible[column.method]
            html = [_head(store, comparison, column, pool)]
            html += [_card(store, comparison, column, int(at), pool, texts) for at in here]
            html.append(_foot(first, len(here), len(picks), len(column.picks)))
            place.html("".join(html))
    if longest > PAGE:
        with st.container(horizontal=True, horizontal_alignment="right"):
            _turner(1 + first // PAGE, -(-longest // PAGE), "below")


def _pages(longest: int, beside: DeltaGenerator) -> int:
    """Where in the list the page stands, above the board, and the pagination; returns the page's number."""
    pages = max(1, -(-longest // PAGE))
    asked = st.query_params.get("page", "")
    page = int(asked) if asked.isdecimal() and 1 <= int(asked) <= pages else 1
    first = (page - 1) * PAGE
    with beside:
        count = min(PAGE, max(0, longest - first))
        st.caption(tables.position(first, count, longest, "picks a column"), width="content")
        if pages > 1:
            _turner(page, pages, "above")
    return page


def _turner(page: int, pages: int, place: str) -> None:
    """A pagination that writes the page into the address, which is the only place that keeps it."""
    key = f"page_{place}_{page}_{pages}"
    st.pagination(pages, default=page, key=key, on_change=_turn, args=(key,), width=WIDE)


def _turn(key: str) -> None:
    st.query_params["page"] = str(st.session_state[key])


def _rows(comparison: Comparison, visible: dict[str, np.ndarray]) -> list[int]:
    positions = np.unique(np.concatenate([*visible.values(), np.zeros(0, dtype=np.int64)])).astype(np.int64)
    return comparison.rows[positions].tolist()


def _head(store: Store, comparison: Comparison, column: Column, pool: pd.DataFrame) -> str:
    sources = data.sources_of(store)
    picked = pool.loc[comparison.rows[column.picks]]
    shares = picked["source"].value_counts().reindex(sources).dropna().astype(int).to_dict()
    tokens = int(column.tokens)
    only = int((comparison.shared[column.picks] == 1).sum())
    return cards.head(column.method, len(column.picks), tokens, only, len(comparison.columns), shares, sources)


def _card(
    store: Store, comparison: Comparison, column: Column, at: int, pool: pd.DataFrame, texts: dict[int, Any]
) -> str:
    row = int(comparison.rows[at])
    about, text = pool.loc[row], texts[row]
    cut = int(about["n_cut"])
    tokens = f"{plural(int(about['n_prompt_tokens'] + about['n_answer_tokens']), 'token')}" + (
        f", {cut:,} cut" if cut else ""
    )
    card = cards.Card(
        method=column.method,
        rank=int(column.ranking.rank[at]),
        score=float(column.ranking.score[at]),
        share=_share(column, at),
        ranks={c.method: (int(c.ranking.rank[at]), bool(c.picked[at])) for c in comparison.columns},
        source=str(about["source"]),
        task=str(about["task"] or ""),
        subtask=_subtask(comparison, column, at),
        turns=[(turn["role"], turn["content"]) for turn in text["messages"]],
        prefix=str(text["prefix"] or ""),
        foot=f"{about['id']} · {about['file']}, line {int(about['line']):,} · {tokens}",
    )
    return cards.draw(card, data.sources_of(store))


def _subtask(comparison: Comparison, column: Column, at: int) -> str:
    """The subtask that won, where there is more than one and the method looks at the targets."""
    if METHODS[column.method].evidence == "none":
        return ""
    best, names = int(column.ranking.best_subtask[at]), column.ranking.subtasks
    return names[best] if len(names) > 1 else ""


def _share(column: Column, at: int) -> float:
    """Where the score lies between the pool's lowest (0) and highest (1)."""
    low, high = float(column.ranking.score.min()), float(column.ranking.score.max())
    return (float(column.ranking.score[at]) - low) / (high - low) if high > low else 1.0


def _foot(first: int, count: int, shown: int, picks: int) -> str:
    text = tables.position(first, count, shown, "shown picks" if shown != picks else "picks")
    return f'<p class="gs-small gs-dim gs-num">{text}</p>'
