"""Starting from a trained model: which weights are taken, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil
import warnings
from pathlib import Path

import pytest
import torch

import angulus
import tiny
from angulus.core.checks import InputError
from angulus.data import Splits
from angulus.experiments import build
from angulus.experiments.run import run
from angulus.models import artifact
from angulus.training import start
from angulus.training.state import load_checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run(tiny.validated("objective={kind: softmax, bias: true}"), folder, splits=tiny.splits())
    return folder


def renamed() -> Splits:
    """The same digits under other names."""
    names = tuple("abcdefghij")
    whole = tiny.splits()
    return dataclasses.replace(
        whole,
        train=dataclasses.replace(whole.train, class_names=names),
        test=dataclasses.replace(whole.test, class_names=names),
    )


@pytest.mark.parametrize("what", ["", "checkpoint.pt"])
def test_a_run_on_the_same_classes_gives_backbone_and_class_weights(what: str, trained: Path) -> None:
    job = build.job(tiny.validated("training.seed=5", "objective={kind: softmax, bias: true}"), tiny.splits())
    build.start_from(trained / what, job)
    state = load_checkpoint(trained / "checkpoint.pt")
    assert tiny.differences(dict(job.backbone.state_dict()), dict(state["backbone"])) == []
    assert torch.equal(job.head.weight, state["head"]["weight"])
    assert job.head.bias is not None
    assert torch.equal(job.head.bias, state["head"]["bias"])


def test_another_objective_takes_what_it_has(trained: Path) -> None:
    job = build.job(tiny.validated("objective={kind: arcface, s: 8, m: 0.2}"), tiny.splits())
    build.start_from(trained, job)
    assert torch.equal(job.head.weight, load_checkpoint(trained / "checkpoint.pt")["head"]["weight"])


def test_a_run_on_other_classes_gives_the_backbone_alone(trained: Path) -> None:
    job = build.job(tiny.validated(), renamed())
    fresh = job.head.weight.detach().clone()
    build.start_from(trained, job)
    assert torch.equal(job.head.weight, fresh)
    assert torch.equal(
        job.backbone.state_dict()["layers.0.weight"],
        load_checkpoint(trained / "checkpoint.pt")["backbone"]["layers.0.weight"],
    )


def test_a_model_folder_gives_the_backbone_and_the_weights_of_the_same_classes(trained: Path) -> None:
    job = build.job(tiny.validated("training.seed=3"), tiny.splits())
    fresh = job.head.weight.detach().clone()
    build.start_from(trained / "model", job)
    found = angulus.load(trained / "model").backbone.state_dict()
    assert tiny.differences(dict(job.backbone.state_dict()), dict(found)) == []
    classifier = angulus.load(trained / "model").classifier
    assert classifier is not None and torch.equal(job.head.weight, classifier.weight)
    other = build.job(tiny.validated("training.seed=3"), renamed())
    build.start_from(trained / "model", other)
    assert torch.equal(other.head.weight, fresh)


def test_a_model_folder_beside_a_damaged_checkpoint_starts_where_nobody_is_held_out(
    trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "model", tmp_path / "model")
    (tmp_path / "checkpoint.pt").write_bytes(b"cut short")
    job = build.job(tiny.validated(), tiny.splits())
    build.start_from(tmp_path / "model", job)
    found = angulus.load(trained / "model").backbone.state_dict()
    assert all(torch.equal(job.backbone.state_dict()[name], value) for name, value in found.items())


def test_a_run_starts_there_and_resumes_without(trained: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "checkpoint.pt").write_bytes((trained / "checkpoint.pt").read_bytes())
    chosen = tiny.validated(
        f"training.start_from={source}", "training.optimizer.lr=1e-9", "objective={kind: softmax, bias: true}"
    )
    run(chosen, tmp_path / "whole", splits=tiny.splits())
    weight = load_checkpoint(tmp_path / "whole" / "checkpoint.pt")["head"]["weight"]
    torch.testing.assert_close(weight, load_checkpoint(source / "checkpoint.pt")["head"]["weight"])
    with pytest.raises(tiny.PowerCut):
        run(chosen, tmp_path / "cut", splits=tiny.splits(), on_step=tiny.cut_at(7))
    (source / "checkpoint.pt").unlink()
    run(chosen, tmp_path / "cut", splits=tiny.splits(), resume=True)
    assert tiny.differences(tiny.outcome(tmp_path / "whole"), tiny.outcome(tmp_path / "cut")) == []


@pytest.mark.parametrize("what", ["", "model"])
def test_another_backbone_is_refused_and_leaves_no_folder(what: str, trained: Path, tmp_path: Path) -> None:
    chosen = tiny.validated("backbone.embedding_size=5", f"training.start_from={trained / what}")
    with pytest.raises(
        InputError, match=r"training.start_from: .* is of another backbone: .*shape \[4, 128\].*start from one of this"
    ):
        run(chosen, tmp_path / "run", splits=tiny.splits())
    assert not (tmp_path / "run").exists()


def stopped(folder: Path, *overrides: str) -> Path:
    """A run that was stopped after 3 of its 10 steps."""
    with pytest.raises(tiny.PowerCut):
        run(
            tiny.validated("training.checkpoint_every=3", *overrides),
            folder,
            splits=tiny.splits(),
            on_step=tiny.cut_at(4),
        )
    return folder


def test_a_run_that_has_not_ended_is_refused_and_its_checkpoint_is_taken(tmp_path: Path) -> None:
    source = stopped(tmp_path / "source")
    with pytest.raises(InputError, match=r"the run in .*source has not ended, it is at step 3 of 10; continue it with"):
        run(tiny.validated(f"training.start_from={source}"), tmp_path / "run", splits=tiny.splits())
    assert not (tmp_path / "run").exists()
    job = build.job(tiny.validated("training.seed=1"), tiny.splits())
    build.start_from(source / "checkpoint.pt", job)
    assert torch.equal(job.head.weight, load_checkpoint(source / "checkpoint.pt")["head"]["weight"])


def test_the_path_is_found_as_other_paths_of_a_recipe_are(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANGULUS_DATA", str(trained.parent))
    chosen = tiny.validated(f"training.start_from={trained.name}", "training.optimizer.lr=1e-9", "training.epochs=1")
    run(chosen, tmp_path / "run", splits=tiny.splits())
    weight = load_checkpoint(trained / "checkpoint.pt")["head"]["weight"]
    torch.testing.assert_close(load_checkpoint(tmp_path / "run" / "checkpoint.pt")["head"]["weight"], weight)


# people that validation holds out

HELD = "validation={identities: 0.3, fmr: 0.05, pairs: 100}"


@pytest.mark.parametrize("what", ["", "checkpoint.pt", "model"])
def test_a_start_that_knows_the_held_out_people_is_refused(what: str, trained: Path, tmp_path: Path) -> None:
    held = build.hold_out(tiny.validated(HELD), tiny.splits())[1]
    assert held is not None
    sentence = (
        rf"was trained on 3 of the 3 classes that validation holds out \('{min(held.class_names)}', ...\); start from "
        "a run that held the same ones out"
    )
    with pytest.raises(InputError, match=sentence):
        run(tiny.validated(HELD, f"training.start_from={trained / what}"), tmp_path / "run", splits=tiny.splits())
    assert not (tmp_path / "run").exists()


def test_a_start_that_held_out_the_same_people_is_taken_and_one_of_another_seed_is_refused(tmp_path: Path) -> None:
    run(tiny.validated(HELD, "training.epochs=1"), tmp_path / "source", splits=tiny.splits())
    path = f"training.start_from={tmp_path / 'source'}"
    run(tiny.validated(HELD, "training.epochs=1", path), tmp_path / "same", splits=tiny.splits())
    with pytest.raises(InputError, match=r"was trained on \d of the 3 classes that validation holds out"):
        run(tiny.validated(HELD, "training.seed=1", path), tmp_path / "other", splits=tiny.splits())


def test_what_cannot_be_told_of_held_out_people_is_warned_of(trained: Path, tmp_path: Path) -> None:
    job = build.job(tiny.validated(HELD), *build.hold_out(tiny.validated(HELD), tiny.splits()))
    model = angulus.load(trained / "model")
    artifact.save(model.config, model.backbone, tmp_path / "model")  # without its run and its classes
    with pytest.warns(UserWarning, match="does not name the classes it was trained on; with some held out"):
        build.start_from(tmp_path / "model", job)
    assert job.held_out is not None
    known = (job.held_out.class_names[0], "someone of another data set")
    with pytest.warns(
        UserWarning, match=r"was trained on 1 of the 3 classes .*, or on others of these names; if they are"
    ):
        start.refuse_seen_classes(known, job, trained)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start.refuse_seen_classes(("none", "of", "them"), job, trained)


def test_nothing_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no model folder .RUN/model., run's folder or checkpoint"):
        run(tiny.validated(f"training.start_from={tmp_path / 'no'}"), tmp_path / "run", splits=tiny.splits())
    (tmp_path / "bad").write_text("no checkpoint")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        run(tiny.validated(f"training.start_from={tmp_path / 'bad'}"), tmp_path / "run", splits=tiny.splits())


# drawn class weights


@pytest.mark.parametrize(("classes", "size"), [(3, 4), (10, 4), (4096, 3), (4097, 3), (9000, 17)])
def test_a_sharded_head_starts_as_a_dense_one(classes: int, size: int) -> None:
    torch.manual_seed(4)
    dense = angulus.DenseHead(size, classes, angulus.losses.normface())
    after = torch.rand(1)
    sharded = angulus.ShardedHead(size, classes, angulus.losses.normface())
    torch.manual_seed(4)
    start.draw_as_dense(sharded)
    assert torch.equal(sharded.weight, dense.weight)
    assert torch.equal(torch.rand(1), after)  # what is drawn next is the same too
