"""A training whose nodes come and go: three, then two, then four; each node is a torchrun with one process here.

    python benchmarks/elastic.py [--epochs 40] [--save]

One of three nodes is killed, and later two join. `--auto-resume` continues from the last checkpoint each time. The
result is compared with an uninterrupted run of one process.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from angulus.core.checks import InputError
from angulus.training.state import load_checkpoint
from harness import Row, options, run, show, store

RECIPE = ["demo", "backbone.name=lenet++", "objective.kind=arcface", "objective.s=16", "objective.m=0.3"]
TRAINING = ["batch_size=120", "optimizer.lr=0.01", "checkpoint_every=5", "device=cpu", "threads=1"]
STEPS_EACH = 30  # that each set of nodes does before the next change
WAIT_S = 600
LAUNCH = ["--nnodes", "2:4", "--nproc-per-node", "1", "--max-restarts", "20", "--rdzv-backend", "c10d"]
LAUNCH += [
    "--rdzv-id",
    "run",
    "--rdzv-conf",
    "join_timeout=300,last_call_timeout=5",
]  # s; torchrun waits 30 for late nodes


class Run:
    """The folder of a run, and the nodes that train it."""

    def __init__(self, out: Path, epochs: int) -> None:
        self.out = out
        self.command = ["-m", "angulus", "train", *RECIPE, *(f"training.{key}" for key in TRAINING)]
        self.command += [f"training.epochs={epochs}", "--out", str(out), "--auto-resume"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.endpoint = f"127.0.0.1:{free.getsockname()[1]}"
        self.nodes: list[subprocess.Popen[bytes]] = []

    def add(self, *launch: str) -> None:
        start = [sys.executable, *launch, *self.command]
        log = (self.out.parent / f"node-{len(self.nodes)}.log").open("wb")
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.nodes.append(subprocess.Popen(start, env=environment, stdout=log, stderr=log, start_new_session=True))

    def join(self, count: int) -> None:
        """Add nodes; the first holds the rendezvous, so the others wait until it listens."""
        for _ in range(count):
            self.add("-m", "torch.distributed.run", *LAUNCH, "--rdzv-endpoint", self.endpoint)
            while not self.listens():
                time.sleep(0.1)

    def listens(self) -> bool:
        host, port = self.endpoint.split(":")
        with socket.socket() as asked:
            return asked.connect_ex((host, int(port))) == 0

    def kill(self, node: int) -> None:
        """A node that is gone: torchrun and its process at once."""
        parent = self.nodes[node].pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for process in (parent, *map(int, children)):
            os.kill(process, signal.SIGKILL)

    def steps(self) -> tuple[int, int]:
        """Steps done, and how many processes saved them."""
        if not (self.out / "checkpoint.pt").exists():
            return 0, 0
        state = load_checkpoint(self.out / "checkpoint.pt")
        parts = {path.name.split("-")[1] for path in (self.out / state["head_folder"]).glob("classes-*")}
        return state["progress"]["step"], len(parts)  # no part: a newer checkpoint has replaced this one

    def wait(self, ranks: int) -> tuple[int, float]:
        """Until that many processes have done their share; returns the step and the seconds it took."""
        started, first = time.monotonic(), None
        while time.monotonic() - started < WAIT_S:
            step, saved_by = self.steps()
            if saved_by == ranks:
                first = step if first is None else first
                if step >= first + STEPS_EACH:
                    return step, time.monotonic() - started
            time.sleep(0.2)
        raise InputError(
            f"{ranks} nodes did not do {STEPS_EACH} steps in {WAIT_S} s; their logs are in {self.out.parent}"
        )

    def results(self) -> dict[str, object]:
        """Once the first node has ended."""
        self.nodes[0].wait(WAIT_S)
        found: dict[str, object] = json.loads((self.out / "results.json").read_text())
        return found


def main() -> None:
    parser = options(__doc__, epochs=40)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        alone = Run(Path(folder) / "alone" / "run", arguments.epochs)
        alone.out.parent.mkdir()
        alone.add()
        expected = alone.results()
        elastic = Run(Path(folder) / "elastic" / "run", arguments.epochs)
        elastic.out.parent.mkdir()
        rows: list[Row] = []
        try:
            elastic.join(3)
            rows.append(row(3, *elastic.wait(3)))
            elastic.kill(2)
            rows.append(row(2, *elastic.wait(2)))
            elastic.join(2)
            rows.append(row(4, *elastic.wait(4)))
            ended = elastic.results()
        finally:
            for node in elastic.nodes:
                node.terminate()
    compared: Row = {"what": "uninterrupted, one process"} | figures(expected)
    rows.append({"what": "three, two, four nodes"} | figures(ended))
    rows.append(compared)
    show("nodes that come and go", [{name: str(value) for name, value in (blank() | each).items()} for each in rows])
    if arguments.save:
        store("elastic", rows)


def blank() -> Row:
    return dict.fromkeys(("what", "until step", "seconds", "steps", "last epoch's loss", "test accuracy"), "")


def row(nodes: int, step: int, seconds: float) -> Row:
    return {"what": f"{nodes} nodes", "until step": step, "seconds": round(seconds, 1)}


def figures(results: dict[str, object]) -> Row:
    training = results["training"]
    assert isinstance(training, dict)
    return {
        "steps": training["steps"],
        "last epoch's loss": training["last_epoch_loss"],
        "test accuracy": results["accuracy"],
    }


if __name__ == "__main__":
    run(main)
