"""A model cut to the first numbers of its features: embeddings, galleries, calibrations, ONNX."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import angulus
import tiny
from angulus import InputError, losses
from angulus.cli.main import app
from angulus.cli.search import read_calibration
from angulus.core.contract import Contract
from angulus.core.embeddings import Embeddings
from angulus.data.records import Row, write_records
from angulus.evaluation.protocols.calibration import Calibration
from angulus.models import artifact
from angulus.models.artifact import Config
from angulus.models.classifier import Classifier
from angulus.training.state import load_checkpoint
from test_embedding import pixels, png

CONFIG = Config(
    "small",
    in_channels=3,
    image_size=(16, 16),
    embedding_size=6,
    contract=Contract(size=(16, 16), colour="rgb", flip="concat"),
    about={"nested": [2, 4]},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    classes = Classifier.of(["a", "b"], losses.normface().bind(6, 2), torch.randn(2, 6))
    artifact.save(CONFIG, CONFIG.build(), tmp_path / "model", classifier=classes)
    write_records(tmp_path / "records", [Row(f"{n}.png", png(image), "x") for n, image in enumerate(pixels(5))])
    return tmp_path


def embed(folder: Path, out: str, *options: str) -> str:
    arguments = ["embed", str(folder / "model"), str(folder / "records"), str(folder / out), *options]
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code == 0) == (folder / out).exists(), result.output
    return str(result.exception)


def test_the_command_keeps_the_first_numbers_of_both_halves(folder: Path) -> None:
    embed(folder, "whole.npz")
    embed(folder, "first.npz", "--dimensions", "4")
    whole, first = (Embeddings.read(folder / name) for name in ("whole.npz", "first.npz"))
    np.testing.assert_array_equal(first.vectors, whole.vectors[:, [0, 1, 2, 3, 6, 7, 8, 9]])
    assert first.model == f"{whole.model}-4"
    np.testing.assert_allclose(first.feature_norms, np.linalg.norm(first.vectors, axis=1), rtol=1e-6)


def test_python_gives_what_the_command_gives(folder: Path) -> None:
    embed(folder, "first.npz", "--dimensions", "4")
    embedder = angulus.Embedder.from_pretrained(folder / "model", device="cpu")
    found = embedder.encode(pixels(5), dimensions=4)
    np.testing.assert_array_equal(found, Embeddings.read(folder / "first.npz").vectors)
    assert embedder.encode([], dimensions=4).shape == (0, 8)
    np.testing.assert_allclose(embedder.encode(pixels(5)[0], dimensions=4), found[0], atol=1e-6)


def test_unit_features_stay_of_length_one(folder: Path) -> None:
    config = dataclasses.replace(CONFIG, normalize=True, contract=Contract(size=(16, 16), colour="rgb"))
    artifact.save(config, config.build(), folder / "unit")
    model = artifact.load(folder / "unit")
    images = torch.from_numpy(pixels(3)).permute(0, 3, 1, 2)
    whole, first = model.embed(images), model.with_dimensions(2).embed(images)
    torch.testing.assert_close(first, torch.nn.functional.normalize(whole[:, :2]))


def test_other_dimensions_are_refused_by_galleries_and_calibrations(folder: Path) -> None:
    pytest.importorskip("lancedb")
    from angulus.search import open_gallery

    embed(folder, "whole.npz")
    embed(folder, "first.npz", "--dimensions", "4")
    gallery = open_gallery(folder / "gallery")
    gallery.add(Embeddings.read(folder / "first.npz"))
    with pytest.raises(
        InputError, match=r"first 4 numbers; .* embed the images with angulus embed --flip concat --dimensions 4"
    ):
        gallery.query(Embeddings.read(folder / "whole.npz"))


def test_calibrations_of_whole_and_of_cut_features_stand_next_to_each_other(folder: Path) -> None:
    rows = [Row(f"{n}.png", png(image), "xy"[n % 2]) for n, image in enumerate(pixels(12))]
    write_records(folder / "people", rows)
    found = {}
    for size in ("6", "4", "2"):
        made = folder / f"{size}.npz"
        embedded = ["embed", str(folder / "model"), str(folder / "people"), str(made), "--dimensions", size]
        assert CliRunner().invoke(app, embedded).exit_code == 0
        read = Embeddings.read(made)
        vectors, labels = np.array(read.vectors, dtype=np.float64), np.array(read.labels)
        vectors += 5 * np.where(labels == "x", 1, -1)[:, None]  # people that the numbers tell apart
        dataclasses.replace(read, vectors=vectors, norms=None).write(made)
        kept = CliRunner().invoke(app, ["calibrate", str(made), "--model", str(folder / "model"), "--fmr", "0.1"])
        assert kept.exit_code == 0, kept.exception
        alone = ["calibrate", str(made), "--out", str(folder / f"{size}.json"), "--fmr", "0.1"]
        assert CliRunner().invoke(app, alone).exit_code == 0
        found[size] = Calibration.read(folder / f"{size}.json")
    assert len({one.threshold.value for one in found.values()}) == 3
    loaded = artifact.load(folder / "model")
    for size, calibration in found.items():
        model = loaded.with_dimensions(int(size))
        assert model.calibration_of(model.name) == calibration == model.calibration
        assert read_calibration(folder / "model", model.name) == calibration
    shown = CliRunner().invoke(app, ["info", str(folder / "model")]).output
    assert all(f"threshold {one.threshold.value:.4f} for" in shown for one in found.values())
    artifact.save(CONFIG, CONFIG.build(), folder / "model")  # of other weights, perhaps
    assert artifact.load(folder / "model").pairs == {}


def test_sizes_that_were_not_trained_are_warned_of_and_wrong_ones_refused(folder: Path) -> None:
    model = artifact.load(folder / "model")
    with pytest.warns(UserWarning, match="trained for its first 2, 4, and not for its first 3 numbers"):
        model.with_dimensions(3)
    assert model.with_dimensions(6) is model
    assert model.with_dimensions(4).with_dimensions(2).name == f"{model.name}-2"
    assert model.with_dimensions(4).with_flip("none").dimensions == 4
    with pytest.raises(InputError, match="no class weights"):
        model.with_dimensions(4).need_classes()
    for wrong in (0, 7, 2.5):
        with pytest.raises(InputError, match="dimensions must be a whole number"):
            model.with_dimensions(wrong)  # type: ignore[arg-type]
    assert "dimensions must be a whole number" in embed(folder, "none.npz", "--dimensions", "7")
    arguments = ["embed", "--onnx", "m.onnx", str(folder / "records"), str(folder / "o.npz"), "--dimensions", "2"]
    assert "angulus export --dimensions" in str(CliRunner().invoke(app, arguments).exception)


def test_a_run_states_its_accuracy_by_dimension(tmp_path: Path) -> None:
    from angulus.experiments.run import run
    from angulus.report import sections
    from angulus.report.content import read_content

    results = run(tiny.validated("objective.nested=[2]"), tmp_path / "run", splits=tiny.splits())
    with np.load(tmp_path / "run" / "test.npz") as test:
        features, labels = test["features"], test["labels"]
    weight = load_checkpoint(tmp_path / "run" / "checkpoint.pt")["head"]["weight"].numpy()
    expected = []
    for size in (2, 4):
        units = [part[:, :size] / np.linalg.norm(part[:, :size], axis=1, keepdims=True) for part in (features, weight)]
        accuracy = np.mean((units[0] @ units[1].T).argmax(axis=1) == labels)
        expected.append({"dimensions": size, "accuracy": pytest.approx(accuracy)})
    assert results["by_dimension"] == expected
    assert artifact.load(tmp_path / "run" / "model").config.about["nested"] == [2]
    section = sections._dimensions(read_content([tmp_path / "run"], draws=0).runs)
    table, drawn = section.blocks
    shown = [[str(row["dimensions"]), f"{100 * row['accuracy']:.2f}"] for row in results["by_dimension"]]
    assert [row[1:] for row in table.rows] == shown
    assert drawn.charts[0].series[0].x.tolist() == [2, 4]


def test_a_recipe_with_a_size_that_is_the_features_own_is_refused_before_training(tmp_path: Path) -> None:
    from angulus.experiments.run import run

    with pytest.raises(InputError, match=r"objective\.nested must be sizes below 4"):
        run(tiny.validated("objective.nested=[2, 4]"), tmp_path / "run", splits=tiny.splits())
    assert not (tmp_path / "run").exists()
