"""Sessions: what was looked at and decided, kept by itself; open one again, or compare the picks of two."""

import streamlit as st

from app.sessions import difference
from app.sessions import list as session_list
from app.sessions import sides as differing
from app.state import session
from app.text import label
from gradsift.runtime.errors import GradsiftError

now = session.current()
st.title("Sessions", anchor=False)
st.caption("A session keeps the view and what you accept, reject and note. It is saved by itself.")
try:
    records = now.sessions.list()
except GradsiftError as error:
    st.error(label(error))
    st.stop()
session_list.draw(now, records)
st.space("small")
st.subheader("Compare picks", anchor=False)
difference.draw(now, differing.sources_of(now, records))
