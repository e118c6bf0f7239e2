"""Figures of what the picks are made of, from tables of `gradsift.analysis.distributions` (figures 9, 10, table 12)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st

from app.text import plural
from app.widgets import tables
from app.widgets.charts import (
    LINE,
    Chart,
    axes,
    blank,
    cells,
    color,
    dark,
    dim,
    label_of,
    listed,
    log_axis,
    name_of,
    tick,
)
from gradsift.analysis.distributions import POOL

NUMBER = st.column_config.NumberColumn
MOST_SOURCES = 24  # sources with bars; the table has all
_METHOD = st.column_config.TextColumn("Method")
_ROWS = NUMBER("Rows", format="localized")


def sources(table: pd.DataFrame) -> Chart:
    """Share of every source in each method's picks and in the pool, with the lift (figure 10)."""
    methods, shown = _methods(table), _largest(table)
    figure = blank("Sources of the picks", "Share of each method's picks, percent")
    first = table[table["method"] == methods[0]].set_index("source").loc[shown]
    places = np.arange(len(shown))
    outline = {"color": "rgba(0,0,0,0)", "line": {"color": color(POOL), "width": 1.5}}
    figure.add_bar(
        y=places, x=first["pool_share"], name=name_of(POOL), orientation="h", marker=outline,
        customdata=_marks(shown, "", first["pool_rows"]),
        hovertemplate="%{customdata[2]}: %{x:.1%} of the pool, %{customdata[3]:,} rows<extra></extra>",
    )  # fmt: skip
    few = len(shown) * len(methods) <= 60
    for method in methods:
        part = table[table["method"] == method].set_index("source").loc[shown]
        figure.add_bar(
            y=places, x=part["share"], name=name_of(method), orientation="h", marker_color=color(method),
            text=[f"×{lift:.2g}" if share else "" for lift, share in zip(part["lift"], part["share"], strict=True)]
            if few else None,
            textposition="outside", textfont={"size": 11, "color": dim()}, cliponaxis=False, constraintext="none",
            customdata=_marks(shown, method, part["rows"], part["lift"]),
            hovertemplate="%{customdata[2]}: %{x:.1%} of the picks, %{customdata[3]:,} rows, "
            "%{customdata[4]:.2f} times its share of the pool<extra>" + label_of(method) + "</extra>",
        )  # fmt: skip
    most = max(table["share"].max(), table["pool_share"].max())
    figure.update_layout(
        height=110 + max(2, len(shown)) * (len(methods) + 1) * 17 + 40,
        yaxis=listed(shown),
        xaxis={"title": {"text": "Share"}, "tickformat": ".0%", "range": [0, min(1.12, most * 1.18)]},
    )
    top = table.loc[table["lift"].where(table["rows"] > 0, 0).idxmax()]
    alt = (
        f"Share of {plural(len(shown), 'source')} in the picks of {plural(len(methods), 'method')} and in the pool. "
        f"Farthest above the pool: {label_of(top['method'])} takes {top['share']:.0%} of its picks from "
        f"{top['source']}, {top['lift']:.1f} times its share of the pool."
    )
    columns: tables.Columns = {
        "method": _METHOD, "source": "Source", "rows": _ROWS, "share": NUMBER("Share of the picks", format="percent"),
        "pool_rows": NUMBER("Rows in the pool", format="localized"),
        "pool_share": NUMBER("Share of the pool", format="percent"), "lift": NUMBER("Lift", format="%.2f"),
    }  # fmt: skip
    return Chart("sources", figure, alt, named(table), columns)


