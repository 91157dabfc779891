"""How features form: those of a few test images before training and after epochs, in one small file of the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks, files, tensor_files

NAME = "formation.npz"
MOST_IMAGES, MOST_NUMBERS = 500, 65_536  # of an epoch: the second is what keeps wide features small
MOST_EPOCHS = 40


@dataclass(frozen=True, eq=False)
class Formation:
    """Features of some test images after some epochs.

    Attributes:
        rows: [n], which of the test images.
        epochs: [E], rising; 0 is before training.
        features: [E, n, d] float32.
    """

    rows: NDArray[np.int64]
    epochs: NDArray[np.int64]
    features: NDArray[np.float32]


def sample(images: int, size: int) -> NDArray[np.int64]:
    """Which of so many images are followed, where features have `size` numbers: evenly spaced, as many as fit.

    >>> sample(7, 2).tolist(), len(sample(10_000, 2)), len(sample(10_000, 512))
    ([0, 1, 2, 3, 4, 5, 6], 500, 128)
    """
    count = max(1, min(images, MOST_IMAGES, MOST_NUMBERS // size))
    return np.linspace(0, images - 1, count).round().astype(np.int64)


def is_recorded(epoch: int, epochs: int) -> bool:
    """Whether an epoch is written: all of `MOST_EPOCHS` or fewer, else every so many; the first and last in any case.

    >>> [epoch for epoch in range(101) if is_recorded(epoch, 100)][-3:]
    [96, 99, 100]
    """
    return epoch % -(-epochs // MOST_EPOCHS) == 0 or epoch == epochs


def record(folder: Path, epoch: int, rows: NDArray[np.int64], features: NDArray[np.float32]) -> None:
    """Add what an epoch gave; it takes the place of itself and later ones, which a resumed run goes through again."""
    before = read(folder) if epoch and (folder / NAME).exists() else None
    epochs, layers = np.array([epoch]), features[None]
    if before is not None and np.array_equal(before.rows, rows):
        earlier = before.epochs < epoch
        epochs = np.concatenate([before.epochs[earlier], epochs])
        layers = np.concatenate([before.features[earlier], layers])
    arrays = {"rows": rows, "epochs": epochs, "features": layers}
    files.write_atomically(folder / NAME, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]


def read(folder: Path) -> Formation:
    """What a run has written.

    Raises:
        checks.InputError: no file, or one that holds something else.
    """
    path = folder / NAME
    arrays = tensor_files.read_npz(path, "remove it: a run does without")
    if not arrays.keys() >= {"rows", "epochs", "features"}:
        raise checks.InputError(f"{path} must hold rows, epochs and features; remove it: a run does without")
    found = Formation(arrays["rows"], arrays["epochs"], arrays["features"])
    if found.features.ndim != 3 or found.features.shape[:2] != (len(found.epochs), len(found.rows)):
        raise checks.InputError(
            f"{path} must hold features [epochs, images, size]; got {list(found.features.shape)} for "
            f"{len(found.epochs)} epochs and {len(found.rows)} images; remove it: a run does without"
        )
    return found
