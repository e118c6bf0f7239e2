"""app/sessions: parts of the page Sessions, saved sessions and the comparison of two selections."""
