"""app/proof: parts of the Proof page, training on each method's picks."""
