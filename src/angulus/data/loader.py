"""Batches from records: read and decoded by worker processes, augmented on the device, the same after a resume."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.data import decode
from angulus.data.augment import Augment
from angulus.data.sampler import Sampler


class Encoded(Protocol):
    """A store of encoded images, such as `Records`."""

    @property
    def where(self) -> str:
        """Its name in messages."""

    def images(self, rows: ArrayLike) -> list[bytes]:
        """The encoded images of some rows."""


class Identified(Encoded, Protocol):
    """Encoded images of known people or classes, such as `Records`."""

    @property
    def ids(self) -> NDArray[np.str_]:
        """[N] names of the images."""

    @property
    def identities(self) -> NDArray[np.str_]:
        """[N] who or what is shown; "" if unknown."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """[N, 2] width and height in pixels."""

    def __len__(self) -> int:
        """N."""


class DecodedPixels:
    """uint8 [N, 3, height, width], RGB, decoded on each access: index k is the image of row `rows[k]` of records.

    For images that do not fit in memory; indexed as `angulus.data.sets.images.Pixels`. Cheap to fork and to pickle.
    """

    dtype = torch.uint8

    def __init__(
        self, images: Encoded, rows: NDArray[np.int64], size: tuple[int, int], threads: int | None = None
    ) -> None:
        """Remember where the images are; nothing is read yet.

        Args:
            size: (width, height) of every image.
            threads: for decoding, >= 1; None: as many as PyTorch uses, at most 16.
        """
        self._images, self._rows = images, rows
        self._threads = min(16, torch.get_num_threads()) if threads is None else threads
        self.shape = torch.Size((len(rows), 3, size[1], size[0]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor | slice | NDArray[np.int64]) -> Tensor:
        """The images of rows [B], in channels-last memory; InputError names the row of an image that cannot be used."""
        chosen = self._rows[rows.numpy() if isinstance(rows, Tensor) else rows]
        _, channels, height, width = self.shape
        pixels = np.empty((len(chosen), height, width, channels), dtype=np.uint8)
        data = self._images.images(chosen)

        def fill(places: NDArray[np.int64]) -> None:
            for place in places.tolist():
                pixels[place] = self._decode(int(chosen[place]), data[place])

        shares = np.array_split(np.arange(len(chosen)), self._threads)
        if self._threads == 1:
            fill(shares[0])
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                list(pool.map(fill, shares))  # raises the error of the first row that has one
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def _decode(self, row: int, data: bytes) -> NDArray[np.uint8]:
        what = f"row {row} of {self._images.where}"
        image = decode.decode(data, what)
        height, width = self.shape[2:]
        if image.shape[:2] != (height, width):
            rule = f"{what} must be {width}x{height} as the others"
            raise InputError(f"{rule}; got {image.shape[1]}x{image.shape[0]}, as its EXIF tag turns it")
        return image


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's images on the device."""

    pixels: Tensor  # uint8 [B, 3, height, width], RGB; the contract scales them
    labels: Tensor  # int64 [B]
    rows: Tensor  # int64 [B], the rows of the records


@dataclass(frozen=True, eq=False)
class Part:
    """The rows to train on."""

    rows: NDArray[np.int64]  # [N] rows of the records
    labels: NDArray[np.int64]  # [N] int64, the class of each
    names: NDArray[np.str_]  # [C] the identity of each class, sorted
    size: tuple[int, int]  # (width, height) of every image


