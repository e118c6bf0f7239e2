"""Parts of the page Gradient norms."""
