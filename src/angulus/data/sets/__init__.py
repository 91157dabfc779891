"""Data sets by name: where each is found, what is checked, and how it is loaded."""
