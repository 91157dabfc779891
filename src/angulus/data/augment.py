"""The field's augmentations, in batches, on any device: uint8 in, uint8 out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from angulus.core import checks, extras
from angulus.core.checks import InputError

CROP_AREA = (0.2, 1.0)  # of the image
CROP_RATIO = (3 / 4, 4 / 3)  # width to height, uniform in its logarithm
LOW_RES_SIDE = (0.2, 1.0)
JITTER = (0.5, 1.5)  # brightness, contrast, saturation
ERASE_AREA, ERASE_RATIO = (0.02, 0.4), (0.3, 1 / 0.3)
BLUR_SIGMA = (0.5, 2.0)  # pixels
_RESIZES = ("nearest", "area", "bilinear", "bicubic")


@dataclass(frozen=True)
class Augment:
    """Random augmentation; each argument but `shift_px` is the probability per image.

    Applied in this order: erase, crop, low_res, photometric, grey, blur, then shift and flip, exact to the pixel.

    Args:
        flip: mirror left to right.
        shift_px: move by whole pixels, uniform in [−shift_px, shift_px], in x and y; the border is filled with 0.
        crop: set all but a random box to 0: 0.2 to 1 of the area, sides 3:4 to 4:3 (AdaFace: 0.2).
        low_res: scale down to 0.2 to 1 of the side and up again, by random interpolations (AdaFace: 0.2).
        photometric: multiply brightness, contrast and saturation by 0.5 to 1.5 each (AdaFace: 0.2).
        grey: make the three channels equal.
        blur: blur by a Gaussian of 0.5 to 2 pixels.
        erase: set a random box of 0.02 to 0.4 of the area to 0.

    Source: M. Kim, A. K. Jain, X. Liu, "AdaFace", CVPR 2022, section 4.1 (crop, low_res, photometric); Z. Zhong et al.,
    "Random Erasing Data Augmentation", AAAI 2020, whose noise is 0 here.

    >>> pixels = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 1, 4).repeat(1, 3, 1, 1)
    >>> Augment(flip=1.0)(pixels, torch.Generator().manual_seed(0))[0, 0, 0].tolist()
    [3, 2, 1, 0]
    """

    flip: float = 0.5
    shift_px: int = 0
    crop: float = 0.0
    low_res: float = 0.0
    photometric: float = 0.0
    grey: float = 0.0
    blur: float = 0.0
    erase: float = 0.0
    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}

    def __post_init__(self) -> None:
        for name in ("flip", "crop", "low_res", "photometric", "grey", "blur", "erase"):
            checks.number(f"augment.{name}", getattr(self, name), low=0, high=1)
        checks.integer("augment.shift_px", self.shift_px, low=0)
        if self.photometric or self.grey or self.blur:
            _kornia()  # report a missing package before the first batch

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Augment uint8 [B, 3, height, width]; random numbers come from a CPU generator, the same on every device."""
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
            raise InputError(f"pixels must be uint8 [B, 3, height, width]; got {pixels.dtype} {list(pixels.shape)}")
        if self.shift_px >= min(pixels.shape[2:]):
            raise InputError(f"augment.shift_px must be less than the image's sides; got {self.shift_px}")
        steps: tuple[tuple[float, Callable[[Tensor, torch.Generator], Tensor]], ...] = (
            (self.erase, lambda images, random: images * ~_boxes(images, random, ERASE_AREA, ERASE_RATIO)),
            (self.crop, lambda images, random: images * _boxes(images, random, CROP_AREA, CROP_RATIO)),
            (self.low_res, _low_res),
            (self.photometric, _photometric),
            (self.grey, _grey),
            (self.blur, _blur),
        )
        for probability, step in steps:
            if probability:
                chosen = torch.rand(len(pixels), generator=generator) < probability
                rows = chosen.nonzero()[:, 0].to(pixels.device)
                if len(rows):
                    pixels = pixels.index_copy(0, rows, step(pixels[rows], generator))
        return _move(pixels, self.flip, self.shift_px, generator)


