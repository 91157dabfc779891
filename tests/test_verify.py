"""The same person or not: against a calculation by hand, and what is refused."""

from __future__ import annotations

import io
import json
import math
import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

import angulus
from angulus import InputError
from angulus.cli.calibrate import calibrate as calibrate_command
from angulus.cli.verify import lines
from angulus.cli.verify import verify as command
from angulus.core.contract import Contract
from angulus.core.embeddings import Embeddings
from angulus.evaluation.protocols.calibrate import calibrate, pairs_of_images
from angulus.evaluation.protocols.calibration import Calibration, Rate
from angulus.models import artifact, embed
from angulus.models.artifact import Config
from angulus.models.verify import Decision, verify

CONFIG = Config(
    "small", in_channels=3, image_size=(16, 16), embedding_size=5, contract=Contract(colour="rgb", flip="sum")
)

app = typer.Typer()
app.command("verify")(command)
app.command("calibrate")(calibrate_command)


def save(path: Path, seed: int, size: int = 16) -> Path:
    base = np.random.default_rng(seed // 10).integers(0, 256, (size, size, 3))
    noise = np.random.default_rng(1000 + seed).normal(0, 40, base.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(base + noise, 0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A calibrated model and the images that it was calibrated on: four people, three images each."""
    torch.manual_seed(0)
    artifact.save(CONFIG, CONFIG.build(), tmp_path / "model")
    for person in range(4):
        for image in range(3):
            save(tmp_path / "people" / str(person) / f"{image}.png", 10 * person + image)
    embed.run(tmp_path / "model", tmp_path / "people", tmp_path / "e.npz")
    found = CliRunner().invoke(
        app, ["calibrate", str(tmp_path / "e.npz"), "--model", str(tmp_path / "model"), "--fmr", "0.1", "--draws", "40"]
    )
    assert found.exit_code == 0, found.output
    return tmp_path


def test_the_decision_is_the_calibrated_one_of_the_cosine(folder: Path) -> None:
    model = angulus.load(folder / "model")
    assert model.calibration is not None
    assert model.calibration == Calibration.read(folder / "model" / "calibration.json")
    embedded = Embeddings.read(folder / "e.npz")
    assert embedded.model == model.name == model.calibration.model
    assert model.name.endswith("-sum")
    kinds = set()
    for one, other in (("0/0", "0/1"), ("0/0", "1/0"), ("2/0", "3/2"), ("1/1", "1/2")):
        found = verify(model, folder / "people" / f"{one}.png", folder / "people" / f"{other}.png")
        a, b = (embedded.vectors[embedded.rows([f"{each}.png"], "these")[0]].tolist() for each in (one, other))
        norms = [math.sqrt(math.fsum(x * x for x in each)) for each in (a, b)]
        cosine = math.fsum(x * y for x, y in zip(a, b, strict=True)) / norms[0] / norms[1]
        assert found.score == pytest.approx(cosine, abs=1e-6)
        assert found.norms == pytest.approx(norms, rel=1e-5)
        assert found.threshold == model.calibration.threshold.value
        assert found.same == (cosine >= found.threshold)
        assert found.fmr == model.calibration.fmr and found.impostors == 54
        ratio = math.exp(model.calibration.slope * cosine + model.calibration.intercept)
        assert found.probability == pytest.approx(ratio / (1 + ratio), rel=1e-4)
        low = verify(model, folder / "people" / f"{one}.png", folder / "people" / f"{other}.png", prior=0.01)
        assert low.probability == pytest.approx(ratio / (ratio + 99), rel=1e-4)
        kinds.add(found.same)
    assert kinds == {True, False}


def test_a_given_threshold_decides_without_error_rates(folder: Path) -> None:
    model = angulus.load(folder / "model")
    images = folder / "people/0/0.png", folder / "people/1/0.png"
    score = verify(model, *images).score
    at, above = verify(model, *images, threshold=score), verify(model, *images, threshold=min(1, score + 1e-9))
    assert at.same and not above.same
    assert at.fmr is None and at.impostors is None and at.probability is not None
    model.calibration = None
    assert verify(model, *images, threshold=0.0).probability is None


def test_an_uncalibrated_model_is_refused(folder: Path) -> None:
    (folder / "model" / "calibration.json").unlink()
    model = angulus.load(folder / "model")
    with pytest.raises(InputError, match=r"this model is not calibrated.*--threshold"):
        verify(model, folder / "people/0/0.png", folder / "people/0/1.png")


def test_another_flip_rule_than_the_calibrated_one_is_refused(folder: Path) -> None:
    other = angulus.load(folder / "model").with_flip("none")
    images = folder / "people/0/0.png", folder / "people/0/1.png"
    with pytest.raises(
        InputError,
        match=r"for the model .* (\w{16}), flip sum, and these .* of the model .* \1, flip none; .* with --flip",
    ):
        verify(other, *images)
    assert verify(other, *images, threshold=0.5).probability is None
    with pytest.raises(InputError, match="flip must be one of"):
        other.with_flip("twice")


def test_a_calibration_of_another_model_is_refused(folder: Path) -> None:
    torch.manual_seed(1)
    kept = (folder / "model" / "calibration.json").read_bytes()
    artifact.save(CONFIG, CONFIG.build(), folder / "other")
    (folder / "other" / "calibration.json").write_bytes(kept)
    other, own = (artifact._load(folder / name).fingerprint for name in ("other", "model"))
    said = rf"calibration\.json is for the model with fingerprint {own}, flip sum, and this .* {other}, flip sum"
    with pytest.raises(InputError, match=said):
        angulus.load(folder / "other")
    found = CliRunner().invoke(
        app, ["calibrate", str(folder / "e.npz"), "--model", str(folder / "other"), "--fmr", "0.1"]
    )
    assert own in str(found.exception) and f"and this is the model with fingerprint {other}" in str(found.exception)
    torch.manual_seed(0)  # the same weights, other pixels
    contract = replace(CONFIG.contract, mean=100.0)
    artifact.save(replace(CONFIG, contract=contract), CONFIG.build(), folder / "brighter")
    (folder / "brighter" / "calibration.json").write_bytes(kept)
    with pytest.raises(InputError, match="and this is the model with"):
        angulus.load(folder / "brighter")


def test_saving_a_model_again_deletes_its_calibration(folder: Path) -> None:
    artifact.save(CONFIG, CONFIG.build(), folder / "model")
    assert angulus.load(folder / "model").calibration is None


def test_calibrations_that_are_for_no_model_are_refused(folder: Path) -> None:
    read = Embeddings.read(folder / "e.npz")
    nameless = replace(read, models=None)
    calibration, _ = calibrate(nameless, pairs_of_images(nameless), target_fmr=0.1, draws=0)
    with pytest.raises(InputError, match="does not say which model it is for"):
        artifact.calibrate(folder / "model", calibration)
    with pytest.raises(InputError, match="fuses them by flip 'sum' afterwards"):
        artifact.calibrate(folder / "model", replace(calibration, model=read.model, flip="sum"))
    mixed = replace(read, models=np.array(["a-none", *["b-none"] * 11]))
    with pytest.raises(InputError, match="one model must have made all vectors; got 2: 'a-none', 'b-none'"):
        calibrate(mixed, pairs_of_images(mixed), target_fmr=0.1, draws=0)
    (folder / "model" / "calibration.json").write_text('{"format": 1}')
    with pytest.raises(InputError, match="is not a calibration"):
        angulus.load(folder / "model")
    artifact.calibrate(folder / "model", replace(calibration, model=read.model))  # in place of the damaged one
    assert angulus.load(folder / "model").calibration is not None


def test_images_that_cannot_be_compared_are_refused(folder: Path) -> None:
    model, good = angulus.load(folder / "model"), folder / "people/0/0.png"
    with pytest.raises(InputError, match=r"none\.png cannot be read: No such file"):
        verify(model, good, folder / "none.png")
    with pytest.raises(InputError, match=r"small\.png must be 16 x 16 pixels.*got 8 x 8"):
        verify(model, save(folder / "small.png", 1, 8), good)
    (folder / "text.png").write_text("no image")
    with pytest.raises(InputError, match=r"text\.png must be an image"):
        verify(model, good, folder / "text.png")
    (folder / "bomb.png").write_bytes(bomb())
    with pytest.raises(InputError, match=r"bomb\.png must have at most 89,478,485 pixels"):
        verify(model, good, folder / "bomb.png")
    for bad in ({"threshold": 1.5}, {"threshold": math.nan}, {"prior": 0.0}, {"prior": 1.0}):
        with pytest.raises(InputError, match=next(iter(bad))):
            verify(model, good, good, **bad)
    with torch.no_grad():
        for each in model.backbone.layers[-1].parameters():
            each.zero_()
    with pytest.raises(InputError, match="must have a length > 0"):
        verify(model, good, good)


def test_photos_are_aligned_as_prepare_does(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    from angulus.data.faces.align import Crops
    from angulus.data.faces.prepare import prepare_faces
    from planted_faces import Planted, photo, png

    contract = Contract(size=(32, 32), colour="rgb", template="five_points")
    config = Config("small", 3, (32, 32), 5, contract=contract)
    torch.manual_seed(0)
    artifact.save(config, config.build(), tmp_path / "model")
    for number, squares in enumerate(([(20, 20, 80, 250)], [(90, 40, 60, 240), (5, 5, 40, 250)], [])):
        (tmp_path / "photos" / "anna").mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / "anna" / f"{number}.png").write_bytes(png(photo(*squares)))
    prepare_faces(tmp_path / "photos", tmp_path / "out", Crops(32, 32), detector=Planted(), workers=1)
    embed.run(tmp_path / "model", tmp_path / "out" / "records", tmp_path / "e.npz", batch=1)
    one, other = Embeddings.read(tmp_path / "e.npz").unit(dtype=np.float64)
    model = angulus.load(tmp_path / "model")
    first, second, nobody = (tmp_path / "photos" / "anna" / f"{number}.png" for number in range(3))
    with pytest.warns(UserWarning, match=r"1\.png shows 2 faces; number 2 from the left was taken, the largest"):
        found = verify(model, first, second, threshold=0.5, detector=Planted())
    assert found.score == pytest.approx(float(one @ other), abs=1e-6)
    with pytest.raises(InputError, match=r"2\.png must show a face that .* \(no face was found\)"):
        verify(model, first, nobody, threshold=0.5, detector=Planted())
    nobody.write_bytes(b"")
    with pytest.raises(InputError, match=r"2\.png must be an image; it is empty"):
        verify(model, first, nobody, threshold=0.5, detector=Planted())
    nobody.write_bytes(b"text")
    with pytest.raises(InputError, match=r"2\.png must show a face .*\(.*must be an image; its first bytes"):
        verify(model, first, nobody, threshold=0.5, detector=Planted())
    with pytest.raises(InputError, match="detector must be 'mtcnn' or"):
        verify(model, first, second, threshold=0.5, detector="none")
    artifact.save(CONFIG, CONFIG.build(), tmp_path / "plain")
    with pytest.raises(InputError, match="whose contract names a template, and this one's does not"):
        verify(angulus.load(tmp_path / "plain"), first, second, threshold=0.5, detector=Planted())


def test_the_face_that_is_compared_is_named_and_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv2")
    from angulus.data.faces import registry
    from planted_faces import Planted, photo, png

    contract = Contract(size=(32, 32), colour="rgb", template="five_points")
    config = Config("small", 3, (32, 32), 5, contract=contract)
    torch.manual_seed(0)
    artifact.save(config, config.build(), tmp_path / "model")
    squares = [(110, 90, 50, 250), (2, 10, 60, 240), (165, 5, 33, 255), (70, 12, 40, 245), (45, 120, 9, 250)]
    (tmp_path / "many.png").write_bytes(png(photo(*squares)))
    boxes = sorted((left, top, left + side, top + side) for left, top, side, _ in squares)
    for number, (left, top, side, level) in enumerate(sorted(squares)):
        (tmp_path / f"{number + 1}.png").write_bytes(png(photo((left, top, side, level))))
    model, many = angulus.load(tmp_path / "model"), tmp_path / "many.png"
    with pytest.warns(
        UserWarning, match=r"many\.png shows 5 faces; number 1 from the left .* \(x 2 to 62, y 10 to 70\)"
    ):
        found = verify(model, many, tmp_path / "4.png", threshold=0.5, detector=Planted())
    assert [(each.total, each.number) for each in found.faces] == [(5, 1), (1, 1)]
    assert len(found.warnings) == 1 and "choose another with --face" in found.warnings[0]
    for number in (1, 3, 4, 5):
        chosen = verify(model, many, tmp_path / f"{number}.png", threshold=0.5, detector=Planted(), faces=[number])
        assert chosen.score == pytest.approx(1, abs=1e-6) and chosen.warnings == ()
        assert chosen.faces[0].number == number and chosen.faces[0].box == boxes[number - 1]
    for faces, said in (
        ([6], r"many\.png: the number of a face must be a whole number <= 5; got 6"),
        ([0], "the number of a face must be a whole number >= 1; got 0"),
        ([2], r"many\.png must show a face number 2 from the left that can be used; .* is 9.0 pixels across"),
        ([1, 2], r"4\.png: the number of a face must be .* <= 1; got 2"),
        ([1, 1, 1], "at most two, one per photo; got 3"),
    ):
        with pytest.raises(InputError, match=said):
            verify(model, many, tmp_path / "4.png", threshold=0.5, detector=Planted(), faces=faces)
    with pytest.raises(InputError, match="a face is chosen on photos that are aligned"):
        verify(model, many, many, threshold=0.5, faces=[1])
    monkeypatch.setattr(registry, "make_detector", lambda word: Planted())
    arguments = ["verify", str(tmp_path / "model"), str(many), str(many), "--threshold", "0.5", "--align"]
    run = CliRunner().invoke(app, [*arguments, "--face", "4", "--face", "3", "--json", str(tmp_path / "d.json")])
    assert run.exit_code == 0, run.output
    assert "face of A: number 4 of 5 from the left (x 110 to 160, y 90 to 140)" in run.output
    assert "face of B: number 3 of 5 from the left" in run.output
    saved = json.loads((tmp_path / "d.json").read_text())
    assert saved["faces"][0] == {"total": 5, "number": 4, "box": [110, 90, 160, 140]} and saved["warnings"] == []
    with pytest.warns(UserWarning, match="shows 5 faces"):
        assert CliRunner().invoke(app, [*arguments, "--json", str(tmp_path / "d.json")]).exit_code == 0
    assert len(json.loads((tmp_path / "d.json").read_text())["warnings"]) == 2
    wrong = CliRunner().invoke(app, [*arguments[:-1], "--face", "1"])
    assert "--face chooses among faces for --align; got 1 without it" in str(wrong.exception)


def test_the_answer_is_explained_where_the_likelier_one_is_another() -> None:
    one_percent, misses = Rate(0.01), Rate(0.21)
    found = Decision(False, 0.31, 0.38, (20.0, 21.0), one_percent, 5400, 0.58, misses, 1200)
    said = "\n".join(lines(found, 0.5))
    assert "FMR 0.01: 1 in 100 pairs of two people pass it (measured on 5,400)" in said
    assert "FNMR 0.21: 21 in 100 pairs of one person fail it (measured on 1,200)" in said
    assert "probability of one person 58 %, if 50 % of the pairs that you compare are of one person" in said
    assert "both are right: the threshold is strict, so that few pairs of two people pass (1 in 100), and it" in said
    said = "\n".join(lines(replace(found, same=True, score=0.4, probability=0.02), 0.001))
    assert "probability of one person 2 %, if 0.1 % of" in said and "most pairs of this score are of two" in said
    for calm in (replace(found, probability=0.42), replace(found, same=True, probability=0.9)):
        assert "both are right" not in "".join(lines(calm, 0.5))
    said = "\n".join(lines(replace(found, fmr=Rate(0.0), fnmr=Rate(math.nan)), 0.5))
    assert "FMR 0: no pairs of two" in said and "as high as 0.00056" in said and "nobody knows how many" in said


def test_a_model_that_hardly_tells_people_apart_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = angulus.load(folder / "model")
    images = folder / "people/0/0.png", folder / "people/0/1.png"
    weak, strong = (replace(model.calibration, auc=Rate(value)) for value in (0.486, 0.98))
    monkeypatch.setattr(model, "calibration", weak)
    with pytest.warns(UserWarning, match=r"this model hardly tells people apart \(AUC 0\.486; chance is 0\.5\)"):
        found = verify(model, *images)
    assert len(found.warnings) == 1
    monkeypatch.setattr(model, "calibration", strong)
    assert verify(model, *images).warnings == ()


def test_images_that_never_end_are_refused(folder: Path) -> None:
    model, good = angulus.load(folder / "model"), folder / "people/0/0.png"
    os.mkfifo(folder / "pipe.png")
    for endless in (folder / "pipe.png", Path("/dev/zero")):
        with pytest.raises(InputError, match="must be a file; it is a pipe or a device"):
            verify(model, good, endless)
    with pytest.raises(InputError, match="must be a file; it is a folder"):
        verify(model, good, folder)


def bomb() -> bytes:
    """A PNG of a few bytes whose header says 60000 x 60000."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    stream = io.BytesIO()
    stream.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)))
    stream.write(chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b""))
    return stream.getvalue()


