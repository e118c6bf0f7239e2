"""Targets x store -> kept scores, by every method."""
