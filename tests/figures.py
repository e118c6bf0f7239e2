"""A page's charts in tests: the figures as sent to the browser, and the tables next to them."""

import json
from typing import Any

import pandas as pd


def figures(at) -> list[dict[str, Any]]:
    """Every chart's specification."""
    return [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]


def title(figure: dict[str, Any]) -> str:
    return figure["layout"]["title"]["text"]


def points(figure: dict[str, Any]) -> int:
    """Number of marks in a figure: the longest array of every trace, the cells of a heat map."""
    return sum(_size(trace) for trace in figure["data"])


def _size(trace: dict[str, Any]) -> int:
    if trace["type"] == "heatmap":
        return len(values(trace["z"])) * (len(trace["text"][0]) if "text" in trace else 1)
    return max(len(values(trace[axis])) for axis in "xy" if axis in trace)


def values(array: Any) -> list[Any]:
    """Plotly sends numbers as base64 with their type."""
    if isinstance(array, dict):
        import base64

        import numpy as np

        flat = np.frombuffer(base64.b64decode(array["bdata"]), dtype=array["dtype"])
        shape = [int(n) for n in array.get("shape", str(len(flat))).split(",")]
        return flat.reshape(shape).tolist()
    return array


def table(at, *columns: str) -> pd.DataFrame:
    """The first table on the page that has these columns."""
    return next(frame.value for frame in at.dataframe if set(columns) <= set(frame.value.columns))
