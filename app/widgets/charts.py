"""Plotly figures with a title and units, an alternative text, their numbers as a table and CSV file, and a picture.

Grid, fonts and background follow light and dark automatically; the colors of methods come from the theme. Names from
the data go into a figure through `tick`, since Plotly reads a kind of HTML; what a click means is in customdata.
"""

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from app import theme
from app.state.session import current_session
from app.text import ends
from app.widgets import tables
from gradsift.analysis.distributions import POOL
from gradsift.scoring.methods import METHODS

if TYPE_CHECKING:
    import plotly.graph_objects as go

LINE = "rgba(128,128,128,0.85)"  # of marks that belong to no method, on light and dark
LABEL = 26  # characters of a name beside an axis; the table has the whole name
_PALETTE = ["#2f54d1", "#b45309", "#0f766e", "#7e22ce", "#b0236a"]
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_STEPS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9))


@dataclass(frozen=True)
class Chart:
    """A figure with what belongs to it.

    name: of its files and its key. alt: what it shows, in a sentence with numbers. table: its numbers.
    """

    name: str
    figure: "go.Figure"
    alt: str
    table: pd.DataFrame
    columns: tables.Columns


def dark() -> bool:
    """Whether the page is dark, as far as the server knows."""
    return st.context.theme.type == "dark"


def draw(
    chart: Chart, clickable: bool = False, on_area: Callable[[Any], None] | None = None, note: str = ""
) -> list[Any] | None:
    """Draw a chart and, folded below it, its numbers. note: a line between the two.

    on_area: called with Plotly's selection when a box or a line is drawn around marks.

    Returns the customdata of a mark if the run follows a click on it.
    """
    key, stem = f"chart-{chart.name}", file_stem(chart.name)
    act: dict[str, Any] = {"config": config(stem)}
    if clickable:
        act |= {"on_select": partial(_clicked, key), "selection_mode": "points"}
    elif on_area:
        act = {"config": config(stem, "select2d", "lasso2d"), "selection_mode": ("box", "lasso")}
        act["on_select"] = partial(_enclosed, key, on_area)
    st.plotly_chart(chart.figure, key=key, alt=chart.alt, **act)
    if note:
        st.caption(note)
    tables.twin(chart.table, "Show as a table", chart.alt, chart.columns, stem)
    return st.session_state.pop(f"clicked-{key}", None)


def _clicked(key: str) -> None:
    """Keep what a click means; a click outside all marks means nothing."""
    points = st.session_state[key].selection.points
    if points and points[0].get("customdata"):
        st.session_state[f"clicked-{key}"] = list(points[0]["customdata"])


def _enclosed(key: str, on_area: Callable[[Any], None]) -> None:
    """Pass on what was enclosed; a new figure's empty selection does not count."""
    selection = st.session_state[key].selection
    if selection.get("box") or selection.get("lasso"):
        on_area(selection)


def config(stem: str, *buttons: str) -> dict[str, Any]:
    """Plotly's settings: a button that saves the picture as `stem`.png, and `buttons`."""
    return {
        "displayModeBar": True,
        "displaylogo": False,
        "modeBarButtons": [["toImage", *buttons]],
        "toImageButtonOptions": {"format": "png", "filename": stem, "scale": 2},
        "responsive": True,
        "scrollZoom": False,
    }


def file_stem(name: str) -> str:
    """The name of a chart's files: the open store and targets, then the chart."""
    session = current_session()
    parts = ("gradsift", session.store_title, session.targets, name)
    return "-".join(re.sub(r"[^\w.]+", "-", part).strip("-.")[:40] for part in parts if part)


def blank(title: str, units: str, height: int = 380, still: bool = True) -> "go.Figure":
    """An empty figure with our look.

    units: the second line of the title; a phone shows about 44 characters of either line. still: no zoom, so that
    touching it scrolls the page.
    """
    import plotly.graph_objects as go

    layout = {
        "title": {
            "text": title,
            "font": {"size": 16},
            "subtitle": {"text": units, "font": {"size": 13, "color": dim()}},
            "pad": {"t": 8, "l": 2},
            **{"x": 0, "xanchor": "left", "y": 1, "yanchor": "top"},
        },
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 72, "b": 8},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "title": {"text": ""}},
        "hoverlabel": {"align": "left"},
        "bargap": 0.25,
        "dragmode": False if still else "select",
    }
    return go.Figure(layout={**layout, "xaxis": _axis(still), "yaxis": _axis(still)})


def axes(figure: "go.Figure", still: bool = True) -> None:
    """Give all axes of the figure our look; `blank` does so for the first two."""
    figure.update_xaxes(_axis(still))
    figure.update_yaxes(_axis(still))


