"""app/why: parts of the Why page, one row in full, and of the drawer that shows the same."""
