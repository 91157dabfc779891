"""The first weights of a run: class weights drawn alike for any number of ranks, and those of another training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from angulus.core import checks
from angulus.heads.sharded import ShardedHead
from angulus.training.job import Job
from angulus.training.state import CHECKPOINT, class_rows, digest, load_checkpoint, load_module

DRAWN = 4096  # classes at a time


def draw_as_dense(head: ShardedHead) -> None:
    """Give this rank the rows that a `DenseHead` of all classes would have drawn here, without holding all.

    PyTorch draws normal numbers sixteen at a time from the default generator, so blocks of a multiple of sixteen
    numbers are those of one long draw; the last block takes what a shorter one would break off.
    """
    size, classes = head.weight.shape[1], head.objective.num_classes
    starts = list(range(0, classes, DRAWN))
    if len(starts) > 1 and (classes - starts[-1]) * size < 16:
        starts.pop()
    with torch.no_grad():
        for first, stop in zip(starts, [*starts[1:], classes], strict=True):
            drawn = torch.empty(stop - first, size)
            nn.init.normal_(drawn, std=1 / math.sqrt(size))
            here = range(max(first, head.classes.start), min(stop, head.classes.stop))
            own = slice(here.start - head.classes.start, here.stop - head.classes.start)
            if len(here):
                head.weight[own] = drawn[here.start - first : here.stop - first].to(head.weight)


def from_checkpoint(path: Path, job: Job) -> None:
    """Start from a run's checkpoint: its backbone, and its class weights where it was trained on the same classes.

    What the objective learns or keeps (s, R, running figures, centres) starts anew.

    Args:
        path: the run's folder, whose training must have ended, or the checkpoint, as it is.
        job: gets the weights.

    Raises:
        checks.InputError: none there, of another backbone, of a training under way, of whom the job holds out.
    """
    file = path / CHECKPOINT if path.is_dir() else path
    if not file.is_file():
        raise checks.InputError(
            f"training.start_from: {path} is neither a model folder (RUN/model) nor a run's folder or checkpoint"
        )
    found = load_checkpoint(file)
    done, steps = (found["progress"].get(name, 0) for name in ("step", "steps"))
    if path.is_dir() and done < steps:
        raise checks.InputError(
            f"training.start_from: the run in {path} has not ended, it stands at step {done:,} of {steps:,}; go on "
            f"with it by --resume, or give {file} to start from that step"
        )
    refuse_seen_classes(found.get("class_names"), job, path)
    load_backbone(job.backbone, found["backbone"], path)
    if found.get("classes") != digest(job.images.class_names):
        return
    head = job.head
    own = head.classes if isinstance(head, ShardedHead) else range(len(head.weight))
    rows = class_rows(found, file.parent, own)
    with torch.no_grad():
        for name, value in head.named_parameters(recurse=False):
            if name in rows and rows[name].shape == value.shape:
                value.copy_(rows[name])


def refuse_seen_classes(names: Sequence[str] | None, job: Job, path: Path) -> None:
    """Refuse a start that was trained on classes which the job's validation holds out; warn where it may have been.

    Classes of one name are taken for one where all names of the start are among this data's; else the data sets may
    number their people alike, which nothing here can tell.

    Args:
        names: of the classes that the start was trained on; None where it does not say.
        job: with or without held-out classes.
        path: of the start, for messages.

    Raises:
        checks.InputError: a start on this data that knows held-out classes.
    """
    if job.held_out is None:
        return
    what, held = f"training.start_from: {path}", set(job.held_out.class_names)
    if names is None:
        checks.warn(f"{what} does not say whom it was trained on; of people that it knows, validation tells nothing")
        return
    common = sorted(held & set(names))
    if not common:
        return
    seen = f"{what} was trained on {len(common)} of the {len(held)} classes that validation holds out ({common[0]!r}"
    seen += ")" if len(common) == 1 else ", ...)"
    if held.union(job.images.class_names).issuperset(names):
        raise checks.InputError(
            f"{seen}; start from a run that held the same ones out (by the same validation.identities and "
            "training.seed), or leave validation out"
        )
    checks.warn(f"{seen}, or on others of these names; if they are the same people, validation tells nothing")


def load_backbone(backbone: nn.Module, state: dict[str, Tensor], where: Path) -> None:
    """Put a trained backbone's weights into this one, or say how it differs."""
    try:
        load_module(backbone, state, "backbone")
    except checks.InputError as error:
        difference = str(error).partition(";")[0].replace("the checkpoint", f"training.start_from: {where}", 1)
        raise checks.InputError(f"{difference}; start from one of this recipe's backbone") from error
