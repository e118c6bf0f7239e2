"""What lasts as long as the server, kept out of the garbage collection that Streamlit makes after every run."""

import gc
import sys

import streamlit as st


def settle() -> None:
    """Call at the end of a run: later collections do not look at what the libraries that are loaded by now hold.

    Looking at all that torch, pandas, pyarrow and plotly hold takes 0.13 s, longer than most pages take to run.
    """
    _settled(len(sys.modules))


@st.cache_resource(max_entries=1, show_spinner=False)
def _settled(modules: int) -> None:
    gc.collect()
    gc.freeze()
