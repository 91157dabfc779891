"""The foundation: argument checks, files, limits, the preprocessing contract, embeddings files."""
