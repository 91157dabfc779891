"""Measuring embeddings: protocols, the metrics and scoring behind them, and the lists that benchmarks publish."""
