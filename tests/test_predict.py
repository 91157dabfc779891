"""Classes of images by the command: against the run's head, with labels, in files, and what is refused."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import angulus
import tiny
from angulus import InputError, losses
from angulus.cli.main import app
from angulus.cli.predict import as_csv, describe_accuracy
from angulus.core.contract import Contract
from angulus.experiments.run import run
from angulus.models import artifact
from angulus.models.artifact import Config
from angulus.models.classifier import Classifier
from angulus.models.predict import Predictions, predict


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on digits, its test images in a folder per class, and without labels."""
    root = tmp_path_factory.mktemp("predict")
    run(tiny.validated("training.epochs=20"), root / "run", splits=tiny.splits())
    test = tiny.splits().test
    for number, (image, label) in enumerate(zip(test.pixels, test.labels.tolist(), strict=True)):
        for folder in (root / "test" / str(label), root / "flat"):
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(folder / f"{number:02}.png")
    return root


def invoke(*arguments: object) -> str:
    found = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    assert found.exit_code == 0, (found.output, found.exception)
    return found.output


def refused(*arguments: object) -> str:
    found = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    assert isinstance(found.exception, InputError), (found.output, found.exception)
    return str(found.exception)


def test_a_folder_per_class_is_summed_up_with_its_accuracy(made: Path, tmp_path: Path) -> None:
    results = json.loads((made / "run" / "results.json").read_text())
    out = invoke(made / "run/model", made / "test", "--json", tmp_path / "new/p.json", "--csv", tmp_path / "p.csv")
    right = round(results["accuracy"] * 60)
    assert f"accuracy {100 * results['accuracy']:.2f} %: {right} of 60 images are of the class that their label" in out
    assert "60 images" in out and "mean probability" in out
    saved = json.loads((tmp_path / "new/p.json").read_text())
    assert saved["accuracy"] == pytest.approx(results["accuracy"]) and saved["labelled"] == saved["images"] == 60
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "class", "probability", "label"] and len(rows) == 60
    model, test = angulus.load(made / "run/model"), tiny.splits().test
    labels, probabilities = model.predict(test.pixels)
    for row, entry in zip(rows, saved["predictions"], strict=True):
        place = int(Path(row["id"]).stem)
        assert row["class"] == entry["top"][0]["class"] == labels[place] and row["label"] == str(
            int(test.labels[place])
        )
        assert float(row["probability"]) == pytest.approx(float(probabilities[place].max()), abs=1e-5)
        values = [part["probability"] for part in entry["top"]]
        assert len(values) == 5 and values == sorted(values, reverse=True)
        np.testing.assert_allclose(values, probabilities[place].sort(descending=True).values[:5], atol=1e-6)


def test_few_images_are_a_table_with_the_next_classes(made: Path) -> None:
    files = sorted((made / "flat").iterdir())[:2]
    out = invoke(made / "run/model", *files, "--top", 3)
    assert str(files[0]) in out and "probability" in out and "next" in out and "label" not in out.splitlines()[1]
    assert "accuracy unknown: the source has no labels" in out
    assert out.count(" %") >= 6


def test_records_and_several_sources_are_read(made: Path, tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["convert", str(made / "test"), str(tmp_path / "records")]).exit_code == 0
    model = angulus.load(made / "run/model")
    one, other = predict(model, [made / "test"]), predict(model, [tmp_path / "records"], batch=7)
    assert sorted(zip(one.ids, one.best, strict=True)) == sorted(zip(other.ids, other.best, strict=True))
    both = predict(model, [made / "test", made / "flat"])
    assert len(set(both.ids)) == 120 and both.ids[0].startswith(str(made / "test"))
    assert both.accuracy == one.accuracy  # the flat ones have no label


