"""Stand-ins: the shape of the real set, learnable, the same each time, and never mistaken for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid

import angulus
import tiny
from angulus import InputError, data
from angulus.experiments.run import run

SHAPES = {
    "mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "cifar100": (3, 32, 32),
    "luna16": (1, 26, 40, 40),
    "faces": (3, 112, 112),
    "celeba": (3, 112, 112),
    "ms-celeb": (3, 112, 112),
    "casia-webface": (3, 112, 112),
}
RECORDS = ("faces", "celeba", "ms-celeb", "casia-webface")


@pytest.mark.parametrize("name", SHAPES)
def test_a_stand_in_has_the_real_sets_shape_and_is_learnable(name: str) -> None:
    splits = data.stand_in(name, images=6 if name == "cifar100" else 8)
    assert (splits.name, splits.generated, splits.source) == (name, True, f"generated stand-in of {name}")
    assert splits.train.pixels.shape[1:] == splits.test.pixels.shape[1:] == SHAPES[name]
    assert set(splits.train.labels.tolist()) == set(range(splits.train.num_classes)) == set(splits.test.labels.tolist())
    train, test = (torch.as_tensor(part.pixels[:]).flatten(1).numpy() for part in (splits.train, splits.test))
    judge = NearestCentroid().fit(train.astype(np.float32), splits.train.labels)
    assert judge.score(test.astype(np.float32), splits.test.labels) == 1
    spread = train[splits.train.labels.numpy() == 0].std(axis=0).mean()
    assert spread > 10  # images of a class differ


def test_the_class_counts_are_the_real_sets() -> None:
    assert data.stand_in("mnist").train.class_names == tuple("0123456789")
    assert data.stand_in("cifar10").train.num_classes == 10
    assert data.stand_in("cifar100", images=2).train.num_classes == 100
    luna = data.stand_in("luna16", images=12)
    assert luna.train.class_names == ("no nodule", "nodule")
    assert len(set(luna.train.columns["scans"])) == 10


def test_a_stand_in_is_the_same_each_time() -> None:
    one, other = data.stand_in("mnist"), data.stand_in("mnist")
    assert torch.equal(one.train.pixels[:], other.train.pixels[:]) and torch.equal(one.test.labels, other.test.labels)


@pytest.mark.parametrize("name", RECORDS)
def test_records_are_read_by_the_sets_own_reader_and_say_what_they_are(tmp_path: Path, name: str) -> None:
    splits = data.stand_in(name, folder=tmp_path / "records", size=(24, 20), classes=3)
    assert splits.generated and splits.source.startswith(f"generated stand-in of {name}, in {tmp_path}")
    assert splits.train.pixels.shape[1:] == (3, 24, 20)
    assert len(splits.train) + len(splits.test) == 150 and len(splits.test) >= 3
    again = data.load(name, root=tmp_path / "records")
    assert again.generated and torch.equal(again.train.pixels[:], splits.train.pixels[:])


def test_what_is_not_generated_does_not_say_so() -> None:
    assert not data.load("digits").generated


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"name must be one of 'mnist'.*got 'cifar'; did you mean 'cifar10'\?"):
        data.stand_in("cifar")
    with pytest.raises(InputError, match="folder must be left out for 'mnist', which is not stored as records"):
        data.stand_in("mnist", folder=tmp_path)
    with pytest.raises(InputError, match=r"size must have 3 sides for 'luna16'; got \(8, 8\)"):
        data.stand_in("luna16", size=(8, 8))
    with pytest.raises(InputError, match="size must be a whole number >= 1; got 0"):
        data.stand_in("mnist", size=(0, 8))
    with pytest.raises(InputError, match="classes must be a whole number >= 2; got 1"):
        data.stand_in("mnist", classes=1)
    with pytest.raises(InputError, match="images must be a whole number >= 2; got 1"):
        data.stand_in("mnist", images=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(InputError, match="must be missing or an empty folder"):
        data.stand_in("faces", folder=tmp_path / "full")


@pytest.mark.parametrize(
    ("name", "options", "backbone"),
    [
        ("cifar10", {}, "small"),
        ("luna16", {"size": (6, 20, 20)}, "luna_archi1"),
        ("casia-webface", {"size": (24, 20), "classes": 3}, "small"),
    ],
)
def test_a_run_goes_from_a_stand_in_to_results_that_say_so(
    tmp_path: Path, name: str, options: dict[str, Any], backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("angulus.data.sets.identity_sets.IN_MEMORY_BYTES", 0)  # decoded when asked for
    records = {"folder": tmp_path / "records"} if name in RECORDS else {}
    splits = data.stand_in(name, **options, **records)
    recipe = tiny.validated(
        "training.epochs=1", "evaluation.low_fraction=0.5", f"data.name={name}", f"backbone.name={backbone}"
    )
    results = run(recipe, tmp_path / "run", splits=splits)
    assert results["data"].startswith(f"generated stand-in of {name}")
    model = angulus.load(tmp_path / "run" / "model")
    assert model.embed(splits.test.pixels[:2]).shape == (2, 4)
