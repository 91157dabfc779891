"""The examples for clusters: what they start, with stand-ins for the commands of SLURM, and what torchrun reads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from torch.distributed.run import get_args_parser

import tiny
from angulus.training.state import load_checkpoint

EXAMPLES = Path(__file__).parent.parent / "examples" / "cluster"
WAIT_S = 300  # of a busy machine
OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"  # without it, nodes that join or start again do not meet
STAND_INS = {
    "srun": 'echo "$@" >> "$LOG.srun"; env > "$LOG.environment"; exec "$@"',
    "torchrun": 'while [ "$1" != -m ]; do shift; done; exec "$PYTHON" "$@"',  # one process, as the test has one node
    "scontrol": 'echo "$@" >> "$LOG.scontrol"; [ "$1" != show ] || printf "node-7\\nnode-8\\n"',
}


def batch_job(folder: Path, recipe: str, out: Path) -> subprocess.Popen[str]:
    """The batch script as SLURM starts it on a node with one GPU, but for the commands above."""
    for name, body in STAND_INS.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    job = {
        "JOB_ID": "42",
        "JOB_NODELIST": "node-[7-8]",
        "JOB_NUM_NODES": "2",
        "GPUS_ON_NODE": "8",
        "RESTART_COUNT": "1",
    }
    return subprocess.Popen(
        [str(EXAMPLES / "train.sbatch"), recipe, str(out), "training.device=cpu"],
        env=os.environ
        | {f"SLURM_{name}": value for name, value in job.items()}
        | {"PATH": f"{folder}:{os.environ['PATH']}", "LOG": str(folder / "log"), "PYTHON": sys.executable},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_job_near_its_end_saves_and_is_queued_again_and_then_ends(tmp_path: Path) -> None:
    net = ["backbone.name=lenet++", "training.optimizer.lr=0.01", "training.batch_size=301", "training.threads=1"]
    recipe = tiny.write(tmp_path, *net, "training.epochs=15", "training.checkpoint_every=1")
    out = tmp_path / "run"
    job = batch_job(tmp_path, recipe, out)
    started = time.monotonic()
    while not (out / "checkpoint.pt").exists():
        assert job.poll() is None, job.communicate()
        assert time.monotonic() - started < WAIT_S
        time.sleep(0.1)
    job.send_signal(signal.SIGUSR1)
    said = job.communicate(timeout=WAIT_S)[1]
    assert job.returncode != 0
    assert "stopped at step" in said
    assert (tmp_path / "log.scontrol").read_text().splitlines()[-1] == "requeue 42"

    stopped = load_checkpoint(out / "checkpoint.pt")["progress"]["step"]
    job = batch_job(tmp_path, recipe, out)
    assert job.communicate(timeout=WAIT_S) and job.returncode == 0
    assert load_checkpoint(out / "checkpoint.pt")["progress"]["step"] == 60 > stopped
    assert (out / "results.json").exists()
    assert (tmp_path / "log.scontrol").read_text().count("requeue") == 1

    assert OWN_STORE in (tmp_path / "log.environment").read_text().splitlines()
    options = get_args_parser().parse_args((tmp_path / "log.srun").read_text().splitlines()[0].split()[1:])
    assert (options.nnodes, options.nproc_per_node, options.rdzv_backend) == ("2", "8", "c10d")
    assert (options.rdzv_id, options.rdzv_endpoint, options.max_restarts) == ("42.1", "node-7:29500", 3)


def test_torchrun_reads_what_the_operator_passes_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    job: dict[str, Any] = YAML(typ="safe").load(EXAMPLES / "pytorchjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    policy, worker = job["spec"]["elasticPolicy"], job["spec"]["pytorchReplicaSpecs"]["Worker"]
    assert policy["minReplicas"] <= worker["replicas"] <= policy["maxReplicas"]
    pod = worker["template"]["spec"]
    (container,) = pod["containers"]
    assert container["name"] == "pytorch"  # by this name the operator finds it
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert OWN_STORE in [f"{each['name']}={each['value']}" for each in container["env"]]
    passed = {  # what the operator sets from the policy
        "RDZV_BACKEND": policy["rdzvBackend"],
        "RDZV_ENDPOINT": f"{job['metadata']['name']}-worker-0:23456",
        "NNODES": f"{policy['minReplicas']}:{policy['maxReplicas']}",
        "MAX_RESTARTS": str(policy["maxRestarts"]),
    }
    for name, value in passed.items():
        monkeypatch.setenv(f"PET_{name}", value)
    options = get_args_parser().parse_args(container["command"][1:])
    assert (options.nnodes, options.rdzv_backend, options.max_restarts) == ("2:8", "c10d", 100)
    assert options.rdzv_endpoint == "angulus-worker-0:23456"
    assert options.nproc_per_node == str(container["resources"]["limits"]["nvidia.com/gpu"])
    assert options.training_script_args[:2] == ["train", "/runs/recipe.yaml"]
