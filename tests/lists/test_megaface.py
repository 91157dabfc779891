"""MegaFace's lists, noise lists and feature files: small ones in the published forms, and malformed ones."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.core.formats.matrices import read_matrix
from angulus.evaluation.lists.megaface import FeatureList, read_feature_list, read_noises

PATHS = ["Al B/Al B_1.png", "Al B/Al B_2.png", "Cy/Cy_7.png", "363/36@N00/id_1/99.jpg_0.jpg"]


def written(folder: Path, content: Any, name: str = "list.json") -> Path:
    path = folder / name
    data = content if isinstance(content, bytes) else content.encode() if isinstance(content, str) else None
    data = json.dumps(content).encode() if data is None else data
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("name", ["facescrub_features_list.json", "megaface_features_list.json_10_1", "list.json.gz"])
def test_a_feature_list(tmp_path: Path, name: str) -> None:
    found = read_feature_list(written(tmp_path, {"id": ["Al B", "Al B", "Cy", 4], "path": PATHS}, name))
    assert (len(found), found.ids.tolist(), found.source) == (4, PATHS, str(tmp_path / name))
    assert found.identities is not None and found.identities.tolist() == ["Al B", "Al B", "Cy", "4"]
    assert read_feature_list(written(tmp_path, {"path": PATHS}, name)).identities is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "list.json must hold lines; it is empty"),
        ('{"path": ["a",\n"b"', r"list.json must be JSON; .*line 2"),
        (["a"], 'must be a JSON object with "path" and, where known, "id"; got list'),
        ({"id": ["a"]}, 'must be a JSON object with "path" and, where known, "id"; got id'),
        ({"path": ["a"], "ids": ["a"]}, 'must be a JSON object with "path" and, where known, "id"; got ids, path'),
        ({"path": []}, '"path" must be a list of text, at least one'),
        ({"path": "a"}, '"path" must be a list of text, at least one'),
        ({"path": ["a", 1]}, '"path" must be a list of text, at least one'),
        ({"path": ["a", "b"], "id": ["x", True]}, '"id" must be a list of text, at least one'),
        ({"path": ["a", "b"], "id": ["x"]}, 'must have one "id" per "path"; got 1 and 2'),
        ({"path": ["a", "b", "a", "a"]}, "must name each path once; got 2 repeats"),
    ],
)
def test_malformed_feature_lists(tmp_path: Path, content: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_feature_list(written(tmp_path, content))


def test_noises_in_each_form(tmp_path: Path) -> None:
    path = written(
        tmp_path, "# noise of FaceScrub\nAl B_2.png\nCy/Cy_7.png\n17\t363/36@N00/id_1/99.jpg_0.jpg\n", "n.txt"
    )
    assert read_noises(path).tolist() == ["Al B_2.png", "Cy/Cy_7.png", "363/36@N00/id_1/99.jpg_0.jpg"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a.png\n\nb.png\n", "n.txt line 2 must be a path, which may follow a number and a tab; got ''"),
        ("1\ta\tb.png\n", "n.txt line 1 must be a path, which may follow"),
        ("1\t\n2\tb.png\n", "n.txt line 1 must be a path, which may follow"),
        ("a.png\nb.png\na.png\n", "n.txt line 3 must be an entry that is not on line 1; got 'a.png'"),
        ("# nothing\n", "n.txt must name noisy images; it has comments only"),
    ],
)
def test_malformed_noises(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_noises(written(tmp_path, text, "n.txt"))


def listed(*paths: str) -> FeatureList:
    return FeatureList(np.array(paths), np.array([path.split("/")[0] for path in paths]), "list.json")


@pytest.mark.parametrize(
    ("noises", "left"),
    [
        (["Al B_2.png"], [0, 2, 3]),
        (["Cy/Cy_7.png", "Al B/Al B_1.png"], [1, 3]),
        (["363/36@N00/id_1/99.jpg_0.jpg"], [0, 1, 2]),
        (["id_1/99.jpg_0.jpg", "unknown.png"], [0, 1, 2]),  # noise lists cover more images than one list has
        (["B_2.png", "Al B_2.png"], [0, 2, 3]),  # whole names only
    ],
)
def test_noise_is_removed(noises: list[str], left: list[int]) -> None:
    clean = listed(*PATHS).without(np.array(noises))
    assert clean.ids.tolist() == [PATHS[row] for row in left]
    assert clean.identities is not None
    assert clean.identities.tolist() == [PATHS[row].split("/")[0] for row in left]
    assert FeatureList(np.array(PATHS), None, "x").without(np.array(noises)).identities is None


@pytest.mark.parametrize(
    ("noises", "sentence"),
    [
        (["B_2.png", "Cy"], "list.json: some of 2 noises must meet paths like 'Al B/Al B_1.png'; got none"),
        (["same.png"], "list.json: noise 'same.png' must meet one path; got 'x/same.png', 'y/same.png'"),
    ],
)
def test_noise_that_meets_nothing_or_too_much(noises: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        listed(*PATHS, "x/same.png", "y/same.png").without(np.array(noises))


def test_a_feature_file(tmp_path: Path) -> None:
    vector = [1.5, -2.0, 3.25]
    path = written(tmp_path, struct.pack("<4i3f", 3, 1, 4, 5, *vector), "1.jpg_x.bin")
    found = read_matrix(path)
    assert (found.tolist(), found.dtype) == ([[1.5], [-2.0], [3.25]], np.dtype(np.float32))
    matrix = written(tmp_path, struct.pack("<4i6f", 2, 3, 12, 5, *vector, *vector), "m.bin.gz")
    assert read_matrix(matrix).tolist() == [vector, vector]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "x.bin must begin with a header of 16 bytes; got 0"),
        (b"123", "x.bin must begin with a header of 16 bytes; got 3"),
        (struct.pack("<4i3f", 3, 1, 4, 6, 1, 2, 3), "must have a header of .* 5 .float32.; got 3, 1, 4, 6"),
        (struct.pack("<4i3f", 3, 1, 8, 5, 1, 2, 3), "must have a header of .*; got 3, 1, 8, 5"),
        (struct.pack("<4i", 0, 1, 4, 5), "must have a header of .*; got 0, 1, 4, 5"),
        (struct.pack("<4i3f", -3, 1, 4, 5, 1, 2, 3), "must have a header of .*; got -3, 1, 4, 5"),
        (struct.pack(">4i3f", 3, 1, 4, 5, 1, 2, 3), "must have a header of "),
        (struct.pack("<4i2f", 3, 1, 4, 5, 1, 2), "must have 28 bytes, as its header says; got 24"),
        (struct.pack("<4i4f", 3, 1, 4, 5, 1, 2, 3, 4), "must have 28 bytes, as its header says; got 32"),
    ],
)
def test_malformed_feature_files(tmp_path: Path, data: bytes, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_matrix(written(tmp_path, data, "x.bin"))
