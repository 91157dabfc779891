"""`Trainer`: the same bits as a recipe's run, resumed after a stop, with networks and data of the user's own."""

from __future__ import annotations

import json
import math
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import angulus
import tiny
from angulus import InputError, losses
from angulus.core import redact
from angulus.core.contract import Contract
from angulus.data.records import RecordWriter
from angulus.data.sets import given
from angulus.data.sources import read_source
from angulus.experiments import build, recipe
from angulus.experiments.run import run
from angulus.losses import Objective
from angulus.training.callbacks import Record
from angulus.training.settings import SGD, Training
from angulus.training.signals import Interrupted

TRAINING = tiny.CONTENT["training"]
LOSS = losses.normface(s=10, learn=False)


def make(out: Path, model: Any = "small", dataset: Any = None, **options: Any) -> angulus.Trainer:
    """The trainer of the tiny recipe."""
    training = angulus.TrainingArguments(**{**TRAINING, **options.pop("training", {})})
    if model == "small":
        options = {"embedding_size": 4, **options}
    options = {"name": "tiny", "progress": False, "input": {"mean": 78, "scale": 96}, **options}
    return angulus.Trainer(model, LOSS, dataset or tiny.splits(), training, out=out, **options)


def inner(trained: angulus.Trained | angulus.Embedder) -> angulus.Model:
    """The model within."""
    model = trained.model.model if isinstance(trained, angulus.Trained) else trained.model
    assert isinstance(model, angulus.Model)
    return model


