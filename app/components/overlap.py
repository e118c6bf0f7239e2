"""How much the columns share: a line of counts for the filter, and the table of pairs, folded."""

import pandas as pd
import streamlit as st

from app import comparing
from app.comparing import Comparison
from gradsift.methods import METHODS

_NAMES = {
    comparing.ALL: "All picks",
    comparing.ONLY: "One method only",
    comparing.SHARED: "Shared",
    comparing.EVERY: "In all",
    comparing.OTHERS: "In others only",
}


def option(show: str, comparison: Comparison) -> str:
    """A filter's name with the number of different rows it leaves."""
    counts = comparison.shared[comparison.shared > 0]
    number = {
        comparing.ONLY: int((counts == 1).sum()),
        comparing.SHARED: int((counts > 1).sum()),
        comparing.EVERY: int((counts == len(comparison.columns)).sum()),
        comparing.OTHERS: int((counts < len(comparison.columns)).sum()),
    }.get(show, len(counts))
    return f"{_NAMES[show]} ({number:,})"


def draw(comparison: Comparison) -> None:
    """The number of rows that every pair of columns shares."""
    columns = comparison.columns
    if len(columns) < 2:
        return
    with st.popover("Overlap", icon=":material/join_inner:"):
        table = pd.DataFrame(
            [[comparison.overlap(a, b) for b in columns] for a in columns],
            index=[METHODS[a.method].label for a in columns],
            columns=[METHODS[b.method].label for b in columns],
        )
        st.caption("Rows that two methods both pick at this budget; the diagonal is each method's own number.")
        st.dataframe(table, alt="Rows picked by both methods of each pair", key="overlap")
