"""Nets that map images to features: `build("lenet++", in_channels=1, image_size=28, embedding_size=2)`."""

from __future__ import annotations

from angulus.backbones.registry import (
    OWN,
    build,
    check_name,
    check_stored,
    list_backbones,
    own_input,
    rebuild,
    stored,
    stored_options,
)

__all__ = [
    "OWN",
    "build",
    "check_name",
    "check_stored",
    "list_backbones",
    "own_input",
    "rebuild",
    "stored",
    "stored_options",
]
