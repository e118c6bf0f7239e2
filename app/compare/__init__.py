"""app/compare: parts of the Compare page, the board of every method's picks."""
