"""Readers of the lists that benchmarks publish: one module a benchmark family, each into frozen arrays."""
