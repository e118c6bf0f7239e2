"""Figures of gradient norms against answer length, with picks on top (the paper's figures 3 and 4, table 12)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import theme
from app.text import plural
from app.views.figures import thinned
from app.widgets import tables
from app.widgets.charts import Chart, blank, color, dark, label_of, log_axis
from gradsift.analysis.distributions import POOL
from gradsift.analysis.norms import Area

KINDS = {"grad_norm": "Gradient norm ‖g‖", "update_norm": "Adam update norm ‖Γ‖"}
NUMBER = st.column_config.NumberColumn
_HEIGHT = 470


@dataclass(frozen=True)
class Grid:
    """The pool's rows as shades, for all charts. shades: Plotly's heat map; x, y: its edges; rows: their total."""

    shades: dict[str, Any]
    x: np.ndarray
    y: np.ndarray
    rows: int


def picks(name: str, title: str, method: str, grid: Grid, table: pd.DataFrame, kind: str, area: Area | None) -> Chart:
    """All rows on a grid, with single picks on top.

    table: one line per pick, of which some hundreds are drawn: row, source, length and norm (logarithms), rank.
    area: the marked area.
    """
    drawn = table.iloc[thinned(np.arange(len(table)))]
    figure = blank(title, "Shade: rows of the pool. Marks: picks", _HEIGHT, still=True)
    if grid.shades:
        figure.add_heatmap(**grid.shades)
    symbol, size = theme.look(method).symbol, 8 if len(drawn) <= 200 else 6 if len(drawn) <= 800 else 4
    figure.add_scatter(
        x=drawn["length"], y=drawn["norm"], mode="markers", name=label_of(method),
        marker={"symbol": symbol, "size": size, "color": color(method), "opacity": 0.85, "line": _edge(symbol, size)},
        customdata=np.column_stack([drawn["row"], 10 ** drawn["length"], 10 ** drawn["norm"], drawn["rank"]]),
        hovertemplate="row %{customdata[0]:d}, rank %{customdata[3]:,d}:<br>%{customdata[1]:,.0f} answer tokens, "
        "norm %{customdata[2]:.3g}<extra></extra>",
        selected={"marker": {"opacity": 1}}, unselected={"marker": {"opacity": 0.85}},
    )  # fmt: skip
    if area is not None:
        outline = "L".join(f"{x},{y}" for x, y in area.vertices)
        figure.add_shape(
            type="path", path=f"M{outline}Z", line={"color": color(POOL), "width": 1.5, "dash": "dash"},
            fillcolor="rgba(128,128,128,0.12)",
        )  # fmt: skip
    figure.update_layout(
        dragmode="select",
        newselection={"line": {"color": color(POOL), "width": 1.5, "dash": "dash"}},
        xaxis=log_axis("Answer length (tokens, logarithmic)", grid.x),
        yaxis=log_axis(f"{KINDS[kind]} (logarithmic)", grid.y, 7),
        showlegend=False,
    )
    return Chart(name, figure, _alt(title, kind, table, grid.rows), _listed(table), _columns(kind))


def grid(cells: pd.DataFrame) -> Grid:
    """The rows per cell as shades, on a logarithmic scale since few cells hold most rows.

    cells: of the chosen sources (`figures.norm_cells`).
    """
    x, y, rows = cells[["x0", "x1"]].to_numpy(), cells[["y0", "y1"]].to_numpy(), int(cells["rows"].sum())
    whole = cells.groupby(["x", "y", "x0", "x1", "y0", "y1"], as_index=False)["rows"].sum()
    if whole.empty:
        return Grid({}, x, y, 0)
    wide, high = (float((whole[b] - whole[a]).iloc[0]) for a, b in (("x0", "x1"), ("y0", "y1")))
    across = ((whole["x"] - whole["x"].min()) / wide).round().astype(int)
    up = ((whole["y"] - whole["y"].min()) / high).round().astype(int)
    shades = np.full((up.max() + 1, across.max() + 1), np.nan)
    shades[up, across] = np.log10(whole["rows"])
    texts = np.full(shades.shape, "", dtype=object)
    texts[up, across] = [
        f"{plural(line.rows, 'row')}:<br>{10**line.x0:.3g} to {10**line.x1:.3g} answer tokens, "
        f"norm {10**line.y0:.3g} to {10**line.y1:.3g}"
        for line in whole.itertuples()
    ]
    light = [[0, "#cfd6e4"], [1, "#6b7486"]]
    deep = [[0, "#353d4c"], [1, "#a3abb8"]]
    shaded = {
        "z": shades, "x0": float(whole["x"].min()), "dx": wide, "y0": float(whole["y"].min()), "dy": high, "zmin": 0,
        "zmax": max(float(np.log10(whole["rows"].max())), 0.5), "colorscale": deep if dark() else light,
        "showscale": False, "text": texts, "hovertemplate": "%{text}<extra></extra>", "hoverongaps": False,
    }  # fmt: skip
    return Grid(shaded, x, y, rows)


def cells_table(cells: pd.DataFrame) -> pd.DataFrame:
    """The grid as a table in tokens and norms, not logarithms: source, tokens and norm from and to, rows."""
    edges = {
        name: (10 ** cells[edge]).round(4)
        for name, edge in (("tokens_from", "x0"), ("tokens_to", "x1"), ("norm_from", "y0"), ("norm_to", "y1"))
    }
    return pd.DataFrame({"source": cells["group"], **edges, "rows": cells["rows"]})


def cells_columns() -> tables.Columns:
    """How `cells_table` is shown."""
    return {
        "source": "Source", "tokens_from": NUMBER("Answer tokens from", format="%.1f"),
        "tokens_to": NUMBER("to", format="%.1f"), "norm_from": NUMBER("Norm from", format="%.4g"),
        "norm_to": NUMBER("to ", format="%.4g"), "rows": NUMBER("Rows", format="localized"),
    }  # fmt: skip


def beside(table: pd.DataFrame, kind: str) -> tuple[pd.DataFrame, tables.Columns]:
    """Table 12 for this store: `norms.side_by_side` with readable names, and its columns."""
    names = {"cosine": "Cosine", "dot": "Raw dot product", "pool": "Whole pool"}
    columns: tables.Columns = {
        "similarity": "Picked by", "rows": NUMBER("Rows", format="localized"),
        "mean_answer": NUMBER("Mean answer (tokens)", format="%.1f"),
        "median_answer": NUMBER("Median answer (tokens)", format="%.0f"),
        "mean_norm": NUMBER(f"Mean {KINDS[kind].split()[-1]}", format="%.3g"),
        "median_norm": NUMBER(f"Median {KINDS[kind].split()[-1]}", format="%.3g"),
    }  # fmt: skip
    return table.assign(similarity=table["similarity"].map(names))[list(columns)], columns


def sentence(table: pd.DataFrame, method: str) -> str:
    """`norms.side_by_side` in words."""
    lines = table.set_index("similarity")
    cosine, dot, pool = (lines.loc[name] for name in ("cosine", "dot", "pool"))
    shorter = "shorter" if dot["mean_answer"] < cosine["mean_answer"] else "longer"
    return (
        f"By raw dot product, {label_of(method)} would pick {shorter} answers: {dot['mean_answer']:.1f} tokens on "
        f"average instead of {cosine['mean_answer']:.1f} (the pool: {pool['mean_answer']:.1f}). "
        f"{int(dot['common']):,} of {int(dot['rows']):,} picks would stay."
    )


def _edge(symbol: str, size: int) -> dict[str, Any]:
    """A thin line around marks in the page's color, which separates neighbors; an open mark consists of a line."""
    return {"width": 2 if symbol.endswith("-open") else size / 10, "color": "#14171d" if dark() else "#ffffff"}


def _alt(title: str, kind: str, table: pd.DataFrame, rows: int) -> str:
    tokens, norm = 10 ** table["length"].median(), 10 ** table["norm"].median()
    where = f" Their median lies at {tokens:.0f} tokens and a norm of {norm:.3g}." if len(table) else ""
    return (
        f"{title}: {KINDS[kind]} against answer length, {plural(rows, 'row')} and {plural(len(table), 'pick')}.{where}"
    )


def _listed(table: pd.DataFrame) -> pd.DataFrame:
    tokens = (10 ** table["length"]).round().astype("Int64")
    return table.assign(tokens=tokens, norm=10 ** table["norm"])[["rank", "row", "source", "tokens", "norm"]]


def _columns(kind: str) -> tables.Columns:
    return {
        "rank": NUMBER("Rank", format="localized"), "row": NUMBER("Row", format="%d"), "source": "Source",
        "tokens": NUMBER("Answer tokens", format="localized"), "norm": NUMBER(KINDS[kind], format="%.4g"),
    }  # fmt: skip
