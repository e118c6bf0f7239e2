"""Entry of the app: `streamlit run app/main.py`, or `gradsift app`, which passes the settings too."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # Streamlit puts app/ there, not its parent
    sys.path.insert(0, str(ROOT))

import streamlit as st  # noqa: E402

from app import theme  # noqa: E402
from app.pages import ROOMS  # noqa: E402
from app.state import memory, session  # noqa: E402
from app.state import run as guarding  # noqa: E402
from app.views import decisions as deciding  # noqa: E402
from app.widgets import header  # noqa: E402

st.set_page_config(page_title="gradsift", page_icon=ROOT / "assets" / "logo.svg", layout="wide")
st.logo(ROOT / "assets" / "wordmark.svg", size="medium")
st.html(
    theme.css(st.context.theme.type) + "<i hidden></i>"
)  # style alone would stand among the toasts, which replace it

FIRST = ROOMS[0]


def to_first() -> None:
    """Streamlit puts the first page at the root and knows no page under its name: that leads to the root."""
    st.switch_page(FIRST.path, query_params=st.query_params.to_dict())


paths = {room.stem: room.stem if room != FIRST else "first" for room in ROOMS}
rooms = [
    st.Page(room.path, title=room.title, icon=room.icon, url_path=paths[room.stem], help=room.help) for room in ROOMS
]
named = st.Page(to_first, title=FIRST.title, url_path=FIRST.stem, visibility="hidden")
page = st.navigation([*rooms, named], position="top")
if page == named:
    page.run()
stem = page.url_path or ROOMS[0].stem
header.draw(deciding.keep(session.begin(stem), stem))
try:
    with guarding.guarded(stem):
        page.run()
finally:
    memory.settle()
