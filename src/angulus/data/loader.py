"""Images of a data set, decoded when they are needed, in this process or by workers."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.data import decode
from angulus.data.resize import Resize
from angulus.data.sets.images import read

FEWEST_BAD = 10  # images that may be unreadable in a set of any size
_TRIES = 3  # images of its class tried in the place of an unreadable one
_GREY = 127


def most_unreadable(share: float | None, total: int) -> int:
    """How many of `total` images may be unreadable: a share, at least ten; none if `share` is None."""
    return 0 if share is None else max(FEWEST_BAD, int(share * total))


def too_many(where: str, count: int, total: int, most: int, first: tuple[str, str]) -> InputError:
    """The error for `count` unreadable images of `total`; `first` are the name of one and the reason."""
    way = "mend them, or raise data.most_bad" if most else "data.on_error=skip leaves a few out"
    rule = f"at most {most:,} of the {total:,} images of {where} may be unreadable"
    return InputError(f"{rule}; got {count:,}, {first[0]} first: {first[1]}; {way}")


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

    With `most_bad`, an image that cannot be read or decoded raises no error: the next one of its class that can stands
    in for it, or grey where three others of the class fail too. So labels, the sizes of batches and the images per
    class stay as they are, and a resumed run sees the same.

    Attributes:
        bad: row -> why it could not be read, of the rows asked for in this process.
        limit: how many rows may be bad: `most_bad` of them, at least ten; None: no error is skipped.
    """

    dtype = torch.uint8

    def __init__(
        self,
        images: Encoded,
        rows: NDArray[np.int64],
        size: tuple[int, int],
        threads: int | None = None,
        *,
        resize: Resize | None = None,
        labels: NDArray[np.int64] | None = None,
        most_bad: float | None = None,
    ) -> None:
        """Remember where the images are; nothing is read yet.

        Args:
            size: (width, height) of every image.
            threads: for decoding, >= 1; None: as many as PyTorch uses, at most 16. A worker process uses one.
            resize: brings every image to `size`; None: they have it.
            labels: [N] the class of each; only for `most_bad`.
            most_bad: the share of the images that may be unreadable; None: an unreadable image is an error.
        """
        self._images, self._rows, self._resize, self._labels = images, rows, resize, labels
        self._threads = min(16, torch.get_num_threads()) if threads is None else threads
        self.limit = None if most_bad is None else most_unreadable(most_bad, len(rows))
        self.bad: dict[int, str] = {}
        self.shape = torch.Size((len(rows), 3, size[1], size[0]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor | slice | NDArray[np.int64]) -> Tensor:
        """The images of rows [B], in channels-last memory; InputError names the row of an image that cannot be used."""
        return self.read(rows)[0]

    def read(self, rows: Tensor | slice | NDArray[np.int64]) -> tuple[Tensor, dict[int, str]]:
        """The images of rows [B], and the rows of the records that others stand in for, each with the reason."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        positions = rows.numpy() if isinstance(rows, Tensor) else rows
        _, channels, height, width = self.shape
        pixels = np.empty((len(positions), height, width, channels), dtype=np.uint8)
        data = self._read(self._rows[positions])
        bad: dict[int, str] = {}

        def fill(places: NDArray[np.int64]) -> None:
            for place in places.tolist():
                pixels[place] = self._pixels(int(positions[place]), data[place], bad)

        threads = 1 if get_worker_info() is not None else self._threads
        shares = np.array_split(np.arange(len(positions)), threads)
        if threads == 1:
            fill(shares[0])
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(fill, shares))  # raises the error of the first row that has one
        self.bad |= bad
        return torch.from_numpy(pixels).permute(0, 3, 1, 2), bad

    def refuse_many(self, count: int) -> None:
        """Refuse to go on with more unreadable images than `limit`; `count` are those of all processes."""
        if self.limit is not None and count > self.limit:
            first = next((self.name_of(row), reason) for row, reason in self.bad.items())
            raise too_many(self._images.where, count, len(self), self.limit, first)

    def name_of(self, row: int) -> str:
        """The name of a row of the records."""
        ids = getattr(self._images, "ids", None)
        return f"row {row}" if ids is None else str(ids[row])

    def _read(self, chosen: NDArray[np.int64]) -> list[Any]:
        """The encoded images of rows, or where they may fail, the errors in their place."""
        try:
            return self._images.images(chosen)
        except InputError:
            if self.limit is None:
                raise
        return [self._one(row) for row in chosen.tolist()]

    def _one(self, row: int) -> bytes | InputError:
        try:
            return self._images.images([row])[0]
        except InputError as error:
            return error

    def _pixels(self, position: int, data: bytes | InputError, bad: dict[int, str]) -> NDArray[np.uint8]:
        row = int(self._rows[position])
        try:
            return self._decode(row, data)
        except InputError as error:
            if self.limit is None or self._labels is None:
                raise
            bad[row] = str(error)
        same = np.flatnonzero(self._labels == self._labels[position])
        others = np.roll(same, -1 - int(np.searchsorted(same, position)))[: min(_TRIES, len(same) - 1)]
        for other in self._rows[others].tolist():
            try:
                return self._decode(other, self._one(other))
            except InputError:
                continue
        return np.full((*self.shape[2:], 3), _GREY, np.uint8)

    def _decode(self, row: int, data: bytes | InputError) -> NDArray[np.uint8]:
        if isinstance(data, InputError):
            raise data
        what = f"row {row} of {self._images.where}"
        image = decode.decode(data, what)
        height, width = self.shape[2:]
        if self._resize is not None:
            return np.asarray(self._resize.apply(image)[0])
        if image.shape[:2] != (height, width):
            rule = f"{what} must be {width}x{height} as the others"
            raise InputError(f"{rule}; got {image.shape[1]}x{image.shape[0]}, as its EXIF tag turns it")
        return image


@dataclass(frozen=True, eq=False)
class Part:
    """The rows to train on."""

    rows: NDArray[np.int64]  # [N] rows of the records
    labels: NDArray[np.int64]  # [N] int64, the class of each
    names: NDArray[np.str_]  # [C] the identity of each class, sorted
    size: tuple[int, int]  # (width, height) of every image


def part_of(records: Identified, rows: ArrayLike | None = None, size: tuple[int, int] | None = None) -> Part:
    """Number the identities of rows as classes 0, 1, ... in the order of their names.

    `rows` are [N], or None for all; `size` is (width, height) that images are resized to, None if they are not. Raises
    InputError for no rows, repeats, rows without identity, several sizes.
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
    sizes, counts = np.unique(records.sizes[chosen] if size is None else [size], axis=0, return_counts=True)
    if len(sizes) > 1:
        listed = ", ".join(f"{w}x{h} ({n})" for (w, h), n in list(zip(sizes.tolist(), counts, strict=True))[:4])
        odd = int(chosen[(records.sizes[chosen] == sizes[counts.argmin()]).all(axis=1).argmax()])
        rule = f"images must be of one size to make batches; {records.where} has {len(sizes)}: {listed}"
        way = "set data.size, resize them with `angulus prepare images`, or align faces with `angulus prepare faces`"
        raise InputError(f"{rule}; {str(records.ids[odd])!r} (row {odd}) is one of the fewest; {way}")
    names, labels = np.unique(identities, return_inverse=True)
    return Part(chosen.astype(np.int64), labels.astype(np.int64), names, (int(sizes[0, 0]), int(sizes[0, 1])))


def data_loader(pixels: Any, batches: Iterable[Any], workers: int, *, pin: bool, stay: bool = False) -> DataLoader[Any]:
    """Reads whole batches of `pixels`, as `images.read` does, by worker processes; for `read_batches`.

    Args:
        batches: the rows of each batch; a list may change between epochs.
        workers: processes that read and decode; 0: this process does.
        pin: whether to put pixels into memory that a GPU copies fast.
        stay: whether workers outlive an epoch.
    """
    workers = checks.integer("workers", workers, low=0)
    return DataLoader(
        _Decoded(pixels),
        batch_size=None,  # the sampler gives whole batches
        sampler=batches,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        persistent_workers=stay and workers > 0,
        pin_memory=pin,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # its own, or it would draw from the one that dropout uses
    )


def read_batches(loader: DataLoader[Any]) -> Iterator[tuple[Tensor, dict[int, str]]]:
    """The pixels of each batch, and the rows that others stand in for; an error of a worker is an InputError."""
    try:
        for batch in loader:
            if isinstance(batch, str):
                raise InputError(batch)
            yield batch
    except RuntimeError as error:
        if "worker" not in str(error):
            raise
        rule = "the processes that read images must keep running"
        why = f"one ended: {checks.one_line(error)[:200]}; if memory ran out, lower the number of workers"
        raise InputError(f"{rule}; {why}") from error


class _Decoded(Dataset[Any]):
    """Rows -> pixels uint8 [B, 3, height, width] in channels-last memory and bad rows, or the message of an error."""

    def __init__(self, pixels: Any) -> None:
        self._pixels = pixels

    def __getitem__(self, rows: Any) -> tuple[Tensor, dict[int, str]] | str:
        try:
            return read(self._pixels, rows)
        except InputError as error:  # raised in a worker, it would arrive with its whole traceback as the message
            return str(error)


def _start_worker(worker: int) -> None:
    """One thread per worker, as OpenCV's pool neither survives a fork nor helps here; Ctrl-C is for the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    opencv = decode.opencv()
    if opencv is not None:
        opencv.setNumThreads(0)
