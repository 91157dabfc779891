"""Images for the steps of a training: read ahead by worker processes, and those that cannot be read listed."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.data.convert import LEFT_OUT, left_out_text
from angulus.data.loader import data_loader, read, read_batches
from angulus.data.sets.images import Images
from angulus.data.sources import LeftOut
from angulus.training.batches import rank_rows
from angulus.training.job import Job


def read_ahead(job: Job, batches: Iterable[Tensor]) -> Generator[tuple[Tensor, Tensor, dict[int, str]]]:
    """The rows of each batch; the pixels of this rank's share, uint8; the rows that others stand in for.

    With `training.workers`, images that do not fit in memory are read by that many processes, which start with the
    first batch and end with the iterator, at most four batches each ahead. The batches are the same without them.
    """
    pixels: Any = job.images.pixels
    own = ((rows, torch.cat(rank_rows(rows, job.settings, job.ranks))) for rows in batches)
    if job.settings.workers == 0 or isinstance(pixels, Tensor):
        for rows, share in own:
            yield rows, *read(pixels, share)
        return
    ahead: deque[Tensor] = deque()

    def shares() -> Iterator[Tensor]:
        for rows, share in own:
            ahead.append(rows)
            yield share

    loader = data_loader(pixels, shares(), job.settings.workers, pin=job.device.type == "cuda")
    for decoded, bad in read_batches(loader):
        yield ahead.popleft(), decoded, bad


def note_unreadable(folder: Path, images: Images, bad: dict[int, str]) -> InputError | None:
    """Add images that could not be read to the run's list; an error if they have become too many.

    `bad` is row -> why, as `DecodedPixels.read` gives it; other processes of the run add to the same list.
    """
    pixels: Any = getattr(images.pixels, "source", images.pixels)
    listed = listed_names(folder)
    pixels.bad.update(bad)
    new = [LeftOut(pixels.name_of(row), reason) for row, reason in bad.items()]
    new = [item for item in new if item.where not in listed]
    if new:
        with (folder / LEFT_OUT).open("a", encoding="utf-8") as file:
            file.write(left_out_text(new))
    if new and not listed:
        checks.warn(f"{new[0].where} cannot be read: {new[0].reason}; {folder / LEFT_OUT} lists it and any others")
    try:
        pixels.refuse_many()
    except InputError as error:
        return error
    return None


def note_test(folder: Path, images: Images | None) -> None:
    """Add the images of a test that could not be read to the run's list."""
    pixels: Any = None if images is None else getattr(images.pixels, "source", images.pixels)
    bad = getattr(pixels, "bad", {})
    if images is not None and bad:
        note_unreadable(folder, images, dict(bad))


def listed_names(folder: Path) -> set[str]:
    """The images that the run's list names."""
    path = folder / LEFT_OUT
    return {json.loads(line)["where"] for line in path.read_text("utf-8").splitlines()} if path.is_file() else set()
