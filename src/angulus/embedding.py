"""Images through a trained model to an embeddings file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from angulus import artifact, checks
from angulus.data import decode
from angulus.data.rows import Row
from angulus.data.sources import LeftOut, read_source
from angulus.embeddings import Embeddings


def run(
    model: Path,
    source: Path,
    out: Path,
    *,
    batch: int = 256,
    flip: str | None = None,
    device: torch.device | None = None,
    on_images: Callable[[int], None] | None = None,
) -> int:
    """Embed every image of a source; returns how many.

    Args:
        model: its folder.
        source: records, or anything `angulus convert` reads. Images must be as large as the contract says already.
        out: .npz, .safetensors or .parquet; gets ids, features, norms, the model's name and, where they are known,
            labels and scores.
        batch: images at a time, >= 1.
        flip: in place of the contract's rule for mirror images.
        device: where the model runs; None: the CPU.
        on_images: told how many are done.

    Raises:
        checks.InputError: an image that cannot be read or is of another size, named; nothing is written then.
    """
    checks.integer("batch", batch, low=1)
    trained = artifact.load(model)
    if flip is not None:
        trained = trained.with_flip(flip)
    trained.to(device or torch.device("cpu"))
    rows: list[Row] = []
    vectors = []
    for some in _batches(_rows(source), batch):
        pixels = [pixels_of(row.image, row.id, trained.config.in_channels) for row in some]
        shapes = {tuple(each.shape) for each in pixels}
        if len(shapes) > 1:
            raise checks.InputError(f"images must be of one size; got {sorted(shapes)} (channels, height, width)")
        vectors.append(trained.embed(torch.stack(pixels)).cpu().numpy())
        rows += [dataclasses.replace(row, image=b"-") for row in some]  # the bytes are not needed any more
        if on_images is not None:
            on_images(len(rows))
    if not rows:
        raise checks.InputError(f"{source} holds no image to embed")
    features = np.concatenate(vectors)
    named = all(row.identity for row in rows)
    scored = all(row.score is not None for row in rows)
    Embeddings(
        features,
        np.array([row.id for row in rows]),
        norms=np.linalg.norm(features.astype(np.float64), axis=1),
        labels=np.array([row.identity for row in rows]) if named else None,
        detector_scores=np.array([row.score for row in rows], dtype=np.float64) if scored else None,
        models=np.full(len(rows), trained.name),
    ).write(out)
    return len(rows)


def read_pixels(source: Path, config: artifact.Config) -> Iterator[tuple[Row, torch.Tensor]]:
    """The images of a source as a model takes them, uint8 [channels, height, width]; another size is an error."""
    for row in _rows(source):
        pixels = pixels_of(row.image, row.id, config.in_channels)
        check_size(pixels, config, row.id)
        yield dataclasses.replace(row, image=b"-"), pixels


def check_size(pixels: torch.Tensor, config: artifact.Config, what: str) -> None:
    """Refuse an image [channels, height, width] of another size than the model's."""
    if tuple(pixels.shape[1:]) != config.image_size:
        sides = " x ".join(map(str, config.image_size))
        raise checks.InputError(
            f"{what} must be {sides} pixels, as the model's config.json says; got "
            f"{pixels.shape[1]} x {pixels.shape[2]} (height x width); align and scale it with angulus prepare"
        )


def _rows(source: Path) -> Iterator[Row]:
    """The rows of a source; an image that cannot be read is an error here, not left out."""
    for item in read_source(source):
        if not isinstance(item, LeftOut):
            yield item
        elif item.image:
            raise checks.InputError(f"{item.where} cannot be embedded: {item.reason}; take it out of the source")


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while some := list(islice(rows, size)):
        yield some


def pixels_of(image: bytes, what: str, channels: int) -> torch.Tensor:
    """uint8 [channels, height, width] of an encoded image, which errors call `what`."""
    pixels = torch.from_numpy(decode.decode(image, what)).permute(2, 0, 1)
    if channels == 1:
        pixels = pixels.float().mean(dim=0, keepdim=True).round().to(torch.uint8)
    return pixels
