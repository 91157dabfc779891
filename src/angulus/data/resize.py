"""Resizing of images to one size, without aliasing, for images other than faces, which landmarks align."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from angulus.core import checks
from angulus.data import decode
from angulus.data.records import Row

Crop = Literal["center", "resize", "pad"]

_JPEG_QUALITY = 95
_MOST_SIDE = 16_384  # pixels


@dataclass(frozen=True)
class Resize:
    """Resizes images to one size: "center" takes the largest central part, "resize" stretches, "pad" adds white."""

    height: int  # in pixels, 1 to 16,384
    width: int
    crop: Crop = "center"
    encoding: Literal["jpeg", "png"] = "jpeg"  # of quality 95; PNG is lossless

    def __post_init__(self) -> None:
        checks.integer("size", self.height, low=1, high=_MOST_SIDE)
        checks.integer("size", self.width, low=1, high=_MOST_SIDE)
        checks.choice("crop", self.crop, get_args(Crop))
        checks.choice("encoding", self.encoding, ("jpeg", "png"))

    def __call__(self, row: Row) -> Row:
        """The row with its image and landmarks resized; `InputError` if the image cannot be decoded."""
        pixels = decode.decode(row.image, "the file")
        image, scale, shift = self.apply(pixels)
        points = None
        if row.landmarks is not None:
            points = ((np.asarray(row.landmarks) + 0.5) * scale + shift - 0.5).astype(np.float32)
        data = io.BytesIO()
        image.save(data, self.encoding, quality=_JPEG_QUALITY)
        return Row(row.id, data.getvalue(), row.identity, points, row.score)

    def apply(self, pixels: NDArray[np.uint8]) -> tuple[Image.Image, NDArray[np.float64], NDArray[np.float64]]:
        """Resize uint8 RGB [height, width, 3]: the image, and the scale and shift [2] of pixel corners in x and y."""
        image = Image.fromarray(pixels)
        old, new = np.array(image.size, dtype=np.float64), np.array([self.width, self.height])
        if self.crop == "center":
            part = np.minimum(new * (old / new).min(), old)  # of the old image; rounding may pass its edge
            corner = (old - part) / 2
            box = (*corner.tolist(), *np.minimum(corner + part, old).tolist())
            return self._resize(image, new, box), new / part, -corner * new / part
        if self.crop == "resize":
            return self._resize(image, new), new / old, np.zeros(2)
        inner = np.clip(np.rint(old * (new / old).min()), 1, new).astype(np.int64)
        corner = (new - inner) // 2
        canvas = Image.new("RGB", (self.width, self.height), (decode.BACKGROUND,) * 3)
        canvas.paste(self._resize(image, inner), tuple(corner.tolist()))
        return canvas, inner / old, corner.astype(np.float64)

    @staticmethod
    def _resize(image: Image.Image, size: NDArray[np.int64], box: tuple[float, ...] | None = None) -> Image.Image:
        """With Lanczos' filter, widened by the scale so that it averages all pixels in between."""
        width, height = size.tolist()
        return image.resize((width, height), Image.Resampling.LANCZOS, box)  # type: ignore[arg-type]
