"""Recipes, and what is done with them: runs, comparisons, cross-validation, reproduction of tables."""
