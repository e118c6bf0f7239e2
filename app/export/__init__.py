"""app/export: parts of the Export page, picks written as files and checked for leaks."""
