"""Evaluation protocols: embeddings and the lists that a benchmark publishes, to a `Result`."""
