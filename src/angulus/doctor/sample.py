"""Draw images from a data set, and check what can be seen without a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.core.templates import TEMPLATE_SIDE, template_points
from angulus.data import decode
from angulus.data.faces import align
from angulus.data.records import Records, Row
from angulus.data.sources import LeftOut, SourceOptions, kind_of, read_source
from angulus.models.artifact import Model
from angulus.models.inputs import to_channels

MOST_IMAGES = 5_000  # all their pairs are scored, and every change needs a pass over them
PER_IDENTITY = 8  # images of one identity at most
_SEED = 0
_LEAST_PX = 1.0  # of a crop of 112: how far landmarks must be off the template to be reported


@dataclass(frozen=True, eq=False)
class ImageSample:
    """N images as the model takes them."""

    pixels: Tensor  # uint8 [N, channels, height, width]
    identities: NDArray[np.str_]  # [N] of str; "" if unknown
    facts: tuple[str, ...]  # sentences on what is certainly wrong, and on what cannot be judged


def take_sample(model: Model, images: Path, limit: int, options: SourceOptions | None = None) -> ImageSample:
    """Up to `limit` images, of as few identities as `PER_IDENTITY` images each allow, chosen by a fixed seed."""
    checks.integer("limit", limit, low=2, high=MOST_IMAGES)
    if len(model.config.image_size) != 2:
        raise InputError(f"the model must take images, height by width; this one takes {model.config.image_size}")
    identities, left_out = _identities(images, options)
    if not len(identities):
        such = f", such as {left_out[0].where}: {left_out[0].reason}" if left_out else ""
        raise InputError(f"{images} holds no image to look at; {len(left_out)} things in it were left out{such}")
    rows = _read(images, choose(identities, limit), options)
    decoded = [decode.decode(row.image, row.id) for row in rows]
    height, width = model.config.image_size
    channels = model.config.in_channels
    facts = [*_sizes(decoded, height, width), *_values(decoded, channels), *_landmarks(model, rows, decoded)]
    if left_out:
        facts.append(f"{len(left_out):,} things were not looked at, such as {left_out[0].where}: {left_out[0].reason}.")
    pixels = torch.stack([_tensor(image, height, width, channels) for image in decoded])
    return ImageSample(pixels, np.array([row.identity for row in rows]), tuple(facts))


def choose(identities: NDArray[np.str_], limit: int) -> NDArray[np.int64]:
    """Rows in rising order: up to `PER_IDENTITY` images of each identity, in random order, until the limit is reached.

    Identities with one image come last, and images without identity after them: neither gives a genuine pair.
    """
    random = np.random.default_rng(_SEED)
    order = random.permutation(len(identities))
    names, codes, counts = np.unique(identities[order], return_inverse=True, return_counts=True)
    late = (counts[codes] == 1) | (names[codes] == "")
    place = np.empty(len(order), dtype=np.int64)  # of an image among those of its identity
    by_name = np.argsort(codes, kind="stable")
    place[by_name] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    turn = random.permutation(len(names))[codes]
    spare = place >= PER_IDENTITY
    ranked = np.lexsort((place, turn, spare, names[codes] == "", late))
    return np.sort(order[ranked[:limit]])


def _identities(images: Path, options: SourceOptions | None) -> tuple[NDArray[np.str_], list[LeftOut]]:
    if images.exists() and kind_of(images) == "records":
        return Records(images).identities, []
    identities, left_out = [], []
    for item in read_source(images, None, options):
        if isinstance(item, LeftOut):
            left_out.append(item)
        else:
            identities.append(item.identity)
    return np.array(identities, dtype=np.str_), left_out


def _read(images: Path, rows: NDArray[np.int64], options: SourceOptions | None) -> list[Row]:
    if kind_of(images) == "records":
        return Records(images).rows(rows)
    wanted = set(rows.tolist())
    items = (item for item in read_source(images, None, options) if not isinstance(item, LeftOut))
    return [row for place, row in enumerate(items) if place in wanted]


def _tensor(image: NDArray[np.uint8], height: int, width: int, channels: int) -> Tensor:
    if image.shape[:2] != (height, width):
        # BOX averages over what a new pixel covers; BILINEAR weighs neighbours
        way = Image.Resampling.BOX if min(image.shape[:2]) > min(height, width) else Image.Resampling.BILINEAR
        image = np.array(Image.fromarray(image).resize((width, height), way))
    return to_channels(image, channels)


def _sizes(images: list[NDArray[np.uint8]], height: int, width: int) -> list[str]:
    other = [image.shape for image in images if image.shape[:2] != (height, width)]
    if not other:
        return []
    fact = f"{len(other):,} of {len(images):,} images are not {width}x{height}, as the model takes them"
    scaled = "they are no crops for it; here they were scaled to its size, with all that is around the faces"
    return [f"{fact}, but such as {other[0][1]}x{other[0][0]}: {scaled}."]


def _values(images: list[NDArray[np.uint8]], channels: int) -> list[str]:
    facts = []
    if max(int(image.max()) for image in images) <= 1:
        lost = "the images were scaled to 0..1 before they were saved, and what they showed is lost"
        facts.append(f"No pixel is above 1 of 255: {lost}; save them again in 0..255.")
    grey = sum(bool((image == image[..., :1]).all()) for image in images)
    if channels == 3 and grey:
        facts.append(f"{grey:,} of {len(images):,} images are grey: they cannot show whether colours are swapped.")
    return facts


def _landmarks(model: Model, rows: list[Row], images: list[NDArray[np.uint8]]) -> list[str]:
    """How far landmarks lie from the template, less what aligning cannot mend."""
    template, (height, width) = model.config.contract.template, model.config.image_size
    landmarks = [
        np.asarray(row.landmarks, dtype=np.float64)
        for row, image in zip(rows, images, strict=True)
        if row.landmarks is not None and image.shape[:2] == (height, width)
    ]
    if template is None or not landmarks:
        return []
    target = template_points(template, height, width)
    points = np.stack(landmarks)
    fits = align.similarity(points, target)
    off = align.residual(points, target)
    mended = align.residual(align.transform(points, fits), target)
    if float(np.median(off - mended)) <= _LEAST_PX * max(height, width) / TEMPLATE_SIDE:
        return []
    zoom = np.median(np.hypot(fits[:, 0, 0], fits[:, 1, 0]))
    turn = np.median(np.degrees(np.arctan2(fits[:, 1, 0], fits[:, 0, 0])))
    right, down = np.median(target.mean(axis=0) - points.mean(axis=1), axis=0)
    return [
        f"The landmarks of {len(landmarks):,} images lie a median of {np.median(off):.1f} px from the template, which "
        f"aligning would bring down to {np.median(mended):.1f} px (by medians a shift of {right:+.1f} px right and "
        f"{down:+.1f} px down, a scale of {zoom:.2f} and a turn of {turn:+.1f} degrees): the images are not aligned to "
        "it; run `angulus prepare faces` on the photos."
    ]
