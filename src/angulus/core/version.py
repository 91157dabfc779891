"""The version of the package, where those below `angulus` find it: a checkout on the Python path has no metadata."""

__version__ = "0.1.0"
