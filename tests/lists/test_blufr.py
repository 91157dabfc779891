"""BLUFR's configuration: a small file in the published form, and files of another shape."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from angulus.core.checks import InputError
from angulus.evaluation.lists.blufr import read_blufr

# Six people with two images each; rows are from 1.
NAMES = [f"{name}_{image:04d}.jpg" for name in ("Al_B", "Cy", "Di", "Ed", "Flo", "Gus") for image in (1, 2)]
LABELS = np.repeat(np.arange(1, 7), 2)[:, None].astype(float)


def cells(*values: Any) -> np.ndarray[Any, Any]:
    column = np.empty((len(values), 1), dtype=object)
    column[:, 0] = values
    return column


def rows(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=np.uint16)[:, None]


def content() -> dict[str, Any]:
    return {
        "imageList": cells(*NAMES),
        "labels": LABELS,
        "devTrainIndex": rows(1, 2),
        "devTestIndex": rows(3, 4),
        "trainIndex": cells(rows(1, 2, 3), rows(5, 6, 11, 12)),
        "testIndex": cells(rows(5, 6, 7, 8, 9), rows(1, 2, 3, 4)),
        "galIndex": cells(rows(5, 8), rows(4)),
        "probIndex": cells(rows(9, 6, 7), rows(3, 2, 1)),
    }


def written(folder: Path, **change: Any) -> Path:
    path = folder / "blufr_lfw_config.mat"
    values = {name: value for name, value in (content() | change).items() if value is not None}
    scipy.io.savemat(path, values, do_compression=True)
    return path


def test_a_small_configuration(tmp_path: Path) -> None:
    found = read_blufr(written(tmp_path))
    assert found.ids.tolist()[:3] == ["Al_B/Al_B_0001.jpg", "Al_B/Al_B_0002.jpg", "Cy/Cy_0001.jpg"]
    assert found.labels.tolist() == [person for person in range(1, 7) for _ in range(2)]
    first, second = found.trials
    assert first.train.tolist() == [0, 1, 2]
    assert first.test.tolist() == [4, 5, 6, 7, 8]
    assert first.gallery.tolist() == [4, 7]
    assert (first.genuine.tolist(), first.impostor.tolist()) == ([5, 6], [8])
    assert (second.genuine.tolist(), second.impostor.tolist()) == ([2], [1, 0])
    assert found.source == str(tmp_path / "blufr_lfw_config.mat")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"galIndex": None},
            r"must hold BLUFR's imageList, .*; it lacks galIndex; got imageList, labels, trainIndex, ",
        ),
        ({name: None for name in content()} | {"x": 1}, "it lacks imageList, .*, probIndex; got nothing"),
        ({"imageList": LABELS}, r"imageList must be a column of cells; got float64 \[12, 1\]"),
        (
            {"imageList": cells("a.jpg", *NAMES[1:])},
            "imageList must hold file names like 'Aaron_Eckhart_0001.jpg'; got 'a",
        ),
        ({"imageList": cells("Al/Al_0001.jpg", *NAMES[1:])}, "imageList must hold file names like"),
        ({"imageList": cells(3, *NAMES[1:])}, "imageList must hold file names like"),
        ({"imageList": cells(*NAMES[:-1], NAMES[0])}, "imageList must name each image once; got 1 twice"),
        ({"labels": LABELS + 0.5}, r"labels must be whole numbers; got \d.5"),
        ({"labels": np.where(LABELS[0] == LABELS, np.nan, LABELS)}, "labels must be whole numbers; got nan"),
        ({"labels": LABELS[:5]}, r"labels must be \[12, 1\] numbers, one per image; got \[5, 1\]"),
        ({"labels": LABELS.reshape(6, 2)}, r"labels must be \[12, 1\] numbers, one per image; got \[6, 2\]"),
        ({"labels": cells(*NAMES)}, r"labels must be \[12, 1\] numbers"),
        ({"testIndex": rows(1, 2)}, r"testIndex must be a column of cells; got uint16 \[2, 1\]"),
        (
            {"testIndex": cells(rows(5, 6, 7, 8, 9))},
            "equally many trials in each variable; got trainIndex 2, testIndex 1, ",
        ),
        (
            {"trainIndex": cells(rows(0, 1), rows(5))},
            r"trial 1: trainIndex must be distinct rows in \[1, 12\]; got 0 to 1",
        ),
        (
            {"trainIndex": cells(rows(1), rows(13))},
            r"trial 2: trainIndex must be distinct rows in \[1, 12\]; got 13 to 13",
        ),
        ({"trainIndex": cells(rows(1, 1), rows(5))}, "trial 1: trainIndex must be distinct rows"),
        ({"trainIndex": cells(np.array([[1.5]]), rows(5))}, "trial 1: trainIndex must be whole numbers; got float64"),
        ({"trainIndex": cells("1", rows(5))}, "trial 1: trainIndex must be whole numbers"),
        (
            {"galIndex": cells(rows(5), rows(4))},
            "trial 1: testIndex must be galIndex and probIndex together; got other",
        ),
        ({"probIndex": cells(rows(9, 6, 7, 8), rows(3, 2, 1))}, "trial 1: testIndex must be galIndex and probIndex"),
        (
            {"galIndex": cells(rows(5, 6, 8), rows(4)), "probIndex": cells(rows(9, 7), rows(3, 2, 1))},
            "one image per person",
        ),
        ({"trainIndex": cells(rows(1, 10), rows(5))}, "trial 1: trainIndex and testIndex must show different people"),
    ],
)
def test_other_shapes_are_refused(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_blufr(written(tmp_path, **change))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:60], b"no MATLAB file at all" * 20, b""):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"blufr_lfw_config.mat must (be a whole MATLAB v5 file|hold BLUFR's)"):
            read_blufr(path)
    seven = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    path.write_bytes(seven.ljust(512, b"\x00") + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(InputError, match=r"must be a MATLAB v5 file; got v7.3; save it in MATLAB with -v7"):
        read_blufr(path)
    (tmp_path / "config.mat.gz").write_bytes(gzip.compress(whole))
    assert len(read_blufr(tmp_path / "config.mat.gz").trials) == 2
    with pytest.raises(InputError, match=r"none.mat must be a file that can be read; there is no such file"):
        read_blufr(tmp_path / "none.mat")
