"""MNIST from its four official IDX files, and their download.

Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998, which also defines IDX.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from angulus.core import checks, limits
from angulus.core.checks import InputError
from angulus.data.sets import places
from angulus.data.sets.download import Remote, fetch
from angulus.data.sets.images import Images, Splits

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
# md5 of the official .gz files, checked when they are downloaded: a copy on disk may be unpacked or packed anew.
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
_LARGEST_DOWNLOAD = 64 * 2**20  # bytes; the largest file has 9.5 MiB, so whoever sends more sends something else
_FETCH = "`angulus data mnist --download` or data.download=true"


def load(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> Splits:
    """Read MNIST's 60,000 training and 10,000 test images.

    Looks for the four files, gzipped (preferred) or plain, in the first of these that holds them all: with `root`,
    that folder or the mnist/ in it; without, $ANGULUS_DATA/mnist, then the cache folder ($XDG_CACHE_HOME or ~/.cache,
    then angulus/mnist).

    Arguments:
        root: where to look instead of the usual places.
        download: fetch the files into `folder_for(root)` if no place holds all four.

    Returns:
        Splits with pixels uint8 [N, 1, 28, 28] and ten classes "0" to "9".

    Raises:
        InputError: files are missing, damaged, of other sizes than MNIST's, or cannot be fetched.
    """
    checks.flag("download", download)
    looked_in = places.places("mnist", root)
    folder = next((place for place in looked_in if not _missing(place)), None)
    if folder is None and download:
        folder = _fetch_into(folder_for(root))
    if folder is None:
        ways_out = f"set ANGULUS_DATA to a folder that holds mnist/, or fetch the files with {_FETCH}"
        looked = " and ".join(_what_lacks(place) for place in looked_in)
        raise InputError(f"MNIST needs four files together in one folder; looked in {looked}; {ways_out}")
    return Splits("mnist", _read_split(folder, "train"), _read_split(folder, "t10k"), f"MNIST's IDX files in {folder}")


def folder_for(root: str | os.PathLike[str] | None = None) -> Path:
    """Say where a download puts the files, which is a place that `load` looks in.

    `root` itself if it is called mnist or already holds one of the files, else the mnist/ in it; without a root
    $ANGULUS_DATA/mnist if that variable is set, else the cache folder.
    """
    return places.folder_for("mnist", root, lambda folder: len(_missing(folder)) < len(MD5))


def download(
    folder: str | os.PathLike[str], mirrors: Sequence[str] = MIRRORS, *, timeout_s: float = 30.0
) -> tuple[Path, ...]:
    """Fetch the four gzipped files into a folder, which is made if it is not there.

    A file already there with the official md5 is kept; any other .gz of that name is replaced. A file appears in its
    place whole, checked and synced to disk, or not at all.

    Arguments:
        folder: where the files go.
        mirrors: http or https addresses that hold the files, tried in turn for each.
        timeout_s: seconds, > 0, that a mirror may stay silent.

    Returns:
        The paths of the four files.

    Raises:
        InputError: no mirror gave a file with the right checksum (says why, for each), or the folder cannot be written.
    """
    remotes = [Remote(f"{name}.gz", md5, _LARGEST_DOWNLOAD) for name, md5 in MD5.items()]
    by_hand = "put the four files there by hand and set ANGULUS_DATA"
    return fetch(remotes, places.as_path("folder", folder), mirrors, by_hand=by_hand, timeout_s=timeout_s)


def read_idx(path: str | os.PathLike[str], ndim: int) -> Tensor:
    """Read an IDX file of unsigned bytes; a name that ends in .gz is unpacked.

    The layout, big-endian: 0, 0, the element type (0x08), the number of dimensions, one uint32 size a dimension, then
    exactly as many bytes as the sizes multiply to.

    Arguments:
        path: the file.
        ndim: the number of dimensions that it must have, >= 1.

    Returns:
        uint8 tensor of the sizes that the header states.

    Raises:
        InputError: the file cannot be read or unpacked, is no IDX file, or is longer or shorter than it says.
    """
    ndim = checks.integer("ndim", ndim, low=1, high=255)
    path = places.as_path("path", path)
    try:
        data = limits.read_file(path)
    except InputError as error:
        raise InputError(f"{error}; delete it and fetch MNIST again with {_FETCH}") from error
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
    images_path = _find(folder, f"{part}-images-idx3-ubyte") or folder
    labels_path = _find(folder, f"{part}-labels-idx1-ubyte") or folder
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if images.shape[0] != labels.shape[0]:
        raise InputError(
            f"images and labels must be equally many; got {images.shape[0]} in {images_path} "
            f"and {labels.shape[0]} in {labels_path}"
        )
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


def _fetch_into(folder: Path) -> Path:
    download(folder, MIRRORS)
    return folder


def _damaged(path: Path, rule: str, got: str) -> InputError:
    return InputError(f"{path} {rule}; got {got}; delete it and fetch MNIST again with {_FETCH}")
