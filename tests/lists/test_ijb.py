"""IJB lists: IJB-A's own counted independently, small lists in each published form, and malformed lines."""

from __future__ import annotations

import csv
import gzip
import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.evaluation.lists import text
from angulus.evaluation.lists.ijb import (
    Comparisons,
    TemplateImages,
    read_comparisons,
    read_landmarks,
    read_template_media,
    read_templates,
)

HEADING = "TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID,FACE_X,FACE_Y,FACE_WIDTH,FACE_HEIGHT"
ROWS = [
    "1,10,img/1.png,7,0,0,5,5",
    "1,10,img/2.png,8,0,0,5,5",
    "2,11,frames/3.png,9,1.5,0,5,5",
    "3,10,img/1.png,7,0,0,5,5",
]


def written(folder: Path, text: str, name: str = "list.csv") -> Path:
    path = folder / name
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def metadata(folder: Path, rows: list[str] = ROWS, heading: str = HEADING, name: str = "list.csv") -> Path:
    return written(folder, "\n".join([heading, *rows]) + "\n", name)


def whole(blocks: Any) -> list[tuple[int, int, bool]]:
    rows: list[tuple[int, int, bool]] = []
    for block in blocks:
        assert isinstance(block, Comparisons) and len(block) == len(block.same)
        rows += zip(block.left.tolist(), block.right.tolist(), block.same.tolist(), strict=True)
    return rows


def test_ijb_a_as_counted_by_another_reader(data_folder: Path) -> None:
    path = data_folder / "protocols" / "ijba_verify_metadata_1.csv.gz"
    images = read_templates(path)
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))
    assert len(images) == len(rows) == 17_997
    assert images.media is not None and images.subjects is not None
    assert images.ids.tolist() == [row["FILE"] for row in rows]
    assert images.templates.tolist() == [int(row["TEMPLATE_ID"]) for row in rows]
    assert images.media.tolist() == [int(row["MEDIA_ID"]) for row in rows]
    assert images.subjects.tolist() == [int(row["SUBJECT_ID"]) for row in rows]
    assert (len(set(images.templates.tolist())), len(set(images.subjects.tolist()))) == (1_970, 167)
    subject = {row["TEMPLATE_ID"]: row["SUBJECT_ID"] for row in rows}
    matches = data_folder / "protocols" / "ijba_verify_comparisons_1.csv.gz"
    pairs = [line.split(",") for line in gzip.decompress(matches.read_bytes()).decode().splitlines()]
    expected = [(int(left), int(right), subject[left] == subject[right]) for left, right in pairs]
    assert whole(read_comparisons(matches, images)) == expected
    assert (len(expected), sum(same for _, _, same in expected)) == (11_787, 1_803)


def test_media_are_media_ids_else_sightings_else_unknown(tmp_path: Path) -> None:
    images = read_templates(metadata(tmp_path))
    assert images.ids.tolist() == ["img/1.png", "img/2.png", "frames/3.png", "img/1.png"]
    assert images.templates.tolist() == [1, 1, 2, 3]
    assert images.media is not None and images.media.tolist() == [7, 8, 9, 7]
    both = metadata(tmp_path, ["1,a.png,4,5,6"], "TEMPLATE_ID,FILE,SIGHTING_ID,MEDIA_ID,SUBJECT_ID")
    assert (found := read_templates(both)).media is not None and found.media.tolist() == [5]
    assert found.subjects is not None and found.subjects.tolist() == [6]
    none = metadata(
        tmp_path, ["1,10,a.png,1,2,3,4"], "TEMPLATE_ID,SUBJECT_ID,FILENAME,FACE_X,FACE_Y,FACE_WIDTH,FACE_HEIGHT"
    )
    assert read_templates(none).media is None


def test_several_lists_are_one(tmp_path: Path) -> None:
    first = metadata(tmp_path, ROWS[:2], name="ijbb_1N_gallery_S1.csv")
    second = metadata(tmp_path, ROWS[2:], name="ijbb_1N_probe_mixed.csv.gz")
    images = read_templates(first, second)
    assert images.templates.tolist() == [1, 1, 2, 3]
    assert images.source == f"{first}, {second}"
    assert images.subject_of([3, 1, 2, 1]).tolist() == [10, 10, 11, 10]
    other = metadata(tmp_path, ["4,9,x.png"], "TEMPLATE_ID,SUBJECT_ID,FILENAME", "none.csv")
    with pytest.raises(InputError, match="must all have MEDIA_ID or SIGHTING_ID, or none of them; got some with it"):
        read_templates(first, other)
    with pytest.raises(InputError, match="read_templates needs at least one path; got none"):
        read_templates()


