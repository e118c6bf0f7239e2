"""Tables: small twins of charts, and long lists page by page with a search of their own."""

from typing import Any

import pandas as pd
import streamlit as st

Columns = dict[str, Any]  # what `column_config` takes
PAGE = 20  # rows of a long list on one page


def twin(frame: pd.DataFrame, title: str, alt: str, config: Columns | None = None) -> None:
    """The numbers behind a chart, folded."""
    with st.expander(title):
        st.dataframe(frame, hide_index=True, column_config=config, alt=alt)


def position(first: int, count: int, total: int, noun: str) -> str:
    """Where a page stands in a list: 1-20 of 136 picks."""
    if not count:
        return f"none of {total:,} {noun}" if total else f"no {noun}"
    return f"{first + 1:,}–{first + count:,} of {total:,} {noun}"


def paged(frame: pd.DataFrame, key: str, noun: str, alt: str, config: Columns | None = None, search: str = "") -> None:
    """A table that shows `PAGE` rows at a time.

    search: label of a search field over all columns; none when empty.
    """
    if search:
        words = st.text_input(search, key=f"{key}-search", type="search", placeholder="part of any column", width=320)
        frame = _matching(frame, words or "")
    pages = max(1, -(-len(frame) // PAGE))
    slot = st.container()
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        where = st.empty()
        page = st.pagination(pages, key=f"{key}-page-{pages}", width=280) if pages > 1 else 1
    first = (page - 1) * PAGE
    shown = frame.iloc[first : first + PAGE]
    where.caption(position(first, len(shown), len(frame), noun), width="content")
    slot.dataframe(shown, hide_index=True, column_config=config, alt=alt, key=f"{key}-table")


def _matching(frame: pd.DataFrame, words: str) -> pd.DataFrame:
    if not words.strip():
        return frame
    text = frame.astype(str).agg(" ".join, axis=1).str.casefold()
    found = pd.Series(True, index=frame.index)
    for word in words.casefold().split():
        found &= text.str.contains(word, regex=False)
    return frame[found]
