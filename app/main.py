"""Entry of the app: `streamlit run app/main.py`, or `gradsift app`, which also passes the settings."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, as on the command line

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # Streamlit puts app/ there, not its parent
    sys.path.insert(0, str(ROOT))

import streamlit as st  # noqa: E402

from app import theme  # noqa: E402
from app.pages import ROOMS  # noqa: E402
from app.state.run import freeze_memory, guarded  # noqa: E402
from app.state.session import begin_run  # noqa: E402
from app.views.decisions import keep_session  # noqa: E402
from app.widgets import header  # noqa: E402

st.set_page_config(page_title="gradsift", page_icon=ROOT / "assets" / "logo.svg", layout="wide")
st.logo(ROOT / "assets" / "wordmark.svg", size="medium")
st.html(
    theme.css(st.context.theme.type) + "<i hidden></i>"
)  # Streamlit puts pure style among the toasts, which overwrite it

FIRST = ROOMS[0]


def to_first() -> None:
    """Streamlit serves the first page at the root only, not under its own name; redirect that name to the root."""
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
header.draw(keep_session(begin_run(stem), stem))
try:
    with guarded(stem):
        page.run()
finally:
    freeze_memory()
