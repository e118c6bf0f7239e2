"""app/export: parts of the page Export, picks written as files and checked for leaks."""