def lengths(table: pd.DataFrame) -> Chart:
    """Percentiles and mean of the picks' answer lengths (table 12)."""
    figure = blank("Answer lengths of the picks", "Tokens: middle 90% and 50%, median, mean")
    drawn = table[table["rows"] > 0].reset_index(drop=True)
    numbers = drawn[["answer_5", "answer_25", "answer_50", "answer_75", "answer_95", "mean_answer"]]
    logs = np.log10(numbers.clip(lower=1))
    numbers = numbers.round(1).to_numpy()
    hover = (
        "median %{customdata[2]:,}, mean %{customdata[5]:,}, half of them %{customdata[1]:,} to %{customdata[3]:,}, "
        "90 % of them %{customdata[0]:,} to %{customdata[4]:,} tokens<extra></extra>"
    )
    for place, method in enumerate(drawn["method"]):
        line, at = logs.iloc[place], {"y": [place, place], "hoverinfo": "skip", "showlegend": False, "mode": "lines"}
        figure.add_scatter(x=line[["answer_5", "answer_95"]], line={"color": color(method), "width": 2}, **at)
        figure.add_scatter(x=line[["answer_25", "answer_75"]], line={"color": color(method), "width": 14}, **at)
    back = "#14171d" if dark() else "#ffffff"
    for name, column, look in (
        ("Median", "answer_50", {"symbol": "line-ns", "size": 16, "line": {"width": 3, "color": back}}),
        ("Mean", "mean_answer", {"symbol": "diamond", "size": 9, "color": back, "line": {"width": 1.5, "color": LINE}}),
    ):
        figure.add_scatter(
            x=logs[column], y=drawn.index, mode="markers", name=name, marker=look, customdata=numbers,
            hovertemplate=hover, showlegend=False,
        )  # fmt: skip
    figure.update_layout(
        height=130 + 44 * len(drawn),
        yaxis=listed([name_of(method) for method in drawn["method"]]),
        xaxis=log_axis("Answer length (tokens, logarithmic)", logs.to_numpy()),
    )
    pool = table[table["method"] == POOL].iloc[0]
    means = ", ".join(
        f"{label_of(m)} {mean:.1f}" for m, mean in zip(drawn["method"], drawn["mean_answer"], strict=True)
    )
    alt = f"Answer lengths in tokens. Means: {means}; the pool's median is {pool['answer_50']:.0f}."
    columns: tables.Columns = {
        "method": _METHOD, "rows": _ROWS, "mean_answer": NUMBER("Mean answer (tokens)", format="%.1f"),
        **{f"answer_{q}": NUMBER(f"{q}th percentile", format="%.0f") for q in (5, 25, 75, 95)},
        "answer_50": NUMBER("Median", format="%.0f"),
        "mean_prompt": NUMBER("Mean prompt (tokens)", format="%.1f"), "total": NUMBER("All tokens", format="localized"),
    }  # fmt: skip
    return Chart("lengths", figure, alt, named(table), columns)


def length_histogram(table: pd.DataFrame) -> Chart:
    """Answer lengths of the picks and the pool in shared bins of equal ratio."""
    figure = blank("Answer lengths in bins", "Share of the rows per factor of ten in length", 380)
    for method in (POOL, *_methods(table[table["method"] != POOL])):
        part = table[table["method"] == method]
        if not part["rows"].sum():
            continue
        edges = np.log10([*part["low"], part["high"].iloc[-1]])
        figure.add_scatter(
            x=edges, y=[*part["density"], part["density"].iloc[-1]], name=name_of(method), mode="lines",
            line={"shape": "hv", "color": color(method), "width": 1 if method == POOL else 2},
            fill="tozeroy" if method == POOL else None, fillcolor="rgba(128,128,128,0.18)",
            customdata=[*zip(part["low"], part["high"] - 1, part["rows"], part["share"], strict=True), [None] * 4],
            hovertemplate="%{customdata[0]:,} to %{customdata[1]:,} tokens: %{customdata[2]:,} rows, "
            "%{customdata[3]:.1%}<extra>" + label_of(method) + "</extra>",
        )  # fmt: skip
    figure.update_layout(
        xaxis=log_axis("Answer length (tokens, logarithmic)", np.log10(table[["low", "high"]].to_numpy())),
        yaxis={"title": {"text": "Density"}, "rangemode": "tozero"},
    )
    alt = f"Histogram of answer lengths, {plural(table['low'].nunique(), 'bin')} of equal ratio, by method and pool."
    columns: tables.Columns = {
        "method": _METHOD, "low": NUMBER("From (tokens)"), "high": NUMBER("To, exclusive (tokens)"), "rows": _ROWS,
        "share": NUMBER("Share", format="percent"), "density": NUMBER("Share per factor of ten", format="%.3f"),
    }  # fmt: skip
    return Chart("length-bins", figure, alt, named(table), columns)