def _move(pixels: Tensor, flip: float, shift_px: int, generator: torch.Generator) -> Tensor:
    """Flip and shift: a window into each image's padded copy, in channels-last memory, as after decoding."""
    count, _, height, width = pixels.shape
    flipped = (torch.rand(count, generator=generator) < flip).tolist()
    corners = torch.randint(2 * shift_px + 1, (count, 2), generator=generator).tolist()
    padded = F.pad(pixels.permute(0, 2, 3, 1), (0, 0, *(shift_px,) * 4))
    moved = []
    for image, (top, left), turn in zip(padded, corners, flipped, strict=True):
        window = image[top : top + height, left : left + width]
        moved.append(window.flip(1) if turn else window)
    return torch.stack(moved).permute(0, 3, 1, 2)


def _boxes(
    pixels: Tensor, generator: torch.Generator, areas: tuple[float, float], ratios: tuple[float, float]
) -> Tensor:
    """Masks [B, 1, height, width] of random boxes in whole pixels, by ranges of their area and ratio of sides."""
    count, _, height, width = pixels.shape
    area = _uniform(count, areas, generator) * height * width
    low, high = torch.tensor(ratios).log().tolist()
    ratio = torch.exp(_uniform(count, (low, high), generator))
    masks = []
    for size, side in ((height, torch.sqrt(area / ratio)), (width, torch.sqrt(area * ratio))):
        length = side.round().clamp(1, size)
        start = (torch.rand(count, generator=generator) * (size - length + 1)).floor()
        place = torch.arange(size)
        masks.append((place >= start[:, None]) & (place < (start + length)[:, None]))
    rows, columns = masks
    return (rows[:, None, :, None] & columns[:, None, None, :]).to(pixels.device)


def _low_res(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Scale each image down to a random size and up again."""
    height, width = pixels.shape[2:]
    shares = _uniform(len(pixels), LOW_RES_SIDE, generator).tolist()
    ways = torch.randint(len(_RESIZES), (len(pixels), 2), generator=generator).tolist()
    out = []
    for image, share, (down, up) in zip(pixels.float(), shares, ways, strict=True):
        small = _resize(image[None], (max(1, int(share * height)), max(1, int(share * width))), _RESIZES[down])
        out.append(_resize(small, (height, width), _RESIZES[up]))
    return _as_bytes(torch.cat(out))


def _resize(images: Tensor, size: tuple[int, int], way: str) -> Tensor:
    return F.interpolate(images, size, mode=way, antialias=way in ("bilinear", "bicubic"))


def _photometric(pixels: Tensor, generator: torch.Generator) -> Tensor:
    enhance = _kornia().enhance
    images = pixels.float() / 255
    for change in (
        enhance.adjust_brightness_accumulative,
        enhance.adjust_contrast_with_mean_subtraction,
        enhance.adjust_saturation_with_gray_subtraction,
    ):
        images = change(images, _uniform(len(pixels), JITTER, generator).to(pixels.device))
    return _as_bytes(images * 255)


def _grey(pixels: Tensor, generator: torch.Generator) -> Tensor:
    return _as_bytes(_kornia().color.rgb_to_grayscale(pixels.float()).expand(-1, 3, -1, -1))


def _blur(pixels: Tensor, generator: torch.Generator) -> Tensor:
    sigma = _uniform(len(pixels), BLUR_SIGMA, generator).to(pixels.device)
    return _as_bytes(_kornia().filters.gaussian_blur2d(pixels.float(), (13, 13), torch.stack([sigma, sigma], dim=1)))


def _uniform(count: int, span: tuple[float, float], generator: torch.Generator) -> Tensor:
    low, high = span
    return low + (high - low) * torch.rand(count, generator=generator)


def _as_bytes(images: Tensor) -> Tensor:
    return images.round().clamp(0, 255).to(torch.uint8)


def _kornia() -> Any:
    return extras.load("kornia", "faces", "augmentation by photometric, grey or blur (set them to 0 to go without)")
