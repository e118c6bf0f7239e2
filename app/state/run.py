"""One run of a page, or of the part of it that is drawn anew: what goes wrong is said, and the view is kept."""

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st
from streamlit.runtime.scriptrunner import StopException

from app.state.session import save_view
from app.text import label
from gradsift.runtime import errors


@contextmanager
def guarded(page: str) -> Iterator[None]:
    """Say what the run cannot do without, damaged or gone, in one sentence; keep the view of a run that ended well.

    page: the stem of the page that runs.
    """
    try:
        yield
    except StopException:  # a page that ends early is a view like any other; one that broke or begins anew is none
        save_view(page)
        raise
    except Exception as error:
        sentence = errors.explain(error)
        if sentence is None:
            raise
        st.error(label(sentence))
    else:
        save_view(page)
