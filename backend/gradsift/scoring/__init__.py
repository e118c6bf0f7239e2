"""Targets x store -> kept scores, one set per method."""
