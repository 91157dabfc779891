"""Images of any source as a model takes them: read, decoded, and of its size."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.formats import text_array
from angulus.data import decode
from angulus.data.records import Row
from angulus.data.sources import LeftOut, read_source
from angulus.models import artifact


def rows(source: Path, left_out: list[LeftOut]) -> Iterator[Row]:
    """The rows of a source whose ids are new; images that cannot be read go to `left_out`."""
    met: set[str] = set()
    for item in read_source(source):
        if isinstance(item, LeftOut):
            left_out += [item] if item.image else []
        elif item.id in met:
            left_out.append(LeftOut(item.id, "the source has an image of this id before it"))
        else:
            met.add(item.id)
            yield item


def known_labels(some: list[Row]) -> NDArray[np.str_] | None:
    """Who is shown, "" where that is not known; None where nobody is known."""
    return text_array([row.identity for row in some]) if any(row.identity for row in some) else None


def read_pixels(source: Path, config: artifact.Config) -> Iterator[tuple[Row, torch.Tensor]]:
    """The images of a source as a model takes them, uint8 [channels, height, width]; another size is an error."""
    return (decoded(row, config) for row in _all_rows(source))


def drawn_pixels(source: Path, config: artifact.Config, most: int, seed: int = 0) -> list[tuple[Row, torch.Tensor]]:
    """At most so many images of a source, as `read_pixels` gives them, each subset as likely as another."""
    rng = np.random.default_rng(seed)
    kept: list[Row] = []
    for count, row in enumerate(_all_rows(source)):
        if count < most:
            kept.append(row)
        elif (place := int(rng.integers(count + 1))) < most:
            kept[place] = row
    return [decoded(row, config) for row in kept]


def _all_rows(source: Path) -> Iterator[Row]:
    """The rows of a source; an image that cannot be read is an error."""
    left_out: list[LeftOut] = []
    for row in rows(source, left_out):
        if left_out:
            break
        yield row
    if left_out:
        raise checks.InputError(f"{left_out[0].where} cannot be read: {left_out[0].reason}; take it out of {source}")


def decoded(row: Row, config: artifact.Config, what: str | None = None) -> tuple[Row, torch.Tensor]:
    """The pixels of a row, which errors call `what` or by its id, and the row without its image."""
    what = what or row.id
    pixels = pixels_of(row.image, what, config.in_channels)
    check_size(pixels, config, what)
    return dataclasses.replace(row, image=b"-"), pixels


def check_size(pixels: torch.Tensor, config: artifact.Config, what: str) -> None:
    """Refuse an image [channels, height, width] of another size than the model's."""
    if tuple(pixels.shape[1:]) != config.image_size:
        sides, size = (separator.join(map(str, config.image_size)) for separator in (" x ", "x"))
        raise checks.InputError(
            f"{what} must be {sides} pixels, as the model's config.json says; got "
            f"{pixels.shape[1]} x {pixels.shape[2]} (height x width); bring images to that size with `angulus prepare "
            f"images --size {size}`, or faces with `angulus prepare faces` (or verify with --align)"
        )


def pixels_of(image: bytes, what: str, channels: int) -> torch.Tensor:
    """uint8 [channels, height, width] of an encoded image, which errors call `what`."""
    pixels = torch.from_numpy(decode.decode(image, what)).permute(2, 0, 1)
    if channels == 1:
        pixels = pixels.float().mean(dim=0, keepdim=True).round().to(torch.uint8)
    return pixels
