"""People held out of the training, and models kept on the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import angulus
import tiny
from angulus.core.checks import InputError
from angulus.data import Images, Splits
from angulus.experiments import build
from angulus.experiments.run import mean, run
from angulus.training import loop
from angulus.training.batches import batches
from angulus.training.settings import Validation
from angulus.training.state import SNAPSHOT_BACKBONE, find_snapshots, load_checkpoint, load_snapshot, save_snapshot
from angulus.training.validation import draw_pairs, hold_out, validate

HELD = "validation={identities: 0.3, fmr: 0.02, pairs: 500}"


def test_held_out_classes_are_neither_trained_nor_tested_on() -> None:
    whole = tiny.splits()
    rest, held_out = hold_out(whole, Validation(identities=0.3), seed=1)
    kept, held = set(rest.train.class_names), set(held_out.class_names)
    assert len(held) == 3
    assert kept | held == set(whole.train.class_names)
    assert not kept & held
    for part, before in ((rest.train, whole.train), (rest.test, whole.test), (held_out, whole.train)):
        named = [before.class_names[label] for label in before.labels.tolist()]
        rows = [row for row, name in enumerate(named) if name in part.class_names]
        assert torch.equal(part.pixels, before.pixels[rows])
        assert [part.class_names[label] for label in part.labels.tolist()] == [named[row] for row in rows]


def test_who_is_held_out_follows_the_seed_alone() -> None:
    names = {seed: hold_out(tiny.splits(), Validation(identities=0.3), seed)[1].class_names for seed in range(6)}
    assert names[0] == hold_out(tiny.splits(), Validation(identities=0.3), 0)[1].class_names
    assert len(set(names.values())) > 1


def test_pairs_are_what_they_say_and_cover_all() -> None:
    labels = np.array([5, 2, 5, 2, 2, 9, 5, 7, 7])  # 9 has one image: it is in no genuine pair
    pairs = draw_pairs(labels, 4000, seed=0)
    first, second = labels[pairs.rows].T
    assert np.array_equal(first == second, pairs.same)
    assert pairs.same.sum() == 4000
    assert (pairs.rows[:, 0] != pairs.rows[:, 1]).all()
    for same in (True, False):
        found = {(int(a), int(b)) for a, b in pairs.rows[pairs.same == same]}
        assert found == {(a, b) for a in range(9) for b in range(9) if a != b and (labels[a] == labels[b]) == same}
    assert np.array_equal(pairs.rows, draw_pairs(labels, 4000, seed=0).rows)
    assert not np.array_equal(pairs.rows, draw_pairs(labels, 4000, seed=1).rows)


def test_validation_is_written_every_n_epochs_and_changes_no_number(tmp_path: Path) -> None:
    chosen = tiny.validated(HELD, "training.epochs=4", "validation.every=2")
    run(chosen, tmp_path / "with", splits=tiny.splits())
    rows = [json.loads(line) for line in (tmp_path / "with" / "metrics.jsonl").open()]
    validated = [row for row in rows if "validation_tar" in row]
    rest, _ = build.hold_out(chosen, tiny.splits())
    steps = len(batches(len(rest.train), 16, 0, 0))
    assert [row["step"] for row in validated] == [2 * steps, 4 * steps]
    assert all(0 <= row[name] <= 1 for row in validated for name in ("validation_tar", "validation_accuracy"))
    silent = build.job(chosen, rest)
    (tmp_path / "without").mkdir()
    loop.fit(silent, tmp_path / "without", resume=False)
    one, other = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("with", "without"))
    assert tiny.differences(one["backbone"], other["backbone"]) == []
    assert one["head"]["weight"].shape[0] == 7
    test = np.load(tmp_path / "with" / "test.npz")
    assert len(test["labels"]) == len(rest.test)


def test_validation_is_resumed_with_the_run(tmp_path: Path) -> None:
    chosen = tiny.validated(HELD, "training.checkpoint_every=3")
    run(chosen, tmp_path / "whole", splits=tiny.splits())
    with pytest.raises(tiny.PowerCut):
        run(chosen, tmp_path / "cut", splits=tiny.splits(), on_step=tiny.cut_at(5))
    run(chosen, tmp_path / "cut", splits=tiny.splits(), resume=True)
    assert tiny.differences(tiny.outcome(tmp_path / "whole"), tiny.outcome(tmp_path / "cut")) == []


def test_the_figures_are_those_of_the_scores() -> None:
    """Features that tell the held-out classes apart wholly, and features that say nothing."""
    job = build.job(*[tiny.validated(HELD), *build.hold_out(tiny.validated(HELD), tiny.splits())])
    assert job.held_out is not None
    labels = job.held_out.labels

    class Known(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(labels, 4).float() if self.separable else torch.ones(len(pixels), 4)

    job.backbone = Known()
    job.backbone.separable = True  # type: ignore[assignment]
    assert validate(job) == {"validation_tar": 1.0, "validation_accuracy": 1.0}
    job.backbone.separable = False  # type: ignore[assignment]
    assert validate(job) == {"validation_tar": 0.0, "validation_accuracy": 0.5}


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("{identities: 0}", "validation.identities must be above 0; got 0"),
        ("{fmr: 1}", "validation.fmr must be below 1; got 1"),
        ("{every: 0}", "validation.every must be at least 1; got 0"),
        ("{pairs: 0}", "validation.pairs must be at least 1; got 0"),
        ("{fmr: 0.001, pairs: 999}", "validation.pairs must be at least 1 / validation.fmr = 1,000"),
    ],
)
def test_settings_are_refused(override: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        tiny.validated(f"validation={override}")


@pytest.mark.parametrize("share", [0.05, 0.9])
def test_too_few_classes_on_a_side_are_refused(share: float, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"validation.identities .* of the 10 classes of digits out; pairs need at least"
    ):
        run(tiny.validated(f"validation={{identities: {share}}}"), tmp_path / "run", splits=tiny.splits())
    assert not (tmp_path / "run").exists()


def test_held_out_classes_of_one_image_each_are_refused() -> None:
    pixels = torch.zeros(10, 1, 8, 8, dtype=torch.uint8)
    images = Images(pixels, torch.arange(10), tuple("abcdefghij"))
    with pytest.raises(InputError, match="have no two images of one; hold out more"):
        hold_out(Splits("single", images, images, "made here"), Validation(identities=0.3), 0)


# snapshots


def test_snapshots_are_models_whose_results_are_averaged(tmp_path: Path) -> None:
    chosen = tiny.validated("training.snapshots={every: 3, after: 2}")
    results = run(chosen, tmp_path, splits=tiny.splits())
    assert results["snapshots"]["steps"] == [5, 8]
    found = [np.load(tmp_path / "snapshots" / f"step-{step}" / "test.npz") for step in (5, 8)]
    accuracies = [float((each["labels"] == each["predictions"]).mean()) for each in found]
    assert results["snapshots"]["mean"]["accuracy"] == pytest.approx(sum(accuracies) / 2)
    assert results["snapshots"]["mean"].keys() <= results.keys()
    for step, each in zip((5, 8), found, strict=True):
        model = angulus.load(tmp_path / "snapshots" / f"step-{step}" / "model")
        features = model.embed(tiny.splits().test.pixels).numpy()
        np.testing.assert_allclose(features, each["features"], rtol=1e-4, atol=1e-4)
    last = np.load(tmp_path / "test.npz")
    assert not np.array_equal(last["features"], found[1]["features"])
    plain = run(tiny.validated(), tmp_path / "plain", splits=tiny.splits())
    assert plain["accuracy"] == results["accuracy"]  # the last model's is what it was


def test_a_snapshot_is_what_a_shorter_training_ends_in(tmp_path: Path) -> None:
    run(tiny.validated("training.snapshots={every: 5}"), tmp_path / "long", splits=tiny.splits())
    run(tiny.validated("training.epochs=1"), tmp_path / "short", splits=tiny.splits())
    one, other = (np.load(folder / "test.npz") for folder in (tmp_path / "long/snapshots/step-5", tmp_path / "short"))
    assert np.array_equal(one["features"], other["features"])
    assert np.array_equal(one["predictions"], other["predictions"])


def test_the_mean_of_results() -> None:
    one = {"a": 1, "b": {"c": [1.0, {"d": 2}], "name": "x"}, "e": [1, 2]}
    two = {"a": 2, "b": {"c": [3.0, {"d": 4}], "name": "x"}, "e": [1, 2, 3]}
    assert mean([one, two]) == {"a": 1.5, "b": {"c": [2.0, {"d": 3.0}], "name": "x"}, "e": [1, 2, 3]}
    values = [{"v": 0.9, "w": 1}, {"v": None}, {"v": 0.8, "w": 3}]
    assert mean(values) == {"v": None}  # undefined in one snapshot, and a number that one lacks


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("{every: 0}", "training.snapshots.every must be at least 1; got 0"),
        ("{every: 1, after: -1}", "training.snapshots.after must be at least 0; got -1"),
        ("{every: 6, after: 5}", "keeps the first model at step 11, and training ends after 10; lower"),
    ],
)
def test_snapshots_are_refused(override: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        build.job(tiny.validated(f"training.snapshots={override}"), tiny.splits())


def test_a_flipped_bit_in_a_snapshot_is_refused(tmp_path: Path) -> None:
    job = build.job(chosen := tiny.validated("training.snapshots={every: 3}"), tiny.splits())
    save_snapshot(tmp_path, job, 3)
    where = find_snapshots(tmp_path, chosen.training.snapshots, 3)[3]
    load_snapshot(where, job)
    whole = bytearray((where / SNAPSHOT_BACKBONE).read_bytes())
    whole[-2] ^= 1
    (where / SNAPSHOT_BACKBONE).write_bytes(whole)
    with pytest.raises(InputError, match=r"backbone.safetensors is damaged: the checksum of"):
        load_snapshot(where, job)
