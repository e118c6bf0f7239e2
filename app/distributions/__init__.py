"""app/distributions: parts of the page Distributions, charts of what the picks are made of."""