def test_an_image_of_two_people_needs_ids_with_the_subject(tmp_path: Path) -> None:
    path = metadata(tmp_path, [*ROWS, "4,12,img/2.png,8,9,9,5,5"])
    with pytest.raises(
        InputError, match=r'image img/2.png must show one subject; got 10 and 12; pass ids="file-subject"'
    ):
        read_templates(path)
    images = read_templates(path, ids="file-subject")
    assert images.ids.tolist() == ["img/1.png#10", "img/2.png#10", "frames/3.png#11", "img/1.png#10", "img/2.png#12"]
    with pytest.raises(
        InputError, match=r"ids must be one of 'file', 'file-subject'; got 'files'; did you mean 'file'?"
    ):
        read_templates(path, ids="files")


@pytest.mark.parametrize(
    ("rows", "heading", "sentence"),
    [
        (
            ["1,10,a.png"],
            "TEMPLATE_ID,SUBJECT,FILENAME",
            "list.csv line 1 must be a heading of different names with TEMP",
        ),
        (
            ["1,10,a.png"],
            "TEMPLATE_ID,SUBJECT_ID,IMAGE",
            "list.csv line 1 must be a heading of different names with TEMP",
        ),
        (["1,1,10,a.png"], "TEMPLATE_ID,TEMPLATE_ID,SUBJECT_ID,FILE", "list.csv line 1 must be a heading of different"),
        (
            [*ROWS[:2], "1,10,img/4.png,7,0,0,5"],
            HEADING,
            r"line 4 must be 8 columns \(TEMPLATE_ID,.* due; got '1,10,img/4",
        ),
        ([*ROWS[:2], "1,10,img/4.png,7,0,0,5,5,5"], HEADING, "line 4 must be 8 columns"),
        ([*ROWS[:2], "x,10,img/4.png,7,0,0,5,5"], HEADING, "line 4 must be 8 columns"),
        ([*ROWS[:2], "1,,img/4.png,7,0,0,5,5"], HEADING, "line 4 must be 8 columns"),
        ([*ROWS[:2], "1,nan,img/4.png,7,0,0,5,5"], HEADING, "line 4 must be 8 columns"),
        ([*ROWS[:2], "1,1.5,img/4.png,7,0,0,5,5"], HEADING, "line 4 must be 8 columns"),
        ([*ROWS, "2,10,img/4.png,7,0,0,5,5"], HEADING, "template 2 must show one subject; got 11 and 10$"),
        ([], HEADING, "list.csv must hold lines after its heading; got none"),
    ],
)
def test_malformed_metadata(tmp_path: Path, rows: list[str], heading: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_templates(metadata(tmp_path, rows, heading))


@pytest.mark.parametrize("name", ["pairs.txt", "pairs.txt.gz"])
def test_pairs_with_flags(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, "1 11065 1\n1 11066 0\n2 3 1", name)
    assert whole(read_comparisons(path)) == [(1, 11065, True), (1, 11066, False), (2, 3, True)]
    assert whole(read_comparisons(written(tmp_path, "1,2,0\r\n3,4,1\r\n", name))) == [(1, 2, False), (3, 4, True)]


def test_pairs_with_a_heading(tmp_path: Path) -> None:
    images = read_templates(metadata(tmp_path))
    path = written(tmp_path, "ENROLL_TEMPLATE_ID,VERIF_TEMPLATE_ID\n1,2\n1,3\n", "match.csv")
    assert whole(read_comparisons(path, images)) == [(1, 2, False), (1, 3, True)]


def test_long_lists_come_in_blocks_of_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_BLOCK", 2**16)
    rows = [(number, number * 7 % 1000, number % 3 == 0) for number in range(100_000)]
    path = written(tmp_path, "".join(f"{left} {right} {int(same)}\n" for left, right, same in rows))
    tracemalloc.start()
    sizes = [len(block) for block in read_comparisons(path)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(sizes) == 100_000
    assert len(sizes) > 10
    assert peak < 100_000 * 2 * 8  # less than the two columns of templates would take
    assert whole(read_comparisons(path)) == rows
    with path.open("a") as file:
        file.write("5 6 2\n")
    with pytest.raises(InputError, match=r"list.csv line 100001 must be two templates and a flag 0 or 1; got 2"):
        whole(read_comparisons(path))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "list.csv must hold lines; it is empty"),
        ("1 2 1\n1 2\n", "list.csv line 2 must be 3 columns .left right same., numbers where they are due; got '1 2'"),
        ("1 2 1\n1 2 1 1\n", "line 2 must be 3 columns"),
        ("1 2 1\n1  2 1\n", "line 2 must be 3 columns"),
        ("1 2 1\n1 2 yes\n", "line 2 must be 3 columns"),
        ("1 2 1\n1 x 1\n", "line 2 must be 3 columns"),
        ("1 2 1\n1 2 0\n1 2 -1\n", "line 3 must be two templates and a flag 0 or 1; got -1"),
        ("a b c\n1 2 0\n1 2 5\n", "line 3 must be two templates and a flag 0 or 1; got 5"),
        ("1\n", "line 1 must be `template template 0|1` or `template,template`; got '1'".replace("|", r"\|")),
        ("1 2 3 4\n", "line 1 must be `template template 0"),
        ("a b c\n", "must hold lines after its heading; got none"),
        ("1 2 1\n1 2 99999999999999999999\n", "line 2 must be|must be a whole table"),
    ],
)
def test_malformed_comparisons(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        whole(read_comparisons(written(tmp_path, text)))


def test_lists_without_flags_need_the_subjects(tmp_path: Path) -> None:
    path = written(tmp_path, "1,2\n1,99\n98,97\n99,96\n", "match.csv")
    with pytest.raises(InputError, match=r"match.csv has no flags, so it needs images= with the subjects; got None"):
        read_comparisons(path)
    images = read_templates(metadata(tmp_path))
    with pytest.raises(InputError, match="must hold every template asked for; it lacks 2: 98, 99"):
        whole(read_comparisons(path, images))
    with pytest.raises(InputError, match="it lacks 4: 96, 97, 98"):
        images.subject_of([1, 99, 98, 97, 96])
    unknown = TemplateImages(np.array(["a"]), np.array([1]), None, None, "tid.txt")
    with pytest.raises(InputError, match=r"tid.txt must say who each template shows; it has no SUBJECT_ID"):
        whole(read_comparisons(path, unknown))


def test_damaged_files(tmp_path: Path) -> None:
    data = gzip.compress("".join(f"{number} 2 1\n" for number in range(10_000)).encode())
    (tmp_path / "cut.txt.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cut.txt.gz must be a whole "):
        whole(read_comparisons(tmp_path / "cut.txt.gz"))
    (tmp_path / "plain.txt.gz").write_bytes(b"1 2 1\n")
    with pytest.raises(InputError, match=r"plain.txt.gz must be a whole gzip file"):
        read_comparisons(tmp_path / "plain.txt.gz")
    with pytest.raises(InputError, match=r"none.txt must be a file that can be read; there is no such file"):
        read_comparisons(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"1.jpg 1 1\n\xfc.jpg 1 1\n")
    with pytest.raises(InputError, match=r"latin.txt line 2 must be UTF-8 text"):
        read_template_media(tmp_path / "latin.txt")


def test_names_templates_and_media(tmp_path: Path) -> None:
    images = read_template_media(written(tmp_path, "1.jpg 1 69544\n2.jpg 1 3720\n469375.jpg 187955 111105\n"))
    assert images.ids.tolist() == ["1.jpg", "2.jpg", "469375.jpg"]
    assert images.templates.tolist() == [1, 1, 187955]
    assert images.media is not None and images.media.tolist() == [69544, 3720, 111105]
    assert images.subjects is None
    for line in ("1.jpg 1\n", "1.jpg x 1\n", "1.jpg 1 1 1\n"):
        with pytest.raises(InputError, match=r"list.csv line 2 must be 3 columns \(name template medium\)"):
            read_template_media(written(tmp_path, "0.jpg 1 1\n" + line))


def test_landmarks_and_scores(tmp_path: Path) -> None:
    numbers = [f"{number}.5" for number in range(10)]
    path = written(tmp_path, f"1.jpg {' '.join(numbers)} 0.998\n2.jpg {' '.join(reversed(numbers))} 1\n")
    found = read_landmarks(path)
    assert (len(found), found.ids.tolist(), found.scores.tolist()) == (2, ["1.jpg", "2.jpg"], [0.998, 1.0])
    assert found.points.shape == (2, 5, 2)
    assert found.points[0].tolist() == [[0.5, 1.5], [2.5, 3.5], [4.5, 5.5], [6.5, 7.5], [8.5, 9.5]]
    for last, sentence in {
        "": r"line 2 must be 12 columns \(name x1 y1",
        " x": r"line 2 must be 12 columns \(name x1 y1",
        " nan": r"line 2 must be a name and 11 finite numbers",
        " inf": r"line 2 must be a name and 11 finite numbers",
    }.items():
        with pytest.raises(InputError, match=sentence):
            read_landmarks(written(tmp_path, f"1.jpg {' '.join(numbers)} 1\n2.jpg {' '.join(numbers)}{last}\n"))
