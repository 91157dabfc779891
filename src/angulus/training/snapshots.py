"""Models kept on the way, in `snapshots/step-N`: the backbone's weights in a file, the head by `save_head`."""

from __future__ import annotations

import re
from pathlib import Path

from angulus.core import tensor_files
from angulus.heads.checkpoint import load_head, save_head
from angulus.training import checkpoint
from angulus.training.job import Job
from angulus.training.settings import Snapshots

FOLDER, BACKBONE, HEAD = "snapshots", "backbone.safetensors", "head"


def save_snapshot(folder: Path, job: Job, step: int) -> None:
    """Keep the model as it is after `step` steps; every rank calls it."""
    where = folder / FOLDER / f"step-{step}"
    with job.ranks.raise_on_all():
        save_head(job.head, where / HEAD)

    def write() -> None:
        # cloned, for safetensors takes no tensors that share memory
        tensor_files.write(where / BACKBONE, {name: value.clone() for name, value in job.backbone.state_dict().items()})

    job.ranks.run_on_first(write)


def find_snapshots(folder: Path, settings: Snapshots | None, last: int) -> dict[int, Path]:
    """The snapshots of a run up to step `last`, by step; one without its backbone was not finished."""
    found: dict[int, Path] = {}
    if settings is None:
        return found
    for path in (folder / FOLDER).glob("step-*"):
        step = re.fullmatch(r"step-(\d+)", path.name)
        if step and int(step[1]) <= last and settings.due(int(step[1])) and (path / BACKBONE).exists():
            found[int(step[1])] = path
    return dict(sorted(found.items()))


def load_snapshot(where: Path, job: Job) -> None:
    """Put a snapshot's weights into the job's backbone and head; every rank calls it."""

    def read() -> None:
        checkpoint.load_module(job.backbone, tensor_files.read(where / BACKBONE), "backbone")

    job.ranks.run_on_all(read)
    with job.ranks.raise_on_all():
        load_head(job.head, where / HEAD)
