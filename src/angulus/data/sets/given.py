"""Data sets from what Python code has: arrays of images and labels, or a folder with one subfolder per class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks, wording
from angulus.core.checks import InputError
from angulus.data import decode
from angulus.data.loader import part_of
from angulus.data.records import Row, parts
from angulus.data.sets.identity_sets import EVERY, HeldOut, every_nth, split_part
from angulus.data.sets.images import GIVEN, Images, Splits, select_rows
from angulus.data.sources import LeftOut, read_source

HELD_OUT = HeldOut(EVERY["faces"])


def from_arrays(images: Any, labels: Any, class_names: tuple[str, ...] | None = None) -> Images:
    """Labelled images from arrays or tensors.

    Args:
        images: uint8; an array [N, height, width] (grey) or [N, height, width, 3] (RGB), or a tensor [N, height, width]
            or [N, channels, height, width], or of volumes [N, channels, depth, height, width].
        labels: [N] whole numbers or names, of any values.
        class_names: the classes in their order; None: the labels' own values, sorted, as text.

    Raises:
        InputError: another dtype or shape, or a label that is not among `class_names`.

    >>> pixels = np.zeros((3, 8, 8), np.uint8)
    >>> given = from_arrays(pixels, ["dog", "cat", "dog"])
    >>> given.pixels.shape, given.labels.tolist(), given.class_names
    (torch.Size([3, 1, 8, 8]), [1, 0, 1], ('cat', 'dog'))
    """
    values = labels.cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    if values.ndim != 1 or values.dtype.kind not in "iuUO":
        got = f"{values.dtype} {list(values.shape)}"
        raise InputError(f"labels must be [N] whole numbers or names, one for each image; got {got}")
    for row, value in enumerate(values if values.dtype.kind == "O" else ()):
        if not isinstance(value, str | int | np.integer):  # such as None or NaN, where a table has a gap
            raise InputError(f"labels must be whole numbers or names; got {value!r:.80} at row {row}")
    names, numbers = np.unique(values.astype(str) if values.dtype.kind == "O" else values, return_inverse=True)
    found = tuple(map(str, names.tolist()))
    if class_names is not None:
        unknown = next((name for name in found if name not in class_names), None)
        if unknown is not None:
            raise InputError(f"labels must be among the classes of the training images; got {unknown!r}")
        numbers, found = np.array([class_names.index(name) for name in found], np.int64)[numbers], class_names
    return Images(_pixels(images), torch.from_numpy(numbers.astype(np.int64)), found)


def _pixels(images: Any) -> torch.Tensor:
    """uint8 [N, channels, ...]."""
    tensor = images if isinstance(images, torch.Tensor) else torch.from_numpy(_array(images))
    if tensor.dtype != torch.uint8:
        way = "convert them, such as by (255 * images).round().astype(np.uint8) from numbers in 0..1"
        raise InputError(f"images must be uint8 in 0..255; got {tensor.dtype}; {way}")
    if tensor.ndim == 3:
        return tensor[:, None]
    channels_last = tensor.ndim == 4 and tensor is not images
    if channels_last and tensor.shape[-1] not in (1, 3):
        rule = "an array of images must be [N, height, width] or [N, height, width, channels] with 1 or 3 channels"
        raise InputError(f"{rule}; got {list(tensor.shape)}; a tensor has its channels second")
    if tensor.ndim == 4 and not channels_last and tensor.shape[-1] in (1, 3) and tensor.shape[1] > 4:
        rule = "a tensor of images must be [N, channels, height, width]"
        raise InputError(f"{rule}; got {list(tensor.shape)}; put its channels second, by images.permute(0, 3, 1, 2)")
    return tensor.permute(0, 3, 1, 2).contiguous() if channels_last else tensor


def _array(images: Any) -> NDArray[Any]:
    try:
        array = np.asarray(images)
    except (ValueError, TypeError) as error:
        raise InputError(f"images must be of one size in a uint8 array or tensor: {checks.one_line(error)}") from error
    if array.dtype.kind not in "uif" or not array.ndim:
        raise InputError(f"images must be a uint8 array or tensor; got {type(images).__name__} of {array.dtype}")
    return np.ascontiguousarray(array)


def hold_out_test(images: Images, test: Images | None) -> Splits:
    """The images with those to test on; None: one in ten of each class, which is then not trained on.

    Raises:
        InputError: no class has ten images.
    """
    if test is not None:
        return Splits(GIVEN, images, test, "images given in Python")
    testing = every_nth(images.labels.numpy(), HELD_OUT.every)
    if not testing.any():
        most = int(images.labels.bincount().max())
        rule = (
            f"one image in {HELD_OUT.every} of each class is held out for the test, and no class has as many (the most"
        )
        raise InputError(f"{rule} is {most}); give images to test on: test=(images, labels)")
    train, held = (_select(images, chosen) for chosen in (~testing, testing))
    return Splits(GIVEN, train, held, f"images given in Python, {HELD_OUT}")


def _select(images: Images, chosen: NDArray[np.bool_]) -> Images:
    rows = torch.from_numpy(np.flatnonzero(chosen))
    columns = {name: values[chosen] for name, values in images.columns.items()}
    ids = tuple(np.array(images.ids)[chosen].tolist()) if images.ids else ()
    return Images(select_rows(images.pixels, rows), images.labels[rows], images.class_names, columns, ids)


def holds_records(folder: Path) -> bool:
    """Whether a folder holds records, as `angulus convert` writes them."""
    return (folder / parts.ABOUT).is_file()


def from_folder(path: str | os.PathLike[str]) -> Splits:
    """What `angulus convert` reads, such as a folder with one subfolder of images per class.

    The encoded images stay in memory. One image in ten of each class is held out for the test.

    Raises:
        InputError: nothing there, images of several sizes, or no class with ten images.
    """
    folder = Path(path).expanduser()
    rows: list[Row] = []
    left_out: list[LeftOut] = []
    for item in read_source(folder, None):
        (left_out if isinstance(item, LeftOut) else rows).append(item)  # type: ignore[arg-type]
    if not rows:
        raise InputError(
            f"{folder} must hold images, in one subfolder per class, or records; it has none that can be read"
        )
    if left_out:
        count = f"{len(left_out):,} {wording.plural('file', len(left_out))}"
        checks.warn(f"{count} of {folder} left out; the first is {left_out[0].where}: {left_out[0].reason}")
    images = _Rows(str(folder), rows)
    source = f"{folder}: {len(rows):,} images, {HELD_OUT}"
    return split_part(GIVEN, images, part_of(images), HELD_OUT, source)


class _Rows:
    """Encoded images in memory, with what `part_of` reads of records."""

    def __init__(self, where: str, rows: Sequence[Row]) -> None:
        self.where, self.rows = where, rows
        self.ids = np.array([row.id for row in rows])
        self.identities = np.array([row.identity for row in rows])

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        headers = [decode.header(row.image, row.id) for row in self.rows]
        return np.array([(header.width, header.height) for header in headers], np.int64)

    def images(self, rows: ArrayLike) -> list[bytes]:
        return [self.rows[int(row)].image for row in np.asarray(rows)]
