"""One run of a page or of a part of it: errors become a sentence, the view is saved, memory is settled."""

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
    """Show one sentence for what is damaged or gone; save the view of a run that ended well.

    page: the stem of the page that runs.
    """
    try:
        yield
    except StopException:  # a page that ends early has a view like any other; one that broke or starts over has not
        save_view(page)
        raise
    except Exception as error:
        sentence = errors.explain(error)
        if sentence is None:
            raise
        st.error(label(sentence))
    else:
        save_view(page)


def settle() -> None:
    """Call at the end of a run: later garbage collections skip what the libraries that are loaded by now hold.

    Streamlit collects after every run. Looking at all that torch, pandas, pyarrow and plotly hold takes 0.13 s, longer
    than most pages take to run.
    """
    _settled(len(sys.modules))


@st.cache_resource(max_entries=1, show_spinner=False)
def _settled(modules: int) -> None:
    gc.collect()
    gc.freeze()
