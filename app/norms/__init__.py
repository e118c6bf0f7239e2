"""app/norms: parts of the page Gradient norms, norms against answer length."""
