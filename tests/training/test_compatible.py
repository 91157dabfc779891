"""Training that stays compatible with an old model: the loss by hand, the old class vectors, resuming, bad input."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import angulus
import tiny
from angulus import losses
from angulus.core.checks import InputError
from angulus.core.contract import fingerprint
from angulus.data import Images
from angulus.distributed.runtime import Ranks
from angulus.experiments import build
from angulus.experiments.run import run
from angulus.models import artifact
from angulus.models.classifier import Classifier
from angulus.training.compatible import OldClasses, class_vectors, influence
from angulus.training.signals import Interrupted
from angulus.training.state import _restore_compatible

NET = ["backbone.name=lenet++", "training.epochs=1", "training.optimizer.lr=0.01"]  # without batch norm


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    run(tiny.validated(*NET, "training.seed=7"), folder, splits=tiny.splits())
    return folder / "model"


def vectors(model: artifact.Model, images: Images, classes: str) -> torch.Tensor:
    return class_vectors(model, images, model.config.contract, classes, Ranks(), torch.device("cpu"), "OLD")


def test_the_loss_is_cross_entropy_over_the_old_classes_and_moves_the_features_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(5, 3, generator=generator, dtype=torch.float64).requires_grad_()
    rows, labels = F.normalize(torch.randn(4, 3, generator=generator)), torch.tensor([0, 3, 1, 1, 2])
    head = angulus.DenseHead(3, 4, influence(losses.normface(s=16, learn=True) + losses.ring_loss(lam=0.1)))
    loss = OldClasses.of(head, rows, 0.5, "f" * 16).loss(features, labels)
    cosines = F.normalize(features) @ rows.double().T
    torch.testing.assert_close(loss, 0.5 * F.cross_entropy(16 * cosines, labels), rtol=1e-6, atol=0)
    torch.autograd.backward(loss)
    assert features.grad is not None and bool(features.grad.any())
    assert all(parameter.grad is None for parameter in head.parameters())


@pytest.mark.parametrize("name", ["softmax", "soft_triple", "proxy_anchor", "curricularface", "magface", "center_loss"])
def test_any_loss_becomes_one_over_unit_class_vectors(name: str) -> None:
    objective = losses.build(name) if name != "center_loss" else losses.softmax() + losses.center_loss(lam=0.1)
    changed = influence(objective)
    assert changed.weights == "unit" and not changed.bias and changed.rows_per_class == 1
    assert changed.center_loss is None and (changed.radius is None or not changed.penalties)


def test_vectors_are_weights_by_name_and_means_of_unit_features_for_other_classes(old: Path) -> None:
    model, images = artifact.load(old), tiny.splits().train
    assert model.classifier is not None
    names = list(model.classifier.names)
    known = Classifier(names[::-1][:6], model.classifier.spec, model.classifier.weight.flip(0)[:6])
    model.classifier = known
    found = vectors(model, images, "auto")
    for number, name in enumerate(names):
        own = F.normalize(model.embed(images.pixels[images.labels == number]).double(), dim=1).mean(0)
        expected = known.weight[known.names.index(name)].double() if name in known.names else own
        torch.testing.assert_close(found[number].double(), expected / expected.norm(), rtol=0, atol=1e-6)
    assert not torch.allclose(vectors(model, images, "means"), found)
    with pytest.raises(InputError, match="no single class weight of 4 of the 10 classes"):
        vectors(model, images, "weights")


def test_what_an_old_model_cannot_give_is_refused(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = artifact.load(old), tiny.splits().train
    model.classifier = None
    with pytest.raises(InputError, match=r"OLD holds no class weights; use compatible_with.classes=auto"):
        vectors(model, images, "weights")
    wide = replace(images, pixels=torch.zeros(len(images), 1, 9, 8, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"takes images \[1, 8, 8\], and these are \[1, 9, 8\]"):
        vectors(model, wide, "auto")
    aligned = replace(model.config.contract, template="five_points", size=(8, 8))
    with pytest.raises(
        InputError, match=r"takes images aligned by the template none, and input.template is five_points"
    ):
        class_vectors(model, images, aligned, "auto", Ranks(), torch.device("cpu"), "OLD")
    for value in (torch.nan, 0.0):
        monkeypatch.setattr(artifact.Model, "embed", lambda _, pixels, value=value: torch.full((len(pixels), 4), value))
        with pytest.raises(InputError, match=r"gives 10 of the 10 classes no direction \('0'\)"):
            vectors(model, images, "means")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("compatible_with={model: OLD, weight: 0}", "compatible_with.weight must be above 0; got 0"),
        ("compatible_with={model: OLD, classes: all}", "compatible_with.classes must be 'auto', 'weights' or 'means'"),
        ("compatible_with={weight: 1}", "the recipe needs compatible_with.model"),
        ("compatible_with=3", "compatible_with must be a mapping"),
    ],
)
def test_bad_keys_are_refused(override: str, sentence: str) -> None:
    with pytest.raises(InputError) as error:
        tiny.validated(override)
    assert sentence in str(error.value)


def test_other_sizes_and_missing_models_are_refused_before_anything_is_written(old: Path, tmp_path: Path) -> None:
    for overrides, sentence in (
        ([f"compatible_with={old}", "backbone.embedding_size=5"], "have 4 numbers, and backbone.embedding_size is 5"),
        ([f"compatible_with={tmp_path}/none"], "is not a model folder"),
    ):
        with pytest.raises(InputError, match=sentence):
            run(tiny.validated(*NET, *overrides), tmp_path / "run", splits=tiny.splits())
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_its_draws_records_the_old_model_and_pulls_the_features_to_it(old: Path, tmp_path: Path) -> None:
    recipes = [tiny.validated(*NET), tiny.validated(*NET, f"compatible_with={old}")]
    (free, after), (bound, drawn) = ((build.job(each, tiny.splits()), torch.get_rng_state()) for each in recipes)
    assert torch.equal(after, drawn)  # dropout draws the same
    assert tiny.differences(free.backbone.state_dict(), bound.backbone.state_dict()) == []
    assert torch.equal(free.head.weight, bound.head.weight) and bound.compatible is not None
    models = []
    for number, more in enumerate(([], [f"compatible_with={{model: {old}, weight: 3.0}}"])):
        overrides = [*NET, "training.epochs=2", *more]
        run(tiny.validated(*overrides), tmp_path / str(number), splits=tiny.splits())
        models.append(artifact.load(tmp_path / str(number) / "model"))
    before, pixels = artifact.load(old), tiny.splits().test.pixels[torch.arange(60)]
    assert [model.config.compatible_with for model in models] == [(), (before.fingerprint,)]
    assert before.fingerprint in (tmp_path / "1" / "model" / "README.md").read_text()
    cosines = [float(F.cosine_similarity(m.embed(pixels), before.embed(pixels)).mean()) for m in models]
    assert cosines[1] > cosines[0] + 0.5


def test_a_stopped_run_resumes_to_the_same_weights_and_refuses_another_old_model(old: Path, tmp_path: Path) -> None:
    overrides = [*NET, "objective={kind: curricularface, s: 10}", f"compatible_with={old}", "training.accumulate=1"]

    def stop(step: int, *_: object) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    def train(folder: Path, **options: Any) -> None:
        run(tiny.validated(*overrides), folder, splits=tiny.splits(), **options)

    train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", on_step=stop)
    train(tmp_path / "stopped", resume=True)
    found, expected = (tiny.outcome(tmp_path / name) for name in ("stopped", "whole"))
    assert tiny.differences(found["checkpoint"], expected["checkpoint"]) == []
    assert found["checkpoint"]["compatible"]["objective"]["negatives.t"] > 0  # the running figure was kept
    results = (tmp_path / "whole" / "results.json").read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "old_classes", None)  # an ended run is read without the old model
        train(tmp_path / "whole", resume=True)
    assert (tmp_path / "whole" / "results.json").read_text() == results
    with pytest.raises(Interrupted):
        train(tmp_path / "other", on_step=stop)
    model = artifact.load(old)
    config = replace(model.config, normalize=False)
    kept = {path.name: path.read_bytes() for path in old.iterdir() if path.is_file()}
    try:
        torch.manual_seed(3)
        artifact.save(config, config.build(), old, classifier=model.classifier)
        with pytest.raises(InputError, match="was made compatible with the model of fingerprint"):
            train(tmp_path / "other", resume=True)
    finally:
        for name, data in kept.items():
            (old / name).write_bytes(data)


def test_a_checkpoint_holds_no_classes_of_one_rank(tmp_path: Path) -> None:
    heads = [angulus.ShardedHead(3, 4, influence(losses.curricularface())) for _ in range(2)]
    for rank, head in enumerate(heads):
        head.ranks, head.classes = Ranks(rank, 2), range(2 * rank, 2 * rank + 2)
    first, other = (OldClasses(head, 1.0, "f" * 16) for head in heads)
    first.head.objective.negatives.t.fill_(0.25)
    _restore_compatible(tmp_path, other, first.state())
    assert float(other.head.objective.negatives.t) == 0.25


def test_micro_batches_give_the_gradient_of_the_whole_batch(old: Path, tmp_path: Path) -> None:
    for parts in (1, 2):
        overrides = [*NET, f"compatible_with={{model: {old}, classes: means}}", f"training.accumulate={parts}"]
        run(tiny.validated(*overrides), tmp_path / str(parts), splits=tiny.splits())
    one, two = (artifact.load(tmp_path / name / "model").backbone.state_dict() for name in ("1", "2"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=2e-5)


def test_a_trainer_takes_the_folder_alone(old: Path, tmp_path: Path) -> None:
    args = angulus.TrainingArguments(epochs=1, batch_size=64)
    images = tiny.splits().train
    trainer = angulus.Trainer(
        "small", "normface", (images.pixels, images.labels.numpy()), args, out=tmp_path / "run", embedding_size=4,
        progress=False, test=(images.pixels[:20], images.labels[:20].numpy()), compatible_with=str(old),
    )  # fmt: skip
    model = trainer.train().model.model
    assert isinstance(model, artifact.Model)
    assert model.config.compatible_with == (artifact.load(old).fingerprint,)


def test_being_compatible_changes_no_fingerprint(old: Path) -> None:
    config = artifact.load(old).config
    contents = [vars(replace(config, compatible_with=names)) for names in ((), ("f" * 16,))]
    digits = [fingerprint("00", {**each, "contract": vars(config.contract)}) for each in contents]
    assert digits[0] == digits[1]


def test_a_folder_with_what_is_no_fingerprint_is_refused(old: Path, tmp_path: Path) -> None:
    config = artifact.load(old).config
    with pytest.raises(InputError, match=r"compatible_with in .* must be a list of fingerprints"):
        artifact.save(replace(config, compatible_with=("no",)), config.build(), tmp_path)
    artifact.save(config, config.build(), tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(written | {"compatible_with": ["no"]}))
    with pytest.raises(InputError, match=r"compatible_with in .* must be a list of fingerprints"):
        artifact.load(tmp_path)


def test_means_are_those_of_the_images_whatever_the_batch(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = artifact.load(old), tiny.splits().train
    whole = vectors(model, images, "means").numpy()
    monkeypatch.setattr("angulus.training.compatible._BATCH", 7)
    np.testing.assert_allclose(vectors(model, images, "means").numpy(), whole, atol=1e-6)
