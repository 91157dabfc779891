"""Finding what is wrong with a model's images: swapped colours, wrong values, crops that are not aligned."""

from __future__ import annotations

from angulus.doctor.diagnosis import ChangeEffect, Diagnosis, diagnose
from angulus.doctor.effects import separations

__all__ = ["ChangeEffect", "Diagnosis", "diagnose", "separations"]