class Net(nn.Module):
    """A network of the user's own, with what needs care: batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        layers = (nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.PReLU(), nn.Dropout(0.1), nn.Linear(12, 5))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)  # type: ignore[no-any-return]


class Seen(angulus.Callback):
    """Keeps the records, and fails or interrupts at a given one."""

    def __init__(self, fail: tuple[str, int] | None = None, interrupt_at: int | None = None) -> None:
        self.events: list[tuple[str, int]] = []
        self.records: list[Record] = []
        self.fail, self.interrupt_at = fail, interrupt_at

    def told(self, event: str, record: Record) -> None:
        self.events.append((event, record.step))
        self.records.append(record)
        if (event, record.step) == self.fail:
            raise LookupError("mine")

    def on_start(self, record: Record) -> None:
        self.told("start", record)

    def on_step(self, record: Record) -> None:
        self.told("step", record)
        if record.step == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)

    def on_epoch(self, record: Record) -> None:
        self.told("epoch", record)

    def on_end(self, record: Record) -> None:
        self.told("end", record)


def test_the_arguments_are_the_training_section() -> None:
    assert angulus.TrainingArguments is Training
    assert angulus.TrainingArguments(**TRAINING) == tiny.validated().training
    nested = angulus.TrainingArguments(optimizer={"kind": "sgd", "lr": 0.05}, snapshots={"every": 3})  # type: ignore[arg-type]
    assert nested.optimizer == SGD(lr=0.05)
    assert nested.snapshots is not None
    assert nested.snapshots.every == 3


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"epochs": 0}, "training.epochs must be at least 1; got 0"),
        ({"epohcs": 3}, "a recipe has no key 'training.epohcs'; did you mean 'epochs'"),
        ({"batch_size": 1}, "training.batch_size must be a whole number >= 2; got 1"),
        (
            {"optimizer": {"kind": "adam"}},
            "training.optimizer.kind must be one of 'sgd', 'adamw', 'rmsprop'; got 'adam'",
        ),
        (
            {"optimizer": {"kind": "adamw", "momentum": 0.5}},
            "training.optimizer.momentum applies only to kind sgd or rm",
        ),
        ({"optimizer": {"lr": object()}}, "optimizer must be plain keys and values"),
        ({"loggers": ["wand"]}, "training.loggers.0 must be 'tensorboard', 'wandb' or 'mlflow'; got 'wand'"),
    ],
)
def test_wrong_arguments_get_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(angulus.InputError, match="^" + sentence.replace(".", r"\.").replace("(", r"\(")):
        angulus.TrainingArguments(**values)


def test_a_trainer_makes_the_run_of_its_recipe_to_the_bit(tmp_path: Path) -> None:
    results = run(tiny.validated(), tmp_path / "recipe", splits=tiny.splits())
    trained = make(tmp_path / "python").train()
    assert tiny.differences(tiny.outcome(tmp_path / "recipe"), tiny.outcome(tmp_path / "python")) == []
    assert trained.metrics["accuracy"] == results["accuracy"]
    model = angulus.load(tmp_path / "recipe" / "model")
    assert trained.model.name == model.name
    pixels = tiny.splits().test.pixels[:5]
    assert np.array_equal(trained.model.encode(pixels), model.embed(pixels).numpy())


def test_a_trainer_with_a_set_by_name_writes_a_recipe_that_trains_the_same(tmp_path: Path) -> None:
    trainer = make(tmp_path, dataset="digits", augment=None, head={"impl": "reference"})
    again = recipe.validate(recipe.parse_yaml(recipe.to_yaml(trainer.recipe)))
    assert again == trainer.recipe
    assert again.data.name == "digits"
    assert again.head.impl == "reference"
    assert not any(tmp_path.iterdir())


def test_callbacks_are_told_everything_in_order(tmp_path: Path) -> None:
    seen = Seen()
    make(tmp_path / "run", callbacks=[seen], training={"log_every": 2}).train()
    steps = [("step", step) for step in range(1, 11)]
    assert seen.events == [("start", 0), *steps[:5], ("epoch", 5), *steps[5:], ("epoch", 10), ("end", 10)]
    last = seen.records[-1]
    assert (last.steps, last.epoch, last.epochs, last.images, last.folder) == (10, 2, 2, 144, tmp_path / "run")
    assert (
        sum(record.batch for event, record in zip(seen.events, seen.records, strict=True) if event[0] == "step") == 144
    )
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    logged = {event[1]: record for event, record in zip(seen.events, seen.records, strict=True) if record.values}
    assert [row["step"] for row in rows] == sorted(logged) == [2, 4, 6, 8, 10]
    assert all(
        logged[row["step"]].loss == row["loss"] and logged[row["step"]].values["lr"] == row["lr"] for row in rows
    )


@pytest.mark.parametrize("fail", [("step", 3), ("epoch", 5), ("step", 10), ("start", 0), ("end", 10)])
def test_a_failing_callback_ends_the_training_with_its_checkpoint(tmp_path: Path, fail: tuple[str, int]) -> None:
    whole = make(tmp_path / "whole").train()
    failing, other = Seen(fail=fail), Seen()
    with pytest.raises(LookupError, match="mine"):
        make(tmp_path / "run", callbacks=[failing, other]).train()
    assert (tmp_path / "run/checkpoint.pt").exists() == (fail[0] != "start")
    assert failing.events[-1] == ("end", fail[1])
    assert other.events == failing.events
    if fail[0] == "start":
        return
    resumed = make(tmp_path / "run").train(resume=True)
    assert tiny.differences(tiny.outcome(whole.folder), tiny.outcome(resumed.folder)) == []


def test_ctrl_c_keeps_a_checkpoint_and_resume_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", Net()).train()
    seen = Seen(interrupt_at=4)
    trainer = make(tmp_path / "run", Net(), callbacks=[seen])
    with pytest.raises(Interrupted, match=r"stopped at step 4 of 10 in .*run; .* train\(resume=True\)"):
        trainer.train()
    assert seen.events[-1] == ("end", 4)
    resumed = trainer.train(resume=True)
    assert tiny.differences(tiny.outcome(whole.folder), tiny.outcome(resumed.folder)) == []
    assert whole.model.name == resumed.model.name


def test_a_training_that_diverged_warns(tmp_path: Path) -> None:
    trainer = make(tmp_path / "run", training={"optimizer": {"lr": 30.0}})
    with pytest.warns(UserWarning, match=r"lower training\.optimizer\.lr") as shown:
        trained = trainer.train()
    assert [trained.metrics["diverged"], __file__] in [[str(warning.message), warning.filename] for warning in shown]


def test_a_folder_that_is_taken_is_refused_before_the_data_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny.validated("training.epochs=1"), tmp_path / "run", splits=tiny.splits())
    monkeypatch.setattr(build, "splits", lambda _: pytest.fail("the data were read"))
    with pytest.raises(InputError, match="holds a run already; continue it with --resume"):
        run(tiny.validated("training.epochs=1"), tmp_path / "run")


def test_a_network_of_ones_own_is_saved_and_loaded_into_the_same_code(tmp_path: Path) -> None:
    network = Net()
    trained = make(tmp_path / "run", network).train()
    assert inner(trained).config.embedding_size == 5
    assert inner(trained).backbone is network
    pixels = tiny.splits().test.pixels[:6]
    loaded = angulus.load(tmp_path / "run/model", backbone=Net())
    assert torch.equal(loaded.embed(pixels), inner(trained).embed(pixels))
    assert loaded.predict(pixels).labels == inner(trained).predict(pixels).labels
    card = (tmp_path / "run/model/README.md").read_text()
    assert 'angulus.load("FOLDER", backbone=network)' in card
    assert "`network` is a `Net`, whose code is not in this folder" in card
    for load, sentence in (
        (lambda: angulus.load(tmp_path / "run/model"), "holds the weights of Net, a network of somebody's own code"),
        (lambda: angulus.Embedder.from_pretrained(tmp_path / "run/model"), "give it, angulus.load"),
        (
            lambda: angulus.load(tmp_path / "run/model", backbone=nn.Linear(2, 2)),
            r"does not hold the weights of the Linear that was given \(.*\); give the network that was trained",
        ),
        (lambda: angulus.load(tmp_path / "run/model", backbone="Net"), "backbone must be a network"),  # type: ignore[arg-type]
        (lambda: run(recipe.load(tmp_path / "run/recipe.yaml"), tmp_path / "x"), "data.name python means images"),
        (
            lambda: run(recipe.load(tmp_path / "run/recipe.yaml"), tmp_path / "x", splits=tiny.splits()),
            "the network itself",
        ),
    ):
        with pytest.raises(angulus.InputError, match=sentence):
            load()
    with pytest.raises(angulus.InputError, match="rebuilds its backbone 'small' by itself; leave backbone out"):
        angulus.load(make(tmp_path / "named").train().folder / "model", backbone=Net())


@pytest.mark.parametrize("normalize", [False, True])
def test_a_loaded_model_is_trained_further_in_a_copy(tmp_path: Path, normalize: bool) -> None:
    first = make(tmp_path / "first", backbone={"normalize": normalize}).train().model
    before = {name: value.clone() for name, value in inner(first).state_dict().items()}
    still = {"epochs": 1, "optimizer": {"kind": "sgd", "lr": 1e-30}}
    trainer = angulus.Trainer(
        first, LOSS, tiny.splits(), Training(**{**TRAINING, **still}), out=tmp_path / "further", progress=False
    )
    assert trainer.recipe.input == Contract(mean=78, scale=96)
    assert trainer.recipe.backbone.embedding_size == 4
    further = inner(trainer.train())
    assert further.config.backbone == "small"
    for (name, value), other in zip(
        further.backbone.named_parameters(), inner(first).backbone.parameters(), strict=True
    ):
        assert torch.equal(value, other), name
    moved = inner(make(tmp_path / "moved", first, name="moved").train()).state_dict()
    assert all(torch.equal(value, inner(first).state_dict()[name]) for name, value in before.items())
    assert any(not torch.equal(value, moved[name]) for name, value in before.items())


def test_arrays_images_a_folder_and_records_are_the_same_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 11)
    pixels = rng.integers(256, size=(22, 8, 6, 3), dtype=np.uint8)
    for number, (label, image) in enumerate(zip(labels, pixels, strict=True)):
        folder = tmp_path / "photos" / f"class-{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:02}.png")
    with RecordWriter(tmp_path / "records") as writer:
        for row in read_source(tmp_path / "photos", None):
            writer.add(row)  # type: ignore[arg-type]
        writer.commit()
    names = [f"class-{label}" for label in labels]
    channels_first = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    kinds = {
        "arrays": (pixels, names),
        "tensors": (channels_first, names),
        "images": given.from_arrays(pixels, names),
        "folder": tmp_path / "photos",
        "records": str(tmp_path / "records"),
    }
    made = {kind: make(tmp_path / "out", dataset=value) for kind, value in kinds.items()}
    for kind, trainer in made.items():
        splits = trainer.splits
        assert splits.train.class_names == ("class-0", "class-1"), kind
        assert splits.test.labels.tolist() == [0, 1], kind
        assert torch.equal(splits.train.pixels[:], made["arrays"].splits.train.pixels[:]), kind
        assert torch.equal(splits.test.pixels[:], channels_first[[9, 20]]), kind
    assert made["records"].recipe.data == recipe.DataSection(path=str(tmp_path / "records"))


def test_images_to_test_on_share_the_classes() -> None:
    train = (np.zeros((4, 8, 8), np.uint8), [7, 5, 7, 9])
    trainer = make(Path("x"), dataset=train, test=(np.ones((2, 8, 8), np.uint8), torch.tensor([9, 5])))
    assert trainer.splits.train.labels.tolist() == [1, 0, 1, 2]
    assert trainer.splits.test.labels.tolist() == [2, 0]
    assert trainer.splits.test.class_names == ("5", "7", "9")


ZEROS = np.zeros((20, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": "smal"}, "backbone.name must be one of .*got 'smal'; did you mean 'small'"),
        ({"model": Net}, "model must be a backbone's name, a torch.nn.Module, .*; got type"),
        ({"model": nn.Linear(3, 4)}, r"model cannot take images \[1, 1, 8, 8\]"),
        ({"model": nn.Conv2d(1, 4, 3)}, r"model must turn images .* gave \[1, 4, 6, 6\]"),
        ({"model": Net(), "embedding_size": 9}, "embedding_size must be 5, as the network's features are; got 9"),
        ({"loss": losses.arcface}, r"loss must be such as losses.arcface\(\).*; got arcface"),
        ({"loss": "arcfce"}, "got 'arcfce'; did you mean 'arcface'"),
        ({"args": {"epochs": 1}}, r"args must be angulus.TrainingArguments\(...\); got dict"),
        ({"dataset": "digts"}, "dataset must be one of digits, .*there is no 'digts'; did you mean 'digits'"),
        ({"dataset": 5}, "dataset must be a name, a path, Splits, Images or .*; got int"),
        ({"dataset": (ZEROS / 255, [0, 1] * 10)}, "images must be uint8 in 0..255; got torch.float64"),
        ({"dataset": ([[1], [1, 2]], [0, 1])}, "images must be of one size"),
        ({"dataset": ([None], [0])}, "images must be a uint8 array or tensor"),
        ({"dataset": (np.zeros((9, 3, 8, 9), np.uint8), [0] * 9)}, "an array of images must be .* its channels second"),
        ({"dataset": (ZEROS, [0.5] * 20)}, "labels must be .N. whole numbers or names.*; got float64"),
        ({"dataset": (ZEROS, ["a", None] * 10)}, "labels must be whole numbers or names; got None at row 1"),
        ({"dataset": (ZEROS, np.array([math.nan, "a"] * 10, object))}, "or names; got nan at row 0"),
        (
            {"dataset": (torch.zeros(20, 8, 9, 3).byte(), [0, 1] * 10)},
            r"a tensor of .*\[20, 8, 9, 3\]; put its channels",
        ),
        ({"dataset": (ZEROS, [0, 1])}, "labels must have shape .20., one per image; got .2."),
        ({"dataset": (ZEROS[:4], [0, 0, 1, 1])}, "one image in 10 of each class is held out .*the most is 2"),
        ({"dataset": (ZEROS, [0, 1] * 10), "test": (ZEROS, [2] * 20)}, "labels must be among the classes .*; got '2'"),
        ({"test": (ZEROS, [0] * 20)}, "this dataset has its own test"),
        (
            {"callbacks": [Seen]},
            "callbacks must be objects of classes that inherit from angulus.Callback; got .*a class",
        ),
        ({"callbacks": [object()]}, "which has no on_start"),
        ({"callbacks": 5}, "callbacks must be a list; got int"),
        ({"out": 3}, "out must be the path of a folder; got 3"),
        ({"backbone": 3}, "backbone must be a mapping"),
        ({"backbone": {"name": "lenet5"}}, "a key of backbone must be one of 'normalize', 'options'; got 'name'"),
        ({"model": Net(), "backbone": {"options": {}}}, "a key of backbone must be one of 'normalize'; got 'options'"),
        ({"input": {"mena": 1}}, "a recipe has no key 'input.mena'; did you mean 'mean'"),
        ({"optimizer": {}}, "a keyword of Trainer must be one of 'backbone', .*; got 'optimizer'"),
        ({"name": "a/b"}, "name must be letters, digits"),
    ],
)
def test_wrong_input_gets_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    values = {"model": "small", "loss": "arcface", "dataset": tiny.splits(), "args": None, **changes}
    with pytest.raises(angulus.InputError, match=sentence):
        angulus.Trainer(**values)


def test_a_folder_in_use_and_nothing_to_resume_are_told_in_pythons_words(tmp_path: Path) -> None:
    make(tmp_path / "run").train()
    with pytest.raises(angulus.InputError, match=r"continue it by train\(resume=True\), or choose another out$"):
        make(tmp_path / "run").train()
    with pytest.raises(angulus.InputError, match=r"holds no run to resume; start one by train\(\), or give as out the"):
        make(tmp_path / "none").train(resume=True)


def test_without_a_folder_runs_are_numbered_and_the_newest_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"training": {"epochs": 1}, "name": None, "progress": True}
    first = make(None, **options)  # type: ignore[arg-type]
    assert first.train().folder == Path("runs/small-digits-seed-0")
    assert "epoch 1 of 1, loss " in capsys.readouterr().err
    assert first.train().folder == Path("runs/small-digits-seed-0-2")
    assert make(None, **options).train(resume=True).folder == Path("runs/small-digits-seed-0-2")  # type: ignore[arg-type]


def test_secrets_of_sections_are_masked_in_what_a_run_keeps(tmp_path: Path) -> None:
    trainer = make(tmp_path / "run", training={"epochs": 1, "start_from": "https://me:pass@host/x"})
    assert "pass" not in recipe.to_yaml(trainer.recipe)
    assert recipe.flat(trainer.recipe)["training.start_from"] == f"https://{redact.MASK}@host/x"
    assert isinstance(trainer.recipe.objective, Objective)


def test_the_page_on_training_trains_from_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "docs/training.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.S))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, "training.md", "exec", dont_inherit=True), names)
    accuracy, *shape = capsys.readouterr().out.split(maxsplit=1)
    assert float(accuracy) > 0.9
    assert shape == ["(2, 16)\n"]
    with pytest.raises(StopIteration, match="after epoch 2"):
        names["StopAt"]().on_epoch(Record(20, 30, 2, 3, 2.5, 8, 240, tmp_path))
