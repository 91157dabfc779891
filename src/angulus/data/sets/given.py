"""Data sets from what Python code has: arrays of images and labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.data.sets.identity_sets import EVERY, HeldOut, every_nth
from angulus.data.sets.images import GIVEN, Images, Splits, select_rows

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
