"""Classes in a model's folder: what the head says, and nothing in the folder trusted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

import angulus
import tiny
from angulus import InputError, losses
from angulus.cli.main import app
from angulus.core.contract import Contract
from angulus.experiments import build
from angulus.experiments.run import run
from angulus.losses.objective import Objective
from angulus.models import artifact, classifier
from angulus.models.artifact import Config
from angulus.models.classifier import Classifier
from angulus.training.state import CHECKPOINT, load_checkpoint

CONFIG = Config("small", in_channels=1, image_size=(8, 8), embedding_size=3, contract=Contract(7.0, 16.0))
NAMES = ("cat", "dog", "hen", "ant")


def pixels(count: int = 5) -> torch.Tensor:
    return torch.randint(256, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def save(folder: Path, objective: Objective, config: Config = CONFIG) -> tuple[torch.nn.Module, angulus.DenseHead]:
    """A model whose head has taken a step, saved with its classes."""
    torch.manual_seed(0)
    backbone, head = config.build(), angulus.DenseHead(3, 4, objective)
    head(torch.randn(8, 3), torch.arange(8) % 4).backward()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.1)
    made = Classifier.of(NAMES, head.objective, head.weight, head.bias)
    artifact.save(config, backbone, folder, classifier=made)
    return backbone.eval(), head.eval()


OBJECTIVES = {
    "arcface": losses.arcface(),
    "softmax": losses.softmax(),
    "bias": losses.softmax().replace(bias=True),
    "learned": losses.normface(),
    "contraction": losses.arcface().replace(radius=losses.radius.Contraction(gamma="auto", lower=2.0)),
    "proxies": losses.c_contrastive(),
    "subcenters": losses.subcenter_arcface(),
    "soft_triple": losses.soft_triple(k=4),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("flip", ["none", "concat"])
def test_a_stored_model_says_what_the_head_says(tmp_path: Path, name: str, flip: str) -> None:
    config = replace(CONFIG, contract=replace(CONFIG.contract, flip=flip))
    backbone, head = save(tmp_path, OBJECTIVES[name], config)
    with torch.no_grad():
        logits = head.logits(backbone(CONFIG.contract(pixels())))
    loaded = angulus.load(tmp_path)
    assert loaded.classes == NAMES
    assert torch.equal(loaded.logits(pixels()), logits)
    labels, probabilities = loaded.predict(pixels())
    torch.testing.assert_close(probabilities, torch.softmax(logits, 1), atol=1e-6, rtol=0)
    assert labels == [NAMES[row] for row in logits.argmax(1).tolist()]
    assert not any(value.requires_grad for value in loaded.classifier.parameters())  # type: ignore[union-attr]


def test_a_run_on_digits_saves_its_classes_and_they_predict_its_test_images(tmp_path: Path) -> None:
    splits = tiny.splits()
    results = run(tiny.validated(), tmp_path, splits=splits)
    loaded, test = angulus.load(tmp_path / "model"), splits.test
    labels, probabilities = loaded.predict(test.pixels)
    correct = [int(name) == label for name, label in zip(labels, test.labels.tolist(), strict=True)]
    assert np.mean(correct) == pytest.approx(results["accuracy"])
    state = load_checkpoint(tmp_path / CHECKPOINT)["head"]
    head = angulus.DenseHead(4, 10, tiny.validated().objective)
    head.load_state_dict(state)
    with torch.no_grad():
        features = loaded.backbone(loaded.preprocessing(test.pixels))
        expected = torch.softmax(head.eval().logits(features), 1)
    torch.testing.assert_close(probabilities, expected, atol=1e-6, rtol=0)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "which of 10 classes" in card and "model.predict(pixels)" in card and "`9`" in card
    assert "cosine" not in card and "Error rates" not in card
    shown = CliRunner().invoke(app, ["info", str(tmp_path / "model")]).output
    assert "10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9; classes.safetensors has" in shown and "calibrate" not in shown


@pytest.mark.parametrize(
    ("overrides", "saved"),
    [
        ((), True),
        (("training.save_classes=false",), False),
        (("input.size=[8, 8]", "input.template=five_points"), False),
        (("input.size=[8, 8]", "input.template=five_points", "training.save_classes=true"), True),
        (("validation.identities=0.3",), False),
    ],
)
def test_auto_saves_classes_that_are_not_people(overrides: tuple[str, ...], saved: bool) -> None:
    assert build.saves_classes(tiny.validated(*overrides), tiny.splits()) is saved


def test_auto_saves_no_more_than_a_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "MOST_AUTO_CLASSES", 9)
    assert not build.saves_classes(tiny.validated(), tiny.splits())


def test_a_model_without_classes_loads_as_before_and_does_not_predict(tmp_path: Path) -> None:
    save(tmp_path, losses.arcface())
    before = angulus.load(tmp_path).fingerprint
    torch.manual_seed(0)
    artifact.save(CONFIG, CONFIG.build(), tmp_path)
    assert not (tmp_path / classifier.FILE).exists()
    loaded = angulus.load(tmp_path)
    assert loaded.classes == () and loaded.fingerprint == before  # features do not depend on classes
    with pytest.raises(InputError, match=r"holds no class weights.*training\.save_classes=true"):
        loaded.predict(pixels())
    assert "cosine" in (tmp_path / "README.md").read_text()


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    save(tmp_path, losses.arcface())
    with pytest.raises(InputError, match=r"takes images \[batch, 1, 8, 8\]; got \[5, 1, 4, 16\]"):
        angulus.load(tmp_path).predict(pixels().reshape(5, 1, 4, 16))


def edit(folder: Path, tensors: dict[str, torch.Tensor] | None = None, **changes: object) -> None:
    """Other class weights with their checksum, and other entries."""
    content = json.loads((folder / "config.json").read_text())
    if tensors is not None:
        data = safetensors.torch.save(tensors)
        (folder / classifier.FILE).write_bytes(data)
        content["classes"]["sha256"] = hashlib.sha256(data).hexdigest()
    content["classes"] |= changes
    (folder / "config.json").write_text(json.dumps(content))


WEIGHT = {"weight": torch.ones(4, 3)}
BAD: dict[str, tuple[dict[str, torch.Tensor] | None, dict[str, object], str]] = {
    "another size": ({"weight": torch.ones(4, 5)}, {}, r"weight must be floating point \[classes, 3\]; got .*\[4, 5\]"),
    "no weight": ({}, {}, "got none"),
    "integers": ({"weight": torch.ones(4, 3, dtype=torch.int32)}, {}, "floating point"),
    "NaN": ({"weight": torch.full((4, 3), torch.nan)}, {}, "weight must be finite"),
    "a bias too many": (WEIGHT | {"bias": torch.zeros(4)}, {}, "bias must be left out"),
    "an unknown tensor": (WEIGHT | {"code": torch.zeros(4)}, {}, "unknown tensor 'code'"),
    "too few names": (WEIGHT, {"names": ["a"]}, "one for each of the 4 class weights; got 1"),
    "a name twice": (WEIGHT, {"names": ["a", "a", "b", "c"]}, "3 of them different"),
    "names that are none": (WEIGHT, {"names": [1, 2, 3, 4]}, "must be a list of text"),
    "an unknown radius": (WEIGHT, {"logits": {"radius": {"kind": "os.system"}}}, "radius.kind must be one of"),
    "a margin": (WEIGHT, {"logits": {"margin": {"kind": "additive_angle", "m": 0.5}}}, "logits must be made of"),
    "no mapping": (WEIGHT, {"logits": 3}, "must have the keys"),
    "a text for a scale": (WEIGHT, {"logits": {"radius": {"kind": "fixed", "s": "x"}}}, "s must be"),
    "a learned radius without its s": (WEIGHT, {"logits": {"radius": {"kind": "learned", "s": 2.0}}}, "Missing key"),
    "another key": (WEIGHT, {"code": "x"}, "must have the keys"),
}


@pytest.mark.parametrize("case", BAD)
def test_classes_that_do_not_fit_are_refused(tmp_path: Path, case: str) -> None:
    save(tmp_path, losses.arcface())
    tensors, changes, said = BAD[case]
    edit(tmp_path, tensors, **changes)
    with pytest.raises(InputError, match=said):
        angulus.load(tmp_path)


def test_a_damaged_or_missing_file_of_classes_is_refused(tmp_path: Path) -> None:
    save(tmp_path, losses.arcface())
    path = tmp_path / classifier.FILE
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"classes\.safetensors is not the file that config\.json was written for"):
        angulus.load(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        angulus.load(tmp_path)


def test_class_weights_of_another_size_are_not_saved(tmp_path: Path) -> None:
    bound = losses.arcface().bind(5, 2)
    made = Classifier.of(["a", "b"], bound, torch.ones(2, 5))
    with pytest.raises(InputError, match=r"class weights must be \[classes, 3\]"):
        artifact.save(CONFIG, CONFIG.build(), tmp_path / "model", classifier=made)
    assert not (tmp_path / "model").exists()


def test_onnx_gives_pytorchs_probabilities(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from angulus.models import export as exporting
    from angulus.models import export_check

    config = replace(CONFIG, contract=replace(CONFIG.contract, flip="sum"))
    save(tmp_path / "model", losses.arcface(), config)
    model = angulus.load(tmp_path / "model")
    parity = exporting.export(model, tmp_path / "m.onnx")
    assert parity.probability_error is not None and parity.probability_error < 1e-4  # s = 64 amplifies
    found = export_check.predict(tmp_path / "m.onnx", pixels(70).numpy())
    np.testing.assert_allclose(found, model.predict(pixels(70)).probabilities.numpy(), atol=1e-4)
    features, _ = export_check.run(tmp_path / "m.onnx", pixels().numpy())
    np.testing.assert_allclose(features, model.embed(pixels()).numpy(), rtol=1e-4, atol=1e-5)
    assert exporting.export(model, tmp_path / "n.onnx", classes=False).probability_error is None
    artifact.save(CONFIG, CONFIG.build(), tmp_path / "model")
    with pytest.raises(InputError, match="holds no class weights"):
        exporting.export(angulus.load(tmp_path / "model"), tmp_path / "o.onnx", classes=True)
    assert not (tmp_path / "o.onnx").exists()
