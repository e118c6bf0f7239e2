"""Tables: a chart's numbers with a CSV file, and long lists with pages and a search."""

from typing import Any

import pandas as pd
import streamlit as st

Columns = dict[str, Any]  # what `column_config` takes
PAGE = 20  # rows of a long list on one page
_LONGEST = 200  # lines of a table that is not paged
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # beginnings that make a spreadsheet compute a cell


def twin(frame: pd.DataFrame, title: str, alt: str, config: Columns | None = None, file: str = "") -> None:
    """Draw the numbers behind a chart, folded.

    file: name of the CSV file to download, without ending; no download if empty.
    """
    with st.expander(title):
        show(frame, alt, config, file)


def show(frame: pd.DataFrame, alt: str, config: Columns | None = None, file: str = "") -> None:
    """Draw a table with its download; a long one is paged."""
    if len(frame) > _LONGEST:
        paged(frame, f"{file}-lines", "lines", alt, config)
    else:
        st.dataframe(frame, hide_index=True, column_config=config, alt=alt, key=f"{file}-table" if file else None)
    if file:
        csv_button(frame, file, "Download as CSV", f"{file}-csv")


def csv_button(frame: pd.DataFrame, file: str, title: str, key: str) -> None:
    """Draw a button that downloads the frame as `file`.csv, which is made on demand."""
    st.download_button(
        title,
        data=lambda: csv(frame),
        file_name=f"{file}.csv",
        mime="text/csv",
        on_click="ignore",
        icon=":material/download:",
        key=key,
        type="tertiary",
    )


def csv(frame: pd.DataFrame) -> bytes:
    """The frame as CSV; text that a spreadsheet would take for a formula is prefixed with an apostrophe."""
    safe = frame.rename(columns=_text)
    for place, kind in enumerate(safe.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            safe.isetitem(place, safe.iloc[:, place].map(_text))
    return safe.to_csv(index=False, lineterminator="\n").encode("utf-8", "backslashreplace")


def _text(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.lstrip(" ").startswith(_FORMULA) else cell


def position(first: int, count: int, total: int, noun: str) -> str:
    """A page's position in a list: 1–20 of 136 picks."""
    if not count:
        return f"0 of {total:,} {noun}" if total else f"no {noun}"
    return f"{first + 1:,}–{first + count:,} of {total:,} {noun}"


def paged(frame: pd.DataFrame, key: str, noun: str, alt: str, config: Columns | None = None, search: str = "") -> None:
    """Draw a table that shows `PAGE` rows at a time.

    search: label of a search field over all columns; no field if empty.
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
    mask = pd.Series(True, index=frame.index)
    for word in words.casefold().split():
        mask &= text.str.contains(word, regex=False)
    return frame[mask]
