"""`torchrun -m angulus train` as a user starts it: equal to one process, asked to stop, a process lost, refused."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import angulus
import tiny
from angulus.core.checks import InputError
from angulus.distributed import launch
from angulus.distributed.launch import process_group
from angulus.experiments import recipe
from angulus.experiments.run import run
from angulus.heads.saving import read_rows
from angulus.training.state import load_checkpoint

NET = ["backbone.name=lenet++", "training.optimizer.lr=0.01", "training.device=cpu"]
WAIT = 300  # seconds, of a busy machine
pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds its processes in /proc")


def command(processes: int, *arguments: str) -> list[str]:
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    return [sys.executable, *run, "-m", "angulus", *arguments]


def finished(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(processes, *arguments),
        capture_output=True,
        text=True,
        timeout=WAIT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@contextmanager
def under_way(processes: int, path: str, out: Path, *options: str, step: int = 0) -> Iterator[subprocess.Popen[str]]:
    """A long training that has written a checkpoint after more than `step` steps."""
    process = subprocess.Popen(
        command(processes, "train", path, "--out", str(out), *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + WAIT
        while steps_of(out) <= step:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.communicate()


def steps_of(out: Path) -> int:
    """The steps that the checkpoint of a run holds."""
    done: int = load_checkpoint(out / "checkpoint.pt")["progress"]["step"] if (out / "checkpoint.pt").exists() else 0
    return done


def worker(parent: int, rank: int) -> int:
    """The process of that rank among those that torchrun started."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"torchrun has no process of rank {rank}")


def long(folder: Path) -> str:
    """A recipe that takes a minute and more, with a checkpoint at every step."""
    return tiny.write(folder, *NET, "training.epochs=200", "training.batch_size=301", "training.checkpoint_every=1")


def test_two_processes_give_the_model_of_one(tmp_path: Path) -> None:
    path = tiny.write(tmp_path, *NET, "training.epochs=1", "training.batch_size=301")
    run(recipe.load(path), tmp_path / "one")
    done = finished(2, "train", path, "--out", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\ntest accuracy") == 1  # one process reports
    one, two = (load_checkpoint(tmp_path / out / "checkpoint.pt") for out in ("one", "two"))
    for name, value in one["backbone"].items():
        torch.testing.assert_close(two["backbone"][name], value, rtol=1e-4, atol=1e-6)
    rows = read_rows(tmp_path / "two" / two["head_folder"])
    torch.testing.assert_close(rows["weight"], one["head"]["weight"], rtol=1e-4, atol=1e-6)
    assert one["progress"]["last_epoch_loss"] == pytest.approx(two["progress"]["last_epoch_loss"], rel=1e-5)


def test_sigterm_stops_all_and_one_process_goes_on(tmp_path: Path) -> None:
    path, out = long(tmp_path), tmp_path / "run"
    with under_way(2, path, out) as process:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=WAIT)
    assert process.returncode != 0
    assert said.count("angulus: stopped at step") == 1
    stopped = steps_of(out)
    assert f"stopped at step {stopped} of" in said
    with under_way(1, path, out, "--resume", step=stopped):
        pass


def test_a_lost_process_ends_the_others_with_a_sentence_and_the_run_goes_on(tmp_path: Path) -> None:
    path, out = long(tmp_path), tmp_path / "run"
    with under_way(2, path, out) as process:
        os.kill(worker(process.pid, rank=1), signal.SIGKILL)
        started = time.monotonic()
        _, said = process.communicate(timeout=WAIT)
        assert time.monotonic() - started < 60
    assert process.returncode != 0
    assert said.count("angulus: another process of the run has ended, or did not answer") == 1
    assert "go on from the last checkpoint by the same command with --resume" in said
    with under_way(1, path, out, "--resume", step=steps_of(out)):
        pass


LOSES_RANK_1 = """
import os, signal, time
import torch, torch.distributed as dist
from angulus.distributed.launch import LostRank, process_group
try:
    with process_group(60.0) as ranks:
        dist.barrier()
        if ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            dist.barrier()
        finally:
            time.sleep(2)  # torchrun's SIGTERM comes before the sentence
except LostRank as lost:
    print(f"said: {lost}", flush=True)
"""


def test_a_process_that_torchrun_asks_to_end_still_says_what_happened(tmp_path: Path) -> None:
    script = tmp_path / "loses.py"
    script.write_text(LOSES_RANK_1)
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=WAIT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode != 0
    assert done.stdout.count("said: another process of the run has ended, or did not answer") == 1


