"""One image as it was encoded, with what is known of it."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from angulus.core.checks import InputError


@dataclass(frozen=True, eq=False)
class Row:
    """One image of a data set.

    Attributes:
        id: what lists call the image, not empty; unique within records.
        image: the JPEG, PNG, WebP or BMP file, as it was.
        identity: who or what it shows; "" where that is not known.
        landmarks: [5, 2] float32, x and y in pixels of this image: eyes, nose, mouth corners, the image's left first.
        score: the detector's confidence.

    Raises:
        checks.InputError: an empty id or image, landmarks of another shape, NaN or Inf.
    """

    id: str
    image: bytes
    identity: str
    landmarks: NDArray[np.float32] | None = None
    score: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise InputError(f"a row's id must be text that is not empty; got {self.id!r}")
        if not isinstance(self.identity, str):
            raise InputError(f"row {self.id!r}: identity must be text, or '' where not known; got {self.identity!r}")
        if not isinstance(self.image, bytes) or not self.image:
            got = f"{len(self.image)} bytes" if isinstance(self.image, bytes) else type(self.image).__name__
            raise InputError(f"row {self.id!r}: image must be the bytes of an image file; got {got}")
        if self.landmarks is not None:
            points = np.asarray(self.landmarks)
            if points.shape != (5, 2) or points.dtype.kind not in "fiu" or not np.isfinite(points).all():
                raise InputError(f"row {self.id!r}: landmarks must be [5, 2] finite numbers; got {self.landmarks!r}")
        if self.score is not None and not math.isfinite(self.score):
            raise InputError(f"row {self.id!r}: score must be finite, or None where not known; got {self.score!r}")

    def checksum(self) -> int:
        """CRC-32 of the image and all that is known of it, but for the id: another one where the source has changed."""
        points = b"" if self.landmarks is None else np.asarray(self.landmarks, "<f4").tobytes()
        score = None if self.score is None else float(self.score)
        known = f"{len(self.identity)} {self.identity} {score!r} {len(points)} ".encode(errors="surrogatepass")
        return zlib.crc32(self.image, zlib.crc32(known + points))
