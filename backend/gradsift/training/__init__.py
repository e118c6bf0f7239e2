"""The warmup (paper, section 4.2) and the checkpoints it leaves."""