TRAINS_AGAIN = """
import os, runpy, sys, time
import angulus, tiny
from angulus.distributed.launch import end_process, process_group
for _ in range(3):
    with process_group(60.0) as ranks:
        ranks.gather_objects(None)
        time.sleep(0.5 * (ranks.rank == 0))  # the other comes to its next group while this one is in the last
args = angulus.TrainingArguments(epochs=1, batch_size=301, device="cpu", loggers=[])
trainer = angulus.Trainer("small", "normface", tiny.splits(), args, embedding_size=4, out="run", progress=False)
first, second = (trainer.train(resume=again).metrics["accuracy"] for again in (False, True))
sys.stdout.write(f"rank {os.environ['RANK']}: {first} {second}\\n")  # at once: lines of processes may mix
sys.stdout.flush()
sys.path.insert(0, sys.argv[1])
runpy.run_path(sys.argv[1] + "/ddp.py")  # a loop of the user's own, in the same processes
end_process(0)
"""
LOOPS = Path(__file__).parents[2] / "examples" / "loops"


def test_processes_join_several_groups_get_the_metrics_and_run_a_loop_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "again.py").write_text(TRAINS_AGAIN)
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "again.py"]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "EPOCHS": "2"}
    done = subprocess.run([*run, str(LOOPS)], capture_output=True, text=True, timeout=WAIT, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    accuracy = json.loads((tmp_path / "run" / "results.json").read_text())["accuracy"]
    for rank in (0, 1):
        assert f"rank {rank}: {accuracy} {accuracy}" in done.stdout
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"loop"')))
    assert found["difference_after_resume"] == 0 and found["accuracy"] > 0.8
    assert found["steps_counted_by_head"] == found["steps"] == 48


SEVERAL_NODES = {
    "GROUP_WORLD_SIZE": "2",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_MAX_RESTARTS": "3",
}


def test_processes_that_do_not_meet_say_how_long_they_tried_and_what_may_help(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    for name, value in ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"} | place).items():
        monkeypatch.setenv(name, value)
    tried = r"gave up after \d+ s of 1 \(.*\); "
    with pytest.raises(InputError, match=tried + "is MASTER_ADDR reachable"), process_group(1.0):
        pass
    for name, value in SEVERAL_NODES.items():
        monkeypatch.setenv(name, value)
    hint = "torchrun keeps .* TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"
    with pytest.raises(InputError, match=tried + hint), process_group(1.0):
        pass
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(launch, "_stores", {})
    with pytest.warns(UserWarning, match="^torchrun keeps"), pytest.raises(InputError), process_group(1.0):
        pass


RESTARTS = """
import os, sys
import torch, torch.distributed as dist
from angulus.distributed.launch import end_process, process_group
with process_group(60.0) as ranks:
    dist.barrier()
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os._exit(1)
    print(f"met again: {ranks.gather_objects(ranks.rank)}", flush=True)
end_process(0)
"""


def test_processes_that_torchrun_starts_again_meet_at_once(tmp_path: Path) -> None:
    (tmp_path / "restarts.py").write_text(RESTARTS)
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*run, "--max-restarts", "1", str(tmp_path / "restarts.py")],
        capture_output=True, text=True, timeout=WAIT, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("met again: [0, 1]") == 2


def test_a_refusal_is_told_once(tmp_path: Path) -> None:
    done = finished(2, "train", "demo", "data.name=digitz", "--out", str(tmp_path / "run"))
    assert done.returncode != 0
    assert done.stderr.count("data.name must be one of") == 1
    assert not (tmp_path / "run").exists()


LATE = """
import atexit, os, time
from pathlib import Path
from angulus.cli import main

if os.environ["RANK"] == "0":
    while not Path("ended").exists():
        time.sleep(0.1)
    time.sleep(1)  # torchrun looks every tenth of a second whether a process has failed
else:
    atexit.register(Path("ended").touch)
main.main()
"""


def test_a_process_that_prints_late_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(LATE)
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "late.py", "demo"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(angulus.__file__).parents[1])}
    done = subprocess.run(run, capture_output=True, text=True, timeout=WAIT, env=environment, cwd=tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("torchrun starts several processes, which only embed, evaluate megaface, evaluate") == 1


@pytest.mark.parametrize(("machine", "code"), [("0", 0), ("1", 2)])
def test_who_leaves_the_sentence_to_rank_0_fails_only_on_another_machine(
    machine: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUP_RANK", machine)
    assert launch.quiet_code(2) == code
