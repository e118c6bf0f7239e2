"""Parts of the page Proof."""
