"""`angulus subcenters` and what it calls: a model trained with sub-centres, examined by its own embeddings."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import angulus
import tiny
from angulus import InputError, losses
from angulus.cli.main import app, main
from angulus.core.embeddings import Embeddings
from angulus.experiments.run import run
from angulus.heads.subcenters import find_dominant
from angulus.models.classifier import Classifier
from angulus.models.subcenters import examine
from angulus.report.feature_chart import class_features


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a recipe with sub-centres, and the embeddings of its training images."""
    folder = tmp_path_factory.mktemp("subcenters")
    recipe = tiny.validated("objective={kind: subcenter_cosface, s: 10, m: 0.1, k: 2}", "backbone.embedding_size=8")
    assert recipe.objective == losses.subcenter_cosface(10, 0.1, 2)
    splits = tiny.splits()
    results = run(recipe, folder / "run", splits=splits)
    assert 0 <= results["accuracy"] <= 1
    model, images = angulus.load(folder / "run" / "model"), splits.train
    labels = np.array([images.class_names[label] for label in images.labels])
    labels[:2] = ""
    ids = np.array([f"{row}.png" for row in range(len(labels))])
    made = Embeddings(model.embed(images.pixels).numpy(), ids, labels=labels, models=np.full(len(ids), model.name))
    made.write(folder / "e.npz")
    return folder


def test_a_run_with_subcenters_resumes_and_its_model_classifies(trained: Path, tmp_path: Path) -> None:
    model = angulus.load(trained / "run" / "model")
    assert model.classifier is not None and model.classifier.weight.shape == (10, 2, 8)
    test = tiny.splits().test
    features = torch.nn.functional.normalize(model.embed(test.pixels))
    rows = torch.nn.functional.normalize(model.classifier.weight, dim=2)
    torch.testing.assert_close(model.logits(test.pixels), 10 * torch.einsum("bd,ckd->bck", features, rows).amax(dim=2))
    recipe = tiny.validated(
        "objective={kind: subcenter_cosface, s: 10, m: 0.1, k: 2}", "backbone.embedding_size=8", "training.epochs=3"
    )
    shutil.copytree(trained / "run", tmp_path / "run")
    assert run(recipe, tmp_path / "run", resume=True, splits=tiny.splits())["training"]["steps"] == 15


def test_the_command_lists_far_images_and_writes_the_model_of_the_dominant_rows(trained: Path, tmp_path: Path) -> None:
    model, read = angulus.load(trained / "run" / "model"), Embeddings.read(trained / "e.npz")
    assert model.classifier is not None
    table, out = tmp_path / "far.csv", tmp_path / "one"
    options = ["--csv", str(table), "--out", str(out), "--max-angle", "30"]
    shown = CliRunner().invoke(app, ["subcenters", str(trained / "run" / "model"), str(trained / "e.npz"), *options])
    assert shown.exit_code == 0, shown.output
    numbers = [-100 if label == "" else int(label) for label in read.labels]  # type: ignore[union-attr]
    expected = find_dominant(torch.from_numpy(read.vectors.copy()), torch.tensor(numbers), model.classifier.weight)
    lines = table.read_text().splitlines()
    far = expected.angles > 30
    assert lines[0] == "id,label,angle" and len(lines) - 1 == int(far.sum()) > 0
    angles = [float(line.split(",")[2]) for line in lines[1:]]
    assert angles == sorted(angles, reverse=True)
    assert {line.split(",")[0] for line in lines[1:]} == {f"{row}.png" for row in far.nonzero().flatten().tolist()}
    assert "70 images of 10 classes with 2 sub-centres" in shown.output.replace("\n", " ")
    one = angulus.load(out)
    assert one.classifier is not None and one.classifier.spec.subcenters is None
    assert torch.equal(one.classifier.weight, model.classifier.weight[torch.arange(10), expected.chosen])
    assert torch.equal(one.embed(tiny.splits().test.pixels), model.embed(tiny.splits().test.pixels))


