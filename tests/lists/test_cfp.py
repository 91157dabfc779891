"""CFP's tree of lists: the published one from an archive and a folder, and archives that would do harm."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from angulus.core.checks import InputError
from angulus.evaluation.lists.cfp import read_cfp
from angulus.evaluation.lists.pair_list import PairList
from archives import unpack

Tree = dict[str, str]


def tree(split: str = "Protocol/Split") -> Tree:
    """Three people with two frontal and two profile images, two folds."""
    files = {
        f"Protocol/Pair_list_{side[0].upper()}.txt": "".join(
            f"{2 * person + image - 2} ../Data/Images/{person:03d}/{side}/{image:02d}.jpg\n"
            for person in (1, 2, 3)
            for image in (1, 2)
        )
        for side in ("frontal", "profile")
    }
    for kind in ("FF", "FP"):
        files |= {f"{split}/{kind}/01/same.txt": "1,2\n", f"{split}/{kind}/01/diff.txt": "2,3\n"}
        files |= {f"{split}/{kind}/02/same.txt": "5,6\n", f"{split}/{kind}/02/diff.txt": "6,4\n"}
    return files


def as_folder(folder: Path, files: Tree) -> Path:
    for name, text in files.items():
        path = folder / "cfp" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "cfp"


def as_archive(folder: Path, files: Tree) -> Path:
    path = folder / "cfp.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


BOTH = pytest.mark.parametrize("made", [as_folder, as_archive])
Made = Callable[[Path, Tree], Path]


def test_the_published_lists(data_folder: Path, tmp_path: Path) -> None:
    path = data_folder / "protocols" / "cfp_protocol.tar.gz"
    cfp = read_cfp(path)
    for pairs, sides in ((cfp.ff, {"frontal"}), (cfp.fp, {"profile"})):
        assert (len(pairs), pairs.fold_count) == (7000, 10)
        assert pairs.folds is not None and pairs.left_identity is not None and pairs.right_identity is not None
        counts = Counter(zip(pairs.folds.tolist(), pairs.same.tolist(), strict=True))
        assert counts == {(fold, same): 350 for fold in range(10) for same in (True, False)}
        assert {name.split("/")[1] for name in pairs.left.tolist()} == {"frontal"}
        assert {name.split("/")[1] for name in pairs.right.tolist()} == sides
        assert ((pairs.left_identity == pairs.right_identity) == pairs.same).all()
        assert len(set(pairs.left_identity.tolist())) == 500
    with tarfile.open(path) as archive:
        unpack(archive, tmp_path)
    lines = next(tmp_path.rglob("FP/03/diff.txt")).read_text().splitlines()
    frontal, profile = (next(tmp_path.rglob(f"Pair_list_{side}.txt")).read_text().splitlines() for side in "FP")
    for row in (0, 100, 349):
        first, second = map(int, lines[row].split(","))
        place = 2 * 700 + 350 + row
        assert frontal[first - 1].endswith(f"/{cfp.fp.left[place]}")
        assert profile[second - 1].endswith(f"/{cfp.fp.right[place]}")
    again = read_cfp(tmp_path)
    assert columns(again.ff) == columns(cfp.ff)
    assert columns(again.fp) == columns(cfp.fp)


def columns(pairs: PairList) -> list[object]:
    assert pairs.folds is not None
    return [pairs.left.tolist(), pairs.right.tolist(), pairs.same.tolist(), pairs.folds.tolist()]


@BOTH
@pytest.mark.parametrize("split", ["Protocol/Split", "Split2Mat"])
def test_a_small_tree(tmp_path: Path, made: Made, split: str) -> None:
    cfp = read_cfp(made(tmp_path, tree(split)))
    assert cfp.ff.left.tolist() == [
        "001/frontal/01.jpg",
        "001/frontal/02.jpg",
        "003/frontal/01.jpg",
        "003/frontal/02.jpg",
    ]
    assert cfp.fp.right.tolist() == [
        "001/profile/02.jpg",
        "002/profile/01.jpg",
        "003/profile/02.jpg",
        "002/profile/02.jpg",
    ]
    assert columns(cfp.fp)[2:] == [[True, False, True, False], [0, 0, 1, 1]]
    assert cfp.fp.right_identity is not None and cfp.fp.right_identity.tolist() == ["001", "002", "003", "002"]


@BOTH
def test_split_is_preferred_to_other_names(tmp_path: Path, made: Made) -> None:
    files = tree() | {"Protocol/Other/FF/01/same.txt": "nonsense\n"}
    assert len(read_cfp(made(tmp_path, files)).ff) == 4


@BOTH
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"Protocol/Pair_list_P.txt": None}, "must hold Pair_list_P.txt; found none in it"),
        ({"Protocol/Split/FF/02/diff.txt": None}, "Split/FF must hold folds 01, 02, .*; missing or odd: 02/"),
        (
            {"Protocol/Split/FP/04/same.txt": "1,2\n"},
            "Split/FP must hold folds 01, 02, .*; missing or odd: 04/same.txt",
        ),
        ({"Protocol/Split/FF/02/same.txt": ""}, "FF/02/same.txt must hold lines; it is empty"),
        (
            {"Protocol/Split/FF/02/same.txt": "5,6\n5\n"},
            "FF/02/same.txt line 2 must be two image numbers, `5,97`; got '5'",
        ),
        ({"Protocol/Split/FF/02/same.txt": "5,6,1\n"}, "line 1 must be two image numbers"),
        ({"Protocol/Split/FF/02/same.txt": "5,-6\n"}, "line 1 must be two image numbers"),
        ({"Protocol/Split/FF/02/same.txt": "5,7\n"}, r"line 1 must be numbers in \[1, 6\] and \[1, 6\]; got '5,7'"),
        ({"Protocol/Split/FF/02/same.txt": "0,5\n"}, r"line 1 must be numbers in \[1, 6\] and \[1, 6\]; got '0,5'"),
        (
            {"Protocol/Split/FF/02/same.txt": "1,5\n"},
            "line 1 must be images of one person; got '1,5: 001/frontal/01.jpg",
        ),
        ({"Protocol/Split/FP/02/diff.txt": "1,2\n"}, "FP/02/diff.txt line 1 must be images of two people"),
        ({"Protocol/Pair_list_F.txt": "1 a/frontal/1.jpg\n3 a/frontal/2.jpg\n"}, "Pair_list_F.txt line 2 must be `2 "),
        ({"Protocol/Pair_list_F.txt": "1 a/left/1.jpg\n"}, "Pair_list_F.txt line 1 must be `1 ../Data/Images/001/fr"),
        ({"Protocol/Pair_list_F.txt": "1\n"}, "Pair_list_F.txt line 1 must be `1 "),
        (
            {"again/Pair_list_F.txt": "1 a/frontal/1.jpg\n"},
            "must hold each list once; got .*Pair_list_F.txt a second time",
        ),
        ({"again/Split/FF/02/same.txt": "1,2\n"}, "must hold each list once; got .*/02/same.txt a second time"),
    ],
)
def test_malformed_trees(tmp_path: Path, made: Made, change: dict[str, str | None], sentence: str) -> None:
    files = {name: text for name, text in (tree() | change).items() if text is not None}
    with pytest.raises(InputError, match=sentence):
        read_cfp(made(tmp_path, files))


def test_folds_are_looked_for(tmp_path: Path) -> None:
    lists = {name: text for name, text in tree().items() if "Pair_list" in name}
    with pytest.raises(InputError, match=r"must hold one folder Split with FF/01/same.txt and so on in it; got none"):
        read_cfp(as_folder(tmp_path / "none", lists))
    two = tree("A") | tree("B")
    with pytest.raises(InputError, match=r"must hold one folder Split with .*; got A, B"):
        read_cfp(as_folder(tmp_path / "two", two))
    no_fp = {name: text for name, text in tree().items() if "/FP/" not in name}
    with pytest.raises(InputError, match=r"Split/FP must hold folds 01, 02, .*; missing or odd: no folds"):
        read_cfp(as_folder(tmp_path / "no_fp", no_fp))


@pytest.mark.parametrize("name", ["../Pair_list_F.txt", "cfp/../../Pair_list_F.txt", "/Pair_list_F.txt", "../other"])
def test_paths_that_leave_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "inside").mkdir()
    path = as_archive(tmp_path / "inside", {name: "1 a/frontal/1.jpg\n"} | tree())
    with pytest.raises(InputError, match="must hold paths inside itself only; got "):
        read_cfp(path)
    assert [each.name for each in tmp_path.iterdir()] == ["inside"]
    assert [each.name for each in (tmp_path / "inside").iterdir()] == ["cfp.tar.gz"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_in_an_archive_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("Protocol/Pair_list_F.txt")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(
        InputError, match=r"must hold plain files and folders only; 'Protocol/Pair_list_F.txt' is a link"
    ):
        read_cfp(path)


def test_a_list_of_a_size_that_no_list_has_is_not_read(tmp_path: Path) -> None:
    files = tree() | {"Protocol/Pair_list_F.txt": " " * (2**20 + 1)}
    with pytest.raises(InputError, match=r"Pair_list_F.txt must be a list of pairs; got 1048577 bytes"):
        read_cfp(as_archive(tmp_path, files))


def test_damaged_archives(data_folder: Path, tmp_path: Path) -> None:
    whole = (data_folder / "protocols" / "cfp_protocol.tar.gz").read_bytes()
    for name, data in {"cut.tar.gz": whole[: len(whole) // 2], "no.tar": b"no archive", "empty.tar": b""}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name} must "):
            read_cfp(tmp_path / name)
    with pytest.raises(InputError, match=r"none.tar must be CFP's folder or its tar archive; got No such file"):
        read_cfp(tmp_path / "none.tar")
