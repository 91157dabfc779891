"""Kernels: the reduction over the classes, in several implementations with one signature."""
