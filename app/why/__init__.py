"""app/why: parts of the page Why, one row in full, and of the drawer that shows the same."""
