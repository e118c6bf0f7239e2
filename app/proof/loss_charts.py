"""Figures of an evaluation: held-out loss by epoch, and loss against the quality of answers (figures 5 to 8)."""

import pandas as pd
import streamlit as st

from app.proof import evaluations
from app.widgets import tables
from app.widgets.charts import LINE, Chart, blank, color, palette, tick
from gradsift.evaluation.report import RANDOM, VALIDATION, ZERO_SHOT
from gradsift.scoring.methods import METHODS

NUMBER = st.column_config.NumberColumn
_COLUMNS: tables.Columns = {
    "method": "Method", "seed": NUMBER("Seed"), "epoch": NUMBER("Epoch"), "rows": NUMBER("Rows"),
    "target_loss": NUMBER("Loss on the targets", format="%.4f"), "loss": NUMBER("Held-out loss", format="%.4f"),
    "score": NUMBER("Answers", format="percent"),
}  # fmt: skip

_SYMBOLS = {"dash": "diamond-open", "dot": "circle-open", "dashdot": "x"}  # a dash of lines -> the symbol of marks


def by_epoch(runs: pd.DataFrame, name: str) -> Chart:
    """Held-out loss after every epoch, mean over seeds with one dot per seed; the base model is a horizontal line.

    runs: `evaluation.runs_table`, of the one target set `name`.
    """
    figure = blank("Held-out loss by epoch", "nats per token, mean over seeds; one dot per run", 420)
    base = runs.loc[runs["method"] == ZERO_SHOT, "loss"]
    trained = runs[runs["method"] != ZERO_SHOT]
    if len(base):
        figure.add_hline(y=float(base.iloc[0]), line_dash="dot", line_color=LINE, annotation_text="zero-shot")
    for method, lines in trained.groupby("method", sort=False):
        look = _look(str(method))
        mean = lines.groupby("epoch")["loss"].mean()
        figure.add_scatter(
            x=mean.index, y=mean, name=tick(evaluations.label_of(str(method)), 40), mode="lines", line=look,
            legendgroup=str(method), hovertemplate="epoch %{x}: mean %{y:.4f}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=lines["epoch"], y=lines["loss"], mode="markers", showlegend=False, legendgroup=str(method),
            marker={"color": look["color"], "size": 7}, customdata=lines["seed"],
            hovertemplate="seed %{customdata}, epoch %{x}: %{y:.4f}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        xaxis={"title": {"text": "Epoch"}, "dtick": 1}, yaxis={"title": {"text": "Held-out loss"}}
    )  # fmt: skip
    best = trained.groupby("method")["loss"].min()
    alt = f"Held-out loss on {name} by epoch. " + (
        f"Lowest: {evaluations.label_of(str(best.idxmin()))} with {best.min():.3f}."
        if len(best)
        else "No run has finished."
    )
    return Chart(f"loss-{name}", figure, alt, runs.drop(columns="target_set"), _COLUMNS)


def against_answers(runs: pd.DataFrame, name: str, metric: str) -> Chart:
    """Held-out loss against the quality of answers, one mark per run and epoch: the two need not agree."""
    figure = blank("Does lower loss mean better answers?", f"{metric} of answers, one mark per run and epoch", 420)
    for method, lines in runs.groupby("method", sort=False):
        look = _look(str(method))
        figure.add_scatter(
            x=lines["loss"], y=lines["score"], name=tick(evaluations.label_of(str(method)), 40), mode="markers",
            marker={"color": look["color"], "size": 9, "symbol": _SYMBOLS.get(look["dash"], "circle")},
            customdata=lines[["seed", "epoch"]],
            hovertemplate="seed %{customdata[0]}, epoch %{customdata[1]}: loss %{x:.4f}, %{y:.1%}"
            "<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.update_layout(
        xaxis={"title": {"text": "Held-out loss (nats per token)"}},
        yaxis={"title": {"text": metric.capitalize()}, "tickformat": ".0%"},
    )
    r = runs["loss"].corr(runs["score"])
    alt = f"Held-out loss against {metric} on {name}" + (f"; correlation {r:+.2f}." if pd.notna(r) else ".")
    return Chart(f"answers-{name}", figure, alt, runs.drop(columns="target_set"), _COLUMNS)


def _look(method: str) -> dict[str, str]:
    """Color and dash of a method's line; with choices, the line is dashed in the method's color."""
    base, _, choices = method.partition(":")
    if base in METHODS:
        return {"color": color(base), "dash": "dash" if choices else "dot" if base == RANDOM else "solid"}
    return {"color": palette()[-1] if base == VALIDATION else LINE, "dash": "dashdot"}
