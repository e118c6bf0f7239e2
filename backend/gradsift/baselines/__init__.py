"""Cheap baselines; each returns scores (rows, targets), which are then pooled and aggregated like LESS's."""
