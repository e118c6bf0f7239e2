"""Figures of what the targets do: which subtask picked what, each target's own ranking, whether they are enough."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import streamlit as st

from app.text import plural
from app.widgets import tables
from app.widgets.charts import LINE, Chart, blank, cells, color, label_of, listed, log_axis, palette, tick
from gradsift.analysis.stability import SplitHalf

NUMBER = st.column_config.NumberColumn
OTHER = "other sources"
MOST_COLUMNS = 10  # sources in the subtasks' chart, besides one column for all others
MOST_INTERVALS = 40  # picks whose rank intervals are drawn; the table has all
_ROWS = NUMBER("Rows", format="localized")


def folded(table: pd.DataFrame, in_pool: pd.Series, subtask: str) -> list[str]:
    """The sources that `OTHER` stands for in a subtask's line of `subtasks`."""
    lines = table[(table["subtask"] == subtask) & (table["rows"] > 0)]
    return [name for name in lines["source"] if name not in _columns(in_pool)]


def _columns(in_pool: pd.Series) -> list[str]:
    return [str(name) for name in in_pool.nlargest(MOST_COLUMNS).index if name]


def subtasks(table: pd.DataFrame, method: str, in_pool: pd.Series) -> Chart:
    """Rows that each subtask picked from each source, the busiest first; idle subtasks are only in the table.

    table: subtask, source, rows (`figures.picked_by`). in_pool: rows of the pool by source.
    """
    largest = _columns(in_pool)
    short = table.assign(source=table["source"].where(table["source"].isin(largest), OTHER))
    square = short.pivot_table(index="subtask", columns="source", values="rows", aggfunc="sum", fill_value=0)
    names = [name for name in (*largest, OTHER) if name in square and (square[name].any() or name != OTHER)]
    totals = square.sum(axis=1).sort_values(ascending=False, kind="stable")
    idle = int((totals == 0).sum())
    totals = totals[totals > 0]
    square = square.reindex(index=totals.index, columns=names, fill_value=0)
    figure = blank("Which subtask picked what", f"{label_of(method)}: rows by subtask and source")
    marks = [
        [
            [source, method, str(subtask), tick(source, 60), tick(str(subtask), 60), f"{rows:,}" if rows else ""]
            for source, rows in items
        ]
        for subtask, items in ((subtask, line.items()) for subtask, line in square.iterrows())
    ]
    values = square.to_numpy(dtype=float)
    hover = "%{customdata[4]}: %{customdata[5]} rows from %{customdata[3]}"
    cells(figure, values, marks, hover, method, max(1.0, values.max()))
    down = listed([str(name) for name in totals.index])
    down["ticktext"] = [f"{tick(str(name), 20)} · {rows:,}" for name, rows in totals.items()]
    across = {**listed(names), "range": [-0.5, len(names) - 0.5], "side": "top"}
    across["ticktext"] = [tick(name, 14) for name in names]
    figure.update_layout(
        height=150 + 30 * max(2, len(square)), margin_t=104 if len(names) < 4 else 140, xaxis=across, yaxis=down
    )
    busiest = totals.index[0]
    alt = (
        f"Rows that each of {plural(len(totals) + idle, 'subtask')} picked by {label_of(method)}, by source. Most: "
        f"{busiest} with {totals.iloc[0]:,} of {totals.sum():,}"
        + (f"; {plural(idle, 'subtask')} picked nothing." if idle else ".")
    )
    columns: tables.Columns = {"subtask": "Subtask", "source": "Source", "rows": _ROWS}
    lines = table.sort_values("rows", ascending=False, kind="stable")
    return Chart("subtasks", figure, alt, lines, columns)


def curves(table: pd.DataFrame, method: str, highlighted: Mapping[str, list[int]], cut: int) -> Chart:
    """Similarity of all rows to each single target example in descending order (figure 9).

    table: target, subtask, rank, similarity. highlighted: name -> targets with their own color. cut: the rank of the
    method's last pick.
    """
    units = f"{label_of(method)}, all rows in order; dashed: rank of the last pick"
    figure = blank("Similarity to each target example", units, 440)
    bright = {target for targets in highlighted.values() for target in targets}
    rest = [target for target in table["target"].unique() if target not in bright]
    groups = {f"{len(rest):,} other{'s' if bright else ' targets'}" if rest else "": rest, **highlighted}
    lines = dict(iter(table.groupby("target", sort=False)))
    colors = [LINE, *(palette() * len(highlighted))]
    for place, (name, targets) in enumerate(groups.items()):
        if not targets:
            continue
        parts = [pd.concat([lines[t], lines[t].tail(1).assign(similarity=np.nan)]) for t in targets]
        joined = pd.concat(parts)  # one trace with gaps, since a trace per target would be slow
        figure.add_scatter(
            x=joined["rank"], y=joined["similarity"], name=tick(name, 40), mode="lines", connectgaps=False,
            line={"color": colors[place], "width": 1 if place == 0 else 2.5},
            opacity=0.4 if place == 0 and len(targets) > 20 else 1,
            customdata=joined["target"] + 1,
            hovertemplate="target %{customdata}, rank %{x:,}: %{y:.4g}<extra></extra>",
        )  # fmt: skip
    if cut:
        figure.add_vline(x=cut, line_width=1.5, line_dash="dash", line_color=LINE)
    figure.update_layout(
        xaxis={"title": {"text": "Rank by this target alone"}, "rangemode": "tozero", "tickformat": ","},
        yaxis={"title": {"text": "Similarity"}, "zeroline": True},
    )
    best = table.groupby("target")["similarity"].max()
    least = table.groupby("target")["similarity"].min()
    alt = (
        f"Similarity of all rows to each of {plural(len(best), 'target example')}, in descending order. The best row "
        f"reaches {best.min():.3g} to {best.max():.3g}; for {int((least < 0).sum()):,} of "
        f"{plural(len(best), 'target')} some rows are below 0."
    )
    columns: tables.Columns = {
        "target": NUMBER("Target"), "subtask": "Subtask", "rank": NUMBER("Rank", format="localized"),
        "similarity": NUMBER("Similarity", format="%.4g"),
    }  # fmt: skip
    return Chart("single-targets", figure, alt, table.assign(target=table["target"] + 1), columns)


