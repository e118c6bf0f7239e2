"""app/state: what is open in this tab, its address, and how a page runs."""
