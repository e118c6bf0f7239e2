"""app/compare: parts of the page Compare, the board of every method's picks."""
