"""Labelled images, and the training and test splits of a data set."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from angulus.core.checks import InputError

if TYPE_CHECKING:  # it imports pyarrow
    from angulus.data.sources.items import LeftOut

GIVEN = "python"  # the name of a set that Python code gave, in recipes too
FILES = "files"  # the name of a set that `data.path` gives


class Pixels(Protocol):
    """uint8 [N, channels, height, width] or [N, channels, depth, height, width]: a tensor, or decoded on demand."""

    @property
    def shape(self) -> torch.Size:
        """N, channels and sides."""

    @property
    def dtype(self) -> torch.dtype:
        """torch.uint8."""

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor:
        """The images of int64 rows [B], in that order, or of a slice."""


@dataclass(frozen=True, eq=False)
class _LazyRows:
    """Selected rows of images that are read on demand."""

    pixels: Pixels
    rows: Tensor  # int64

    @property
    def shape(self) -> torch.Size:
        return torch.Size([len(self.rows), *self.pixels.shape[1:]])

    @property
    def dtype(self) -> torch.dtype:
        return self.pixels.dtype

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor:
        return self.pixels[self.rows[rows]]

    @property
    def source(self) -> Pixels:
        """What the rows are selected from."""
        return getattr(self.pixels, "source", self.pixels)

    def read(self, rows: Tensor | slice) -> tuple[Tensor, dict[int, str]]:
        return read(self.pixels, self.rows[rows])


def read(pixels: Any, rows: Any) -> tuple[Tensor, dict[int, str]]:
    """The images of rows, and row -> why of those that others stand in for, of pixels in memory or read on demand."""
    reader = getattr(pixels, "read", None)
    return reader(rows) if reader is not None else (pixels[rows], {})


def select_rows(pixels: Pixels, rows: Tensor) -> Pixels:
    """The images of int64 rows: a tensor of a tensor, else read on demand."""
    return pixels[rows] if isinstance(pixels, Tensor) else _LazyRows(pixels, rows)


@dataclass(frozen=True, eq=False)
class Images:
    """A labelled set of images, as bytes; the preprocessing contract scales them to floats.

    Args:
        pixels: uint8 [N, channels, height, width], or of volumes [N, channels, depth, height, width], N >= 1; in
            memory, or read on demand.
        labels: int64 [N], each in [0, num_classes).
        class_names: distinct names; class_names[k] names label k.
        columns: further data of the images, by name: arrays of N values.
        ids: their names in the source; () if they have none.

    >>> images = Images(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1]), ("cat", "dog"))
    >>> len(images), images.num_classes
    (3, 2)
    """

    pixels: Pixels
    labels: Tensor  # int64 [N]
    class_names: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_pixels(self.pixels)
        names = self.class_names
        if not isinstance(names, tuple) or not names or not all(isinstance(name, str) for name in names):
            raise InputError(f"class_names must be a tuple of at least one str; got {names!r}")
        repeated = next((name for name, count in Counter(names).items() if count > 1), None)
        if repeated is not None:
            raise InputError(f"class_names must be distinct; got {repeated!r} more than once")
        _check_labels(self.labels, len(self), self.num_classes)
        if len(self.ids) not in (0, len(self)):
            raise InputError(f"ids must name all {len(self)} images, or none; got {len(self.ids)}")
        for name, values in self.columns.items():
            if len(values) != len(self):
                raise InputError(f"columns[{name!r}] must have {len(self)} values, one per image; got {len(values)}")

    def __len__(self) -> int:
        return self.pixels.shape[0]

    @property
    def num_classes(self) -> int:
        """The number of classes, with or without an image in this set."""
        return len(self.class_names)


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set: images to train on, images to test on, and their source.

    Args:
        name: of the data set in `angulus.data.load`.
        train, test: sets with the same image shape and class names.
        source: for the report: what was read, and from where.
        left_out: what was found but could not be read: its name, and why.
        generated: whether the images are a stand-in's, whose numbers are not results.
    """

    name: str
    train: Images
    test: Images
    source: str
    generated: bool = False
    left_out: tuple[LeftOut, ...] = ()

    def __post_init__(self) -> None:
        train_shape, test_shape = list(self.train.pixels.shape[1:]), list(self.test.pixels.shape[1:])
        if train_shape != test_shape:
            raise InputError(f"train and test must agree on [channels, sides]; got {train_shape} and {test_shape}")
        if self.train.class_names != self.test.class_names:
            rule = "train and test must have the same class_names in the same order"
            raise InputError(f"{rule}; got {self.train.class_names!r} and {self.test.class_names!r}")


def fingerprint(images: Images) -> dict[str, Any]:
    """The number of images, and a sha256 of their sides, class names, labels and columns; no pixel is read.

    >>> pixels = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    >>> one, other = (Images(pixels, torch.tensor(labels), ("a", "b")) for labels in ([0, 1], [1, 0]))
    >>> fingerprint(one) == fingerprint(other), fingerprint(one)["images"]
    (False, 2)
    """
    sha256 = hashlib.sha256(json.dumps([*images.pixels.shape[1:], *images.class_names]).encode())
    sha256.update(images.labels.numpy().tobytes())
    for name, values in sorted(images.columns.items()):
        sha256.update("\0".join([name, *map(str, values)]).encode())
    return {"images": len(images), "sha256": sha256.hexdigest()}


def mean_image(images: Images, batch: int = 1024) -> Tensor:
    """The mean of all images, value by value: float32 [channels, height, width] in 0..255; reads `batch` at a time.

    >>> pixels = torch.tensor([[[[0, 10]]], [[[4, 255]]]], dtype=torch.uint8)
    >>> mean_image(Images(pixels, torch.tensor([0, 0]), ("one",))).flatten().tolist()
    [2.0, 132.5]
    """
    total = torch.zeros(images.pixels.shape[1:], dtype=torch.int64)
    for start in range(0, len(images), batch):
        total += images.pixels[start : start + batch].sum(dim=0)  # of integers: the same in any order
    return (total.double() / len(images)).float()


def _check_pixels(pixels: Pixels) -> None:
    dtype = getattr(pixels, "dtype", type(pixels).__name__)
    if dtype != torch.uint8:
        raise InputError(f"pixels must be a uint8 tensor; got {dtype}")
    if len(pixels.shape) not in (4, 5):
        rule = "pixels must have shape [N, channels, height, width] or [N, channels, depth, height, width]"
        raise InputError(f"{rule}; got {list(pixels.shape)}")
    if 0 in pixels.shape:
        raise InputError(f"pixels must hold at least one image of at least one pixel; got {list(pixels.shape)}")


def _check_labels(labels: Tensor, count: int, num_classes: int) -> None:
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise InputError(f"labels must be an int64 tensor; got {got}; convert with labels.long()")
    if labels.ndim != 1 or labels.shape[0] != count:
        raise InputError(f"labels must have shape [{count}], one per image; got {list(labels.shape)}")
    bad = (labels < 0) | (labels >= num_classes)
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        raise InputError(f"labels must be in [0, {num_classes}); got {int(labels[row])} at row {row}")
