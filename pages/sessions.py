"""Sessions: views and decisions, saved automatically; open one again, or compare two selections."""

import streamlit as st

from app.sessions import difference, listing, sides
from app.state.session import current_session
from app.text import label
from gradsift.runtime.errors import GradsiftError

session = current_session()
st.title("Sessions", anchor=False)
st.caption("A session keeps the view and what you accept, reject and note. It is saved automatically.")
try:
    records = session.sessions.list()
except GradsiftError as error:
    st.error(label(error))
    st.stop()
listing.draw(session, records)
st.space("small")
st.subheader("Compare two selections", anchor=False)
difference.draw(session, sides.sources_of(session, records))
