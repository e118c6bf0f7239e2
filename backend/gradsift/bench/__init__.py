"""Measurements that print ratios and budgets, side by side in one run: `gradsift bench`."""
