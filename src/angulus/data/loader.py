"""Batches from records: read and decoded by worker processes, augmented on the device, the same after a resume."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data import Sampler as TorchSampler

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.data import decode
from angulus.data.augment import Augment
from angulus.data.records.pixels import DecodedPixels, Encoded
from angulus.data.records.reader import Records
from angulus.data.sampler import Sampler


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's images on the device.

    Attributes:
        pixels: uint8 [B, 3, height, width], RGB; the contract scales them.
        labels: int64 [B].
        rows: int64 [B], the rows of the records.
    """

    pixels: Tensor
    labels: Tensor
    rows: Tensor


@dataclass(frozen=True, eq=False)
class Part:
    """The rows that one trains on.

    Attributes:
        rows: [N] rows of the records.
        labels: [N] int64, the class of each.
        names: [C] the identity of each class, sorted.
        size: (width, height) of every image.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    names: NDArray[np.str_]
    size: tuple[int, int]


def part_of(records: Records, rows: ArrayLike | None = None) -> Part:
    """The rows with classes 0, 1, ... for their identities, in the order of the names.

    Args:
        records: where they are.
        rows: [N], no repeats; all if None.

    Raises:
        checks.InputError: no rows, repeats, rows without identity, images of several sizes.
    """
    chosen = np.arange(len(records)) if rows is None else np.asarray(rows)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or not len(chosen) or len(np.unique(chosen)) != len(chosen):
        raise InputError(f"rows must be [N] whole numbers, at least one, none twice; got {chosen!r:.80}")
    if chosen.min() < 0 or chosen.max() >= len(records):
        raise InputError(f"rows must be in [0, {len(records)}); got {chosen.min()} to {chosen.max()}")
    identities = records.identities[chosen]
    unknown = np.flatnonzero(identities == "")
    if len(unknown):
        raise InputError(
            f"every image to train on must have an identity; {len(unknown)} in {records.where} have none, row "
            f"{chosen[unknown[0]]} ({records.ids[chosen[unknown[0]]]}) first; take them out of the source and convert "
            "it to new records, or from Python give the rows that have one"
        )
    sizes, counts = np.unique(records.sizes[chosen], axis=0, return_counts=True)
    if len(sizes) > 1:
        listed = ", ".join(f"{w}x{h} ({n})" for (w, h), n in list(zip(sizes.tolist(), counts, strict=True))[:4])
        odd = int(chosen[(records.sizes[chosen] == sizes[counts.argmin()]).all(axis=1).argmax()])
        raise InputError(
            f"images must be of one size to make batches; {records.where} has {len(sizes)}: {listed}; "
            f"{str(records.ids[odd])!r} (row {odd}) is one of the fewest; resize them with `angulus prepare images`, "
            "align faces with `angulus prepare faces`, or choose rows"
        )
    names, labels = np.unique(identities, return_inverse=True)
    return Part(chosen.astype(np.int64), labels.astype(np.int64), names, (int(sizes[0, 0]), int(sizes[0, 1])))


class Loader:
    """Batches of an epoch from any step on; what comes depends on seed, epoch, step and rank alone.

    Workers start with the first epoch and stay. Each reads its own batches by row and decodes them.
    """

    def __init__(
        self,
        images: Encoded,
        part: Part,
        sampler: Sampler,
        *,
        augment: Augment | None = None,
        workers: int = 2,
        device: torch.device | str = "cpu",
    ) -> None:
        """Set up the workers' part; nothing is read yet.

        Args:
            images: the records.
            part: which rows, their classes and size.
            sampler: over the positions 0 ... N − 1 of `part`.
            augment: done on the device, in batches; None: nothing.
            workers: processes that read and decode; 0: this one does.
            device: where batches go.

        Raises:
            checks.InputError: workers < 0, or a sampler over more positions than `part` has.
        """
        if any(int(batch.max()) >= len(part.rows) for batch in sampler.batches(0)):
            raise InputError(f"sampler must be over the {len(part.rows)} rows of the part; it goes beyond them")
        self._part, self._sampler, self._augment = part, sampler, augment
        self._device = torch.device(device)
        self._where = images.where
        self._order = _Order()
        workers = checks.integer("workers", workers, low=0)
        self._loader: DataLoader[Any] = DataLoader(
            _Decoded(DecodedPixels(images, part.rows, part.size, threads=1)),
            batch_size=None,  # the sampler gives whole batches
            sampler=self._order,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            persistent_workers=workers > 0,
            pin_memory=self._device.type == "cuda",
            worker_init_fn=_quiet_threads,
        )

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return self._sampler.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from step `start` on.

        Raises:
            checks.InputError: an image that cannot be read or decoded, or has another size; its row is named.
        """
        self._order.batches = self._sampler.batches(epoch, start)
        for step, (found, decoded) in enumerate(zip(self._order.batches, self._loader, strict=True), start):
            if isinstance(decoded, str):
                raise InputError(decoded)
            pixels = decoded.to(self._device, non_blocking=True)
            if self._augment is not None:
                pixels = self._augment(pixels, self._generator(epoch, step))
            labels, rows = (torch.from_numpy(of[found]) for of in (self._part.labels, self._part.rows))
            yield Batch(pixels, labels.to(self._device, non_blocking=True), rows)

    def _generator(self, epoch: int, step: int) -> torch.Generator:
        mixed = np.random.SeedSequence((self._sampler.seed, epoch, step, self._sampler.rank)).generate_state(
            1, np.uint64
        )
        return torch.Generator().manual_seed(int(mixed[0] >> np.uint64(1)))


class _Order(TorchSampler[NDArray[np.int64]]):
    """Hands the epoch's batches to the workers, which outlive it."""

    def __init__(self) -> None:
        self.batches: list[NDArray[np.int64]] = []

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Decoded(Dataset[Any]):
    """Positions -> pixels uint8 [B, 3, height, width] in channels-last memory, or the sentence of what went wrong."""

    def __init__(self, pixels: DecodedPixels) -> None:
        self._pixels = pixels

    def __getitem__(self, positions: NDArray[np.int64]) -> Tensor | str:
        try:
            return self._pixels[positions]
        except InputError as error:  # an exception would come out of a worker with its whole traceback as the message
            return str(error)


def _quiet_threads(worker: int) -> None:
    """One thread per worker: OpenCV's pool neither survives a fork nor helps with small images."""
    opencv = decode.opencv()
    if opencv is not None:
        opencv.setNumThreads(0)
