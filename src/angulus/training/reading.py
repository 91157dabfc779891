"""Images for the steps of a training: read ahead by worker processes, and those that cannot be read listed."""

from __future__ import annotations

import contextlib
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
from angulus.data.loader import data_loader, read_batches
from angulus.data.sets.images import Images, read
from angulus.data.sources import LeftOut
from angulus.distributed.runtime import Ranks
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


class Unreadable:
    """Lists the images that a training could not read in the run's folder, and says when they have become too many.

    Every process of a run adds to the same list.
    """

    def __init__(self, folder: Path, images: Images) -> None:
        self._path = folder / LEFT_OUT
        self._pixels: Any = getattr(images.pixels, "source", images.pixels)
        self._before = listed_names(folder)
        self._read = self._path.stat().st_size if self._path.is_file() else 0  # bytes of the list
        self._bad: set[str] = set()  # since then, on all processes

    def add(self, bad: dict[int, str]) -> InputError | None:
        """Add row -> why, as `DecodedPixels.read` gives it; an error if they have become too many."""
        self._pixels.bad.update(bad)
        self._bad |= self._of_all()
        items = [LeftOut(self._pixels.name_of(row), reason) for row, reason in bad.items()]
        new = [item for item in items if item.where not in self._before and item.where not in self._bad]
        if new:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(left_out_text(new))
            if not self._before and not self._bad:
                checks.warn(f"{new[0].where} cannot be read: {new[0].reason}; {self._path} lists it and any others")
        self._bad.update(item.where for item in items)
        try:
            self._pixels.refuse_many(len(self._bad))
        except InputError as error:
            return error
        return None

    def _of_all(self) -> set[str]:
        """The names that processes have added to the list since it was last read."""
        if not self._path.is_file():
            return set()
        with self._path.open("rb") as file:
            file.seek(self._read)
            lines = file.read()
        lines = lines[: lines.rfind(b"\n") + 1]  # without one that is being written
        self._read += len(lines)
        return _names(lines)


def note_test(folder: Path, images: Images, ranks: Ranks) -> None:
    """Add the images of a test that a rank could not read to the run's list; InputError if they are too many.

    Every rank calls it.
    """
    pixels = getattr(images.pixels, "source", images.pixels)
    bad = {row: why for own in ranks.gather_objects(dict(getattr(pixels, "bad", {}))) for row, why in own.items()}

    def note() -> None:
        if bad and (error := Unreadable(folder, images).add(bad)):
            raise error

    ranks.run_on_first(note)


def listed_names(folder: Path) -> set[str]:
    """The images that the run's list names."""
    path = folder / LEFT_OUT
    return _names(path.read_bytes()) if path.is_file() else set()


def _names(lines: bytes) -> set[str]:
    names = set()
    for line in lines.splitlines():
        with contextlib.suppress(ValueError):  # a line that a killed process has not ended
            names.add(str(json.loads(line)["where"]))
    return names
