"""Kept scores -> a ranking -> picks within a budget, checked for leaks."""
