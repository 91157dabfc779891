"""A run folder that is there: evaluated again, not trained, where only measuring changed; refused for other images."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from angulus.core.checks import InputError
from angulus.data import Images, Splits
from angulus.data.sets.images import fingerprint
from angulus.experiments import measure
from angulus.experiments.recipe import Recipe
from angulus.experiments.run import run
from angulus.models import artifact


def benchmark(number: str) -> str:
    return f"evaluation.benchmarks=[{{name: b, protocol: classification, columns: {{top %: {number}}}}}]"


MEASURED = benchmark("accuracy")


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ended")
    run(chosen(MEASURED), folder, splits=tiny.splits())
    return folder


def chosen(*overrides: str) -> Recipe:
    return tiny.validated("training.snapshots={every: 4}", *overrides)


def no_step(*_: object) -> None:
    raise AssertionError("a step was taken")


def plain(results: dict[str, Any]) -> dict[str, Any]:
    """As JSON has them."""
    found: dict[str, Any] = json.loads(json.dumps(results))
    return found


def again(folder: Path, *overrides: str, splits: Splits | None = None) -> dict[str, Any]:
    return plain(run(chosen(*overrides), folder, resume=True, splits=splits or tiny.splits(), on_step=no_step))


# evaluated again


@pytest.mark.parametrize(
    "overrides",
    [
        ["evaluation.low_fraction=0.5"],
        [MEASURED, "evaluation.low_fraction=0.5"],
        [benchmark("error")],
        [MEASURED, "evaluation.batch_size=7", "title=Renamed"],
    ],
)
def test_other_measuring_is_done_on_the_trained_model(overrides: list[str], ended: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ended, folder)
    before = tiny.outcome(folder)
    stamp = (folder / "checkpoint.pt").stat().st_mtime_ns
    found = again(folder, *overrides)
    assert (folder / "checkpoint.pt").stat().st_mtime_ns == stamp
    assert found == json.loads((folder / "results.json").read_text())
    fresh = plain(run(chosen(*overrides), tmp_path / "fresh", splits=tiny.splits()))
    for key in found.keys() - {"training", "environment"}:
        assert found[key] == fresh[key], key
    kept = json.loads((ended / "results.json").read_text())
    assert all(found[key] == kept[key] for key in ("training", "environment"))
    assert (folder / "recipe.yaml").read_text() == (tmp_path / "fresh" / "recipe.yaml").read_text()
    for where in (".", "snapshots/step-8"):
        config = json.loads((folder / where / "model" / "config.json").read_text())
        assert config == json.loads((tmp_path / "fresh" / where / "model" / "config.json").read_text())
        measured = [
            sorted(path.name for path in each.glob("benchmarks/*"))
            for each in (folder / where, tmp_path / "fresh" / where)
        ]
        assert measured[0] == measured[1]
    after = tiny.outcome(folder)
    assert tiny.differences(after["test"], tiny.outcome(tmp_path / "fresh")["test"]) == []
    assert after["rows"] == before["rows"]
    assert again(folder, *overrides) == found  # which is now read


def test_a_calibration_outlasts_another_evaluation_of_the_same_model(ended: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ended, folder)
    (folder / "model" / artifact.CALIBRATION).write_text("{}")
    again(folder, "evaluation.low_fraction=0.5")
    assert (folder / "model" / artifact.CALIBRATION).exists()


def test_a_measuring_that_broke_off_is_done_again_by_whatever_recipe_comes(ended: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ended, folder)

    def broken(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(measure, "measure", broken)
        again(folder, MEASURED, "evaluation.low_fraction=0.5")
    assert not list(folder.glob("benchmarks/*"))
    found = again(folder, MEASURED)  # the former recipe
    kept = json.loads((ended / "results.json").read_text())
    assert found == kept
    names = [sorted(path.name for path in each.glob("benchmarks/*")) for each in (folder, ended)]
    assert names[0] == names[1] != []
    assert not (folder / ".measuring").exists()


def test_what_moves_a_weight_is_still_another_recipe(ended: Path) -> None:
    for override in (
        "training.epochs=1",
        "input.scale=90",
        "validation={identities: 0.3, fmr: 0.05}",
        "objective.s=9",
        "input.flip=sum",
        "name=renamed",
        "evaluation.each_epoch=true",
    ):
        with pytest.raises(InputError, match="holds a run of another recipe"):
            again(ended, MEASURED, override)


@pytest.mark.parametrize(
    "schedule", ["{kind: constant}", "{kind: steps, milestones: [1, 3]}", "{kind: plateau, patience: 1}"]
)
def test_more_epochs_go_on_as_if_they_had_been_asked_for_at_once(schedule: str, tmp_path: Path) -> None:
    shape = f"training.schedule={schedule}"
    run(tiny.validated(shape), tmp_path / "run", splits=tiny.splits())
    more = tiny.validated(shape, "training.epochs=4")
    with pytest.raises(InputError, match=r"continue it to 4 epochs \(it has 2\) with --resume"):
        run(more, tmp_path / "run", splits=tiny.splits())
    run(more, tmp_path / "run", resume=True, splits=tiny.splits())
    run(more, tmp_path / "once", splits=tiny.splits())
    assert tiny.differences(tiny.outcome(tmp_path / "run"), tiny.outcome(tmp_path / "once")) == []


def test_an_extension_that_was_stopped_has_no_results_of_the_shorter_run(tmp_path: Path) -> None:
    run(tiny.validated(), tmp_path, splits=tiny.splits())
    more = tiny.validated("training.epochs=4")

    def stop(step: int, *_: object) -> None:
        if step == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(more, tmp_path, resume=True, splits=tiny.splits(), on_step=stop)
    assert not (tmp_path / "results.json").exists()
    assert run(more, tmp_path, resume=True, splits=tiny.splits())["training"]["steps"] == 20


@pytest.mark.parametrize("kind", ["cosine", "one_cycle", "polynomial"])
def test_a_schedule_that_reads_the_end_names_the_way_to_go_on(kind: str, tmp_path: Path) -> None:
    shape = f"training.schedule={{kind: {kind}}}"
    run(tiny.validated(shape), tmp_path, splits=tiny.splits())
    sentence = rf"{kind} schedule depend on their number; start from its weights by training.start_from={tmp_path}"
    with pytest.raises(InputError, match=sentence):
        run(tiny.validated(shape, "training.epochs=4"), tmp_path, resume=True, splits=tiny.splits())


def test_an_ended_run_without_its_checkpoint_can_be_read_but_not_measured_again(ended: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ended, folder)
    (folder / "checkpoint.pt").unlink()
    assert again(folder, MEASURED) == json.loads((ended / "results.json").read_text())
    with pytest.raises(InputError, match=r"an ended run without checkpoint.pt; it cannot be evaluated again"):
        again(folder)


# other images


def other(part: str, **changes: Any) -> Splits:
    """The tiny splits with another training or test part."""
    whole = tiny.splits()
    return dataclasses.replace(
        whole, source="elsewhere", **{part: dataclasses.replace(getattr(whole, part), **changes)}
    )


def fewer(images: Images) -> dict[str, Any]:
    return {"pixels": images.pixels[:-1], "labels": images.labels[:-1]}


OTHERS = {
    "fewer to train on": lambda: other("train", **fewer(tiny.splits().train)),
    "other labels": lambda: other("train", labels=tiny.splits().train.labels.roll(1)),
    "fewer to test on": lambda: other("test", **fewer(tiny.splits().test)),
    "other facts": lambda: other("train", columns={"scan": np.arange(72)}),
}


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("stopped", [False, True])
def test_other_images_of_the_same_classes_are_refused(case: str, stopped: bool, ended: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ended, folder)
    if stopped:
        (folder / "results.json").unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    name = "test" if "test" in case else "training"
    sentence = rf"holds a run on other {name} images \(.*trained on the first 72 and 60 digits, and this is elsewhere"
    with pytest.raises(InputError, match=sentence):
        again(folder, MEASURED, splits=OTHERS[case]())
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert again(folder, MEASURED)["accuracy"] == json.loads((ended / "results.json").read_text())["accuracy"]


def test_a_run_that_did_not_keep_what_its_data_were_goes_on(ended: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ended, folder)
    (folder / "data.json").unlink()
    assert again(folder, MEASURED, splits=OTHERS["other labels"]())["accuracy"] > 0


def test_a_damaged_record_of_the_data_is_told(ended: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ended, folder)
    (folder / "data.json").write_text("{")
    with pytest.raises(InputError, match=r"data.json cannot be read \(.*\); delete it to resume without checking that"):
        again(folder, MEASURED)


def test_a_fingerprint_reads_no_pixel() -> None:
    class Unread:
        shape, dtype = torch.Size([2, 1, 4, 4]), torch.uint8

        def __getitem__(self, rows: object) -> torch.Tensor:
            raise AssertionError("read")

    labels = torch.tensor([0, 1])
    one = Images(Unread(), labels, ("a", "b"))
    plain = Images(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), labels, ("a", "b"))
    assert fingerprint(one) == fingerprint(plain)
    others = [
        dataclasses.replace(plain, class_names=("a", "c")),
        dataclasses.replace(plain, labels=labels.flip(0)),
        dataclasses.replace(plain, columns={"x": np.array([1.0, 2.0])}),
        dataclasses.replace(plain, columns={"x": np.array(["1.0", "3"])}),
        Images(torch.zeros(2, 1, 4, 5, dtype=torch.uint8), labels, ("a", "b")),
    ]
    assert len({json.dumps(fingerprint(each)) for each in [plain, *others]}) == 6
