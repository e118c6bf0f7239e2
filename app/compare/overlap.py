"""How much the columns share: counts for the filter's options, and a table of pairs in a popover."""

import numpy as np
import pandas as pd
import streamlit as st

from app.views.comparison import ALL, EVERY, ONLY, OTHERS, SHARED, Comparison
from gradsift.scoring.methods import METHODS

_NAMES = {
    ALL: "All picks",
    ONLY: "One method only",
    SHARED: "Shared",
    EVERY: "In all",
    OTHERS: "Missed by this method",
}


def options(comparison: Comparison) -> dict[str, str]:
    """Every way to show picks -> its name with the number of distinct rows that it shows."""
    by_columns = np.bincount(comparison.shared, minlength=2)[1:]  # rows picked by one column, by two, ...
    number = {
        ALL: by_columns.sum(),
        ONLY: by_columns[0],
        SHARED: by_columns[1:].sum(),
        EVERY: by_columns[len(comparison.columns) - 1 :].sum(),
        OTHERS: by_columns[: len(comparison.columns) - 1].sum(),
    }
    return {show: f"{name} ({number[show]:,})" for show, name in _NAMES.items()}


def draw(comparison: Comparison) -> None:
    """Draw the number of rows that each pair of columns shares."""
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
