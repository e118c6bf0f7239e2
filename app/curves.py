"""Similarity of all rows to each target example, kept between runs: it sorts the pool once a target."""

import pandas as pd
import streamlit as st

from gradsift import distributions
from gradsift.choices import Choices
from gradsift.influence import Scoring


def target_curves(scoring: Scoring, method: str, choices: Choices) -> pd.DataFrame:
    """`distributions.target_curves` of the targets and checkpoints that the choices leave."""
    left_out = (choices.without_targets, choices.without_subtasks, choices.without_checkpoints)
    return _curves(str(scoring.path), method, choices.gradient, left_out, scoring.without(*left_out))


@st.cache_data(max_entries=12, show_spinner="Sorting the pool by every target example …")
def _curves(path: str, method: str, gradient: str, left_out: tuple, _scoring: Scoring) -> pd.DataFrame:
    return distributions.target_curves(_scoring, method, gradient)  # type: ignore[arg-type]
