"""Matrices as MegaFace's kit writes them, `.bin`: one per image in a tree of folders, or one with a row per image.

A file is a header of four int32, rows, columns, bytes per row, and 5 for float32 (OpenCV's codes); then the rows,
little-endian. MegaFace's files are one column per image; Trillion-Pairs' is one row per image of its list.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks, files, limits
from angulus.core.checks import InputError
from angulus.core.formats.columns import Columns, text_array
from angulus.core.formats.tensors import read_text_file, text_file_of

SUFFIX = ".bin"

_FLOAT32 = 5  # the header's code for float32 elements
_HEADER = 16  # bytes: four int32
_IMAGE = re.compile(rf"(?i)(.*(?:{'|'.join(map(re.escape, files.IMAGE_SUFFIXES))}))(?![a-z0-9])")


def read(path: Path, known: Sequence[str], texts: Sequence[str]) -> tuple[Columns, list[str]]:
    """A matrix as `embeddings`, memory-mapped, with text from `PATH.NAME.txt`, one per line."""
    with path.open("rb") as file:
        shape = _shape(file.read(_HEADER), path.stat().st_size, str(path))
    columns: Columns = {"embeddings": np.memmap(path, dtype="<f4", mode="r", offset=_HEADER, shape=shape)}
    for name in texts:
        if text_file_of(path, name).is_file():
            columns[name] = read_text_file(text_file_of(path, name))
    if "ids" not in columns:
        example = text_file_of(path, "ids").name
        raise InputError(f"{path} holds vectors only; name the image of each row in {example}, one per line")
    return columns, []


def read_tree(folder: Path) -> Columns:
    """The vectors of all `.bin` files below a folder, in the order of their ids; other files are named and not read.

    An id is the path below the folder up to its last image suffix, or else without `.bin`.

    Raises:
        InputError: no such file, several of one image, one of another size, or one with several vectors.
    """
    paths, others = _files_of(folder)
    if not paths:
        raise InputError(f"{folder} must hold {SUFFIX} files of vectors, one per image; it holds none")
    if others:
        checks.warn(f"{folder} also holds {len(others):,} other files, which are not read: {others[0]} and so on")
    first = next(iter(paths.values()))
    vectors = np.empty((len(paths), read_matrix(first).size), dtype=np.float32)
    for row, path in enumerate(paths.values()):
        matrix = read_matrix(path)
        if min(matrix.shape) > 1 or matrix.size != vectors.shape[1]:
            rule = f"{path} must hold one vector of {vectors.shape[1]} numbers, as {first} does"
            raise InputError(f"{rule}; got a matrix of {' x '.join(map(str, matrix.shape))}")
        vectors[row] = matrix.ravel()
    return {"embeddings": vectors, "ids": text_array(list(paths))}


def read_matrix(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Read one file.

    Returns:
        [rows, columns] float32.

    Raises:
        InputError: another element type, padded rows, or a file longer or shorter than its header says.
    """
    data = limits.read_file(path)
    rows, columns = _shape(data[:_HEADER], len(data), os.fspath(path))
    values: NDArray[Any] = np.frombuffer(data, dtype="<f4", offset=_HEADER)
    return values.reshape(rows, columns).astype(np.float32, copy=False)


def _shape(header: bytes, size: int, where: str) -> tuple[int, int]:
    """Rows and columns of a file of this size."""
    if len(header) < _HEADER:
        raise InputError(f"{where} must begin with a header of {_HEADER} bytes; got {len(header)}")
    rows, columns, stride, kind = np.frombuffer(header, dtype="<i4").tolist()
    if kind != _FLOAT32 or rows < 1 or columns < 1 or stride != 4 * columns:
        raise InputError(
            f"{where} must have a header of rows, columns, 4 · columns and {_FLOAT32} (float32); got "
            f"{rows}, {columns}, {stride}, {kind}"
        )
    if size != _HEADER + rows * stride:
        raise InputError(f"{where} must have {_HEADER + rows * stride} bytes, as its header says; got {size}")
    return rows, columns


def _files_of(folder: Path) -> tuple[dict[str, Path], list[Path]]:
    """Ids and files of the vectors below a folder, sorted by id; and the other files."""
    paths: dict[str, Path] = {}
    others = []
    for path in _walk(folder):
        if path.suffix != SUFFIX or path.name.startswith("."):
            others.append(path)
            continue
        name = _id_of(path.relative_to(folder).as_posix())
        if name in paths:
            raise InputError(
                f"{folder} must hold one file per image; got {paths[name].name} and {path.name} of {name}; keep the "
                "files of one model in a folder"
            )
        paths[name] = path
    return dict(sorted(paths.items())), [path for path in others if not path.name.startswith(".")]


def _walk(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names)


def _id_of(path: str) -> str:
    """The image's path.

    >>> _id_of("A B/A B_1.png_arcface.bin"), _id_of("363/9.jpg_0.jpg_cos_112x112.bin"), _id_of("A/1.bin")
    ('A B/A B_1.png', '363/9.jpg_0.jpg', 'A/1')
    """
    head, slash, name = path.rpartition("/")
    found = _IMAGE.match(name)
    return head + slash + (found[1] if found else name.removesuffix(SUFFIX))
