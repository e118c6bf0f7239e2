"""Plotly figures: quiet, with units, an alternative text and a table twin; colors follow light and dark."""

import pandas as pd
import streamlit as st

from app import theme

CONFIG = {"displayModeBar": False, "responsive": True}


def dark() -> bool:
    """Whether the page is dark, as far as the server knows."""
    return st.context.theme.type == "dark"


def warmup(curve: pd.DataFrame) -> None:
    """Loss and learning rate by optimizer step, with the epochs' ends marked."""
    import plotly.graph_objects as go

    accent, second = theme.color("less", dark()), theme.color("bm25", dark())
    figure = go.Figure()
    figure.add_scatter(
        x=curve["step"], y=curve["loss"], name="Loss (nats per token)", line={"color": accent, "width": 2}
    )
    figure.add_scatter(
        x=curve["step"],
        y=curve["learning_rate"],
        name="Learning rate",
        yaxis="y2",
        line={"color": second, "width": 1.5, "dash": "dot"},
    )
    for step in _epoch_ends(curve):
        figure.add_vline(x=step, line_width=1, line_dash="dash", line_color="rgba(128,128,128,0.45)")
    figure.update_layout(
        height=300,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        hovermode="x unified",
        legend={"orientation": "h", "y": 1.14, "x": 0},
        xaxis={"title": {"text": "Optimizer step"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "Loss (nats per token)"}},
        yaxis2={
            "overlaying": "y",
            "side": "right",
            "showgrid": False,
            "tickformat": ".1e",
            "tickmode": "auto",
            "nticks": 6,
        },
    )
    first, last = curve["loss"].iloc[0], curve["loss"].iloc[-1]
    alt = (
        f"Warmup loss by optimizer step: from {first:.2f} to {last:.2f} in {len(curve)} steps, with the learning rate."
    )
    st.plotly_chart(figure, config=CONFIG, key="warmup-loss", alt=alt)


def _epoch_ends(curve: pd.DataFrame) -> list[float]:
    epochs = curve["epoch"].apply(lambda e: -(-float(e) // 1))
    return [float(step) + 0.5 for step in curve.groupby(epochs)["step"].max().iloc[:-1]]
