"""The loop: against one written out here, repeated, stopped and resumed in every way, and ended by bad numbers."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from angulus.cli import main as cli
from angulus.core.checks import InputError
from angulus.experiments import build, recipe
from angulus.experiments.recipe import Recipe
from angulus.experiments.run import run
from angulus.training import loop, schedule
from angulus.training.batches import batches
from angulus.training.loop import Interrupted
from angulus.training.state import load_checkpoint


def signal_at(step: int, number: signal.Signals = signal.SIGINT) -> Callable[[int, int, float], None]:
    def on_step(done: int, steps: int, loss: float) -> None:
        if done == step:
            os.kill(os.getpid(), number)

    return on_step


def finish(chosen: Recipe, folder: Path, **options: Any) -> dict[str, Any]:
    run(chosen, folder, splits=tiny.splits(), **options)
    return tiny.outcome(folder)


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# batches


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [(72, 16, [16, 16, 16, 16, 8]), (64, 16, [16] * 4), (65, 16, [16, 16, 16, 17]), (17, 16, [17]), (9, 16, [9])],
)
def test_batches_hold_every_row_once_and_none_holds_one(count: int, size: int, sizes: list[int]) -> None:
    parts = batches(count, size, seed=0, epoch=0)
    assert [len(part) for part in parts] == sizes
    assert sorted(torch.cat(parts).tolist()) == list(range(count))


def test_batches_depend_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat(batches(50, 8, seed, epoch)).tolist()

    torch.manual_seed(5)
    first = order(0, 0)
    torch.manual_seed(6)
    assert order(0, 0) == first
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)} | {tuple(range(50))}) == 5


def test_a_last_batch_of_one_row_is_trained_on(tmp_path: Path) -> None:
    run(tiny.validated("training.epochs=1"), tmp_path, splits=tiny.splits(33))
    assert [row["step"] for row in rows(tmp_path)] == [1, 2]


# what a step does


def written_out(chosen: Recipe) -> tuple[list[Tensor], list[float]]:
    """The same training in a few plain lines: SGD with momentum on the loss, in the order of `batches`."""
    images = tiny.splits().train
    job = build.job(chosen, tiny.splits())
    parameters = [*job.backbone.parameters(), *job.head.parameters()]
    optim = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    losses = []
    job.backbone.train()
    for epoch in range(2):
        for chosen_rows in batches(72, 16, chosen.training.seed, epoch):
            pixels = (images.pixels[chosen_rows].float() - 78) / 96
            features = job.backbone(pixels)
            cos = nn.functional.normalize(features) @ nn.functional.normalize(job.head.weight).T
            loss = nn.functional.cross_entropy(10 * cos, images.labels[chosen_rows])
            optim.param_groups[0]["lr"] = 0.05 * schedule.factor(chosen.training.schedule, len(losses), 10, 5)
            optim.zero_grad()
            loss.backward()
            optim.step()
            losses.append(loss.item())
    return [parameter.detach() for parameter in parameters], losses


def test_the_loop_is_the_one_written_out(tmp_path: Path) -> None:
    chosen = tiny.validated("training.optimizer.weight_decay=0", "training.schedule.kind=one_cycle")
    parameters, losses = written_out(chosen)
    state = finish(chosen, tmp_path)["checkpoint"]
    job = build.job(chosen, tiny.splits())
    names = [name for name, _ in job.backbone.named_parameters()]
    trained = [*(state["backbone"][name] for name in names), state["head"]["weight"]]
    for one, other in zip(trained, parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert [row["loss"] for row in rows(tmp_path)] == pytest.approx(losses, rel=1e-4)
    assert state["progress"]["last_epoch_loss"] == pytest.approx((16 * sum(losses[5:9]) + 8 * losses[9]) / 72, rel=1e-4)


def one_step(folder: Path, *overrides: str) -> float:
    """How far one step of plain SGD at rate 1 moves all parameters together."""
    plain = "training.optimizer={kind: sgd, lr: 1, momentum: 0, weight_decay: 0}"
    job = build.job(tiny.validated("training.epochs=1", "training.batch_size=72", plain, *overrides), tiny.splits())
    parameters = [*job.backbone.parameters(), *job.head.parameters()]
    before = [parameter.detach().clone() for parameter in parameters]
    folder.mkdir()
    assert loop.fit(job, folder, resume=False).step == 1
    moved = [(parameter.detach() - old).flatten() for parameter, old in zip(parameters, before, strict=True)]
    return torch.cat(moved).norm().item()


def test_clip_norm_cuts_the_gradient(tmp_path: Path) -> None:
    assert one_step(tmp_path / "whole") > 0.1
    assert one_step(tmp_path / "cut", "training.clip_norm=1e-2") == pytest.approx(1e-2, rel=1e-3)
    assert one_step(tmp_path / "loose", "training.clip_norm=1e6") == one_step(tmp_path / "again")


def test_bfloat16_is_close_to_float32_and_repeats_itself(tmp_path: Path) -> None:
    finish(tiny.validated(), tmp_path / "float32")
    one, two = (finish(tiny.validated("training.precision=bfloat16"), tmp_path / name) for name in ("one", "two"))
    assert tiny.differences(one, two) == []
    exact, rounded = (rows(tmp_path / name)[0]["loss"] for name in ("float32", "one"))
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.02)  # of the first step, from the same weights
    assert {value.dtype for value in one["checkpoint"]["backbone"].values()} == {torch.float32, torch.int64}


def test_rows_are_written_every_log_every_steps_and_at_the_end(tmp_path: Path) -> None:
    calls: list[tuple[int, int, float]] = []
    chosen = tiny.validated("training.log_every=4", "training.schedule.kind=cosine")
    finish(chosen, tmp_path, on_step=lambda *step: calls.append(step))
    log = rows(tmp_path)
    assert [row["step"] for row in log] == [4, 8, 10]
    assert [(done, steps) for done, steps, _ in calls] == [(step, 10) for step in range(1, 11)]
    for row in log:
        step = int(row["step"])
        assert row["loss"] == calls[step - 1][2]
        # the rate that the step was made with, not the next one's
        assert row["lr"] == pytest.approx(0.05 * (1 + math.cos(math.pi * (step - 1) / 10)) / 2)
        assert {"norm", "target_cos", "agent_distortion", "radius", "accuracy", "misclassified_vectors"} <= row.keys()
        assert 0 <= row["accuracy"] <= 1


def test_tensorboard_has_the_rows(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    finish(tiny.validated("training.log_every=5"), tmp_path)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    scalars = board.Scalars("loss")
    assert [(each.step, pytest.approx(each.value)) for each in scalars] == [
        (row["step"], row["loss"]) for row in rows(tmp_path)
    ]


# the same numbers


def test_same_seed_same_numbers_and_another_seed_others(tmp_path: Path) -> None:
    one, two = (finish(tiny.validated(), tmp_path / name) for name in ("one", "two"))
    assert tiny.differences(one, two) == []
    other = finish(tiny.validated("training.seed=1"), tmp_path / "other")
    assert not torch.equal(one["test"]["features"], other["test"]["features"])


def test_the_first_weights_follow_the_seed() -> None:
    weights = [build.job(tiny.validated(f"training.seed={seed}"), tiny.splits()).head.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


RESUMED = {
    "sgd, one cycle": ["training.schedule.kind=one_cycle"],
    "adamw, warm-up": ["training.optimizer.kind=adamw", "training.schedule={kind: cosine, warmup_epochs: 0.8}"],
    "rmsprop": ["training.optimizer={kind: rmsprop, lr: 0.001}"],
    "clip": ["training.clip_norm=0.5"],
    "learned s": ["objective.learn=true"],
    "learned ring": ["objective={kind: softmax, bias: true, ring_loss: {lam: 0.01}}"],
    "gamma auto": ["objective={kind: cm_softmax, gamma: auto}"],
    "center": ["objective.center_loss={lam: 0.1}"],
    "memory": ["objective.cross_batch_memory={size: 50, margin: 0.1, start_step: 2}"],
    "annealed": ["objective={kind: sphereface, m: 3, s: 10, annealing: {start: 100, low: 1, rate: 0.5}}"],
    "figures before the loss": [
        "objective={kind: adaface, s: 10, h: 0.9, rate: 0.3, negatives: {kind: curricular, rate: 0.3}}"
    ],
    "drawn margins": ["objective={kind: elasticface, s: 10, sigma: 0.2, plus: true}"],
    "adacos": ["objective={kind: adacos}"],
    "counted images": ["objective={kind: dynamic_margin, s: 10, weighting: {kind: class_weights}}"],
    "bfloat16": ["training.precision=bfloat16"],
}


@pytest.mark.filterwarnings("ignore:contraction bounds assume")
@pytest.mark.parametrize("case", RESUMED)
def test_a_resumed_run_equals_an_uninterrupted_one(case: str, tmp_path: Path) -> None:
    chosen = tiny.validated(*RESUMED[case])
    whole = finish(chosen, tmp_path / "whole")
    stopped = tmp_path / "stopped"
    with pytest.raises(tiny.PowerCut):  # in the second epoch, after rows that the checkpoint does not know
        finish(chosen, stopped, on_step=tiny.cut_at(8))
    assert [row["step"] for row in rows(stopped)][-1] == 8
    assert load_checkpoint(stopped / "checkpoint.pt")["progress"]["step"] == 5
    steps: list[int] = []
    resumed = finish(chosen, stopped, resume=True, on_step=lambda step, *_: steps.append(step))
    assert steps[0] == 6
    assert tiny.differences(whole, resumed) == []


def test_the_drops_of_a_plateau_outlast_a_stop(tmp_path: Path) -> None:
    plateau = "training.schedule={kind: plateau, patience: 1}"
    chosen = tiny.validated("training.epochs=4", "training.optimizer.lr=100", plateau)  # at which no error falls
    whole = finish(chosen, tmp_path / "whole")
    with pytest.raises(tiny.PowerCut):
        finish(chosen, tmp_path / "stopped", on_step=tiny.cut_at(13))
    assert load_checkpoint(tmp_path / "stopped" / "checkpoint.pt")["plateau"]["dropped"] == 1
    assert [row["lr"] for row in rows(tmp_path / "stopped")][9:11] == pytest.approx([100, 10])
    assert tiny.differences(whole, finish(chosen, tmp_path / "stopped", resume=True)) == []


@pytest.mark.parametrize(
    "how", [[], ["training.accumulate=3"], ["head={impl: chunked, update_in_backward: true}"]], ids=str
)
def test_a_plateau_counts_the_errors_of_the_weights_that_gave_the_loss(how: list[str], tmp_path: Path) -> None:
    """One step, at a rate that moves the class weights far: the error is that of the first ones."""
    fast = ["backbone.name=lenet++", "training.optimizer.lr=1", "training.batch_size=72", "training.epochs=1"]
    chosen = tiny.validated(*fast, "training.schedule={kind: plateau}", *how)
    job, first = (build.job(chosen, tiny.splits()) for _ in range(2))
    loop.fit(job, tmp_path, resume=False)
    with torch.no_grad():
        features = first.backbone(first.contract(first.images.pixels))
        before, after = (
            float((each.head.logits(features).argmax(1) != first.images.labels).double().mean())
            for each in (first, job)
        )
    assert load_checkpoint(tmp_path / "checkpoint.pt")["plateau"]["best"] == pytest.approx(before)
    assert before != after  # so the other order would show


def test_a_run_goes_on_from_a_checkpoint_within_an_epoch(tmp_path: Path) -> None:
    chosen = tiny.validated("training.checkpoint_every=3", "training.schedule={kind: plateau, patience: 1}")
    whole = finish(chosen, tmp_path / "whole")
    with pytest.raises(tiny.PowerCut):
        finish(chosen, tmp_path / "stopped", on_step=tiny.cut_at(5))
    assert load_checkpoint(tmp_path / "stopped" / "checkpoint.pt")["progress"]["step"] == 3
    assert tiny.differences(whole, finish(chosen, tmp_path / "stopped", resume=True)) == []


def test_a_run_without_a_checkpoint_yet_starts_anew(tmp_path: Path) -> None:
    chosen = tiny.validated()
    whole = finish(chosen, tmp_path / "whole")
    with pytest.raises(tiny.PowerCut):
        finish(chosen, tmp_path / "stopped", on_step=tiny.cut_at(2))
    assert not (tmp_path / "stopped" / "checkpoint.pt").exists()
    assert tiny.differences(whole, finish(chosen, tmp_path / "stopped", resume=True)) == []


def test_a_run_is_resumed_as_often_as_it_stops(tmp_path: Path) -> None:
    chosen = tiny.validated("training.optimizer.kind=adamw")
    whole = finish(chosen, tmp_path / "whole")
    for step in (2, 5, 6, 10):
        with pytest.raises(Interrupted, match=f"stopped at step {step} of 10"):
            finish(chosen, tmp_path / "stopped", resume=step > 2, on_step=signal_at(step))
        assert load_checkpoint(tmp_path / "stopped" / "checkpoint.pt")["progress"]["step"] == step
    assert not (tmp_path / "stopped" / "results.json").exists()
    assert tiny.differences(whole, finish(chosen, tmp_path / "stopped", resume=True)) == []


def test_a_row_cut_short_by_a_crash_is_dropped(tmp_path: Path) -> None:
    chosen = tiny.validated("training.checkpoint_every=1")
    whole = finish(chosen, tmp_path / "whole")
    with pytest.raises(Interrupted):
        finish(chosen, tmp_path / "stopped", on_step=signal_at(6))
    with (tmp_path / "stopped" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 7, "lo')
    assert tiny.differences(whole, finish(chosen, tmp_path / "stopped", resume=True)) == []


def test_a_finished_run_is_read_and_not_repeated(tmp_path: Path) -> None:
    chosen = tiny.validated()
    first = run(chosen, tmp_path, splits=tiny.splits())
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.is_file()}
    again = run(chosen, tmp_path, resume=True, splits=tiny.splits(), on_step=tiny.cut_at(1))
    assert again == json.loads(json.dumps(first))
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.is_file()} == before


# stopping


def test_sigterm_stops_as_ctrl_c_does_and_the_handlers_come_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted):
        finish(tiny.validated(), tmp_path, on_step=signal_at(3, signal.SIGTERM))
    assert load_checkpoint(tmp_path / "checkpoint.pt")["progress"]["step"] == 3
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.fixture
def restored_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_does_not_wait_for_the_step(restored_signals: None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background may ignore it
    with loop.stop_requests() as requested:
        assert not requested()
        os.kill(os.getpid(), signal.SIGINT)
        assert requested()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_training_works_outside_the_main_thread(tmp_path: Path) -> None:
    done: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: done.append(finish(tiny.validated(), tmp_path / "thread")))
    thread.start()
    thread.join()
    assert tiny.differences(done[0], finish(tiny.validated(), tmp_path / "main")) == []


def test_ctrl_c_on_the_command_line_leaves_a_checkpoint_to_resume_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny.write(tmp_path, "training.epochs=8", "training.batch_size=64", "training.checkpoint_every=1000")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    command = [sys.executable, "-m", "angulus", "train", path, "--out", str(stopped)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    log = stopped / "metrics.jsonl"
    while not (log.exists() and log.stat().st_size):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped at step" in error
    assert "with --resume) to continue" in error
    assert "Traceback" not in error
    step = load_checkpoint(stopped / "checkpoint.pt")["progress"]["step"]
    assert 0 < step < 8 * 19
    assert not (stopped / "results.json").exists()
    for arguments in (["train", path, "--resume", "--out", str(stopped)], ["train", path, "--out", str(whole)]):
        monkeypatch.setattr(sys, "argv", ["angulus", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert exit_.value.code == 0
    assert tiny.differences(tiny.outcome(whole), tiny.outcome(stopped)) == []


# numbers that break


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # one good epoch, then a rate at which nothing stays finite
    monkeypatch.setattr(schedule, "factor", lambda settings, step, *_: 1.0 if step < 6 else 1e30)
    monkeypatch.setattr(build, "splits", lambda recipe: tiny.splits())
    path = tiny.write(tmp_path, "objective={kind: softmax}")
    monkeypatch.setattr(sys, "argv", ["angulus", "train", path, "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert "training stopped at step" in error
    assert "must be finite" in error
    assert f"the last good checkpoint is {tmp_path / 'run' / 'checkpoint.pt'}" in error
    assert "lower training.optimizer.lr" in error
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert state["progress"]["step"] == 5
    assert all(bool(torch.isfinite(value).all()) for value in state["backbone"].values())
    assert not (tmp_path / "run" / "results.json").exists()
    monkeypatch.undo()
    resumed = finish(recipe.load(path), tmp_path / "run", resume=True)  # the kept checkpoint is as good as any
    assert tiny.differences(resumed, finish(recipe.load(path), tmp_path / "whole")) == []


def test_a_loss_that_breaks_before_the_first_checkpoint_says_so(tmp_path: Path) -> None:
    chosen = tiny.validated("objective={kind: softmax}", "training.optimizer.lr=1e30")
    with pytest.raises(InputError, match=r"training stopped at step \d: .* no checkpoint was written yet"):
        finish(chosen, tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_weights_that_are_no_longer_finite_are_not_saved(tmp_path: Path) -> None:
    chosen = tiny.validated("training.optimizer={lr: 3e38, weight_decay: 100}", "training.checkpoint_every=1")
    with pytest.raises(InputError, match=r"training stopped at step 1: .* is no longer finite; the previous"):
        finish(chosen, tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("epochs=0", "training.epochs must be at least 1; got 0"),
        ("batch_size=1", "training.batch_size must be a whole number >= 2; got 1; batch norm cannot train on one row"),
        ("seed=-1", "training.seed must be at least 0; got -1"),
        ("checkpoint_every=-1", "training.checkpoint_every must be at least 0; got -1"),
        ("log_every=0", "training.log_every must be at least 1; got 0"),
        ("threads=-1", "training.threads must be at least 0; got -1"),
        ("clip_norm=0", "training.clip_norm must be above 0; got 0"),
    ],
)
def test_settings_are_refused(override: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        tiny.validated(f"training.{override}")


def test_devices_that_are_not_there_are_refused() -> None:
    for name in ("cuda:99", "nothing"):
        with pytest.raises(InputError, match=f"training.device '{name}' cannot be used here; use auto or cpu"):
            build.device(name)
    assert build.device("cpu") == torch.device("cpu")
