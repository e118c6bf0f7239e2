"""The charts of the page Distributions, each from a table of gradsift.distributions."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st

from app import theme
from app.comparing import Column
from app.components import figures, tables
from app.components.charts import dark
from app.components.text import plural
from gradsift import distributions
from gradsift.distributions import POOL
from gradsift.methods import METHODS

_POOL_COLOR = "rgba(128,128,128,0.75)"
_SHARE = st.column_config.NumberColumn("Share", format="percent")
_METHOD = "Method"
Numbers = tables.Columns


def named(method: str) -> str:
    """A method's name in a table or legend; the pool's as well."""
    return METHODS[method].label if method in METHODS else method.capitalize()


def sources(columns: Sequence[Column], of_rows: np.ndarray) -> None:
    """Share of every source among each method's picks, beside the pool's."""
    table = distributions.shares(_picks(columns), of_rows)
    made = figures.figure("", "Share of the picks", barmode="group", yaxis_tickformat=".0%")
    names = [figures.name(source) for source in table["source"].drop_duplicates()]
    for method, lines in table.groupby("method", sort=False):
        made.add_bar(
            x=names,
            y=lines["share"],
            name=named(str(method)),
            marker={"color": theme.color(str(method), dark())},
            customdata=lines[["rows", "lift"]],
            hovertemplate="%{x}: %{y:.1%}, %{customdata[0]:,} rows, %{customdata[1]:.2f} times the pool's share",
        )
    in_pool = table.drop_duplicates("source")["pool_share"]
    look = {"color": "rgba(128,128,128,0.12)", "line": {"color": _POOL_COLOR, "width": 1.5}}
    made.add_bar(x=names, y=in_pool, name="Pool", marker=look, hovertemplate="%{x}: %{y:.1%}")
    most = table.loc[table["lift"].idxmax()]
    alt = (
        f"Share of each source among the picks of {plural(len(columns), 'method')}, with the pool's. Most above its "
        f"share: {named(most['method'])} takes {most['share']:.0%} from {most['source']}, {most['lift']:.1f} times."
    )
    config: Numbers = {
        "method": _METHOD,
        "source": "Source",
        "rows": st.column_config.NumberColumn("Rows", format="localized"),
        "share": _SHARE,
        "pool_rows": st.column_config.NumberColumn("In the pool", format="localized"),
        "pool_share": st.column_config.NumberColumn("Pool's share", format="percent"),
        "lift": st.column_config.NumberColumn("Lift", format="%.2f", help="Share divided by the pool's share"),
    }
    figures.show(made, "sources", "Sources of the picks (share)", alt, _labeled(table), config)


def lengths(columns: Sequence[Column], n_prompt: np.ndarray, n_answer: np.ndarray) -> None:
    """How long the picks' answers are, against the pool's."""
    picks = _picks(columns)
    table = distributions.lengths(picks, n_prompt, n_answer)
    fewest = min(len(column.picks) for column in columns)
    bins = int(min(max(2 * fewest ** (1 / 3), 5), 40))  # Rice's rule: few picks are drawn coarsely
    bars = distributions.length_histogram(picks, n_answer, bins)
    made = figures.figure("Answer length (tokens)", "Share per factor of ten", xaxis_type="log")
    for method, lines in bars.groupby("method", sort=False):
        color = _POOL_COLOR if method == POOL else theme.color(str(method), dark())
        made.add_scatter(
            x=[*lines["low"], lines["high"].iloc[-1]],
            y=[*lines["density"], lines["density"].iloc[-1]],
            name=named(str(method)),
            line={"color": color, "width": 2, "shape": "hv", "dash": "dot" if method == POOL else "solid"},
        )
    means = ", ".join(f"{named(line.method)} {line.mean_answer:.0f}" for line in table.itertuples())
    alt = f"Answer lengths of the picks and the pool on a logarithmic axis. Mean tokens: {means}."
    config: Numbers = {
        "method": _METHOD,
        "rows": st.column_config.NumberColumn("Rows", format="localized"),
        "mean_answer": st.column_config.NumberColumn("Mean answer", format="%.1f", help="tokens"),
        **{f"answer_{q}": st.column_config.NumberColumn(f"{q} %", format="%.0f") for q in (5, 25, 75, 95)},
        "answer_50": st.column_config.NumberColumn("Median", format="%.0f"),
        "mean_prompt": st.column_config.NumberColumn("Mean prompt", format="%.1f", help="tokens"),
        "total": st.column_config.NumberColumn("Tokens in all", format="localized"),
    }
    figures.show(made, "lengths", "Answer lengths of the picks (tokens)", alt, _labeled(table), config)


def overlap(columns: Sequence[Column]) -> None:
    """How many rows every pair of methods both picks at this budget."""
    table = distributions.overlap(_picks(columns))
    square = table.pivot(index="method", columns="other", values=["rows", "jaccard"])
    methods = [column.method for column in columns]
    names = [named(method) for method in methods]
    made = figures.figure("", "")
    made.add_heatmap(
        x=names,
        y=names,
        z=square["jaccard"].loc[methods, methods],
        text=square["rows"].loc[methods, methods],
        texttemplate="%{text:,}",
        hovertemplate="%{y} and %{x}: %{text:,} rows, %{z:.1%} of what either picks",
        zmin=0,
        zmax=1,
        colorscale=[[0, "rgba(128,128,128,0.06)"], [1, theme.color("less", dark())]],
        colorbar={"title": {"text": "Jaccard"}, "thickness": 12},
        name="",
    )
    made.update_xaxes(showgrid=False)
    made.update_yaxes(showgrid=False, autorange="reversed")
    apart = table[table["method"] != table["other"]]
    alt = f"Rows that two methods both pick: {apart['rows'].min():,} to {apart['rows'].max():,} by pair."
    config: Numbers = {
        "method": _METHOD,
        "other": "Other",
        "rows": st.column_config.NumberColumn("Rows both pick", format="localized"),
        "jaccard": st.column_config.NumberColumn("Jaccard", format="%.3f", help="Both divided by either"),
    }
    figures.show(made, "overlap", "Overlap of the picks (rows)", alt, _labeled(table), config)


def overlap_at_k(columns: Sequence[Column], cut: int) -> None:
    """What share of their top k every pair has in common, for every k."""
    n = len(columns[0].ranking.rows)
    table = distributions.overlap_at_k([c.ranking for c in columns], distributions.sampled_ranks(n, 120, cut))
    made = figures.figure("k (rows, from the best)", "Share in common", xaxis_type="log", yaxis_tickformat=".0%")
    dashes = ("solid", "dash", "dot", "dashdot", "longdash")
    for (one, other), lines in table.groupby(["method", "other"], sort=False):
        others = [column.method for column in columns]
        line = {"color": theme.color(one, dark()), "width": 2, "dash": dashes[others.index(other) % len(dashes)]}
        made.add_scatter(x=lines["k"], y=lines["share"], name=f"{named(one)} and {named(other)}", line=line)
    ks = table["k"].drop_duplicates()
    made.add_scatter(x=ks, y=ks / n, name="By chance", line={"color": _POOL_COLOR, "width": 1, "dash": "dot"})
    made.add_vline(x=cut, line_width=1, line_dash="dash", line_color=_POOL_COLOR)
    here = table[table["k"] == cut]["share"]
    alt = (
        f"Share of the top k that pairs of methods have in common, for k from 1 to {n:,}; at {cut:,} rows it is "
        f"{here.min():.0%} to {here.max():.0%}, by chance {cut / n:.0%}."
    )
    config: Numbers = {
        "method": _METHOD,
        "other": "Other",
        "k": st.column_config.NumberColumn("k", format="localized"),
        "rows": st.column_config.NumberColumn("Rows in common", format="localized"),
        "share": _SHARE,
    }
    figures.show(made, "overlap-at-k", "Overlap of the top k (share)", alt, _labeled(table), config)


def scores(column: Column, cut: int) -> None:
    """Score against rank with the cut."""
    table = distributions.score_by_rank(column.ranking, cut)
    made = figures.figure("Rank", "Score", xaxis_type="log", showlegend=False)
    color = theme.color(column.method, dark())
    made.add_scatter(x=table["rank"], y=table["score"], line={"color": color, "width": 2}, name=named(column.method))
    made.add_vline(x=max(cut, 1), line_width=1, line_dash="dash", line_color=_POOL_COLOR)
    first, last = table["score"].iloc[[0, -1]]
    at_cut = table.loc[table["rank"] == max(cut, 1), "score"].iloc[0]
    made.add_scatter(
        x=[max(cut, 1)],
        y=[at_cut],
        mode="markers+text",
        marker={"color": color, "size": 8},
        text=[f"the last of {cut:,} picks"],
        textposition="top right",
        hoverinfo="skip",
    )
    alt = f"Score of {named(column.method)} by rank: {first:.3g} first, {at_cut:.3g} at the cut, {last:.3g} last."
    config: Numbers = {
        "method": _METHOD,
        "rank": st.column_config.NumberColumn("Rank", format="localized"),
        "score": st.column_config.NumberColumn("Score", format="%.4g"),
    }
    figures.show(made, "scores", "Score by rank", alt, _labeled(table), config)


def winners(column: Column) -> None:
    """Which subtask picked how much."""
    table = distributions.winners(column.ranking, column.picks, column.ranking.subtasks)
    drawn = table.sort_values("rows", kind="stable").tail(40)
    height = max(320, 60 + 18 * len(drawn))
    made = figures.figure("Rows picked", "", height=height, showlegend=False, bargap=0.4)
    made.add_bar(
        x=drawn["rows"],
        y=[figures.name(subtask) for subtask in drawn["subtask"]],
        orientation="h",
        marker={"color": theme.color(column.method, dark())},
        customdata=drawn["share"],
        hovertemplate="%{y}: %{x:,} rows, %{customdata:.1%}<extra></extra>",
    )
    made.update_yaxes(type="category")
    top = table.loc[table["rows"].idxmax()]
    shown = f", the {len(drawn)} largest of {len(table)}" if len(drawn) < len(table) else ""
    alt = f"Picks by the subtask that won them{shown}: {top['subtask']} most, {plural(int(top['rows']), 'row')}."
    config: Numbers = {
        "subtask": "Subtask",
        "rows": st.column_config.NumberColumn("Rows", format="localized"),
        "share": _SHARE,
    }
    figures.show(made, "winners", f"Which subtask picked what (rows{shown})", alt, table, config)


def targets(table: pd.DataFrame, method: str) -> None:
    """Similarity of all rows to every single target example in descending order."""
    made = figures.figure("Rank for the target example", "Similarity", 380, xaxis_type="log", showlegend=False)
    gaps = table.groupby("target", sort=False).tail(1).assign(similarity=np.nan)  # lines do not join the next target's
    drawn = pd.concat([table, gaps]).sort_values("target", kind="stable")
    subtasks = {subtask: figures.name(subtask) for subtask in drawn["subtask"].unique()}
    made.add_scatter(
        x=drawn["rank"],
        y=drawn["similarity"],
        text=[f"example {t + 1}, {subtasks[s]}" for t, s in zip(drawn["target"], drawn["subtask"], strict=True)],
        hovertemplate="%{text}: rank %{x:,}, %{y:.3g}<extra></extra>",
        mode="lines",
        line={"color": theme.color(method, dark()), "width": 1.2},
        opacity=0.6,
        connectgaps=False,
    )
    low = table.groupby("target")["similarity"].min()
    alt = (
        f"Similarity of all rows to each of {plural(len(low), 'target example')} by {named(method)}, in descending "
        f"order: at most {table['similarity'].max():.3g}; {int((low < 0).sum())} of them have rows below 0."
    )
    config: Numbers = {
        "target": st.column_config.NumberColumn("Example", help="counted from 1"),
        "subtask": "Subtask",
        "rank": st.column_config.NumberColumn("Rank", format="localized"),
        "similarity": st.column_config.NumberColumn("Similarity", format="%.4g"),
    }
    table = table.assign(target=table["target"] + 1)
    figures.show(made, "target-curves", "Similarity to each target example, by rank", alt, table, config)


def _picks(columns: Sequence[Column]) -> dict[str, np.ndarray]:
    return {column.method: column.picks for column in columns}


def _labeled(table: pd.DataFrame) -> pd.DataFrame:
    """The table with methods by the names people know."""
    return table.assign(**{key: table[key].map(named) for key in ("method", "other") if key in table})
