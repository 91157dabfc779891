"""Small generated data in the place of a real set, for tests and two-step runs; never a result."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.data.sets.images import Images, Splits

SEED = 0
GENERATED = "generated stand-in of"  # how `Splits.source` begins, and how records say it of themselves
NOISE = 24.0  # standard deviation, of 255, around a class's pattern
_PATTERN_SIDE = 4  # a pattern is as many random values a side, scaled up


@dataclass(frozen=True)
class _Kind:
    """What a real set's images are like.

    Attributes:
        channels: of an image.
        size: its sides in pixels.
        classes: how many the stand-in has: all of them, or a few of very many.
        images: of a class to train on; with `records`, of an identity in all.
        records: whether the real set is kept as records.
        names: of the classes; None: their numbers.
    """

    channels: int
    size: tuple[int, ...]
    classes: int
    images: int
    records: bool = False
    names: tuple[str, ...] | None = None


_FACES = _Kind(3, (112, 112), 6, 50, records=True)  # one in 50 is held out
_KINDS = {
    "mnist": _Kind(1, (28, 28), 10, 12),
    "cifar10": _Kind(3, (32, 32), 10, 12),
    "cifar100": _Kind(3, (32, 32), 100, 4),
    "luna16": _Kind(1, (26, 40, 40), 2, 12, names=("no nodule", "nodule")),
    "faces": _FACES,
    "celeba": _FACES,
    "ms-celeb": _FACES,
    "casia-webface": _FACES,
}


def stand_in(
    name: str,
    *,
    folder: str | os.PathLike[str] | None = None,
    size: tuple[int, ...] | None = None,
    classes: int | None = None,
    images: int | None = None,
) -> Splits:
    """Images generated in the shape, type and classes of a real set, the same at every call.

    Every class has a pattern of its own, and its images are that pattern under noise: a net learns them in a few steps.

    Args:
        name: "mnist", "cifar10", "cifar100", "luna16", or one kept as records: "faces", "celeba", "ms-celeb",
            "casia-webface".
        folder: of a set kept as records: write them there, an empty or new folder, and read them by that set's own
            reader, so that `data.root` can name the folder. None: no file is written.
        size: sides in pixels; None: the real set's, and 112x112 for faces.
        classes: how many, >= 2; None: all of the real set's, and six identities.
        images: of each class to train on, >= 2, and half as many to test on; with records, of each identity in all.

    Returns:
        Splits that are `generated`, whose source says so.

    Raises:
        InputError: no such stand-in, a size of other axes, a folder that holds something or a set without records.

    >>> splits = stand_in("cifar10")
    >>> splits.train.pixels.shape, splits.generated, splits.source
    (torch.Size([120, 3, 32, 32]), True, 'generated stand-in of cifar10')
    """
    checks.choice("name", name, _KINDS)
    kind = _KINDS[name]
    shape = (kind.channels, *_sides(name, kind, size))
    classes = kind.classes if classes is None else checks.integer("classes", classes, low=2)
    images = kind.images if images is None else checks.integer("images", images, low=2)
    if folder is not None:
        if not kind.records:
            raise InputError(f"folder must be left out for {name!r}, which is not kept as records; got {folder!r}")
        return _through_records(name, Path(folder), shape, classes, images)
    names = kind.names if kind.names is not None and len(kind.names) == classes else _numbers(classes)
    held_out = images // 2
    pixels, labels = _generate(shape, classes, images + held_out)
    testing = torch.arange(len(labels)) % (images + held_out) >= images
    scans = np.array([f"scan-{place % 10}" for place in range(len(labels))])  # ten, as LUNA16 has ten folds

    def part(chosen: Tensor) -> Images:
        columns = {"scans": scans[chosen.numpy()]} if name == "luna16" else {}
        return Images(pixels[chosen], labels[chosen], names, columns)

    return Splits(name, part(~testing), part(testing), f"{GENERATED} {name}", generated=True)


def _sides(name: str, kind: _Kind, size: tuple[int, ...] | None) -> tuple[int, ...]:
    if size is None:
        return kind.size
    if len(size) != len(kind.size):
        raise InputError(f"size must have {len(kind.size)} sides for {name!r}; got {size!r}")
    return tuple(checks.integer("size", side, low=1) for side in size)


def _numbers(classes: int) -> tuple[str, ...]:
    width = len(str(classes - 1))
    return tuple(f"{number:0{width}d}" for number in range(classes))


def _generate(shape: tuple[int, ...], classes: int, images: int) -> tuple[Tensor, Tensor]:
    """Pixels uint8 [classes · images, *shape] and labels, class by class."""
    chance = torch.Generator().manual_seed(SEED)
    channels, *sides = shape
    coarse = torch.rand((classes, channels, *(_PATTERN_SIDE,) * len(sides)), generator=chance)
    patterns = F.interpolate(coarse * 255, sides, mode="trilinear" if len(sides) == 3 else "bilinear")
    labels = torch.arange(classes).repeat_interleave(images)
    noise = NOISE * torch.randn((len(labels), *shape), generator=chance)
    return (patterns[labels] + noise).round().clamp(0, 255).to(torch.uint8), labels


def _through_records(name: str, folder: Path, shape: tuple[int, ...], classes: int, images: int) -> Splits:
    # Imported here: decoding and records are slow to import, and sets in memory need neither.
    from PIL import Image

    from angulus.data.records import Row, write_records
    from angulus.data.sets.registry import load

    pixels, labels = _generate(shape, classes, images)
    names = _numbers(classes)

    def rows() -> Iterator[Row]:
        for number, (image, label) in enumerate(zip(pixels.permute(0, 2, 3, 1).numpy(), labels.tolist(), strict=True)):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "JPEG", quality=95)
            yield Row(f"{names[label]}/{number}.jpg", file.getvalue(), names[label])

    write_records(folder, rows(), about={"generated": f"{GENERATED} {name}"})
    return load(name, root=folder)
