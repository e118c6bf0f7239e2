"""One run of a page or of a part of it: errors become a sentence, the view is saved, memory is frozen."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st
from streamlit.runtime.scriptrunner import StopException

from app.state.session import save_view
from app.text import label
from gradsift.runtime import errors


@contextmanager
def guarded(page: str) -> Iterator[None]:
    """Show a sentence about what is damaged or missing; save the view of a run that succeeds.

    page: the stem of the page that runs.
    """
    try:
        yield
    except StopException:  # a page that ends early has a view like any other; one that fails or restarts does not
        save_view(page)
        raise
    except Exception as error:
        sentence = errors.explain(error)
        if sentence is None:
            raise
        st.error(label(sentence))
    else:
        save_view(page)


def freeze_memory() -> None:
    """Call at the end of a run: later garbage collections skip the objects of the libraries loaded so far.

    Streamlit collects after every run. Visiting everything that torch, pandas, pyarrow and plotly hold takes 0.13 s,
    longer than most pages take to run.
    """
    _freeze(len(sys.modules))


@st.cache_resource(max_entries=1, show_spinner=False)
def _freeze(modules: int) -> None:
    gc.collect()
    gc.freeze()
