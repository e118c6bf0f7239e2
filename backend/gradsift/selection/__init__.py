"""Kept scores -> a ranking -> picks within a budget."""
