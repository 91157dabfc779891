"""Data sets by name: where their files are, what is checked, and how they are loaded."""