def test_names_that_are_no_utf8_or_formulas_are_listed_safely(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read, strange = Embeddings.read(trained / "e.npz"), ["3\udcff.jpg", "=cmd|' /C calc'!A0", "-1"]
    ids = np.array([*strange, *read.ids[3:].tolist()])
    assert read.labels is not None
    replace(read, ids=ids, labels=np.where(np.arange(len(ids)) < 2, "1", read.labels)).write(tmp_path / "e.npz")
    options = ["--csv", str(tmp_path / "far.csv"), "--out", str(tmp_path / "one"), "--max-angle", "0"]
    monkeypatch.setattr(
        "sys.argv", ["angulus", "subcenters", str(trained / "run/model"), str(tmp_path / "e.npz"), *options]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code, capsys.readouterr()
    listed = {line.split(",")[0] for line in (tmp_path / "far.csv").read_text(encoding="utf-8").splitlines()}
    assert {r"3\udcff.jpg", "'=cmd|' /C calc'!A0", "-1"} <= listed and len(listed) == len(read) + 1
    assert angulus.load(tmp_path / "one").classifier is not None


def test_the_model_is_written_even_if_the_list_cannot_be(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "angulus.core.files.write_text", lambda path, *_, **__: 1 / 0 if path.suffix == ".csv" else None
    )
    options = ["--csv", str(tmp_path / "far.csv"), "--out", str(tmp_path / "one")]
    CliRunner().invoke(app, ["subcenters", str(trained / "run/model"), str(trained / "e.npz"), *options])
    assert (tmp_path / "one").is_dir()


def test_one_far_image_is_singular_and_the_help_names_the_embeddings(trained: Path) -> None:
    model, read = angulus.load(trained / "run" / "model"), Embeddings.read(trained / "e.npz")
    angles = examine(model, read).dominant.angles
    first, second = angles[~angles.isnan()].sort(descending=True).values[:2].tolist()
    arguments = [str(trained / "run/model"), str(trained / "e.npz"), "--max-angle", str((first + second) / 2)]
    assert "1 image is farther than" in CliRunner().invoke(app, ["subcenters", *arguments]).output
    said = " ".join(CliRunner().invoke(app, ["subcenters", "--help"]).output.replace("│", " ").split())
    assert "EMBEDDINGS <path> Embeddings of its training images, made by angulus embed" in said


def test_a_plane_of_features_has_a_ray_for_each_subcenter() -> None:
    weights = np.random.default_rng(0).normal(size=(3, 2, 2))
    chart = class_features("plane", weights[:, 0], np.arange(3), ("a", "b", "c"), weights)
    rays = [series for series in chart.series if series.name == "class weight"]
    assert len(rays) == 6
    one = class_features("plane", weights[:, 0], np.arange(3), ("a", "b", "c"), weights[:, 0])
    assert len([series for series in one.series if series.name == "class weight"]) == 3


@pytest.mark.parametrize(
    "objective", [losses.subcenter_arcface(), losses.soft_triple(k=4)], ids=["nearest", "weighted"]
)
def test_classes_with_subcenters_are_exported_for_any_batch(objective: losses.Objective) -> None:
    head = angulus.DenseHead(8, 3, objective)
    made = Classifier.of(("a", "b", "c"), head.objective, head.weight)
    sizes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    exported = torch.export.export(made, (torch.randn(3, 8),), dynamic_shapes=sizes).module()
    features = torch.randn(7, 8)
    torch.testing.assert_close(exported(features), made(features))
    torch.testing.assert_close(made(features), head.logits(features))


def test_what_does_not_fit_is_refused(trained: Path, tmp_path: Path) -> None:
    model, read = angulus.load(trained / "run" / "model"), Embeddings.read(trained / "e.npz")
    labels = read.labels
    assert labels is not None
    other = np.where(np.arange(len(read)) == 5, "somebody", labels)
    for changes, said in (
        ({"labels": None}, "has no labels"),
        ({"labels": other}, r"must be classes of the model; got 'somebody' and 0 more"),
        ({"models": np.full(len(read), f"{model.fingerprint}-sum")}, r"flip sum, but class weights .*--flip none"),
        ({"vectors": read.vectors[:, :4], "models": None}, "vectors of size 4, this model's have 8"),
        (
            {"labels": np.where(labels == "3", "", labels)},
            r"e\.npz has no image of 1 of 10 classes, such as '3'; embed all",
        ),
    ):
        with pytest.raises(InputError, match=said):
            examine(model, replace(read, **changes))
    with pytest.raises(InputError, match="max_angle must be a finite number in"):
        examine(model, read, max_angle=-1)
    arguments = ["subcenters", str(trained / "run" / "model"), str(trained / "e.npz")]
    refused = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)])
    assert isinstance(refused.exception, InputError) and "--out must be a new folder" in str(refused.exception)
