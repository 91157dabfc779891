"""Galleries: who, among many, is on an image, or nobody; kept in LanceDB on this machine, or on a Qdrant server."""

from angulus.search.gallery import EFFORT, Answer, Gallery, Match, Recall, false_positives, open_gallery, threshold_of
from angulus.search.store import About, Found, Store

__all__ = [
    "EFFORT",
    "About",
    "Answer",
    "Found",
    "Gallery",
    "Match",
    "Recall",
    "Store",
    "false_positives",
    "open_gallery",
    "threshold_of",
]
