"""Classes of the images of a source, by a model that was saved with its class weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks, files
from angulus.data.records import Row
from angulus.data.sources import LeftOut
from angulus.data.sources.items import row_or_left_out
from angulus.models import batching, inputs
from angulus.models.artifact import Config, Model
from angulus.models.embed import HOPELESS, ON_ERROR

NAMED = 5  # images that an error names


@dataclass(frozen=True, eq=False)
class Predictions:
    """The likeliest classes of N images.

    Attributes:
        names: of all C classes.
        ids: of the images.
        order: int64 [N, k], the numbers of the k likeliest classes, falling.
        probabilities: float32 [N, k], theirs.
        labels: what the source says that each image shows, "" where it does not.
        left_out: what could not be read.
    """

    names: tuple[str, ...]
    ids: list[str]
    order: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    labels: list[str]
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def best(self) -> list[str]:
        """The likeliest class of each image."""
        return [self.names[row[0]] for row in self.order.tolist()]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which images have a label that is one of the classes."""
        names = set(self.names)
        return np.array([label in names for label in self.labels], dtype=bool)

    @property
    def accuracy(self) -> float | None:
        """The share of the images with a known label that are classified correctly; None without such images."""
        known = self.known
        if not known.any():
            return None
        return float((np.array(self.best, dtype=object) == np.array(self.labels, dtype=object))[known].mean())


def predict(
    model: Model,
    sources: Sequence[Path],
    *,
    top: int = 5,
    batch: int = 256,
    on_error: str = "stop",
    on_images: Callable[[int], None] = lambda count: None,
) -> Predictions:
    """Classify the images of some sources.

    Args:
        model: with class weights.
        sources: image files, or anything that `angulus convert` reads. Images have the size that the contract states.
            With several sources, ids begin with their path.
        top: how many classes to keep of each image.
        batch: images at a time.
        on_error: "stop" at images that cannot be read, or "skip" them.
        on_images: called with the number of images done.

    Raises:
        checks.InputError: a model without class weights, one of volumes, images that cannot be read or are of another
            size, no image.
    """
    checks.integer("top", top, low=1)
    checks.integer("batch", batch, low=1)
    checks.choice("--on-error", on_error, ON_ERROR)
    names = model.need_classes().names
    if len(model.config.image_size) != 2:
        raise checks.InputError(
            f"this model takes volumes of {' x '.join(map(str, model.config.image_size))} voxels, and images are flat; "
            "give a folder of CT scans, and a list of positions in them with --candidates"
        )
    left_out: list[LeftOut] = []
    rows: list[Row] = []
    orders, probabilities = [], []
    for part in _decoded(_rows(sources, left_out), batch, model.config, left_out):
        order, values = _best(model, torch.stack([pixels for _, pixels in part]), min(top, len(names)))
        orders.append(order)
        probabilities.append(values)
        rows += [row for row, _ in part]
        on_images(len(rows))
    if left_out and (on_error == "stop" or not rows):
        raise checks.InputError(_refusal(left_out, len(rows)))
    if not rows:
        raise checks.InputError(f"{sources[0]} holds no image to classify")
    labels = [row.identity for row in rows]
    return Predictions(
        names, [row.id for row in rows], np.concatenate(orders), np.concatenate(probabilities), labels, left_out
    )


def _best(model: Model, pixels: torch.Tensor, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The numbers and probabilities of the likeliest classes; of equals the first one first."""
    probabilities = model.predict(pixels).probabilities.cpu()
    order = probabilities.argsort(dim=1, descending=True, stable=True)[:, :count]
    return order.numpy(), probabilities.gather(1, order).numpy()


def _rows(sources: Sequence[Path], left_out: list[LeftOut]) -> Iterator[Row]:
    """The rows of all sources."""
    for source in sources:
        for row in _rows_of(source, left_out):
            alone = len(sources) == 1 or row.id == str(source)
            yield row if alone else Row(f"{source}/{row.id}", row.image, row.identity)


def _rows_of(source: Path, left_out: list[LeftOut]) -> Iterator[Row]:
    if not source.name.lower().endswith(files.IMAGE_SUFFIXES) or source.is_dir():
        yield from inputs.rows(source, left_out)
        return
    item = row_or_left_out(str(source), inputs.read_image(source), "")
    if isinstance(item, LeftOut):
        left_out.append(item)
    else:
        yield item


def _decoded(
    rows: Iterator[Row], size: int, config: Config, left_out: list[LeftOut]
) -> Iterator[list[tuple[Row, torch.Tensor]]]:
    """Batches of rows with their pixels; those that are no images of the model's size go to `left_out`."""

    def start(batch: list[Row], pool: ThreadPoolExecutor) -> list[Future[tuple[Row, torch.Tensor]]]:
        return [pool.submit(inputs.decode_row, row, config, "the image") for row in batch]

    count = 0
    batches = iter(lambda: list(islice(rows, size)), [])
    with contextlib.closing(batching.ahead(batches, start)) as started:
        for batch, futures in started:
            part = []
            for row, result in zip(batch, map(batching.result_or_reason, futures), strict=True):
                if isinstance(result, checks.InputError):
                    left_out.append(LeftOut(row.id, str(result)))
                    if not count and len(left_out) >= HOPELESS:
                        raise checks.InputError(_refusal(left_out, 0)) from result
                else:
                    count += 1
                    part.append(result)
            if part:
                yield part


def _refusal(left_out: Sequence[LeftOut], count: int) -> str:
    first = left_out[0]
    if len(left_out) == 1:
        which = f"{first.where} cannot be classified: {first.reason}"
    else:
        others = ", ".join(item.where for item in left_out[1:NAMED])
        more = f" and {len(left_out) - NAMED:,} more" if len(left_out) > NAMED else ""
        which = (
            f"{len(left_out):,} images cannot be classified: {first.where} ({first.reason}); likewise {others}{more}"
        )
    return f"{which}; or leave such images out with --on-error skip" if count else which
