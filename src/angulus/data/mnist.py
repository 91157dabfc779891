"""MNIST from its four official IDX files, and their download.

Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998, which also defines IDX.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import math
import os
import struct
import urllib.request
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from angulus import checks
from angulus.checks import InputError
from angulus.data.images import Images, Splits

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
    places = _places(root)
    folder = next((place for place in places if not _missing(place)), None)
    if folder is None and download:
        folder = _fetch_into(folder_for(root))
    if folder is None:
        ways_out = f"set ANGULUS_DATA to a folder that holds mnist/, or fetch the files with {_FETCH}"
        looked = " and ".join(_what_lacks(place) for place in places)
        raise InputError(f"MNIST needs four files together in one folder; looked in {looked}; {ways_out}")
    return Splits("mnist", _read_split(folder, "train"), _read_split(folder, "t10k"), f"MNIST's IDX files in {folder}")


def folder_for(root: str | os.PathLike[str] | None = None) -> Path:
    """Say where a download puts the files, which is a place that `load` looks in.

    `root` itself if it is called mnist or already holds one of the files, else the mnist/ in it; without a root
    $ANGULUS_DATA/mnist if that variable is set, else the cache folder.
    """
    first = _places(root)[0]
    if root is None or first.name == "mnist" or len(_missing(first)) < len(MD5):
        return first
    return first / "mnist"


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
    timeout_s = checks.number("timeout_s", timeout_s, low=0, open_low=True)
    if isinstance(mirrors, str) or not isinstance(mirrors, Sequence) or not mirrors:
        raise InputError(f"mirrors must be a sequence of at least one address; got {mirrors!r}")
    for mirror in mirrors:
        if not isinstance(mirror, str) or not mirror.startswith(("http://", "https://")):
            raise InputError(f"mirrors must be http:// or https:// addresses; got {mirror!r}")
    folder = _as_path("folder", folder)
    paths = tuple(folder / f"{name}.gz" for name in MD5)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            if not (path.is_file() and _md5(path.read_bytes()) == MD5[path.stem]):
                _write_whole(path, _fetch(path.name, mirrors, timeout_s))
    except OSError as error:
        raise InputError(f"folder must be one that MNIST can be written to; got {str(folder)!r}: {error}") from error
    return paths


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
    path = _as_path("path", path)
    data = _unpacked(path)
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


def _places(root: str | os.PathLike[str] | None) -> tuple[Path, ...]:
    if root is not None:
        folder = _as_path("root", root)
        return (folder, folder / "mnist")
    data = os.environ.get("ANGULUS_DATA", "")
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # unset, empty or relative: the XDG specification says to ignore it
        cache = Path("~/.cache").expanduser()
    cached = cache / "angulus" / "mnist"
    return (Path(data).expanduser() / "mnist", cached) if data else (cached,)


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


def _unpacked(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(path, "must be a whole gzip file", str(error)) from error
    except OSError as error:
        raise InputError(f"{path} must be a file that can be read; got {error}") from error


def _damaged(path: Path, rule: str, got: str) -> InputError:
    return InputError(f"{path} {rule}; got {got}; delete it and fetch MNIST again with {_FETCH}")


def _fetch(name: str, mirrors: Sequence[str], timeout_s: float) -> bytes:
    reasons = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{name}"
        try:
            data = _get(url, timeout_s)
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an address that cannot be read
            reasons.append(f"{url}: {error or type(error).__name__}")
            continue
        if _md5(data) == MD5[name.removesuffix(".gz")]:
            return data
        reasons.append(f"{url}: {len(data)} bytes with md5 {_md5(data)}, not {MD5[name.removesuffix('.gz')]}")
    raise InputError(
        f"mirrors must give {name} with its official md5; got {'; '.join(reasons)}; "
        "try again later, or put the four files there by hand and set ANGULUS_DATA"
    )


def _get(url: str, timeout_s: float) -> bytes:
    with urllib.request.urlopen(url, timeout=timeout_s) as response:
        data = bytes(response.read(_LARGEST_DOWNLOAD + 1))
        announced = response.headers.get("Content-Length", "")
    if len(data) > _LARGEST_DOWNLOAD:
        raise http.client.HTTPException(f"the body has more than {_LARGEST_DOWNLOAD} bytes")
    # http.client does not complain about a body that ends early when it is read with a limit.
    if announced.isdigit() and len(data) < int(announced):
        raise http.client.HTTPException(f"the body ended after {len(data)} of {announced} bytes")
    return data


def _write_whole(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _as_path(name: str, value: object) -> Path:
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise InputError(f"{name} must be a path; got {value!r}")
    return Path(value).expanduser()
