"""Images through a trained model to an embeddings file: in batches, by one process or many, going on after a stop."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from angulus import artifact, checks, columns, files
from angulus.data import decode
from angulus.data.rows import Row
from angulus.data.sources import LeftOut, read_source
from angulus.distributed.runtime import Ranks
from angulus.embeddings import Embeddings


def run(
    model: Path,
    source: Path,
    out: Path,
    *,
    batch: int = 256,
    flip: str | None = None,
    device: torch.device | None = None,
    ranks: Ranks | None = None,
    on_images: Callable[[int], None] | None = None,
) -> int:
    """Embed every image of a source; returns how many.

    The features of each batch are kept in the folder `OUT.parts`, under a name that says what they are of, until `out`
    is whole. A run that was stopped takes from there what is done, to the bit, and what has changed is done anew. Of
    several ranks each embeds every so-manyth batch, on a disk that all see, and rank 0 writes `out`.

    Args:
        model: its folder.
        source: records, or anything `angulus convert` reads. Images must be as large as the contract says already.
        out: .npz, .safetensors or .parquet; gets ids, features, norms, the model's name and, where they are known,
            labels and scores.
        batch: images at a time, >= 1.
        flip: in place of the contract's rule for mirror images.
        device: where the model runs; None: the CPU.
        ranks: the processes that share the work, each of which calls this; None: this one alone.
        on_images: told how many are done.

    Raises:
        checks.InputError: an image that cannot be read or is of another size, named; `out` is not written then. On
            several ranks, where one of them fails all do.
    """
    checks.integer("batch", batch, low=1)
    columns.suffix_of(out)
    ranks = ranks or Ranks()
    trained = artifact.load(model)
    if flip is not None:
        trained = trained.with_flip(flip)
    trained.to(device or torch.device("cpu"))
    parts = out.with_name(f"{out.name}.parts")
    rows, kept = ranks.together(lambda: _embed_all(trained, source, batch, parts, ranks, on_images))
    ranks.together(lambda: _join(rows, kept, trained.name, out) if ranks.rank == 0 else None)
    return len(rows)


def _embed_all(
    model: artifact.Model,
    source: Path,
    batch: int,
    parts: Path,
    ranks: Ranks,
    on_images: Callable[[int], None] | None,
) -> tuple[list[Row], list[Path]]:
    """The rows of the source without their images, and the file of each batch's features; makes this rank's."""
    rows: list[Row] = []
    kept: list[Path] = []
    for number, some in enumerate(_batches(_rows(source), batch)):
        part = parts / f"{_digest(model.name, some)}.npy"
        if number % ranks.count == ranks.rank and not part.exists():
            features = _features(model, some)
            files.make_folder(parts)
            files.write_atomically(part, lambda file, features=features: np.save(file, features))  # type: ignore[misc]
        kept.append(part)
        rows += [dataclasses.replace(row, image=b"-") for row in some]  # the bytes are not needed any more
        if on_images is not None:
            on_images(len(rows))
    if not rows:
        raise checks.InputError(f"{source} holds no image to embed")
    return rows, kept


def _digest(model: str, rows: list[Row]) -> str:
    """What the features of a batch depend on, as a name: the model, and each image's id and bytes."""
    digest = hashlib.blake2b(model.encode(), digest_size=16)
    for row in rows:
        for each in (row.id.encode(errors="surrogatepass"), row.image):
            digest.update(len(each).to_bytes(8, "little"))
            digest.update(each)
    return digest.hexdigest()


def _features(model: artifact.Model, rows: list[Row]) -> NDArray[np.float32]:
    pixels = [pixels_of(row.image, row.id, model.config.in_channels) for row in rows]
    shapes = Counter(tuple(each.shape) for each in pixels)
    if len(shapes) > 1:
        usual, odd = shapes.most_common(1)[0][0], shapes.most_common()[-1][0]
        named = next(row.id for row, each in zip(rows, pixels, strict=True) if tuple(each.shape) == odd)
        raise checks.InputError(
            f"images must be of one size; {named!r} has {list(odd)} where others have {list(usual)} (channels, height, "
            "width); bring them to one with `angulus prepare images`, or faces with `angulus prepare faces`"
        )
    return model.embed(torch.stack(pixels)).cpu().numpy()


def _join(rows: list[Row], kept: list[Path], model: str, out: Path) -> None:
    """Write the embeddings file, and remove the parts."""
    features = np.concatenate([np.load(part) for part in kept])
    named = all(row.identity for row in rows)
    scored = all(row.score is not None for row in rows)
    Embeddings(
        features,
        np.array([row.id for row in rows]),
        norms=np.linalg.norm(features.astype(np.float64), axis=1),
        labels=np.array([row.identity for row in rows]) if named else None,
        detector_scores=np.array([row.score for row in rows], dtype=np.float64) if scored else None,
        models=np.full(len(rows), model),
    ).write(out)
    shutil.rmtree(kept[0].parent)


def read_pixels(source: Path, config: artifact.Config) -> Iterator[tuple[Row, torch.Tensor]]:
    """The images of a source as a model takes them, uint8 [channels, height, width]; another size is an error."""
    return (_decoded(row, config) for row in _rows(source))


def drawn_pixels(source: Path, config: artifact.Config, most: int, seed: int = 0) -> list[tuple[Row, torch.Tensor]]:
    """At most so many images of a source, as `read_pixels` gives them, each subset as likely as another."""
    rng = np.random.default_rng(seed)
    kept: list[Row] = []
    for count, row in enumerate(_rows(source)):
        if count < most:
            kept.append(row)
        elif (place := int(rng.integers(count + 1))) < most:
            kept[place] = row
    return [_decoded(row, config) for row in kept]


def _decoded(row: Row, config: artifact.Config) -> tuple[Row, torch.Tensor]:
    pixels = pixels_of(row.image, row.id, config.in_channels)
    check_size(pixels, config, row.id)
    return dataclasses.replace(row, image=b"-"), pixels


def check_size(pixels: torch.Tensor, config: artifact.Config, what: str) -> None:
    """Refuse an image [channels, height, width] of another size than the model's."""
    if tuple(pixels.shape[1:]) != config.image_size:
        sides = " x ".join(map(str, config.image_size))
        raise checks.InputError(
            f"{what} must be {sides} pixels, as the model's config.json says; got "
            f"{pixels.shape[1]} x {pixels.shape[2]} (height x width); align and scale it with angulus prepare "
            "(or verify it with --align)"
        )


def _rows(source: Path) -> Iterator[Row]:
    """The rows of a source; an image that cannot be read is an error here, not left out."""
    for item in read_source(source):
        if not isinstance(item, LeftOut):
            yield item
        elif item.image:
            raise checks.InputError(f"{item.where} cannot be embedded: {item.reason}; take it out of {source}")


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while some := list(islice(rows, size)):
        yield some


def pixels_of(image: bytes, what: str, channels: int) -> torch.Tensor:
    """uint8 [channels, height, width] of an encoded image, which errors call `what`."""
    pixels = torch.from_numpy(decode.decode(image, what)).permute(2, 0, 1)
    if channels == 1:
        pixels = pixels.float().mean(dim=0, keepdim=True).round().to(torch.uint8)
    return pixels
