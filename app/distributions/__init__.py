"""app/distributions: parts of the Distributions page, charts of what the picks are made of."""
