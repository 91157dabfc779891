"""Penalties: terms added to the loss, one number per sample; all of them by name."""

from __future__ import annotations

from angulus.losses.asks import Stateless
from angulus.losses.class_penalties import IAM, CContrastive, CTriplet
from angulus.losses.norm_penalties import FeatureIncay, Ring
from angulus.losses.roles import Penalty

__all__ = ["IAM", "TABLE", "CContrastive", "CTriplet", "FeatureIncay", "Ring", "Stateless"]

TABLE: dict[str, type[Penalty]] = {piece.name: piece for piece in (IAM, FeatureIncay, Ring, CContrastive, CTriplet)}