def test_the_command_says_what_the_decision_rests_on(folder: Path) -> None:
    arguments = ["verify", str(folder / "model"), str(folder / "people/0/0.png"), str(folder / "people/0/1.png")]
    found = CliRunner().invoke(app, [*arguments, "--json", str(folder / "d.json")])
    assert found.exit_code == 0, found.output
    first, *rest = found.output.splitlines()
    saved = json.loads((folder / "d.json").read_text())
    assert first == ("same person" if saved["same"] else "not the same person")
    text = " ".join(rest)
    assert f"score {saved['score']:.4f}" in text and f"threshold {saved['threshold']:.4f}" in text
    assert "FMR" in text and "pairs of two people pass it (measured on 54)" in text and "probability" in text
    given = CliRunner().invoke(app, [*arguments, "--threshold", "0.5"])
    assert "it is your own, not calibrated" in given.output
    for options, text in (
        (["--json", "d.txt"], "ends in .json"),
        (["--detector", "mtcnn"], "--detector finds faces for"),
    ):
        wrong = CliRunner().invoke(app, [*arguments, *options])
        assert isinstance(wrong.exception, InputError) and text in str(wrong.exception)
    assert CliRunner().invoke(app, [*arguments, "--json", str(folder / "new" / "d.json")]).exit_code == 0
    for options, said in (([], "neither"), (["--out", "c.json", "--model", str(folder / "model")], "both")):
        wrong = CliRunner().invoke(app, ["calibrate", str(folder / "e.npz"), *options])
        assert isinstance(wrong.exception, InputError) and said in str(wrong.exception)


