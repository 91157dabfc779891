"""Checkpoints: what another model's, a damaged or a hostile one ends in, and that a failed write loses nothing."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import tiny
from angulus.core import files
from angulus.core.checks import InputError
from angulus.experiments.run import run
from angulus.training import state as state_module
from angulus.training.log import MetricsLog
from angulus.training.loop import Interrupted
from angulus.training.saver import copied
from angulus.training.state import PARTS, load_checkpoint, write_checkpoint

AVERAGED = ["training.ema=0.9", "training.optimizer={kind: adamw, lr: 0.001}"]  # all that a checkpoint can hold
FULL = Path("/dev/full")  # whatever is written to it finds no space


def stopped(folder: Path, *overrides: str) -> Path:
    """A run that was stopped after 3 of its 10 steps."""

    def stop(step: int, *_: object) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        run(tiny.validated(*overrides), folder, splits=tiny.splits(), on_step=stop)
    return folder


def resume(folder: Path, *overrides: str) -> dict[str, Any]:
    return run(tiny.validated(*overrides), folder, resume=True, splits=tiny.splits())


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# what is read


EMPTY: dict[str, Any] = {part: {} for part in PARTS - {"format"}}


def test_a_checkpoint_without_a_part_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {part: {} for part in EMPTY if part != "optimizer"})
    with pytest.raises(InputError, match="is not an Angulus checkpoint of format 1"):
        load_checkpoint(tmp_path / "checkpoint.pt")


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    state = EMPTY | {"backbone": torch.tensor([1.0, -2.5]), "progress": {"step": 7, "loss": float("inf")}}
    write_checkpoint(tmp_path, state)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert tiny.differences(load_checkpoint(tmp_path / "checkpoint.pt"), {"format": 1, **state}) == []


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        (
            ["backbone.embedding_size=5"],
            r"of another backbone: layers.11.weight has shape \[5, 128\], this one's is \[4, 128\]",
        ),
        (["backbone.name=lenet5"], r"of another backbone: it lacks layers\.\d.* and \d+ more"),
        (["objective.learn=true"], "of another head: it has also objective.radius.s; resume with the recipe"),
        (["objective.center_loss={lam: 0.1}"], "of another head: it has also objective.center_loss.centers"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(
    others: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stopped(tmp_path / "run")
    if "backbone.name=lenet5" in others:
        torch.manual_seed(0)
        other = {**load_checkpoint(folder / "checkpoint.pt"), "backbone": nn.Linear(2, 2).state_dict()}
        write_checkpoint(folder, {key: value for key, value in other.items() if key != "format"})
    else:
        strange = stopped(tmp_path / "other", *others)
        (strange / "checkpoint.pt").rename(folder / "checkpoint.pt")
    with pytest.raises(InputError, match=sentence):
        resume(folder)


def test_a_checkpoint_that_lacks_what_is_learned_is_refused(tmp_path: Path) -> None:
    folder = stopped(tmp_path / "run", "objective.learn=true")
    (stopped(tmp_path / "other") / "checkpoint.pt").rename(folder / "checkpoint.pt")
    with pytest.raises(InputError, match=r"of another head: it lacks objective.radius.s; resume with the recipe"):
        resume(folder, "objective.learn=true")


def test_a_checkpoint_of_other_classes_is_refused(tmp_path: Path) -> None:
    folder = stopped(tmp_path / "run")
    content = {**load_checkpoint(folder / "checkpoint.pt"), "classes": "0" * 64}
    write_checkpoint(folder, {key: value for key, value in content.items() if key != "format"})
    with pytest.raises(InputError, match=r"checkpoint.pt has other classes than the data; resume with the data"):
        resume(folder)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(share: float, tmp_path: Path) -> None:
    folder = stopped(tmp_path)
    path = folder / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match=r"checkpoint.pt cannot be read as a checkpoint \(\w+\); is it cut short\?"):
        resume(folder)


def test_no_flipped_bit_loads_as_other_numbers(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    weights = torch.tensor([0.092, -1.5])
    write_checkpoint(tmp_path, EMPTY | {"backbone": {"weight": weights}})
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
        try:
            found = load_checkpoint(path)
        except InputError:
            refused += 1
        else:
            assert torch.equal(found["backbone"]["weight"], weights), place
    assert refused > len(weights) * 4


def test_a_flipped_bit_is_refused_with_the_file_and_what_is_left(tmp_path: Path) -> None:
    folder = stopped(tmp_path)
    path = folder / "checkpoint.pt"
    weights = load_checkpoint(path)["backbone"]["layers.11.weight"].numpy().tobytes()
    whole = bytearray(path.read_bytes())
    whole[whole.index(weights) + 3] ^= 64
    path.write_bytes(whole)
    with pytest.raises(
        InputError, match=r"checkpoint.pt is damaged: the checksum of .*; restore it from a copy, or tr"
    ):
        resume(folder)
    (folder / "checkpoint-before.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"an earlier checkpoint is .*checkpoint-before.pt: copy it to"):
        resume(folder)


@pytest.mark.parametrize("part", ["progress", "plateau", "random", "optimizer"])
def test_a_checkpoint_whose_parts_are_something_else_is_refused(part: str, tmp_path: Path) -> None:
    folder = stopped(tmp_path)
    state = {**load_checkpoint(folder / "checkpoint.pt"), part: {"odd": 1}}
    write_checkpoint(folder, {key: value for key, value in state.items() if key != "format"})
    with pytest.raises(
        InputError, match=r"checkpoint.pt lacks what a run resumes from \(\w+: .*restore it from a copy"
    ):
        resume(folder)


@pytest.mark.parametrize("content", [b"no checkpoint at all", pickle.dumps({"format": 2}, protocol=2)])
def test_a_file_that_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be read as a checkpoint|is not an Angulus checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [{"format": 2}, {"step": 3}, [1, 2]])
def test_another_format_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="is not an Angulus checkpoint of format 1"):
        load_checkpoint(tmp_path / "checkpoint.pt")


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no checkpoint .*checkpoint.pt; start the run without --resume"):
        load_checkpoint(tmp_path / "checkpoint.pt")


class Payload:
    """What runs a command where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_nothing_in_a_checkpoint_runs_code(tmp_path: Path) -> None:
    marker, path = tmp_path / "it-ran", tmp_path / "checkpoint.pt"
    torch.save({"format": 1, "backbone": Payload(marker)}, path)
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        load_checkpoint(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the payload is a live one: where it may run, it does
    assert marker.exists()


# what is written


@pytest.mark.parametrize("background", ["false", "true"])
def test_a_full_disk_keeps_the_last_checkpoint_and_says_the_way_out(
    background: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = tiny.validated("training.checkpoint_every=2", f"training.checkpoint_async={background}")
    real = write_checkpoint

    def save(folder: Path, state: dict[str, Any]) -> None:
        if state["progress"]["step"] > 4:
            monkeypatch.setattr(os, "fsync", full_disk)
        real(folder, state)

    monkeypatch.setattr(state_module, "write_checkpoint", save)
    with pytest.raises(
        InputError,
        match=r"cannot write .*checkpoint.pt: No space left on device; free some space and run the same command again "
        r".train: with --resume.; checkpoint.pt is kept as it was",
    ):
        run(chosen, tmp_path / "run", splits=tiny.splits())
    monkeypatch.undo()
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".checkpoint")]
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["progress"]["step"] == 4
    run(chosen, tmp_path / "run", resume=True, splits=tiny.splits())
    run(chosen, tmp_path / "whole", splits=tiny.splits())
    assert tiny.differences(tiny.outcome(tmp_path / "run"), tiny.outcome(tmp_path / "whole")) == []


