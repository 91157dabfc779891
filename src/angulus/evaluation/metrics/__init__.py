"""Metrics: pure functions over NumPy arrays, in float64."""