def overlap(table: pd.DataFrame) -> Chart:
    """Rows that both methods of each pair pick."""
    methods = _methods(table)
    square = table.set_index(["method", "other"])
    shares = np.array([[np.nan if a == b else square.loc[(a, b), "jaccard"] for b in methods] for a in methods])
    marks = [
        [[label_of(a), label_of(b), square.loc[(a, b), "jaccard"], f"{square.loc[(a, b), 'rows']:,}"] for b in methods]
        for a in methods
    ]
    figure = blank("Rows that two methods both pick", "Rows; shade: share of what either picks")
    hover = "%{customdata[0]} and %{customdata[1]}:<br>%{customdata[3]} rows, %{customdata[2]:.1%} of what either picks"
    cells(figure, shares, marks, hover, POOL, 1.0)
    names = [name_of(method) for method in methods]
    figure.update_layout(height=130 + 58 * len(methods), yaxis=listed(names))
    figure.update_xaxes(**{**listed(names), "range": [-0.5, len(methods) - 0.5]})
    pairs = table[table["method"] != table["other"]].sort_values("jaccard", kind="stable")
    alt = "Rows that two methods both pick."
    if len(pairs):
        low, high = pairs.iloc[0], pairs.iloc[-1]
        alt = (
            f"Rows that two methods both pick: most for {label_of(high['method'])} and {label_of(high['other'])} "
            f"({high['rows']:,}), fewest for {label_of(low['method'])} and {label_of(low['other'])} ({low['rows']:,})."
        )
    columns: tables.Columns = {
        "method": _METHOD, "other": "And", "rows": NUMBER("Rows both pick", format="localized"),
        "jaccard": NUMBER("Share of what either picks", format="percent"),
    }  # fmt: skip
    return Chart("overlap", figure, alt, named(table), columns)


