"""Training on several processes: equal to one, resumed on any number, with stops and errors on all ranks."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import angulus
import tiny
import toy_transformers
from angulus.experiments import build
from angulus.experiments.run import run
from angulus.training.signals import Interrupted
from angulus.training.state import CHECKPOINT, class_rows, load_checkpoint

sys.path.insert(0, str(Path(__file__).parent))
from ranks import CASES, OF_THREE, REFUSED, STOPPED, stop, train

from processes import run_ranks

WORKER = Path(__file__).with_name("ranks.py")


def start(count: int, folder: Path) -> None:
    """Train every case on so many processes."""
    run_ranks(WORKER, count, str(folder / "rendezvous"), str(folder))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case on this process."""
    folder = tmp_path_factory.mktemp("one")
    for name, overrides in {**CASES, **STOPPED}.items():
        train(name, overrides, folder)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On two processes, which also go on with what one was stopped at."""
    folder = tmp_path_factory.mktemp("two")
    for name, overrides in STOPPED.items():
        with pytest.raises(Interrupted, match="stopped at step 3 of 5"):
            run(tiny.validated(*overrides), folder / f"{name}-of-one", splits=tiny.splits(), on_step=stop(1))
    start(2, folder)
    return folder


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, two: Path) -> Path:
    """On three processes, which also go on with what two were stopped at."""
    folder = tmp_path_factory.mktemp("three")
    for name in STOPPED:
        shutil.copytree(two / name, folder / name)
    start(3, folder)
    return folder


def weights(folder: Path) -> dict[str, Tensor]:
    """The trained parameters of a run, of however many processes it was."""
    state = load_checkpoint(folder / CHECKPOINT)
    rows = class_rows(state, folder)
    means = {f"ema.{name}": value for name, value in state.get("ema", {}).get("backbone", {}).items()}
    return {**state["backbone"], **means, **{f"head.{name}": value for name, value in rows.items()}}


def assert_equal(folder: Path, other: Path) -> None:
    """The same weights, losses, features and results, to rounding, which batch norm over few rows makes larger."""
    atol = 2e-4 if "synced" in folder.name else 2e-5
    found, expected = weights(folder), weights(other)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-3, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )
    rows, others = ([json.loads(line) for line in (each / "metrics.jsonl").open()] for each in (folder, other))
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    for row, theirs in zip(rows, others, strict=True):
        for key, value in row.items():
            assert value == pytest.approx(theirs[key], rel=2e-3, abs=atol), (key, row["step"])
    mine, theirs = (tiny.outcome(each)["test"] for each in (folder, other))
    torch.testing.assert_close(mine["features"], theirs["features"], rtol=1e-2, atol=1e-2)
    assert (mine["predictions"] != theirs["predictions"]).sum() <= 1  # on the border of two classes


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(case: str, one: Path, two: Path) -> None:
    assert_equal(two / case, one / case)


@pytest.mark.parametrize("case", OF_THREE)
def test_three_processes_with_uneven_shares_train_as_one(case: str, one: Path, three: Path) -> None:
    assert_equal(three / case, one / case)


def test_a_checkpoint_that_a_thread_wrote_of_a_spread_backbone_is_that_of_its_step(one: Path, two: Path) -> None:
    for name in ("background", "whole-in-background"):
        assert_equal(two / name, one / "averaged")


def test_synchronised_batch_norm_is_that_of_all_rows(two: Path, three: Path) -> None:
    for folder, count in ((two, 2), (three, 3)):
        for rank in range(count):
            assert float(json.loads((folder / f"rank-{rank}.json").read_text())["batch norm"][0]) < 1e-12


def test_a_spread_backbone_trains_as_a_copied_one_to_the_bit(two: Path) -> None:
    assert "shard_backbone: true" in (two / "spread" / "recipe.yaml").read_text()
    found, expected = weights(two / "spread"), weights(two / "sgd")
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    models = [load_file(two / case / "model" / "model.safetensors") for case in ("spread", "sgd")]
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(models[0][name], value) for name, value in models[1].items())


def test_of_a_spread_backbone_with_lora_the_added_matrices_alone_move(one: Path, two: Path) -> None:
    recipe = tiny.validated(*CASES["spread-lora"])
    with toy_transformers.installed():
        before = build.job(recipe, tiny.splits()).backbone.state_dict()
    for folder in (one, two):
        after = load_checkpoint(folder / "spread-lora" / CHECKPOINT)["backbone"]
        moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
        added = {f"layers.0.net.layer.{n}.fc.{part}" for n in range(2) for part in "AB"}
        assert moved == added | {name for name in before if not name.startswith("layers.0.")}


def test_results_name_the_number_of_processes(one: Path, two: Path, three: Path) -> None:
    counts = [
        json.loads((each / "mined" / "results.json").read_text())["training"]["processes"] for each in (one, two, three)
    ]
    assert counts == [1, 2, 3]


def test_the_model_folder_has_the_classes_of_all_processes(one: Path, two: Path, three: Path) -> None:
    pixels = tiny.splits().test.pixels
    expected = angulus.load(one / "mined" / "model").predict(pixels).probabilities
    for folder in (two, three):
        model = angulus.load(folder / "mined" / "model")
        assert model.classes == tuple("0123456789")
        torch.testing.assert_close(model.predict(pixels).probabilities, expected, atol=1e-3, rtol=0)


def test_one_file_a_process_and_no_old_ones_are_left(two: Path) -> None:
    files = sorted(path.name for path in (two / "sgd").iterdir())
    assert [name for name in files if name.startswith("head-")] == ["head-5"]
    shards = [path.name for path in (two / "sgd" / "head-5").glob("classes-*")]
    assert sorted(re.sub(r"-[0-9a-f]{8}\.", ".", name) for name in shards) == [
        "classes-0.safetensors",
        "classes-5.safetensors",
    ]


# stopped and resumed


@pytest.mark.parametrize("case", STOPPED)
def test_one_rank_is_asked_to_stop_and_all_stop_at_that_step(case: str, two: Path) -> None:
    said = [json.loads((two / f"rank-{rank}.json").read_text())[case] for rank in range(2)]
    assert said == [["Interrupted", "stopped at step 3 of 5"]] * 2
    assert load_checkpoint(two / case / "checkpoint.pt")["progress"]["step"] == 3


@pytest.mark.parametrize("case", STOPPED)
def test_what_two_began_one_ends(case: str, one: Path, two: Path, three: Path, tmp_path: Path) -> None:
    shutil.copytree(two / case, tmp_path / case)
    run(tiny.validated(*STOPPED[case]), tmp_path / case, splits=tiny.splits(), resume=True)
    assert_equal(tmp_path / case, one / case)
    assert not list((tmp_path / case).glob("head-*"))


@pytest.mark.parametrize("case", STOPPED)
def test_what_one_began_two_end(case: str, one: Path, two: Path) -> None:
    assert_equal(two / f"{case}-of-one", one / case)


@pytest.mark.parametrize("case", STOPPED)
def test_what_two_began_three_end(case: str, one: Path, three: Path) -> None:
    assert_equal(three / case, one / case)


def test_a_run_of_two_is_what_another_starts_from(two: Path) -> None:
    job = build.job(tiny.validated(*CASES["bias-and-ring"], "training.seed=9"), tiny.splits())
    build.start_from(two / "bias-and-ring", job)
    found = weights(two / "bias-and-ring")
    assert torch.equal(job.head.weight, found["head.weight"])
    assert job.head.bias is not None
    assert torch.equal(job.head.bias, found["head.bias"])


# refusals


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("dense", "head.sharded false keeps all classes in one process; got 2: set it to auto"),
        ("device", "training.device must be auto, cpu or cuda where 2 processes train; got 'cuda:0'"),
        ("small", r"training.batch_size 5 leaves 2 of 72 images for the smallest batch, too few for 2 processes and"),
        ("classes", "training needs at least two classes; .* has 1: give each person or class a folder"),
        ("one number", "shard_backbone: PyTorch's fully_shard does not take this backbone .*; leave it out"),
        ("diverged", r"training stopped at step \d: .*no checkpoint was written yet; lower training.optimizer.lr"),
    ],
)
def test_every_rank_is_refused_the_same(case: str, sentence: str, two: Path) -> None:
    said = [json.loads((two / f"rank-{rank}.json").read_text())[case] for rank in range(2)]
    assert said[0] == said[1]
    assert said[0][0] == "SharedError"
    assert re.search(sentence, said[0][1])
    assert set(REFUSED) <= {"dense", "device", "small", "diverged"}


def test_what_one_rank_alone_breaks_is_refused_on_all(two: Path) -> None:
    first, second = (json.loads((two / f"rank-{rank}.json").read_text())["alone"] for rank in range(2))
    assert second == ["SharedError", second[1]]
    assert "leaves low empty" in second[1]
    assert first == ["SharedError", f"rank 1 failed: {second[1]}"]


def test_refused_runs_leave_no_folder(two: Path) -> None:
    left = {path.name for path in (two / "refused").iterdir()} - {
        "images",
        "figures",
        "callback",
        "disk-false",
        "disk-true",
    }  # which break on the way
    assert left == {"diverged"}


UNSEEN = "is not seen by every process; give as --out a folder that all machines share"


FULL = "^rank 1 failed: cannot write .*head-4/classes-5.*: No space left on device; free some space"


@pytest.mark.parametrize(
    ("case", "first", "second"),
    [
        # of what rank 0 sees in its own folder, and broadcasts; then a folder that rank 1 does not share
        ("another folder", rf"^rank 1 failed: .*sgd {UNSEEN}", f"sgd {UNSEEN}"),
        ("unseen, stopped", rf"^rank 1 failed: .*nothing {UNSEEN}", f"nothing {UNSEEN}"),
        (
            "nothing to resume",
            "empty holds no run to resume; start one",
            "^rank 0 failed: .*empty holds no run to resume",
        ),
        ("images", "^rank 1 failed: a file cannot be read here", "^a file cannot be read here"),
        ("callback", "^rank 1 failed: no start here", "^no start here"),
        ("disk, false", FULL, FULL),
        ("disk, true", FULL, FULL),
        ("figures", "^rank 1 failed: no figure here", "^no figure here"),
    ],
)
def test_what_one_rank_alone_sees_or_breaks_ends_all(case: str, first: str, second: str, two: Path) -> None:
    said = [json.loads((two / f"rank-{rank}.json").read_text())[case] for rank in range(2)]
    assert [kind for kind, _ in said] == ["SharedError", "SharedError"]
    for sentence, (_, text) in zip((first, second), said, strict=True):
        assert re.search(sentence, text), text


@pytest.mark.parametrize("background", ["false", "true"])
def test_a_disk_that_is_full_on_one_machine_keeps_the_checkpoint_before(background: str, two: Path) -> None:
    folder = two / "refused" / f"disk-{background}"
    state = load_checkpoint(folder / CHECKPOINT)
    assert state["progress"]["step"] == 2
    assert len(class_rows(state, folder)["weight"]) == 10


def test_an_ended_run_that_rank_0_alone_sees_is_read_by_all(two: Path) -> None:
    said = [json.loads((two / f"rank-{rank}.json").read_text())["another folder, resumed"] for rank in range(2)]
    assert said == [["nothing", ""]] * 2
    assert not (two / "nothing").exists()
    assert not [path for path in two.rglob(".seen-*")]
