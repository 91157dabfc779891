"""Penalties: terms added to the loss, a number a sample; all of them by name."""

from __future__ import annotations

from angulus.losses.class_penalties import IAM, CContrastive, CTriplet
from angulus.losses.norm_penalties import FeatureIncay, Ring

__all__ = ["IAM", "TABLE", "CContrastive", "CTriplet", "FeatureIncay", "PenaltySpec", "Ring"]

PenaltySpec = IAM | FeatureIncay | Ring | CContrastive | CTriplet
TABLE: dict[str, type[PenaltySpec]] = {piece.name: piece for piece in (IAM, FeatureIncay, Ring, CContrastive, CTriplet)}
