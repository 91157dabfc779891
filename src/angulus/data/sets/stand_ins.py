"""Small generated data that stands in for a real set, for tests and short trial runs; never a result."""

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
GENERATED = "generated stand-in of"  # the start of `Splits.source`, and a field of records
NOISE = 24.0  # standard deviation, of 255, around a class's pattern
_PATTERN_SIDE = 4  # random values per side of a pattern, before scaling up


@dataclass(frozen=True)
class _Kind:
    """The form of a stand-in."""

    channels: int
    size: tuple[int, ...]
    classes: int
    images: int  # per class to train on; with `records`, per identity in all
    records: bool = False  # whether the real set is stored as records
    names: tuple[str, ...] | None = None  # of the classes; None: their numbers


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
    """Generate images with the shape, type and classes of a real set, the same at every call.

    Each class is a pattern with noise: a network learns it in a few steps. `Splits.generated` is true.

    Args:
        name: "mnist", "cifar10", "cifar100", "luna16", or a set stored as records: "faces", "celeba", "ms-celeb",
            "casia-webface".
        folder: for sets stored as records: a new or empty folder to write the records to; `data.root` can then name it.
            None: no file is written.
        size: sides in pixels; None: the real set's, and 112x112 for faces.
        classes: their number, >= 2; None: as in the real set, and six identities.
        images: per class to train on, >= 2, and half as many to test on; with records, per identity in all.

    >>> splits = stand_in("cifar10")
    >>> splits.train.pixels.shape, splits.generated, splits.source
    (torch.Size([120, 3, 32, 32]), True, 'generated stand-in of cifar10')
    """
    kind = _KINDS[checks.choice("name", name, _KINDS)]
    sides = kind.size if size is None else tuple(checks.integer("size", side, low=1) for side in size)
    if len(sides) != len(kind.size):
        raise InputError(f"size must have {len(kind.size)} sides for {name!r}; got {size!r}")
    shape = (kind.channels, *sides)
    classes = kind.classes if classes is None else checks.integer("classes", classes, low=2)
    images = kind.images if images is None else checks.integer("images", images, low=2)
    if folder is not None:
        if not kind.records:
            raise InputError(f"folder must be left out for {name!r}, which is not stored as records; got {folder!r}")
        return _write_and_load(name, Path(folder), shape, classes, images)
    names = kind.names if kind.names is not None and len(kind.names) == classes else _number_names(classes)
    held_out = images // 2
    pixels, labels = _generate(shape, classes, images + held_out)
    testing = torch.arange(len(labels)) % (images + held_out) >= images
    scans = np.array([f"scan-{place % 10}" for place in range(len(labels))])  # ten, as LUNA16 has ten folds

    def select(chosen: Tensor) -> Images:
        columns = {"scans": scans[chosen.numpy()]} if name == "luna16" else {}
        return Images(pixels[chosen], labels[chosen], names, columns)

    return Splits(name, select(~testing), select(testing), f"{GENERATED} {name}", generated=True)


def _number_names(classes: int) -> tuple[str, ...]:
    return tuple(str(number).zfill(len(str(classes - 1))) for number in range(classes))


def _generate(shape: tuple[int, ...], classes: int, images: int) -> tuple[Tensor, Tensor]:
    """Pixels uint8 [classes · images, *shape] and labels, class by class."""
    generator = torch.Generator().manual_seed(SEED)
    channels, *sides = shape
    coarse = torch.rand((classes, channels, *(_PATTERN_SIDE,) * len(sides)), generator=generator)
    patterns = F.interpolate(coarse * 255, sides, mode="trilinear" if len(sides) == 3 else "bilinear")
    labels = torch.arange(classes).repeat_interleave(images)
    noise = NOISE * torch.randn((len(labels), *shape), generator=generator)
    return (patterns[labels] + noise).round().clamp(0, 255).to(torch.uint8), labels


def _write_and_load(name: str, folder: Path, shape: tuple[int, ...], classes: int, images: int) -> Splits:
    from PIL import Image

    from angulus.data.records import Row, write_records
    from angulus.data.sets.registry import load

    pixels, labels = _generate(shape, classes, images)
    names = _number_names(classes)

    def rows() -> Iterator[Row]:
        for number, (image, label) in enumerate(zip(pixels.permute(0, 2, 3, 1).numpy(), labels.tolist(), strict=True)):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "JPEG", quality=95)
            yield Row(f"{names[label]}/{number}.jpg", file.getvalue(), names[label])

    write_records(folder, rows(), about={"generated": f"{GENERATED} {name}"})
    return load(name, root=folder)
