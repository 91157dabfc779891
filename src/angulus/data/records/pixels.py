"""Images of records as pixels that are read and decoded when they are asked for: what does not fit in memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from angulus.core.checks import InputError
from angulus.data.decode import decode


class Encoded(Protocol):
    """Where encoded images come from; `Records` are such."""

    @property
    def where(self) -> str:
        """What messages call it."""

    def images(self, rows: ArrayLike) -> list[bytes]:
        """The encoded images of some rows."""


class DecodedPixels:
    """uint8 [N, 3, height, width], RGB: row k is the image of row `rows[k]` of records.

    Every indexing reads and decodes anew; `angulus.data.sets.images.Pixels` says how. Cheap to fork and to pickle.
    """

    dtype = torch.uint8

    def __init__(
        self, images: Encoded, rows: NDArray[np.int64], size: tuple[int, int], threads: int | None = None
    ) -> None:
        """Keep where the images are; nothing is read yet.

        Args:
            images: the records.
            rows: [N], of the records.
            size: (width, height) of every image.
            threads: that decode, >= 1; None: as many as PyTorch uses, at most 16.
        """
        self._images, self._rows = images, rows
        self._threads = min(16, torch.get_num_threads()) if threads is None else threads
        self.shape = torch.Size((len(rows), 3, size[1], size[0]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor | slice | NDArray[np.int64]) -> Tensor:
        """The images of rows [B], in channels-last memory.

        Raises:
            checks.InputError: an image that cannot be read or decoded, or has another size; its row is named.
        """
        chosen = self._rows[rows.numpy() if isinstance(rows, Tensor) else rows]
        _, channels, height, width = self.shape
        pixels = np.empty((len(chosen), height, width, channels), dtype=np.uint8)
        data = self._images.images(chosen)

        def fill(places: NDArray[np.int64]) -> None:
            for place in places.tolist():
                pixels[place] = self._decoded(int(chosen[place]), data[place])

        shares = np.array_split(np.arange(len(chosen)), self._threads)
        if self._threads == 1:
            fill(shares[0])
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                list(pool.map(fill, shares))  # an error comes out here, the first row's first
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def _decoded(self, row: int, data: bytes) -> NDArray[np.uint8]:
        what = f"row {row} of {self._images.where}"
        image = decode(data, what)
        height, width = self.shape[2:]
        if image.shape[:2] != (height, width):
            raise InputError(
                f"{what} must be {width}x{height} as the others; got {image.shape[1]}x{image.shape[0]}, "
                "as its EXIF tag turns it"
            )
        return image
