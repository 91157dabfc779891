"""Handwritten digits: the small ones that scikit-learn carries, and MNIST from its four official IDX files.

Sources: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
whose test part scikit-learn carries. Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits",
1998, which also defines IDX.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from angulus.core import checks, limits
from angulus.core.checks import InputError
from angulus.data.sets import download as downloads
from angulus.data.sets.download import Remote, fetch, fetch_command, search_folders
from angulus.data.sets.images import Images, Splits

TEST_SHARE, SPLIT_SEED = 1 / 3, 0  # of scikit-learn's digits
HIGHEST_VALUE = 16  # scikit-learn's pixels count the set bits of a 4x4 block: 0..16

MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
# md5 of the official .gz files, checked at download only: a copy on disk may be unpacked or packed again
MD5 = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}
COUNTS = {"train": 60_000, "t10k": 10_000}
SIDE = 28
CLASS_NAMES = tuple(str(digit) for digit in range(10))

_UBYTE = 0x08  # IDX's code for unsigned bytes, the only element type that MNIST uses
_LARGEST_DOWNLOAD = 64 * 2**20  # bytes; the largest file has 9.5 MiB


def load_digits(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> Splits:
    """Load scikit-learn's 1,797 digits of 8x8 pixels, always split in the same way.

    A value v in 0..16 becomes the byte round(v * 255 / 16). The split is scikit-learn's `train_test_split` with
    `test_size=1/3, stratify=labels, random_state=0`; within a split the images keep scikit-learn's order. The same
    writers are in both splits: the data does not name them. There are no files, so `root` must be None.

    >>> splits = load_digits()
    >>> len(splits.train), len(splits.test)
    (1198, 599)
    """
    if root is not None:
        raise InputError(f"root must be left out for 'digits', which scikit-learn carries; got {os.fspath(root)!r}")
    import sklearn  # takes a second, and most commands never read the digits
    from sklearn.datasets import load_digits as carried
    from sklearn.model_selection import train_test_split

    digits = carried()
    pixels = np.rint(digits.images * 255 / HIGHEST_VALUE).astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    rows = train_test_split(np.arange(len(labels)), test_size=TEST_SHARE, stratify=labels, random_state=SPLIT_SEED)
    parts = ((torch.from_numpy(pixels[part]), torch.from_numpy(labels[part])) for part in map(np.sort, rows))
    train, test = (Images(*part, CLASS_NAMES) for part in parts)
    source = f"scikit-learn {sklearn.__version__} load_digits; test share 1/3, stratified, seed {SPLIT_SEED}"
    return Splits("digits", train, test, source)


def load_mnist(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> Splits:
    """Load MNIST's 60,000 training and 10,000 test images of 28x28 pixels.

    Reads the four files, gzipped (preferred) or plain, from the first of `search_folders("mnist", root)` that holds
    them all; if none does, `download` fetches them into `mnist_folder(root)`.
    """
    checks.flag("download", download)
    folders = search_folders("mnist", root)
    folder = next((folder for folder in folders if not _missing(folder)), None)
    if folder is None and download:
        folder = mnist_folder(root)
        download_mnist(folder, MIRRORS)
    if folder is None:
        way_out = f"set ANGULUS_DATA to a folder that holds mnist/, or fetch the files with {fetch_command('mnist')}"
        raise downloads.not_found("MNIST needs four files together in one folder", map(_what_lacks, folders), way_out)
    return Splits("mnist", _read_split(folder, "train"), _read_split(folder, "t10k"), f"MNIST's IDX files in {folder}")


def mnist_folder(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder that a download goes to, where `load_mnist` finds the files."""
    return downloads.download_folder("mnist", root, lambda folder: len(_missing(folder)) < len(MD5))


def download_mnist(
    folder: str | os.PathLike[str], mirrors: Sequence[str] = MIRRORS, *, timeout_s: float = 30.0
) -> tuple[Path, ...]:
    """Download the four gzipped files into a folder, as `download.fetch` does, and return their paths."""
    remotes = [Remote(f"{name}.gz", md5, _LARGEST_DOWNLOAD) for name, md5 in MD5.items()]
    by_hand = "put the four files there by hand and set ANGULUS_DATA"
    return fetch(remotes, downloads.as_path("folder", folder), mirrors, by_hand=by_hand, timeout_s=timeout_s)


def read_idx(path: str | os.PathLike[str], ndim: int) -> Tensor:
    """Read an IDX file of unsigned bytes with `ndim` >= 1 dimensions; a name that ends in .gz is unpacked.

    The layout, big-endian: 0, 0, the element type (0x08), the number of dimensions, one uint32 size per dimension, then
    exactly as many bytes as the product of the sizes.
    """
    ndim = checks.integer("ndim", ndim, low=1, high=255)
    path = downloads.as_path("path", path)
    try:
        data = limits.read_file(path)
    except InputError as error:
        raise InputError(f"{error}; delete it and fetch MNIST again with {fetch_command('mnist')}") from error
    magic, start = bytes([0, 0, _UBYTE, ndim]), 4 + 4 * ndim
    if data[:4] != magic:
        rule = f"must be an IDX file of unsigned bytes with {ndim} dimensions, which begins with {magic.hex()}"
        raise _damaged(path, rule, data[:4].hex() or "an empty file")
    if len(data) < start:
        raise _damaged(path, f"must have a header of {start} bytes", f"{len(data)}")
    sizes = struct.unpack(f">{ndim}I", data[4:start])
    if 0 in sizes:
        raise _damaged(path, "must have sizes of at least 1", f"{list(sizes)}")
    length = math.prod(sizes)
    if len(data) - start != length:
        rule = f"must hold exactly {length} bytes after its header, as its sizes {list(sizes)} say"
        raise _damaged(path, rule, f"{len(data) - start}")
    return torch.frombuffer(bytearray(memoryview(data)[start:]), dtype=torch.uint8).view(sizes)


def _read_split(folder: Path, part: str) -> Images:
    names = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
    images_path, labels_path = (_find(folder, name) or folder for name in names)
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if images.shape[0] != labels.shape[0]:
        rule = "images and labels must have the same number"
        raise InputError(f"{rule}; got {images.shape[0]} in {images_path} and {labels.shape[0]} in {labels_path}")
    expected = [COUNTS[part], SIDE, SIDE]
    if list(images.shape) != expected:
        raise _damaged(images_path, f"must hold MNIST's {expected} (images, height, width)", f"{list(images.shape)}")
    if int(labels.max()) >= len(CLASS_NAMES):
        row = int((labels >= len(CLASS_NAMES)).nonzero()[0, 0])
        raise _damaged(labels_path, f"must hold labels in [0, {len(CLASS_NAMES)})", f"{int(labels[row])} at row {row}")
    return Images(images[:, None], labels.long(), CLASS_NAMES)


def _find(folder: Path, name: str) -> Path | None:
    # The packed file first: a download then repairs a folder that also holds a damaged plain one.
    return next((path for path in (folder / f"{name}.gz", folder / name) if os.path.isfile(path)), None)


def _missing(folder: Path) -> list[str]:
    return [name for name in MD5 if _find(folder, name) is None]


def _what_lacks(folder: Path) -> str:
    if not os.path.isdir(folder):
        return f"{folder} (no such folder)"
    return f"{folder} (lacks {', '.join(f'{name}[.gz]' for name in _missing(folder))})"


def _damaged(path: Path, rule: str, got: str) -> InputError:
    return InputError(f"{path} {rule}; got {got}; delete it and fetch MNIST again with {fetch_command('mnist')}")
