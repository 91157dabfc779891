"""Galleries of known people, to identify the person in an image: of LanceDB or faiss here, or on a Qdrant server."""

from angulus.search.life import Duplicate, OpenSet
from angulus.search.transfer import export
from angulus.search.vector_gallery import (
    EFFORT,
    Answer,
    Gallery,
    Match,
    Recall,
    false_positives,
    open_gallery,
    threshold_of,
)
from angulus.search.vector_store import About, Neighbours, VectorStore

__all__ = [
    "EFFORT",
    "About",
    "Answer",
    "Duplicate",
    "Gallery",
    "Match",
    "Neighbours",
    "OpenSet",
    "Recall",
    "VectorStore",
    "export",
    "false_positives",
    "open_gallery",
    "threshold_of",
]