def test_a_checkpoint_written_while_training_goes_on_is_that_of_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    went_on, real, written = threading.Event(), write_checkpoint, []

    def slow(folder: Path, state: dict[str, Any]) -> None:
        assert went_on.wait(60)
        real(folder, state)
        written.append(state["progress"]["step"])
        shutil.copy(folder / "checkpoint.pt", tmp_path / f"{written[-1]}.pt")

    def go_on(step: int, *_: object) -> None:
        if step == 3:
            went_on.set()

    monkeypatch.setattr(state_module, "write_checkpoint", slow)
    chosen = tiny.validated("training.checkpoint_every=2", *AVERAGED, "training.checkpoint_async=true")
    run(chosen, tmp_path / "run", splits=tiny.splits(), on_step=go_on)
    monkeypatch.undo()
    assert written == [2, 4, 6, 8, 10]
    run(tiny.validated(*AVERAGED), tmp_path / "whole", splits=tiny.splits())
    assert tiny.differences(tiny.outcome(tmp_path / "run"), tiny.outcome(tmp_path / "whole")) == []
    shutil.copy(tmp_path / "2.pt", tmp_path / "run" / "checkpoint.pt")
    (tmp_path / "run" / "results.json").unlink()
    run(chosen, tmp_path / "run", splits=tiny.splits(), resume=True)
    assert tiny.differences(tiny.outcome(tmp_path / "run"), tiny.outcome(tmp_path / "whole")) == []


