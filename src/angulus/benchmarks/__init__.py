"""Benchmarks of a recipe: which images, which lists, which protocol, and which of its numbers are reported."""
