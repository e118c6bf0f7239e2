"""A box for pages with nothing to show yet that says what to do next."""

import streamlit as st

from app.pages import room
from app.text import escape


def say(title: str, text: str, page: str = "", link: str = "") -> None:
    """Draw a box that says what is missing, and a link to the page that provides it."""
    st.html(f'<div class="gs-empty"><h3>{escape(title)}</h3><p>{escape(text)}</p></div>')
    if page:
        st.page_link(room(page), label=link, icon=":material/arrow_forward:", icon_position="right")