def test_the_command_calibrates_for_another_flip_rule_and_says_so(folder: Path) -> None:
    embed.run(folder / "model", folder / "people", folder / "plain.npz", flip="none")
    arguments = ["--model", str(folder / "model"), "--fmr", "0.1", "--draws", "0"]
    own = CliRunner().invoke(app, ["calibrate", str(folder / "e.npz"), *arguments]).output
    assert "flip: sum with the mirrored image's, by the model itself" in own and "--flip" not in own
    other = CliRunner().invoke(app, ["calibrate", str(folder / "plain.npz"), *arguments]).output
    assert "flip: none" in other and "flip none; the folder's own is" in other and "keeps its calibration" in other
    model = angulus.load(folder / "model")  # which keeps both
    for each in (model, model.with_flip("none"), model.with_flip("none").with_flip("sum")):
        assert each.calibration is not None and each.calibration.model == each.name
    (folder / "model" / artifact.CALIBRATION).unlink()
    with pytest.raises(InputError, match=r"the calibration is for .* flip none, and these .* flip sum"):
        verify(angulus.load(folder / "model"), folder / "people/0/0.png", folder / "people/0/1.png")
    found = CliRunner().invoke(app, ["calibrate", str(folder / "e.npz"), "--out", "c.json", "--fmr", "0"])
    assert "--fmr must be a finite number in (0, 1]; got 0.0" in str(found.exception)
