"""Does it help? Train on the picks of every method, measure on held-out rows."""
