"""Heads: class weights, labels and an objective, and the loss that they give."""
