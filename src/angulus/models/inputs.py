"""Images from any source as a model takes them: read, decoded, and checked for size."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from angulus.core.checks import InputError
from angulus.core.formats import text_array
from angulus.data import decode
from angulus.data.records import Row
from angulus.data.sources import LeftOut, read_source
from angulus.models import artifact


def rows(source: Path, left_out: list[LeftOut]) -> Iterator[Row]:
    """The rows of a source, without repeated ids; unreadable images are appended to `left_out`."""
    seen: set[str] = set()
    for item in read_source(source):
        if isinstance(item, LeftOut):
            left_out += [item] if item.image else []
        elif item.id in seen:
            left_out.append(LeftOut(item.id, "an earlier image of the source has this id"))
        else:
            seen.add(item.id)
            yield item


def row_labels(rows: list[Row]) -> NDArray[np.str_] | None:
    """The identity of each row, "" where unknown; None if all are unknown."""
    return text_array([row.identity for row in rows]) if any(row.identity for row in rows) else None


def read_pixels(source: Path, config: artifact.Config) -> Iterator[tuple[Row, torch.Tensor]]:
    """The images of a source, uint8 [channels, height, width]; a wrong size is an error."""
    return (decode_row(row, config) for row in _readable_rows(source))


def draw_pixels(source: Path, config: artifact.Config, most: int, seed: int = 0) -> list[tuple[Row, torch.Tensor]]:
    """At most `most` images of a source, as `read_pixels` gives them; every subset is equally likely."""
    rng = np.random.default_rng(seed)
    chosen: list[Row] = []
    for count, row in enumerate(_readable_rows(source)):
        if count < most:
            chosen.append(row)
        elif (place := int(rng.integers(count + 1))) < most:
            chosen[place] = row
    return [decode_row(row, config) for row in chosen]


def _readable_rows(source: Path) -> Iterator[Row]:
    """The rows of a source; an unreadable image is an error."""
    left_out: list[LeftOut] = []
    for row in rows(source, left_out):
        if left_out:
            break
        yield row
    if left_out:
        raise InputError(f"{left_out[0].where} cannot be read: {left_out[0].reason}; take it out of {source}")


def decode_row(row: Row, config: artifact.Config, what: str | None = None) -> tuple[Row, torch.Tensor]:
    """A row without its image, and its pixels; errors call the image `what`, or else by its id."""
    pixels = pixels_of(row.image, config, what or row.id)
    return dataclasses.replace(row, image=b"-"), pixels


def read_image(path: Path) -> bytes:
    """The bytes of an image file; a missing file, a folder or a pipe is refused."""
    if path.exists() and not path.is_file():  # a pipe or a device never ends
        raise InputError(
            f"the image {path} must be a file; it is {'a folder' if path.is_dir() else 'a pipe or a device'}"
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"the image {path} cannot be read: {error.strerror}; give an image file") from error


def pixels_of(image: bytes, config: artifact.Config, what: str) -> torch.Tensor:
    """uint8 [channels, height, width] of an encoded image of the model's size; errors call it `what`."""
    return fitted(decode.decode(image, what), config, what)


def fitted(image: NDArray[np.uint8], config: artifact.Config, what: str) -> torch.Tensor:
    """uint8 [channels, height, width] of RGB pixels [height, width, 3]; a size that is not the model's is refused."""
    pixels = to_channels(image, config.in_channels)
    if tuple(pixels.shape[1:]) != config.image_size:
        sides, size = (separator.join(map(str, config.image_size)) for separator in (" x ", "x"))
        rule = f"{what} must be {sides} pixels, the size that the model takes"
        way = f"`angulus prepare images --size {size}`, or faces with `angulus prepare faces` (or verify with --align)"
        got = f"{pixels.shape[1]} x {pixels.shape[2]} (height x width)"
        raise InputError(f"{rule}; got {got}; bring images to that size with {way}")
    return pixels


def item_pixels(item: object, config: artifact.Config, what: str) -> torch.Tensor:
    """uint8 [channels, height, width] of an image in any of the forms that `Embedder.encode` takes.

    Args:
        item: a path, a Pillow image, or a uint8 array [height, width], [height, width, 1] or [height, width, 3], RGB.
        what: its name in errors, unless it is a path.
    """
    if isinstance(item, str | os.PathLike):
        path = Path(item)
        return pixels_of(read_image(path), config, str(path))
    if isinstance(item, Image.Image):
        return fitted(decode.opened(item, what), config, what)
    forms = "a path, a Pillow image or a uint8 array [height, width, 3]"
    if not isinstance(item, np.ndarray):
        raise InputError(f"{what} must be {forms}; got {type(item).__name__}")
    if item.dtype != np.uint8:
        raise InputError(f"{what} must be {forms}, with values in 0..255; got an array of {item.dtype}")
    if item.ndim == 2:
        item = item[..., None]
    if item.ndim != 3 or item.shape[2] not in (1, 3):
        raise InputError(f"{what} must be {forms}, RGB or grey, channels last; got the shape {list(item.shape)}")
    return fitted(np.repeat(item, 3, axis=2) if item.shape[2] == 1 else item, config, what)


def to_channels(image: NDArray[np.uint8], channels: int) -> torch.Tensor:
    """uint8 [height, width, 3] -> [channels, height, width]; one channel is the mean of the three."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    return pixels.float().mean(dim=0, keepdim=True).round().to(torch.uint8) if channels == 1 else pixels