def halves(half: SplitHalf, method: str) -> Chart:
    """What the top k of two halves of the targets have in common, split by split."""
    figure = blank("Do two halves of the targets agree?", f"Share of the best {half.k:,}, one dot per split", 270)
    spread = np.random.default_rng(0).uniform(-0.3, 0.3, len(half.overlaps))  # so that equal dots stand apart
    figure.add_scatter(
        x=half.overlaps, y=spread, mode="markers", name="A random split of the targets",
        marker={"color": color(method), "size": 9, "opacity": 0.7},
        hovertemplate="%{x:.1%} in common<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=[half.mean, half.mean], y=[-0.55, 0.55], mode="lines", name="Mean", line={"color": color(method), "width": 3},
        hovertemplate="mean %{x:.1%}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=[half.chance, half.chance], y=[-0.55, 0.55], mode="lines", name="By chance",
        line={"color": LINE, "width": 2, "dash": "dot"}, hovertemplate="by chance %{x:.1%}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        xaxis={"title": {"text": "Share of the best rows in common"}, "tickformat": ".0%", "range": [-0.02, 1.02]},
        yaxis={"visible": False, "range": [-0.7, 0.7]},
    )
    alt = (
        f"Two halves of the targets share {half.mean:.0%} of their best {half.k:,} rows on average over "
        f"{plural(len(half.overlaps), 'split')} (90% of the splits: {half.low:.0%} to {half.high:.0%}); "
        f"two random draws would share {half.chance:.0%}."
    )
    table = pd.DataFrame({"split": np.arange(1, len(half.overlaps) + 1), "overlap": half.overlaps})
    columns: tables.Columns = {"split": NUMBER("Split"), "overlap": NUMBER("In common", format="percent")}
    return Chart("split-half", figure, alt, table, columns)


def intervals(table: pd.DataFrame, method: str) -> Chart:
    """Where each pick ranks when the targets are resampled, the least certain pick first.

    table: row, rank, low, median, high, stays and more, least certain first (`figures.resampled`).
    """
    drawn = table.head(MOST_INTERVALS).reset_index(drop=True)
    k = len(table)
    figure = blank("How sure is each pick's rank?", "Rank in 90% of the draws; dashed: the cut")
    places = drawn.index.to_numpy(float)
    gaps = np.full(len(drawn), np.nan)
    bars = np.stack([np.log10(drawn["low"]), np.log10(drawn["high"]), gaps], axis=1).ravel()
    figure.add_scatter(
        x=bars, y=np.repeat(places, 3), mode="lines", name="90% of the draws", hoverinfo="skip",
        line={"color": color(method), "width": 4}, opacity=0.45,
    )  # fmt: skip
    for name, column, look in (
        ("Median", "median", {"symbol": "circle", "size": 9, "color": color(method)}),
        ("With all targets", "rank", {"symbol": "line-ns", "size": 11, "line": {"width": 2, "color": color("pool")}}),
    ):
        figure.add_scatter(
            x=np.log10(drawn[column]), y=places, mode="markers", name=name, marker=look,
            customdata=drawn[["row", "rank", "low", "high", "median", "stays"]],
            hovertemplate="row %{customdata[0]}: rank %{customdata[1]:,}, in 90% of the draws %{customdata[2]:,.0f} to "
            "%{customdata[3]:,.0f}, median %{customdata[4]:,.0f}; picked in %{customdata[5]:.0%}<extra></extra>",
        )  # fmt: skip
    figure.add_vline(x=np.log10(k) + 1e-9, line_width=1.5, line_dash="dash", line_color=LINE)
    around = np.log10([*drawn["low"], *drawn["high"], *drawn["rank"], k])
    figure.update_layout(
        height=150 + 20 * max(4, len(drawn)),
        xaxis=log_axis("Rank (logarithmic)", around),
        yaxis=listed([f"row {row:,}" for row in drawn["row"]]),
    )
    shaky = int((table["stays"] < 0.5).sum())
    alt = (
        f"Rank intervals of the {len(drawn)} least certain of {plural(k, 'pick')}. {plural(shaky, 'pick')} would be "
        "picked in fewer than half of the draws."
    )
    columns: tables.Columns = {
        "row": NUMBER("Row", format="%d"), "source": "Source", "rank": NUMBER("Rank", format="localized"),
        "low": NUMBER("5th percentile", format="localized"), "median": NUMBER("Median", format="localized"),
        "high": NUMBER("95th percentile", format="localized"),
        "stays": NUMBER("Picked in", format="percent", help="Share of the draws in which it is among the picks"),
    }  # fmt: skip
    return Chart("rank-intervals", figure, alt, table[list(columns)], columns)
