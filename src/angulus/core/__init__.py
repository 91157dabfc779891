"""What every other room stands on: checks, files, limits, the preprocessing contract, embeddings files."""
