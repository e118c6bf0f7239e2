"""One way to show a chart: a title with units, the figure, what it says in words, and its numbers as table and CSV."""

import re
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from app.components import tables
from app.components.text import clip, escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

CONFIG = {  # of the tool bar only what saves a picture is left
    "displaylogo": False,
    "responsive": True,
    "modeBarButtons": [["toImage"]],
    "toImageButtonOptions": {"format": "png", "scale": 2},
}
GRID = "rgba(128,128,128,0.22)"
_FORMULA = re.compile(r"\s*[=+\-@]|[\t\r\n]")


def figure(x: str, y: str, height: int = 320, **layout: Any) -> "go.Figure":
    """An empty figure with titled axes; the legend stands above."""
    import plotly.graph_objects as go

    made = go.Figure()
    made.update_layout(
        height=height,
        margin={"l": 10, "r": 10, "t": 30, "b": 10},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis={"title": {"text": x}, "gridcolor": GRID, "zeroline": False},
        yaxis={"title": {"text": y}, "gridcolor": GRID, "zeroline": False},
        **layout,
    )
    return made


def name(text: object, length: int = 28) -> str:
    """A name from data for an axis or a legend, where Plotly reads some HTML."""
    return escape(clip(str(text), length))


def show(
    made: "go.Figure", key: str, title: str, alt: str, table: pd.DataFrame, config: tables.Columns | None = None
) -> None:
    """Draw the figure under its title, with the table behind it folded and to download.

    key: also the name of the CSV and of the picture.
    """
    st.subheader(title, anchor=False)
    saved = {**CONFIG, "toImageButtonOptions": {**CONFIG["toImageButtonOptions"], "filename": key}}  # type: ignore[dict-item]
    st.plotly_chart(made, config=saved, key=f"figure-{key}", alt=alt)
    with st.expander("The numbers", key=f"numbers-{key}"):
        st.dataframe(table, hide_index=True, column_config=config, alt=f"Table: {title}", key=f"table-{key}")
        st.download_button(
            "Download as CSV",
            lambda: csv(table),
            file_name=f"{key}.csv",
            mime="text/csv",
            icon=":material/download:",
            on_click="ignore",
            key=f"csv-{key}",
        )


def csv(table: pd.DataFrame) -> bytes:
    """The table as CSV in which no spreadsheet finds a formula: text that would start one gets an apostrophe."""
    safe = table.map(lambda value: f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value)
    return safe.to_csv(index=False, lineterminator="\n").encode()