def part_of(records: Identified, rows: ArrayLike | None = None) -> Part:
    """Number the identities of rows as classes 0, 1, ... in the order of their names.

    `rows` are [N], or None for all. Raises InputError for no rows, repeats, rows without identity, several sizes.
    """
    chosen = np.arange(len(records)) if rows is None else np.asarray(rows)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or not len(chosen) or len(np.unique(chosen)) != len(chosen):
        raise InputError(f"rows must be [N] whole numbers, at least one, none twice; got {chosen!r:.80}")
    if chosen.min() < 0 or chosen.max() >= len(records):
        raise InputError(f"rows must be in [0, {len(records)}); got {chosen.min()} to {chosen.max()}")
    identities = records.identities[chosen]
    unknown = np.flatnonzero(identities == "")
    if len(unknown):
        first = f"row {chosen[unknown[0]]} ({records.ids[chosen[unknown[0]]]}) first"
        rule = f"every image to train on must have an identity; {len(unknown)} in {records.where} have none, {first}"
        way = "remove them from the source and convert it to new records, or from Python pass the rows that have one"
        raise InputError(f"{rule}; {way}")
    sizes, counts = np.unique(records.sizes[chosen], axis=0, return_counts=True)
    if len(sizes) > 1:
        listed = ", ".join(f"{w}x{h} ({n})" for (w, h), n in list(zip(sizes.tolist(), counts, strict=True))[:4])
        odd = int(chosen[(records.sizes[chosen] == sizes[counts.argmin()]).all(axis=1).argmax()])
        rule = f"images must be of one size to make batches; {records.where} has {len(sizes)}: {listed}"
        way = "resize them with `angulus prepare images`, align faces with `angulus prepare faces`, or choose rows"
        raise InputError(f"{rule}; {str(records.ids[odd])!r} (row {odd}) is one of the fewest; {way}")
    names, labels = np.unique(identities, return_inverse=True)
    return Part(chosen.astype(np.int64), labels.astype(np.int64), names, (int(sizes[0, 0]), int(sizes[0, 1])))


class Loader:
    """Batches of an epoch from any step on; they depend only on seed, epoch, step and rank.

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
        """Prepare the workers; nothing is read yet.

        Args:
            sampler: over the positions 0 ... N − 1 of `part`.
            augment: applied on the device, in batches; None: nothing.
            workers: processes that read and decode; 0: this process does.
        """
        if any(int(batch.max()) >= len(part.rows) for batch in sampler.batches(0)):
            raise InputError(f"sampler must be over the {len(part.rows)} rows of the part; it goes beyond them")
        self._part, self._sampler, self._augment = part, sampler, augment
        self._device = torch.device(device)
        self._batches: list[NDArray[np.int64]] = []  # the epoch's, from which the workers get theirs
        workers = checks.integer("workers", workers, low=0)
        self._loader: DataLoader[Any] = DataLoader(
            _Decoded(DecodedPixels(images, part.rows, part.size, threads=1)),
            batch_size=None,  # the sampler gives whole batches
            sampler=self._batches,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            persistent_workers=workers > 0,
            pin_memory=self._device.type == "cuda",
            worker_init_fn=_use_one_thread,
        )

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return self._sampler.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from step `start` on; InputError names the row of an image that cannot be used."""
        batches = self._sampler.batches(epoch, start)
        self._batches[:] = batches
        for step, (positions, decoded) in enumerate(zip(batches, self._loader, strict=True), start):
            if isinstance(decoded, str):
                raise InputError(decoded)
            pixels = decoded.to(self._device, non_blocking=True)
            if self._augment is not None:
                pixels = self._augment(pixels, self._generator(epoch, step))
            labels, rows = (torch.from_numpy(values[positions]) for values in (self._part.labels, self._part.rows))
            yield Batch(pixels, labels.to(self._device, non_blocking=True), rows)

    def _generator(self, epoch: int, step: int) -> torch.Generator:
        sequence = np.random.SeedSequence((self._sampler.seed, epoch, step, self._sampler.rank))
        return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))


class _Decoded(Dataset[Any]):
    """Positions -> pixels uint8 [B, 3, height, width] in channels-last memory, or the message of an error."""

    def __init__(self, pixels: DecodedPixels) -> None:
        self._pixels = pixels

    def __getitem__(self, positions: NDArray[np.int64]) -> Tensor | str:
        try:
            return self._pixels[positions]
        except InputError as error:  # raised in a worker, it would arrive with its whole traceback as the message
            return str(error)


def _use_one_thread(worker: int) -> None:
    """One thread per worker: OpenCV's pool neither survives a fork nor helps with small images."""
    opencv = decode.opencv()
    if opencv is not None:
        opencv.setNumThreads(0)
