"""app/proof: parts of the page Proof, training on each method's picks."""
