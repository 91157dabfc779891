"""Patches on disk, a file a scan, read by row, shifted and turned when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from angulus.core.checks import InputError

MARGIN = 1  # voxels on every side beyond the largest patch, which shifts come from
SHIFTS = ((0, 0, 0), *(tuple(step if axis == k else 0 for k in range(3)) for axis in range(3) for step in (-1, 1)))
# a shift (depth, height, width) and quarter turns each; the first is the patch itself
VARIANTS = tuple(product(SHIFTS, range(4)))

_OPEN_FILES = 256  # beside what else a process has open; systems allow 1,024 or more


class PatchPixels:
    """uint8 [N, 1, depth, height, width]: row k is patch `places[k]` of file `owners[k]`, in variant `variants[k]`.

    Every indexing reads anew; `angulus.data.sets.images.Pixels` says how. Cheap to fork and to pickle.
    """

    dtype = torch.uint8

    def __init__(
        self,
        paths: Sequence[Path],
        owners: NDArray[np.int64],
        places: NDArray[np.int64],
        variants: NDArray[np.int64],
        size: tuple[int, int, int],
    ) -> None:
        """Keep where the patches are; nothing is read yet.

        Args:
            paths: .npy files, uint8 [candidates, depth, height, width] with a margin of one voxel.
            owners: [N] numbers of the files.
            places: [N] patches within them.
            variants: [N] numbers of `VARIANTS`.
            size: depth, height, width of the middle that is taken.
        """
        self._paths, self._owners, self._places, self._variants = list(paths), owners, places, variants
        self._last = np.full(len(paths), -1)  # the highest place that is asked of each file
        np.maximum.at(self._last, owners, places)
        self._maps: dict[int, NDArray[np.uint8]] = {}
        self.shape = torch.Size((len(owners), 1, *size))

    def __len__(self) -> int:
        return self.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        """Without the mapped files."""
        return self.__dict__ | {"_maps": {}}

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """The patches of rows [B].

        Raises:
            InputError: a file that is gone or damaged.
        """
        chosen = np.arange(len(self))[rows.numpy() if isinstance(rows, Tensor) else rows]
        out = np.empty((len(chosen), *self.shape[1:]), dtype=np.uint8)
        for place, row in enumerate(chosen.tolist()):
            out[place, 0] = self._patch(row)
        return torch.from_numpy(out)

    def _patch(self, row: int) -> NDArray[np.uint8]:
        shift, turns = VARIANTS[self._variants[row]]
        whole = self._file(int(self._owners[row]))[self._places[row]]
        window = tuple(
            slice((side - size) // 2 + step, (side - size) // 2 + step + size)
            for side, size, step in zip(whole.shape, self.shape[2:], shift, strict=True)
        )
        return np.rot90(whole[window], turns, axes=(1, 2))

    def _file(self, owner: int) -> NDArray[np.uint8]:
        if owner not in self._maps:
            if len(self._maps) >= _OPEN_FILES:
                del self._maps[next(iter(self._maps))]  # the one that was opened first
            self._maps[owner] = self._opened(owner)
        return self._maps[owner]

    def _opened(self, owner: int) -> NDArray[np.uint8]:
        path = self._paths[owner]
        most = tuple(side + 2 * MARGIN for side in self.shape[2:])
        try:
            found: NDArray[np.uint8] = np.load(path, mmap_mode="r")
            if found.dtype != np.uint8 or found.ndim != 4 or np.less(found.shape[1:], most).any():
                raise ValueError(f"{found.dtype} {list(found.shape)}")
            if len(found) <= self._last[owner]:
                raise ValueError(f"{len(found)} patches")
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"{path} must be a whole file of patches; got {error}; delete it, and prepare again"
            ) from error
        return found
