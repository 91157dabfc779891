"""Finding what is wrong with a model's images: swapped colours, wrong values, crops that are not aligned."""

from __future__ import annotations

from angulus.doctor.diagnosis import Diagnosis, Outcome, diagnose
from angulus.doctor.measure import separations

__all__ = ["Diagnosis", "Outcome", "diagnose", "separations"]
