"""Faults that a model's images may have, each as the change that would mend it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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

    `change` maps pixels uint8 [B, channels, height, width] to the same; `normalise` maps raw 0..255 floats, channels in
    the model's order, to the network's input, instead of the contract.
    """

    name: str  # to follow "with"
    family: Family  # the kind of fault if the change does better
    change: Callable[[Tensor], Tensor] | None = None
    normalise: Callable[[Tensor], Tensor] | None = None


def changes_for(model: Model) -> tuple[ImageChange, ...]:
    """All changes to try; the contract's own preparation is not among them."""
    colour = [ImageChange("red and blue swapped", "colour", lambda pixels: pixels.flip(1))]
    return (*(colour * (model.config.in_channels == 3)), *_values(model), *_geometry(max(model.config.image_size)))


def combine(first: ImageChange, second: ImageChange) -> ImageChange:
    """Both changes, one after the other; at most one of them changes the values."""
    steps = [step.change for step in (first, second) if step.change is not None]

    def change(pixels: Tensor) -> Tensor:
        for step in steps:
            pixels = step(pixels)
        return pixels

    return dataclasses.replace(second, change=change, normalise=second.normalise or first.normalise)


@torch.no_grad()
def features(model: Model, pixels: Tensor, change: ImageChange | None = None) -> Tensor:
    """Features [B, d] of pixels as the contract prepares them, or under a change."""
    preprocessing = model.preprocessing
    network: Callable[[Tensor], Tensor] = model.backbone
    if change is not None and change.change is not None:
        pixels = change.change(pixels)
    if change is not None and change.normalise is not None:
        normalise = change.normalise
        raw = dataclasses.replace(model.config.contract, normalize="fixed", mean=0.0, scale=1.0)
        preprocessing, network = Preprocessing(raw), lambda images: model.backbone(normalise(images))
    return preprocessing.features(network, pixels).float()


def moved(pixels: Tensor, *, right: float = 0, down: float = 0, zoom: float = 1, degrees: float = 0) -> Tensor:
    """Pixels uint8 [B, C, H, W] shifted (in pixels), enlarged and turned clockwise about the centre.

    Beyond the edge, the edge's pixels are repeated.
    """
    height, width = pixels.shape[-2:]
    angle = math.radians(degrees)
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    x, y = torch.arange(width) - (width - 1) / 2 - right, torch.arange(height) - (height - 1) / 2 - down
    from_x = (cos * x[None, :] + sin * y[:, None]) * 2 / max(width - 1, 1)  # where each pixel comes from, in [-1, 1]
    from_y = (-sin * x[None, :] + cos * y[:, None]) * 2 / max(height - 1, 1)
    grid = torch.stack([from_x, from_y], dim=-1).to(pixels.device)
    grids = grid.expand(len(pixels), -1, -1, -1)
    sampled = functional.grid_sample(pixels.float(), grids, padding_mode="border", align_corners=True)
    return sampled.round().clamp(0, 255).to(torch.uint8)


def _values(model: Model) -> list[ImageChange]:
    """Common ways to normalise, except for the contract's own."""
    contract = model.config.contract
    changes = []
    ranges = (0.0, 255.0, "x / 255, so 0 to 1"), (0.0, 1.0, "x as it is, so 0 to 255")
    centred = (127.5, 127.5, "(x − 127.5) / 127.5"), (127.5, 128.0, "(x − 127.5) / 128")
    for mean, scale, words in (*centred, *ranges):
        if (contract.normalize, contract.mean, contract.scale) != ("fixed", mean, scale):
            normalise = partial(_fixed, mean=mean, scale=scale)
            changes.append(ImageChange(f"pixels as {words}", "values", normalise=normalise))
    if model.config.in_channels == 3:
        means, deviations = (torch.tensor(values)[:, None, None] for values in IMAGENET)
        if contract.colour == "bgr":
            means, deviations = means.flip(0), deviations.flip(0)
        name = "pixels by ImageNet's mean and deviation"
        changes.append(ImageChange(name, "values", normalise=partial(_fixed, mean=means, scale=deviations)))
    if contract.normalize != "per_image":
        changes.append(ImageChange("each image by its own mean and deviation", "values", normalise=_per_image))
    return changes


def _fixed(x: Tensor, mean: float | Tensor, scale: float | Tensor) -> Tensor:
    return (x - torch.as_tensor(mean).to(x)) / torch.as_tensor(scale).to(x)


def _per_image(x: Tensor) -> Tensor:
    deviation = x.std(dim=(1, 2, 3), keepdim=True, correction=0)
    return (x - x.mean(dim=(1, 2, 3), keepdim=True)) / deviation.clamp_min(x[0].numel() ** -0.5)


def _geometry(side: int) -> list[ImageChange]:
    """Shifts by 1/28 and 1/14 of the longer side (4 and 8 of 112 pixels), four scales, five turns."""
    changes = []
    for step in sorted({max(1, round(side / 28)), max(2, round(side / 14))}):
        for direction, right, down in (("right", step, 0), ("left", -step, 0), ("down", 0, step), ("up", 0, -step)):
            move = partial(moved, right=float(right), down=float(down))
            changes.append(ImageChange(f"a shift of {step} px {direction}", "place", move))
    for zoom in (0.75, 0.9, 1.1, 1.33):
        name = f"what is shown {'enlarged' if zoom > 1 else 'reduced'} to {zoom:.0%}"
        changes.append(ImageChange(name, "size", partial(moved, zoom=zoom)))
    for degrees in (-15.0, 15.0, 90.0, 180.0, 270.0):
        changes.append(ImageChange(f"a turn of {degrees:+g} degrees", "turn", partial(moved, degrees=degrees)))
    return changes
