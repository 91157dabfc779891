"""Trained models: the folder, its card, embedding, verification and export."""
