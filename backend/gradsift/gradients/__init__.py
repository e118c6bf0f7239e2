"""Per-example gradients, Adam's update and the projection: what a feature is made of (paper, section 4)."""
