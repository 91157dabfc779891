"""Slow oracles: every loss as scalar loops, written from the papers' equations and sharing no code with the package."""