def _axis(still: bool) -> dict[str, Any]:
    title, ticks = {"size": 13, "color": dim()}, {"size": 12, "color": dim()}
    return {"fixedrange": still, "automargin": True, "title": {"font": title}, "tickfont": ticks}


def dim() -> str:
    """Color of the text around a chart; Streamlit's own is too pale to read."""
    return "#a3abb8" if dark() else "#5b6472"


def color(method: str) -> str:
    """The color of a method, or of the whole pool, on this page, light or dark."""
    return pool_color() if method == POOL else theme.color(method, dark())


def pool_color() -> str:
    """The color of the whole pool."""
    return "#c9ced8" if dark() else "#303744"


def scale(method: str) -> list[list[Any]]:
    """A color scale from nearly the page's background to the color of a method, or of the whole pool."""
    return [[0, "#1e222a" if dark() else "#f4f5f8"], [1, color(method)]]


def palette() -> list[str]:
    """Colors for parts that are neither methods nor sources."""
    return ["#8da6ff", "#f0b04a", "#4fd1c5", "#c79bff", "#f08cbc"] if dark() else _PALETTE


def label_of(method: str) -> str:
    """The name of a method, or of the whole pool, in a table or a sentence."""
    return "Whole pool" if method == POOL else METHODS[method].label


def name_of(method: str) -> str:
    """A method's mark and name in a legend."""
    return label_of(method) if method == POOL else f"{theme.look(method).mark} {label_of(method)}"


def tick(name: str, length: int = LABEL) -> str:
    """A name from the data for Plotly: shortened, without markup or changes of the writing direction."""
    # Plotly decodes &lt; and &amp;, but not &quot;
    return html.escape(ends(_UNSEEN.sub("", name), length), quote=False) or "(no name)"


def log_ticks(low: float, high: float, most: int = 8) -> tuple[list[float], list[str]]:
    """At most `most` round values between `low` and `high` for a logarithmic axis: their logarithms and texts."""
    ticks: list[float] = []
    for steps in _STEPS:
        powers = range(int(np.floor(low)), int(np.ceil(high)) + 1)
        candidates = [step * 10.0**power for power in powers for step in steps]
        inside = [value for value in candidates if low - 1e-9 <= np.log10(value) <= high + 1e-9]
        if ticks and len(inside) > most:
            break
        ticks = inside
    thinned = ticks[:: -(-len(ticks) // most)] if ticks else []
    return [float(np.log10(value)) for value in thinned], [f"{value:,.10g}" for value in thinned]


def log_axis(title: str, values: "np.ndarray | pd.Series", most: int = 8) -> dict[str, Any]:
    """An axis for logarithms, labeled with the values themselves. values: the logarithms that are drawn."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    room = max(0.03 * (high - low), 0.02)
    at, text = log_ticks(low - room, high + room, most)
    return {"title": {"text": title}, "range": [low - room, high + room], "tickvals": at, "ticktext": text}


def listed(names: Sequence[str]) -> dict[str, Any]:
    """An axis that lists names from top to bottom; marks are at 0, 1, 2 and so on, so that names may repeat."""
    return {
        "tickvals": list(range(len(names))),
        "ticktext": [tick(name) for name in names],
        "range": [len(names) - 0.5, -0.5],
        "showgrid": False,
        "zeroline": False,
    }


def cells(figure: "go.Figure", values: np.ndarray, marks: list[Any], hover: str, method: str, most: float) -> None:
    """Draw a table of numbers as shaded cells with their texts, in the color of a method or of the pool.

    values: (R, C) shades from 0 to `most`; missing ones are left blank. marks: R lists of C lists of customdata, each
    ending with the text. A click anywhere in a cell counts: heat maps take no clicks, but invisible points do.
    """
    height, width = values.shape
    x, y = list(range(width)), list(range(height))
    figure.add_heatmap(
        z=values, x=x, y=y, zmin=0, zmax=most, colorscale=scale(method), showscale=False, xgap=3, ygap=3,
        hoverinfo="skip",
    )  # fmt: skip
    full = np.nan_to_num(values / most) > 0.5
    inks = ("#e6e8ee", "#14171d") if dark() else ("#1b1f27", "#ffffff")
    flat = [cell for line in marks for cell in line]
    figure.add_scatter(
        x=x * height, y=np.repeat(y, width), mode="markers+text", text=[cell[-1] for cell in flat], customdata=flat,
        textfont={"size": 14, "color": [inks[int(deep)] for deep in full.ravel()]}, showlegend=False,
        marker={"size": 20, "symbol": "square", "color": "rgba(0,0,0,0)"}, hovertemplate=hover + "<extra></extra>",
    )  # fmt: skip
    figure.update_layout(hovermode="closest", hoverdistance=-1)
