"""What may be wrong with a model's images, each as a change that would mend it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from angulus.core.contract import Preprocessing
from angulus.models.artifact import Model

Family = Literal["colour", "values", "place", "size", "turn"]

FAULTS: dict[str, str] = {
    "colour": "swapped colours",
    "values": "pixel values on another scale",
    "place": "shifted crops",
    "size": "crops of another scale",
    "turn": "turned crops",
}
MENDS: dict[str, str] = {
    "colour": "read the images as RGB, or set the contract's colour to the order that the model was trained with",
    "values": "set the contract's mean, scale and normalize to those that the model was trained with",
    "place": "align the images to the template that the model was trained with",
    "size": "align the images to the template that the model was trained with",
    "turn": "align the images to the template, and see whether an EXIF tag that turned them was lost",
}
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # mean and deviation, RGB, of 0..255


@dataclass(frozen=True)
class ImageChange:
    """One change to what the model sees.

    Attributes:
        name: of the images with the change, to follow "with".
        family: what would be wrong if the change does better.
        change: pixels uint8 [B, channels, height, width] -> the same shape and type.
        normalise: raw 0..255 floats, channels in the model's order -> the network's input; None: as the contract does.
    """

    name: str
    family: Family
    change: Callable[[Tensor], Tensor] | None = None
    normalise: Callable[[Tensor], Tensor] | None = None


def trials(model: Model) -> tuple[ImageChange, ...]:
    """Every change that is tried; none is what the contract does already."""
    some = [ImageChange("red and blue swapped", "colour", lambda pixels: pixels.flip(1))] if _coloured(model) else []
    return (*some, *_values(model), *_geometry(max(model.config.image_size)))


def after(first: ImageChange, second: ImageChange) -> ImageChange:
    """The second change to images that the first was made to; of the two, one at most is to the values."""
    changes = [each.change for each in (first, second) if each.change is not None]

    def change(pixels: Tensor) -> Tensor:
        for each in changes:
            pixels = each(pixels)
        return pixels

    return dataclasses.replace(second, change=change, normalise=second.normalise or first.normalise)


@torch.no_grad()
def features(model: Model, pixels: Tensor, trial: ImageChange | None = None) -> Tensor:
    """Features [B, d] of pixels as the contract prepares them, or under a trial's change."""
    preprocessing = model.preprocessing
    network: Callable[[Tensor], Tensor] = model.backbone
    if trial is not None and trial.change is not None:
        pixels = trial.change(pixels)
    if trial is not None and trial.normalise is not None:
        normalise = trial.normalise
        raw = dataclasses.replace(model.config.contract, normalize="fixed", mean=0.0, scale=1.0)
        preprocessing = Preprocessing(raw)

        def network(images: Tensor) -> Tensor:
            result: Tensor = model.backbone(normalise(images))
            return result

    return preprocessing.features(network, pixels).float()


def moved(pixels: Tensor, *, right: float = 0, down: float = 0, zoom: float = 1, degrees: float = 0) -> Tensor:
    """Pixels [B, C, H, W] shifted, enlarged and turned about the centre; beyond the edge, the edge's pixels go on.

    Args:
        pixels: uint8.
        right, down: shift of what is shown, in pixels.
        zoom: > 1 enlarges.
        degrees: clockwise as seen, y being down.
    """
    height, width = pixels.shape[-2:]
    angle = math.radians(degrees)
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    x, y = torch.arange(width) - (width - 1) / 2 - right, torch.arange(height) - (height - 1) / 2 - down
    from_x = (cos * x[None, :] + sin * y[:, None]) * 2 / max(width - 1, 1)  # where each pixel comes from, in [-1, 1]
    from_y = (-sin * x[None, :] + cos * y[:, None]) * 2 / max(height - 1, 1)
    grid = torch.stack([from_x, from_y], dim=-1).to(pixels.device)
    found = functional.grid_sample(
        pixels.float(), grid.expand(len(pixels), -1, -1, -1), padding_mode="border", align_corners=True
    )
    return found.round().clamp(0, 255).to(torch.uint8)


def _coloured(model: Model) -> bool:
    return model.config.in_channels == 3


def _values(model: Model) -> list[ImageChange]:
    """Ways to normalise that are in use, but for the contract's own."""
    contract = model.config.contract
    some = []
    for mean, scale, words in (
        (127.5, 127.5, "(x − 127.5) / 127.5"),
        (127.5, 128.0, "(x − 127.5) / 128"),
        (0.0, 255.0, "x / 255, so 0 to 1"),
        (0.0, 1.0, "x as it is, so 0 to 255"),
    ):
        if (contract.normalize, contract.mean, contract.scale) != ("fixed", mean, scale):
            some.append(ImageChange(f"pixels as {words}", "values", normalise=_fixed(mean, scale)))
    if _coloured(model):
        means, deviations = (torch.tensor(each)[:, None, None] for each in IMAGENET)
        if contract.colour == "bgr":
            means, deviations = means.flip(0), deviations.flip(0)
        some.append(
            ImageChange(
                "pixels by ImageNet's mean and deviation",
                "values",
                normalise=lambda x: (x - means.to(x)) / deviations.to(x),
            )
        )
    if contract.normalize != "per_image":
        some.append(ImageChange("each image by its own mean and deviation", "values", normalise=_per_image))
    return some


def _fixed(mean: float, scale: float) -> Callable[[Tensor], Tensor]:
    return lambda x: (x - mean) / scale


def _per_image(x: Tensor) -> Tensor:
    deviation = x.std(dim=(1, 2, 3), keepdim=True, correction=0)
    return (x - x.mean(dim=(1, 2, 3), keepdim=True)) / deviation.clamp_min(x[0].numel() ** -0.5)


def _geometry(side: int) -> list[ImageChange]:
    """Shifts by 1/28 and 1/14 of the longer side (4 and 8 of 112 pixels), four scales, five turns."""
    some = []
    for step in sorted({max(1, round(side / 28)), max(2, round(side / 14))}):
        for words, right, down in (("right", 1, 0), ("left", -1, 0), ("down", 0, 1), ("up", 0, -1)):
            some.append(
                ImageChange(
                    f"a shift of {step} px {words}", "place", _move(right=float(right * step), down=float(down * step))
                )
            )
    for zoom in (0.75, 0.9, 1.1, 1.33):
        words = "enlarged" if zoom > 1 else "reduced"
        some.append(ImageChange(f"what is shown {words} to {zoom:.0%}", "size", _move(zoom=zoom)))
    for degrees in (-15.0, 15.0, 90.0, 180.0, 270.0):
        some.append(ImageChange(f"a turn of {degrees:+g} degrees", "turn", _move(degrees=degrees)))
    return some


def _move(*, right: float = 0, down: float = 0, zoom: float = 1, degrees: float = 0) -> Callable[[Tensor], Tensor]:
    return lambda pixels: moved(pixels, right=right, down=down, zoom=zoom, degrees=degrees)
