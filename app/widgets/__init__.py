"""app/widgets: what more than one page draws."""
