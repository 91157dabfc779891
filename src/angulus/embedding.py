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
        out: .npz, .safetensors or .parquet; gets ids, features, norms and, where they are known, labels and scores.
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
        contract = dataclasses.replace(trained.config.contract, flip=flip)  # type: ignore[arg-type]  # checked there
        trained.config = dataclasses.replace(trained.config, contract=contract)
    trained.to(device or torch.device("cpu"))
    rows: list[Row] = []
    vectors = []
    for some in _batches(_rows(source), batch):
        pixels = [_pixels(row, trained.config.in_channels) for row in some]
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
    ).write(out)
    return len(rows)


def _rows(source: Path) -> Iterator[Row]:
    """The rows of a source; what cannot be read is an error here, not left out."""
    for item in read_source(source):
        if isinstance(item, LeftOut):
            raise checks.InputError(f"{item.where} cannot be embedded: {item.reason}; take it out of the source")
        yield item


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while some := list(islice(rows, size)):
        yield some


def _pixels(row: Row, channels: int) -> torch.Tensor:
    """uint8 [channels, height, width] of an encoded image."""
    image = torch.from_numpy(decode.decode(row.image, row.id)).permute(2, 0, 1)
    if channels == 1:
        image = image.float().mean(dim=0, keepdim=True).round().to(torch.uint8)
    return image
