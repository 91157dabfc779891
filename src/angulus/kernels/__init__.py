"""Kernels: the one reduction over the classes, behind one signature."""
