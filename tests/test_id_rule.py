"""Rules by which ids of embeddings become those of a list, the rule that an error proposes, and trees of features."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.core.id_rule import AS_THEY_ARE, IdRule, propose
from people import crowd

CROWD = crowd(3, 2, 4)  # ids p0/0, p0/1, ... p2/1
IDS = CROWD.ids.tolist()


def named(*ids: str) -> Embeddings:
    return replace(CROWD, ids=np.array(ids))


@pytest.mark.parametrize(
    ("ids", "rule"),
    [
        ([f"/data/lfw/{name}" for name in IDS], IdRule(parts=2)),
        ([f"C:\\faces\\{name[:2]}\\{name[3:]}.jpg" for name in IDS], IdRule(parts=2)),
        ([f"{name}.jpg_arcface.bin" for name in IDS], IdRule((".jpg_arcface.bin",))),
        ([f"/d/{name}_x.npy" for name in IDS], IdRule(("/d/", "_x.npy"))),
        ([f"/part{row}/{name}.png.npy" for row, name in enumerate(IDS)], IdRule((".png.npy",), 2)),
    ],
)
def test_the_rule_that_is_proposed_matches(ids: list[str], rule: IdRule) -> None:
    given = named(*ids).match_by(AS_THEY_ARE)
    with pytest.raises(InputError) as caught:
        given.rows(IDS[::-1], "the list")
    assert str(caught.value).endswith(f"; {rule} would match all 6")
    assert given.match_by(rule).rows(IDS[::-1], "the list").tolist() == [5, 4, 3, 2, 1, 0]
    assert given.match_by(rule).origin["id_rule"] == str(rule)


def test_folders_may_be_missing_on_either_side() -> None:
    flat = [f"{row}.jpg" for row in range(6)]
    listed = [f"img/{name}" for name in flat]
    assert named(*flat).match_by(IdRule(parts=1)).rows(listed, "the list").tolist() == list(range(6))
    assert propose(flat, listed) == "--id-parts 1 would match all 6"
    assert propose(flat, [*listed[:5], "img/x.jpg"]) == "--id-parts 1 would match 5 of the 6"
    assert propose(IDS, ["somebody/else"]) == ""
    assert propose(["x/a", "y/a"], ["z/a"]) == ""  # under one part both would be `a`


def test_rules_that_make_ids_the_same_are_refused() -> None:
    with pytest.raises(InputError, match=r"must stay different .* under --id-parts 1; .*'p0/0' and 'p1/0' become '0'"):
        CROWD.match_by(IdRule(parts=1))
    with pytest.raises(InputError, match=r"ids of the list must stay different .*'a/0' and 'b/0' become '0'"):
        named(*"012345").match_by(IdRule(parts=1)).rows(["a/0", "b/0"], "the list")
    with pytest.raises(InputError, match="must be texts that are not empty"):
        IdRule(("",))
    with pytest.raises(InputError, match="id_parts must be a whole number >= 1; got 0"):
        IdRule(parts=0)


def test_ids_without_embedding() -> None:
    with pytest.raises(InputError, match=r"1 of the 2 ids of the list .*name the embeddings as the list does$"):
        CROWD.rows(["p0/0", "q"], "the list")
    with pytest.raises(InputError, match="as failures to enrol with --missing fail"):
        CROWD.rows(["p0/0", "q"], "the list", missing="refuse")
    assert CROWD.rows(["p0/1.jpg", "q", "p0/1.jpg"], "the list", missing="fail").tolist() == [1, -1, 1]
    with pytest.raises(InputError, match="2 of the 2 ids"):
        CROWD.rows(["q", "r"], "the list", missing="fail")


def matrix(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = values.shape
    path.write_bytes(struct.pack("<4i", rows, columns, 4 * columns, 5) + values.astype("<f4").tobytes())


def test_a_tree_of_features(tmp_path: Path) -> None:
    """As MegaFace's kit and insightface's scripts write them: one column, or one row, per image."""
    vectors = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    names = ["A B/A B_1.png", "363/36@N00/id_1/9.jpg_0.jpg", "C/1"]
    for name, vector, suffix in zip(names, vectors, ("_arcface_112x112.bin", "_arcface.bin", ".bin"), strict=True):
        matrix(tmp_path / f"{name}{suffix}", vector[:, None] if suffix != ".bin" else vector[None])
    (tmp_path / ".DS_Store").write_bytes(b"x")
    found = Embeddings.read(tmp_path)
    assert found.vectors[found.rows(names, "the list")].tolist() == vectors.tolist()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.warns(UserWarning, match=r"also holds 1 other files, .*notes\.txt"):
        Embeddings.read(tmp_path)
    (tmp_path / "notes.txt").unlink()
    matrix(tmp_path / "C" / "2.bin", np.ones((4, 1)))
    with pytest.raises(InputError, match=r"2\.bin must hold one vector of 5 numbers, .*got a matrix of 4 x 1"):
        Embeddings.read(tmp_path)
    matrix(tmp_path / "C" / "2.bin", np.ones((2, 5)))
    with pytest.raises(InputError, match="got a matrix of 2 x 5"):
        Embeddings.read(tmp_path)
    matrix(tmp_path / "A B" / "A B_1.png_cosface.bin", vectors[:1])
    with pytest.raises(InputError, match=r"must hold one file per image; got .* of A B/A B_1\.png"):
        Embeddings.read(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"must hold \.bin files of vectors, one per image; it holds none"):
        Embeddings.read(tmp_path / "empty")


def test_a_matrix_with_a_row_per_image(tmp_path: Path) -> None:
    """As Trillion-Pairs takes features: one file, in the order of its list."""
    matrix(tmp_path / "f.bin", CROWD.vectors)
    with pytest.raises(InputError, match=r"f\.bin holds vectors only; name the image of each row in f\.bin\.ids\.txt"):
        Embeddings.read(tmp_path / "f.bin")
    (tmp_path / "f.bin.ids.txt").write_text("\n".join(IDS) + "\n")
    (tmp_path / "f.bin.labels.txt").write_text("a\na\n\nb\nb\n\n")
    found = Embeddings.read(tmp_path / "f.bin")
    assert found.ids.tolist() == IDS and found.labels is not None
    assert found.labels.tolist() == ["a", "a", "", "b", "b", ""]
    assert found.vectors == pytest.approx(CROWD.vectors, abs=1e-6)
    (tmp_path / "f.bin.ids.txt").write_text("\n".join(IDS[1:]))
    with pytest.raises(InputError, match=r"ids must have shape \[6\]"):
        Embeddings.read(tmp_path / "f.bin")
