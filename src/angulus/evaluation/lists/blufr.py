"""BLUFR's configuration for LFW, `blufr_lfw_config.mat`: ten trials of training, test, gallery and probe images."""

import os
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core.checks import InputError
from angulus.core.formats.columns import text_array
from angulus.evaluation.lists.mat import read_mat

_FIELDS = ("imageList", "labels", "trainIndex", "testIndex", "galIndex", "probIndex")
_NAME = re.compile(r"(.+)_\d{4}\.\w+")

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class BlufrTrial:
    """Rows of the image list, from 0. The test images are the gallery and the probes."""

    train: Rows  # [A], of people that `test` does not show
    test: Rows  # [T]
    gallery: Rows  # [G], one image per person
    genuine: Rows  # probes whose person is in the gallery
    impostor: Rows  # the other probes


@dataclass(frozen=True, eq=False)
class Blufr:
    """The images, who they show, and the trials; ids are LFW's, `Name/Name_0001.jpg`."""

    ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    trials: tuple[BlufrTrial, ...]
    source: str


def read_blufr(path: str | os.PathLike[str]) -> Blufr:
    """Read the published MATLAB v5 file.

    Its variables: imageList (cells [N, 1] of file names without folder), labels [N, 1], and trainIndex, testIndex,
    galIndex, probIndex (cells [trials, 1] of rows from 1). Which probes are genuine follows from the labels: those
    whose person is in the gallery.

    Raises:
        InputError: no MATLAB v5 file, a variable missing or of another shape, a row out of range or twice, a test set
            that is not gallery and probes, two gallery images of a person, or a person in training and test.

    Source: S. Liao, Z. Lei, D. Yi, S. Z. Li, "A Benchmark Study of Large-scale Unconstrained Face Recognition",
    IJCB 2014, Sec. 3, and the description that comes with the file.
    """
    where = os.fspath(path)
    content = read_mat(path, _FIELDS)
    missing = [name for name in _FIELDS if name not in content]
    if missing:
        found = ", ".join(content) or "nothing"
        raise InputError(f"{where} must hold BLUFR's {', '.join(_FIELDS)}; it lacks {', '.join(missing)}; got {found}")
    ids = text_array([_lfw_id(where, cell) for cell in _cells(where, "imageList", content["imageList"])])
    if len(set(ids.tolist())) < len(ids):
        raise InputError(f"{where}: imageList must name each image once; got {len(ids) - len(set(ids.tolist()))} twice")
    labels = content["labels"]
    if labels.dtype.kind not in "iuf" or labels.size != len(ids) or labels.size != max(labels.shape, default=0):
        raise InputError(f"{where}: labels must be [{len(ids)}, 1] numbers, one per image; got {list(labels.shape)}")
    if (labels != np.floor(labels)).any():
        raise InputError(f"{where}: labels must be whole numbers; got {labels[labels != np.floor(labels)][0]}")
    labels = labels.ravel().astype(np.int64)
    columns = [_cells(where, name, content[name]) for name in _FIELDS[2:]]
    if len({len(column) for column in columns}) != 1:
        counts = ", ".join(f"{name} {len(column)}" for name, column in zip(_FIELDS[2:], columns, strict=True))
        raise InputError(f"{where} must have equally many trials in each variable; got {counts}")
    trials = [_trial(f"{where}: trial {n}", labels, cells) for n, cells in enumerate(zip(*columns, strict=True), 1)]
    return Blufr(ids, labels, tuple(trials), where)


def _cells(where: str, name: str, value: Any) -> list[NDArray[Any]]:
    if value.dtype != object or value.ndim != 2 or 1 not in value.shape or not value.size:
        raise InputError(f"{where}: {name} must be a column of cells; got {value.dtype} {list(value.shape)}")
    return list(value.ravel())


def _lfw_id(where: str, cell: NDArray[Any]) -> str:
    name = str(cell.ravel()[0]) if cell.size == 1 and cell.dtype.kind == "U" else ""
    match = _NAME.fullmatch(name)
    if match is None or "/" in name:
        raise InputError(f"{where}: imageList must hold file names like 'Aaron_Eckhart_0001.jpg'; got {name!r}")
    return f"{match[1]}/{name}"


def _trial(where: str, labels: NDArray[np.int64], cells: tuple[NDArray[Any], ...]) -> BlufrTrial:
    train, test, gallery, probes = (
        _rows(f"{where}: {name}", cell, len(labels)) for name, cell in zip(_FIELDS[2:], cells, strict=True)
    )
    if not np.array_equal(np.sort(np.concatenate([gallery, probes])), np.sort(test)):
        raise InputError(f"{where}: testIndex must be galIndex and probIndex together; got other rows")
    if len(np.unique(labels[gallery])) != len(gallery):
        raise InputError(f"{where}: galIndex must have one image per person; got {len(gallery)} images of fewer people")
    if np.isin(labels[train], labels[test]).any():
        raise InputError(f"{where}: trainIndex and testIndex must show different people; got some in both")
    known = np.isin(labels[probes], labels[gallery])
    return BlufrTrial(train, test, gallery, probes[known], probes[~known])


def _rows(where: str, cell: NDArray[Any], count: int) -> Rows:
    rows = cell.ravel()
    if rows.dtype.kind not in "iuf" or not rows.size or (rows != np.floor(rows)).any():
        raise InputError(f"{where} must be whole numbers; got {cell.dtype} {list(cell.shape)}")
    if rows.min() < 1 or rows.max() > count or len(np.unique(rows)) != len(rows):
        raise InputError(f"{where} must be distinct rows in [1, {count}]; got {rows.min()} to {rows.max()}, or repeats")
    return rows.astype(np.int64) - 1