def overlap_at_k(table: pd.DataFrame, reference: str, cuts: dict[str, int], n: int) -> Chart:
    """Share of the top k that each method has in common with `reference`, for every k. cuts: picks of each method."""
    pairs = table[(table["method"] == reference) | (table["other"] == reference)]
    other = pairs["other"].where(pairs["method"] == reference, pairs["method"])
    figure = blank(f"Top k shared with {label_of(reference)}", "Share of the best k rows, by k", 400)
    for method in dict.fromkeys(other):
        part = pairs[other == method]
        figure.add_scatter(
            x=np.log10(part["k"]), y=part["share"], name=name_of(method), mode="lines",
            line={"color": color(method), "width": 2}, customdata=part[["k", "rows"]],
            hovertemplate="%{customdata[1]:,} of the best %{customdata[0]:,}: %{y:.1%}<extra>"
            + label_of(method) + "</extra>",
        )  # fmt: skip
    ks = np.unique(pairs["k"])
    figure.add_scatter(
        x=np.log10(ks), y=ks / n, name="By chance", mode="lines", line={"color": LINE, "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
    )  # fmt: skip
    cut = cuts[reference]
    figure.add_vline(x=np.log10(max(cut, 1)), line_width=1, line_dash="dash", line_color=LINE)
    figure.update_layout(
        xaxis=log_axis("k (best rows, logarithmic)", np.log10(ks)),
        yaxis={"title": {"text": "Share in common"}, "tickformat": ".0%", "range": [-0.02, 1.02]},
    )
    here = pairs[pairs["k"] == cut]
    shared = ", ".join(f"{label_of(m)} {s:.0%}" for m, s in zip(other[here.index], here["share"], strict=True))
    alt = f"Share of the best k rows that other methods have in common with {label_of(reference)}."
    if shared:
        alt += f" Of the best {cut:,}, as many as it picks: {shared}; by chance {cut / n:.0%}."
    columns: tables.Columns = {
        "method": _METHOD, "other": "And", "k": NUMBER("k", format="localized"),
        "rows": NUMBER("Rows in both", format="localized"), "share": NUMBER("Share of k", format="percent"),
    }  # fmt: skip
    return Chart("overlap-at-k", figure, alt, named(pairs), columns)


def scores(table: pd.DataFrame, cuts: dict[str, int]) -> Chart:
    """Score against rank (figure 9), with a panel per method since their scores have different units.

    cuts: the rank of each method's last pick.
    """
    from plotly.subplots import make_subplots

    methods = _methods(table)
    figure = blank("Score by rank", "A panel for each method; dashed: its last pick", 110 + 150 * len(methods))
    make_subplots(rows=len(methods), cols=1, shared_xaxes=True, vertical_spacing=0.12 / len(methods), figure=figure)
    ranks = np.log10(table["rank"])
    for at, method in enumerate(methods, 1):
        part = table[table["method"] == method]
        figure.add_scatter(
            x=np.log10(part["rank"]), y=part["score"], name=name_of(method), mode="lines", row=at, col=1,
            line={"color": color(method), "width": 2.5}, customdata=part["rank"],
            hovertemplate="rank %{customdata:,}: %{y:.4g}<extra>" + label_of(method) + "</extra>",
        )  # fmt: skip
        if cuts[method]:
            figure.add_vline(x=np.log10(cuts[method]), line_width=1.5, line_dash="dash", line_color=LINE, row=at, col=1)
        figure.update_yaxes(title={"text": label_of(method)}, nticks=4, row=at, col=1)
    axes(figure)
    axis = log_axis("Rank (logarithmic)", ranks)
    figure.update_xaxes(range=axis["range"], tickvals=axis["tickvals"], ticktext=axis["ticktext"])
    figure.update_xaxes(title=axis["title"], row=len(methods), col=1)
    figure.update_layout(showlegend=False)
    alt = "Score against rank. " + " ".join(_fall(table[table["method"] == m], m, cuts[m]) for m in methods)
    columns: tables.Columns = {
        "method": _METHOD, "rank": NUMBER("Rank", format="localized"), "score": NUMBER("Score", format="%.4g")
    }  # fmt: skip
    return Chart("scores", figure, alt, named(table), columns)


def _fall(part: pd.DataFrame, method: str, cut: int) -> str:
    at = part.loc[(part["rank"] - max(cut, 1)).abs().idxmin(), "score"]
    first, last = part["score"].iloc[0], part["score"].iloc[-1]
    middle = f", {at:.3g} at its last pick, rank {cut:,}" if cut else ""
    return f"{label_of(method)}: {first:.3g} at the top{middle}, {last:.3g} at the end."


def named(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the methods' labels in place of their names."""
    return table.assign(**{name: table[name].map(label_of) for name in ("method", "other") if name in table})


def _methods(table: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(table["method"]))


def _largest(table: pd.DataFrame) -> list[str]:
    """The sources with bars: those with the largest shares anywhere, in the table's order."""
    biggest = table[["share", "pool_share"]].max(axis=1).groupby(table["source"], sort=False).max()
    shown = set(biggest.nlargest(MOST_SOURCES).index)
    return [source for source in biggest.index if source in shown]


def _marks(shown: Sequence[str], method: str, *columns: pd.Series) -> list[list[object]]:
    """What clicking and hovering need of every bar: source, method, name to show, then the columns."""
    return [[source, method, tick(source, 60), *values] for source, *values in zip(shown, *columns, strict=True)]
