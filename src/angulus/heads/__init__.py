"""Heads: class weights and an objective that turn features and labels into a loss."""
