"""app/norms: parts of the Gradient norms page, norms against answer length."""
