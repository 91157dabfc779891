"""Celebrities in Frontal-Profile: the folder tree of pair lists, as a folder or a tar archive."""

import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from angulus.core import limits
from angulus.core.checks import InputError
from angulus.core.formats.columns import text_array
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.lists.text import Unpacked, lines_of, malformed

_IMAGES = re.compile(r"(?:.*/)?Pair_list_[FP]\.txt")
_FOLD = re.compile(r"(?:.*/)?([^/]+)/(FF|FP)/(\d{1,3})/(same|diff)\.txt")
_LARGEST = 2**20  # bytes; the largest published list has 200 kB

Key = tuple[str, str, int, str]  # a fold's split, FF or FP, number, same or diff; an image list's "", side, 0, ""
Text = tuple[str, list[str]]  # where it stands, and its lines


@dataclass(frozen=True, eq=False)
class Cfp:
    """Frontal-frontal and frontal-profile pairs; in the latter left is frontal and right is profile.

    Ids are `001/frontal/01.jpg` and `001/profile/01.jpg`; identities are the person's number, `001`.
    """

    ff: PairList
    fp: PairList


def read_cfp(path: str | os.PathLike[str]) -> Cfp:
    """Read the published tree from a folder, or from a .tar, .tar.gz or .tgz without unpacking it.

    Wanted, anywhere in it: `Pair_list_F.txt` and `Pair_list_P.txt` (a line is `number path`, numbers from 1), and
    `Split/FF|FP/01 ... 10/same.txt|diff.txt` (a line is `number,number`). Another name for `Split` will do where there
    is one folder of that kind only.

    Raises:
        InputError: a list is missing or malformed (names file and line), a fold lacks its number or half, a pair's
            people contradict same or diff, or the archive has a link or a path that leaves it.

    Source: S. Sengupta et al., "Frontal to Profile Face Verification in the Wild", WACV 2016; the data's Readme.
    """
    where = os.fspath(path)
    lists: dict[Key, Text] = {}
    for name, data in _members(Path(path)):
        key = _key(name)
        if key in lists:
            raise InputError(f"{where} must hold each list once; got {name} a second time")
        lists[key] = (f"{where}: {name}", lines_of(data, f"{where}: {name}"))
    images = {key[1]: lists.pop(key) for key in list(lists) if not key[0]}
    for side in ("F", "P"):
        if side not in images:
            raise InputError(f"{where} must hold Pair_list_{side}.txt; found none in it")
    front, profile = _image_ids(*images["F"]), _image_ids(*images["P"])
    split = _split_folder(where, {key[0] for key in lists})
    ff, fp = ({key[2:]: text for key, text in lists.items() if key[:2] == (split, kind)} for kind in ("FF", "FP"))
    return Cfp(_pairs(f"{where}: {split}/FF", ff, front, front), _pairs(f"{where}: {split}/FP", fp, front, profile))


def _key(name: str) -> Key:
    """What a list is, by its path."""
    fold = _FOLD.fullmatch(name)
    return (fold[1], fold[2], int(fold[3]), fold[4]) if fold else ("", name[-len("F.txt")], 0, "")


def _is_list(name: str) -> bool:
    return bool(_IMAGES.fullmatch(name) or _FOLD.fullmatch(name))


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the lists that a folder or an archive holds; nothing is written anywhere."""
    if path.is_dir():
        for file in sorted(path.rglob("*.txt")):
            name = file.relative_to(path).as_posix()
            if _is_list(name):
                yield name, limits.read_file(file)
        return
    try:
        with _opened(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                _refuse_unsafe(path, member)
                if member.isfile() and _is_list(member.name):
                    if member.size > _LARGEST:
                        raise InputError(f"{path}: {member.name} must be a list of pairs; got {member.size} bytes")
                    content = archive.extractfile(member)
                    yield member.name, content.read() if content else b""
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise InputError(f"{path} must be CFP's folder or a whole tar archive of it; got {error}") from error
    except OSError as error:
        raise InputError(f"{path} must be CFP's folder or its tar archive; got {error.strerror or error}") from error


def _opened(path: Path) -> BinaryIO | Unpacked:
    """The bytes of a tar archive, which may be gzipped whatever its name."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return Unpacked(path) if packed else path.open("rb")


def _refuse_unsafe(path: Path, member: tarfile.TarInfo) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise InputError(f"{path} must hold paths inside itself only; got {member.name!r}")
    if not (member.isfile() or member.isdir()):
        raise InputError(f"{path} must hold plain files and folders only; {member.name!r} is a link or a device")


def _split_folder(where: str, names: set[str]) -> str:
    if "Split" in names:
        return "Split"
    if len(names) != 1:
        found = ", ".join(sorted(names)) or "none"
        raise InputError(f"{where} must hold one folder Split with FF/01/same.txt and so on in it; got {found}")
    return names.pop()


def _image_ids(where: str, lines: list[str]) -> list[str]:
    ids = []
    for number, line in enumerate(lines, 1):
        cells = line.split()
        parts = PurePosixPath(cells[-1]).parts[-3:] if cells else ()
        if len(cells) != 2 or cells[0] != str(number) or len(parts) != 3 or parts[1] not in ("frontal", "profile"):
            raise malformed(where, number, f"`{number} ../Data/Images/001/frontal/01.jpg` or of the profile", line)
        ids.append("/".join(parts))
    return ids


def _pairs(where: str, lists: dict[tuple[int, str], Text], left_ids: list[str], right_ids: list[str]) -> PairList:
    count = len(lists) // 2
    wanted = {(fold, kind) for fold in range(1, count + 1) for kind in ("same", "diff")}
    if not count or set(lists) != wanted:
        odd = sorted(set(lists) ^ wanted)
        got = ", ".join(f"{fold:02d}/{kind}.txt" for fold, kind in odd[:3]) or "no folds"
        raise InputError(f"{where} must hold folds 01, 02, ... each with same.txt and diff.txt; missing or odd: {got}")
    left, right, same, folds = [], [], [], []
    for fold in range(1, count + 1):
        for kind in ("same", "diff"):
            name, lines = lists[fold, kind]
            for number, line in enumerate(lines, 1):
                first, second = _pair(name, number, line, left_ids, right_ids)
                if (first.partition("/")[0] == second.partition("/")[0]) != (kind == "same"):
                    rule = "images of one person" if kind == "same" else "images of two people"
                    raise malformed(name, number, rule, f"{line}: {first} and {second}")
                left.append(first)
                right.append(second)
                same.append(kind == "same")
                folds.append(fold - 1)
    first_people, second_people = (text_array([name.partition("/")[0] for name in ids]) for ids in (left, right))
    ids = text_array(left), text_array(right)
    return PairList(*ids, np.array(same), np.array(folds), first_people, second_people, source=where)


def _pair(where: str, number: int, line: str, left_ids: list[str], right_ids: list[str]) -> tuple[str, str]:
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != 2 or not all(cell.isascii() and cell.isdigit() and len(cell) < 10 for cell in cells):
        raise malformed(where, number, "two image numbers, `5,97`", line)
    first, second = int(cells[0]), int(cells[1])
    if not (1 <= first <= len(left_ids) and 1 <= second <= len(right_ids)):
        raise malformed(where, number, f"numbers in [1, {len(left_ids)}] and [1, {len(right_ids)}]", line)
    return left_ids[first - 1], right_ids[second - 1]