def test_labels_that_are_no_classes_do_not_count_and_it_says_so() -> None:
    parts = {"order": np.array([[0], [1], [1]]), "probabilities": np.ones((3, 1), np.float32)}
    some = Predictions(("cat", "dog"), ["a", "b", "c"], labels=["cat", "cat", "cow"], **parts)
    assert some.accuracy == 0.5
    assert describe_accuracy(some).endswith("; not counted: 1 label that the model has no class for, such as 'cow'")
    none = Predictions(("cat", "dog"), ["a", "b", "c"], labels=["cow", "", ""], **parts)
    assert describe_accuracy(none).startswith("accuracy unknown: the source has 1 label that the model has no class")


def test_names_and_labels_are_no_formulas_to_a_spreadsheet() -> None:
    order, ones = np.array([[0], [1]]), np.ones((2, 1), np.float32)
    found = Predictions(("-1", "@sum"), ["=1+1.png", "b"], order, ones, ["+cat", ""])
    assert as_csv(found).splitlines()[1:] == ["'=1+1.png,-1,1,'+cat", "b,'@sum,1,"]


def test_a_model_without_classes_is_refused_before_it_reads(tmp_path: Path) -> None:
    config = Config("small", in_channels=1, image_size=(8, 8), embedding_size=3, contract=Contract(7.0, 16.0))
    artifact.save(config, config.build(), tmp_path / "model")
    said = refused(tmp_path / "model", tmp_path / "nothing")
    assert "holds no class weights" in said and "training.save_classes=true" in said


def test_images_that_do_not_fit_are_refused_with_the_way_out(made: Path, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "wide.png")
    (tmp_path / "text.png").write_text("no image")
    model, fine = made / "run/model", sorted((made / "flat").iterdir())[0]
    said = refused(model, tmp_path / "wide.png", "--csv", tmp_path / "p.csv")
    assert "must be 8 x 8 pixels" in said and "angulus prepare images --size 8x8" in said and "prepare faces" in said
    assert not (tmp_path / "p.csv").exists()
    assert "text.png cannot be classified" in refused(model, tmp_path / "text.png")
    said = refused(model, fine, tmp_path / "wide.png", tmp_path / "text.png")
    assert said.startswith("2 images cannot be classified") and "--on-error skip" in said
    out = invoke(model, fine, tmp_path / "wide.png", "--on-error", "skip")
    assert "left out:" in out and str(fine) in out
    assert "cannot be read" in refused(model, tmp_path / "missing.png")
    assert "there is no source" in refused(model, tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe.png")
    assert "a pipe or a device" in refused(model, tmp_path / "pipe.png")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--top", "0"), "top must be a whole number >= 1"),
        (("--csv", "p.txt"), "--csv must name a file that ends in .csv"),
        (("--json", "p.csv"), "--json must name a file that ends in .json"),
        (("--on-error", "hide"), "--on-error must be one of"),
        (("--out", "marks.csv"), "--out is for marks in CT scans; give the positions with --candidates"),
        (("--class", "nodule"), "--class is for marks in CT scans"),
        (("--candidates", "c.csv"), "--candidates takes one folder of scans and --out"),
    ],
)
def test_wrong_options_are_a_sentence(made: Path, options: tuple[str, ...], said: str) -> None:
    assert said in refused(made / "run/model", made / "flat", *options)


def test_an_output_within_the_source_is_refused(made: Path) -> None:
    assert "must not lie in the source" in refused(made / "run/model", made / "flat", "--csv", made / "flat/p.csv")


def test_a_model_of_volumes_asks_for_scans(tmp_path: Path) -> None:
    config = Config("luna_archi1", in_channels=1, image_size=(6, 20, 20), embedding_size=4)
    bound = losses.softmax().bind(4, 2)
    made = Classifier.of(["no nodule", "nodule"], bound, torch.ones(2, 4))
    artifact.save(config, config.build(), tmp_path / "model", classifier=made)
    assert "takes volumes of 6 x 20 x 20 voxels" in refused(tmp_path / "model", tmp_path)
