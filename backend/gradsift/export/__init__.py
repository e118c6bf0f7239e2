"""Picks -> files for a trainer, with a card, a report and a manifest."""