class Parts(NamedTuple):
    of: tuple[torch.Tensor, float]


def test_a_copy_shares_neither_memory_nor_containers_with_what_trains() -> None:
    net = torch.nn.BatchNorm1d(2)
    values = {"net": net.state_dict(), "parts": Parts((torch.zeros(2), 0.5)), "notes": [{"step": 1}], "size": range(3)}
    copy = copied(values)
    with torch.no_grad():
        for tensor in (*net.state_dict().values(), values["parts"].of[0]):
            tensor.fill_(7)
    values["notes"][0]["step"] = 7
    assert copy["net"]["weight"].tolist() == [1, 1] and copy["net"]["num_batches_tracked"] == 0
    assert type(copy["net"]) is type(values["net"]) and copy["net"]._metadata == values["net"]._metadata
    assert copy["parts"].of[0].tolist() == [0, 0] and copy["parts"].of[1] == 0.5
    assert copy["notes"] == [{"step": 1}] and copy["size"] == range(3)


def test_a_stop_waits_for_the_checkpoint_that_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = write_checkpoint, []

    def slow(folder: Path, state: dict[str, Any]) -> None:
        time.sleep(0.3)
        real(folder, state)
        written.append(state["progress"]["step"])

    monkeypatch.setattr(state_module, "write_checkpoint", slow)
    folder = stopped(tmp_path, "training.checkpoint_every=2", "training.checkpoint_async=true")
    assert written == [2, 3]
    assert load_checkpoint(folder / "checkpoint.pt")["progress"]["step"] == 3


def test_a_disk_that_fills_within_torchs_writer_is_told_as_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path, EMPTY | {"backbone": torch.zeros(3)})

    class Full:
        """A file that takes a thousand bytes, then none."""

        def __init__(self, file: Any) -> None:
            self.file, self.room = file, 1000

        def write(self, data: bytes) -> int:
            self.room -= len(data)
            return full_disk() if self.room < 0 else self.file.write(data)  # type: ignore[func-returns-value]

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    real = torch.save
    monkeypatch.setattr(torch, "save", lambda state, file: real(state, Full(file)))
    with pytest.raises(
        InputError, match=r"No space left on device; free some space .* checkpoint.pt is kept as it was"
    ):
        write_checkpoint(tmp_path, EMPTY | {"backbone": torch.ones(10_000)})
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "checkpoint.pt")["backbone"].tolist() == [0.0, 0.0, 0.0]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_full_disk_under_the_metrics_is_told_and_the_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stopped(tmp_path)
    real = MetricsLog.write

    def write(self: Any, step: int, values: dict[str, float]) -> None:
        if step == 6:
            self.file.close()
            self.file = FULL.open("w")
        real(self, step, values)

    monkeypatch.setattr(MetricsLog, "write", write)
    with pytest.raises(InputError, match=r"cannot write .*metrics.jsonl: No space left on device; free some space"):
        resume(folder)
    monkeypatch.undo()
    assert load_checkpoint(folder / "checkpoint.pt")["progress"]["step"] == 5
    assert resume(folder)["training"]["steps"] == 10


# the folder


@pytest.mark.parametrize("below", [".", "run", "run/deeper"])
def test_a_file_where_a_folder_is_needed_is_told(below: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(InputError, match=r"cannot write .*taken.*: .*; a file is where a folder is needed; choose"):
        run(tiny.validated(), tmp_path / "taken" / below, splits=tiny.splits())
    assert (tmp_path / "taken").read_text() == "mine"


HOLDER = "import filelock, sys; held = filelock.FileLock(sys.argv[1]).acquire(); print('held', flush=True); input()"


def test_a_folder_in_use_by_another_process_is_refused_until_that_ends(tmp_path: Path) -> None:
    folder = stopped(tmp_path)
    before = (folder / "checkpoint.pt").read_bytes()
    command = [sys.executable, "-c", HOLDER, str(folder / ".lock")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=r"run folder .* is in use by another process; wait for it to end"):
            resume(folder)
        assert (folder / "checkpoint.pt").read_bytes() == before
    finally:
        holder.kill()
        holder.communicate()
    assert resume(folder)["training"]["steps"] == 10


def test_the_lock_is_let_go_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="inside"), files.lock(tmp_path):
        raise RuntimeError("inside")
    with files.lock(tmp_path), pytest.raises(InputError, match="in use"), files.lock(tmp_path):
        pass
