"""app/state: what is open in this tab, and how a page runs."""
