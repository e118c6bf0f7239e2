"""One row, or a whole selection, explained: the tables behind pages, report and command line."""
