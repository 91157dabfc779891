"""Who is on a photo: people with a pattern each as their face, in a gallery or as classes, and nobody."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

import angulus
from angulus import InputError, losses
from angulus.cli.main import app
from angulus.core.contract import Contract
from angulus.evaluation.protocols.calibration import Calibration, Rate
from angulus.models import artifact, embed
from angulus.models.artifact import Config
from angulus.models.classifier import Classifier

pytest.importorskip("cv2")
pytest.importorskip("lancedb")

from planted_faces import Planted, photo, png

CONTRACT = Contract(size=(32, 32), colour="rgb", template="five_points", flip="sum")
CONFIG = Config("small", 3, (32, 32), 8, contract=CONTRACT)
NAMES = ("anna", "ben", "cleo")


def picture(person: int, seed: int, *places: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A photo with the same person's pattern at each place (left, top, side)."""
    rng = np.random.default_rng(1000 * person + seed)
    pattern = np.random.default_rng(person).integers(60, 256, (8, 8, 3))
    image = photo()
    for left, top, side in places:
        rows = np.arange(side) * 8 // side
        noisy = pattern[rows][:, rows] + rng.normal(0, 3, (side, side, 3))
        noisy[..., 0] = 250  # as sure as the detector wants it
        image[top : top + side, left : left + side] = np.clip(noisy, 40, 255).astype(np.uint8)
    return image


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its classes and its gallery of three people, three photos each; new photos."""
    from angulus.data.faces.align import Crops
    from angulus.data.faces.prepare import prepare_faces

    root = tmp_path_factory.mktemp("who")
    torch.manual_seed(0)
    backbone = CONFIG.build()
    artifact.save(CONFIG, backbone, root / "model")
    for person, name in enumerate(NAMES):
        (root / "photos" / name).mkdir(parents=True)
        for number in range(3):
            image = picture(person, number, (20 + 5 * number, 20, 90))
            (root / "photos" / name / f"{number}.png").write_bytes(png(image))
    prepare_faces(root / "photos", root / "out", Crops(32, 32), detector=Planted(), workers=1)
    embed.run(root / "model", root / "out" / "records", root / "e.npz")
    assert CliRunner().invoke(app, ["search", "add", str(root / "g"), str(root / "e.npz")]).exit_code == 0
    for name, image in {
        "ben": picture(1, 9, (60, 30, 80)),
        "stranger": picture(7, 9, (60, 30, 80)),
        "none": photo(),
        "six": picture(2, 9, *[(5 + 60 * (k % 3), 5 + 70 * (k // 3), 36 + k) for k in range(6)]),
    }.items():
        (root / f"{name}.png").write_bytes(png(image))
    with torch.no_grad():  # a class is the mean direction of its person's photos, unflipped as in training
        model = angulus.load(root / "model").with_flip("none")
        from angulus.data.records import Records

        records = Records(root / "out" / "records")
        from angulus.models.inputs import pixels_of

        rows = [records[row] for row in range(len(records))]
        features = model.embed(torch.stack([pixels_of(row.image, CONFIG, row.id) for row in rows]))
        weight = torch.stack([features[[row.identity == name for row in rows]].mean(dim=0) for name in NAMES])
    bound = losses.normface(s=64, learn=False).bind(8, 3)
    artifact.save(CONFIG, backbone, root / "classes", classifier=Classifier.of(NAMES, bound, weight))
    return root


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    from angulus.data.faces import registry

    monkeypatch.setattr(registry, "make_detector", lambda word: Planted())


def invoke(*arguments: object) -> str:
    found = CliRunner().invoke(app, ["who", *map(str, arguments)])
    assert found.exit_code == 0, (found.output, found.exception)
    return found.output


def refused(*arguments: object) -> str:
    found = CliRunner().invoke(app, ["who", *map(str, arguments)])
    assert isinstance(found.exception, InputError), (found.output, found.exception)
    return str(found.exception)


def calibration(model: str, threshold: float) -> Calibration:
    return Calibration(0.01, Rate(threshold), Rate(0.01), Rate(0.02), 50, 100, 10.0, -5.0, model=model)


def test_a_person_of_the_gallery_is_named_and_what_it_rests_on(made: Path, tmp_path: Path) -> None:
    out = invoke(made / "g", made / "ben.png", "--model", made / "model", "--json", tmp_path / "w.json")
    assert out.startswith("nearest: ben\n") and "no threshold: somebody is always nearest" in out
    assert "face number 1 of 1 from the left (x 60 to 140, y 30 to 110)" in out
    saved = json.loads((tmp_path / "w.json").read_text())
    assert saved["name"] == "ben" and saved["nearest"][0]["identity"] == "ben"
    assert len({match["identity"] for match in saved["nearest"]}) == len(saved["nearest"]) == 3
    best = saved["nearest"][0]["score"]
    out = invoke(made / "g", made / "ben.png", "--model", made / "model", "--threshold", best - 1e-4)
    assert out.startswith("ben\n") and f"score {best:.4f} >= threshold" in out
    out = invoke(made / "g", made / "ben.png", "--model", made / "model", "--threshold", min(1, best + 1e-4))
    assert out.startswith("nobody in the gallery\n") and f"the nearest is ben: score {best:.4f} < threshold" in out


def test_a_calibration_decides_and_is_explained(made: Path, tmp_path: Path) -> None:
    model = angulus.load(made / "model")
    calibration(model.name, 0.999).write(tmp_path / "c.json")
    arguments = (made / "g", made / "stranger.png", "--model", made / "model", "--calibration", tmp_path / "c.json")
    out = invoke(*arguments)
    assert out.startswith("nobody in the gallery\n") and "< threshold 0.9990" in out
    assert "FMR 0.01 per comparison: among 9 rows, up to 8.6 % of unknown people" in out
    calibration(model.with_flip("none").name, 0.9).write(tmp_path / "c.json")
    assert "the calibration is for" in refused(*arguments)


def test_the_models_own_calibration_is_used(made: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    artifact.save(CONFIG, CONFIG.build(), tmp_path / "model")
    artifact.calibrate(tmp_path / "model", calibration(angulus.load(tmp_path / "model").name, 0.5))
    for option in ("--model", "--calibration"):  # either names the model
        assert "threshold 0.5000" in invoke(made / "g", made / "ben.png", option, tmp_path / "model")


def test_a_crop_is_taken_as_it_is_and_a_photo_is_aligned(made: Path, tmp_path: Path) -> None:
    crop = picture(1, 9, (0, 0, 32))[:32, :32]
    (tmp_path / "crop.png").write_bytes(png(crop))
    out = invoke(made / "g", tmp_path / "crop.png", "--model", made / "model")
    assert out.startswith("nearest: ben\n") and "face number" not in out


def test_photos_of_nobody_and_of_six_are_a_sentence_each(made: Path) -> None:
    arguments = ("--model", made / "model")
    assert "none.png must show a face that can be used; it does not (no face was found)" in refused(
        made / "g", made / "none.png", *arguments
    )
    with pytest.warns(UserWarning, match=r"six\.png shows 6 faces; number \d from the left was taken.*--face"):
        invoke(made / "g", made / "six.png", *arguments)
    out = invoke(made / "g", made / "six.png", *arguments, "--face", 3)
    assert "face number 3 of 6 from the left" in out and out.startswith("nearest: cleo\n")
    assert "the number of a face must be a whole number <= 6; got 7" in refused(
        made / "g", made / "six.png", *arguments, "--face", 7
    )


def test_a_classifier_answers_by_class(made: Path, tmp_path: Path) -> None:
    out = invoke(made / "classes", made / "ben.png", "--json", tmp_path / "w.json")
    assert out.startswith("ben\n") and "may be sure of one for a stranger too" in out
    saved = json.loads((tmp_path / "w.json").read_text())
    assert saved["name"] == "ben" and saved["face"]["number"] == 1
    assert sum(entry["probability"] for entry in saved["nearest"]) == pytest.approx(1, abs=1e-5)
    out = invoke(made / "classes", made / "ben.png", "--threshold", 1)
    assert out.startswith("nobody of the 3 classes\n") and "the likeliest is ben" in out
    with pytest.warns(UserWarning, match="shows 6 faces"):
        invoke(made / "classes", made / "six.png")


def test_what_cannot_answer_is_a_sentence(made: Path, tmp_path: Path) -> None:
    ben, model = made / "ben.png", made / "model"
    assert "that model must embed the photo; give its folder with --model" in refused(made / "g", ben)
    assert "holds no class weights" in refused(model, ben)
    assert "--model and --calibration are for a gallery" in refused(made / "classes", ben, "--model", model)
    assert "there is no gallery in" in refused(tmp_path / "g", ben, "--model", model)
    said = refused(made / "g", ben, "--model", model, "--threshold", 0.5, "--calibration", model)
    assert "give one of --calibration and --threshold" in said
    assert "threshold must be" in refused(made / "g", ben, "--model", model, "--threshold", 2)
    assert "threshold must be" in refused(made / "classes", ben, "--threshold", 2)
    assert "missing.png cannot be read" in refused(made / "g", tmp_path / "missing.png", "--model", model)
    torch.manual_seed(1)
    artifact.save(CONFIG, CONFIG.build(), tmp_path / "other")
    said = refused(made / "g", ben, "--model", tmp_path / "other")
    assert "holds vectors of the model with fingerprint" in said and "give the model that made the gallery" in said
    assert "--json must name a file" in refused(made / "g", ben, "--model", model, "--json", tmp_path / "w.txt")
