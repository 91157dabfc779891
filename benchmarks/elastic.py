"""A training whose nodes come and go: three, then two, then four; each node is a torchrun with one process here.

    python benchmarks/elastic.py [--epochs 40] [--wait 600] [--save]

One of three nodes is killed, and later two join. `--auto-resume` continues from the last checkpoint each time. The
seconds are those from each change to the first step of the new set of nodes. The result is compared with an
uninterrupted run of one process. With TORCH_DISABLE_SHARE_RDZV_TCP_STORE=0 in the environment, torchrun does as it does
by default: nodes that join then wait in vain.
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
TRAINING = ["batch_size=120", "optimizer.lr=0.01", "checkpoint_every=1", "device=cpu", "threads=1"]
STEPS_EACH = 20  # that each set of nodes does before the next change
LAUNCH = ["--nnodes", "2:4", "--nproc-per-node", "1", "--max-restarts", "20", "--rdzv-backend", "c10d"]
LAUNCH += ["--rdzv-id", "run", "--rdzv-conf", "join_timeout=300,last_call_timeout=5"]  # s; 30 by default for late nodes
STARTED = "Rendezvous complete for workers"  # what torchrun logs of each start
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "LOGLEVEL": "INFO"}


class Run:
    """The folder of a run, and the nodes that train it."""

    def __init__(self, out: Path, epochs: int, wait_s: int) -> None:
        self.out, self.wait_s = out, wait_s
        self.command = ["-m", "angulus", "train", *RECIPE, *(f"training.{key}" for key in TRAINING)]
        self.command += [f"training.epochs={epochs}", "--out", str(out), "--auto-resume"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.endpoint = f"127.0.0.1:{free.getsockname()[1]}"
        self.nodes: list[subprocess.Popen[bytes]] = []

    def add(self, *launch: str) -> None:
        start = [sys.executable, *launch, *self.command]
        log = (self.out.parent / f"node-{len(self.nodes)}.log").open("wb")
        environment = ENVIRONMENT | os.environ
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

    def starts(self) -> int:
        """How often torchrun has started processes on the first node."""
        return (self.out.parent / "node-0.log").read_text(errors="replace").count(STARTED)

    def wait(self, ranks: int) -> Row:
        """Until that many processes have done their share: when they did their first step, how often they started."""
        since, starts, first, seconds = time.monotonic(), self.starts() if self.nodes else 0, None, 0.0
        while time.monotonic() - since < self.wait_s:
            step, saved_by = self.steps()
            if saved_by == ranks:
                if first is None:
                    first, seconds = step, time.monotonic() - since
                if step >= first + STEPS_EACH:
                    return {
                        "what": f"{ranks} nodes",
                        "first step": first,
                        "seconds": round(seconds, 1),
                        "starts": self.starts() - starts,
                    }
            time.sleep(0.1)
        logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(self.out.parent.glob("*.log")))
        raise InputError(
            f"{ranks} nodes did not do {STEPS_EACH} steps in {self.wait_s} s; the ends of their logs:\n{logs}"
        )

    def results(self) -> dict[str, object]:
        """Once the first node has ended."""
        self.nodes[0].wait()
        found: dict[str, object] = json.loads((self.out / "results.json").read_text())
        return found


def main() -> None:
    parser = options(__doc__, epochs=40, wait=600)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        elastic = Run(Path(folder) / "elastic" / "run", arguments.epochs, arguments.wait)
        elastic.out.parent.mkdir()
        rows: list[Row] = []
        try:
            elastic.join(3)
            rows.append(elastic.wait(3))
            elastic.kill(2)
            rows.append(elastic.wait(2))
            elastic.join(2)
            rows.append(elastic.wait(4))
            ended = elastic.results()
        finally:
            for node in elastic.nodes:
                node.terminate()
        alone = Run(Path(folder) / "alone" / "run", arguments.epochs, arguments.wait)
        alone.out.parent.mkdir()
        alone.add()
        expected = alone.results()
    compared: Row = {"what": "uninterrupted, one process"} | figures(expected)
    rows.append({"what": "three, two, four nodes"} | figures(ended))
    rows.append(compared)
    show("nodes that come and go", [{name: str(value) for name, value in (blank() | each).items()} for each in rows])
    if arguments.save:
        store("elastic", rows)


def blank() -> Row:
    return dict.fromkeys(("what", "first step", "seconds", "starts", "steps", "last epoch's loss", "test accuracy"), "")


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
