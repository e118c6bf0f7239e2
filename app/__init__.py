"""The Streamlit front of gradsift: entry, session, look and the parts pages are drawn from."""
