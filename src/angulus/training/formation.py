"""How features form: the features of a few test images before training and after epochs, in a file of the run."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks, files, tensor_files

NAME = "formation.npz"
MOST_IMAGES, MOST_NUMBERS = 500, 65_536  # per epoch; the second limits the file of wide features
MOST_EPOCHS = 40


@dataclass(frozen=True, eq=False)
class Formation:
    """Features of some test images after several epochs."""

    rows: NDArray[np.int64]  # [n], the rows of the test images
    epochs: NDArray[np.int64]  # [E], rising; 0 is before training
    features: NDArray[np.float32]  # [E, n, d] float32


def sample(images: int, size: int) -> NDArray[np.int64]:
    """Evenly spaced rows of the images to record, as many as fit with features of `size` numbers.

    >>> sample(7, 2).tolist(), len(sample(10_000, 2)), len(sample(10_000, 512))
    ([0, 1, 2, 3, 4, 5, 6], 500, 128)
    """
    count = max(1, min(images, MOST_IMAGES, MOST_NUMBERS // size))
    return np.linspace(0, images - 1, count).round().astype(np.int64)


def is_recorded(epoch: int, epochs: int) -> bool:
    """Whether an epoch is recorded: evenly spaced ones, about `MOST_EPOCHS`, with the first and the last.

    >>> [epoch for epoch in range(101) if is_recorded(epoch, 100)][-3:]
    [96, 99, 100]
    """
    return epoch % -(-epochs // MOST_EPOCHS) == 0 or epoch == epochs


def record(folder: Path, epoch: int, rows: NDArray[np.int64], features: NDArray[np.float32]) -> None:
    """Add an epoch's features; replaces those of this and later epochs, which a resumed run repeats."""
    before = read(folder) if epoch and (folder / NAME).exists() else None
    epochs, layers = np.array([epoch]), features[None]
    if before is not None and np.array_equal(before.rows, rows):
        earlier = before.epochs < epoch
        epochs = np.concatenate([before.epochs[earlier], epochs])
        layers = np.concatenate([before.features[earlier], layers])
    arrays = {"rows": rows, "epochs": epochs, "features": layers}
    files.write_atomically(folder / NAME, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]


def read(folder: Path) -> Formation:
    """What a run recorded; raises an error for a missing or damaged file."""
    path, way_out = folder / NAME, "remove it: a run does without"
    arrays = tensor_files.read_npz(path, way_out)
    if not arrays.keys() >= {"rows", "epochs", "features"}:
        raise checks.InputError(f"{path} must hold rows, epochs and features; {way_out}")
    rows, epochs, features = arrays["rows"], arrays["epochs"], arrays["features"]
    if features.ndim != 3 or features.shape[:2] != (len(epochs), len(rows)):
        raise checks.InputError(
            f"{path} must hold features [epochs, images, size]; got {list(features.shape)} for {len(epochs)} epochs "
            f"and {len(rows)} images; {way_out}"
        )
    return Formation(rows, epochs, features)
