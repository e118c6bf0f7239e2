"""Entry of the app: `streamlit run app/main.py`, or `gradsift app`, which passes the settings too."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # Streamlit puts app/ there, not its parent
    sys.path.insert(0, str(ROOT))

import streamlit as st  # noqa: E402

from app import session, theme  # noqa: E402
from app.components import header  # noqa: E402
from app.rooms import ROOMS  # noqa: E402

st.set_page_config(page_title="gradsift", page_icon=ROOT / "assets" / "logo.svg", layout="wide")
st.logo(ROOT / "assets" / "wordmark.svg", size="medium")
st.html(theme.css())

page = st.navigation(
    [st.Page(room.path, title=room.title, icon=room.icon, help=room.help) for room in ROOMS], position="top"
)
header.draw(session.begin())
page.run()
