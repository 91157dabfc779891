"""The first weights of a run: drawn the same for any number of ranks, or taken from another training."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.heads.sharded import ShardedHead
from angulus.training.job import Job
from angulus.training.state import CHECKPOINT, class_rows, digest, load_checkpoint, load_module

BLOCK = 4096  # classes drawn at a time


def draw_as_dense(head: ShardedHead) -> None:
    """Fill this rank's rows with what a `DenseHead` of all classes would draw, without holding all of them.

    PyTorch draws normal numbers sixteen at a time, so drawing by blocks of a multiple of sixteen equals one long draw.
    A last block of fewer than sixteen numbers is joined to the one before it.
    """
    size, classes = head.weight.shape[1:].numel(), head.objective.num_classes
    starts = list(range(0, classes, BLOCK))
    if len(starts) > 1 and (classes - starts[-1]) * size < 16:
        starts.pop()
    with torch.no_grad():
        for first, stop in zip(starts, [*starts[1:], classes], strict=True):
            drawn = torch.empty(stop - first, size)
            nn.init.normal_(drawn, std=1 / math.sqrt(head.weight.shape[-1]))
            here = range(max(first, head.classes.start), min(stop, head.classes.stop))
            own = slice(here.start - head.classes.start, here.stop - head.classes.start)
            if len(here):
                rows = drawn[here.start - first : here.stop - first]
                head.weight[own] = rows.view(-1, *head.weight.shape[1:]).to(head.weight)


def from_checkpoint(path: Path, job: Job) -> None:
    """Load the backbone of a run's checkpoint, and its class weights if it was trained on the same classes.

    What the objective learns or keeps (s, R, running figures, centres) starts again.

    Args:
        path: the folder of a run that has ended, or any checkpoint.
        job: gets the weights.

    Raises:
        InputError: no checkpoint, another backbone, a run that has not ended, or one trained on classes that
            the job holds out.
    """
    file = path / CHECKPOINT if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"training.start_from: {path} is no model folder (RUN/model), run's folder or checkpoint")
    state = load_checkpoint(file)
    done, steps = (state["progress"].get(name, 0) for name in ("step", "steps"))
    if path.is_dir() and done < steps:
        raise InputError(
            f"training.start_from: the run in {path} has not ended, it is at step {done:,} of {steps:,}; continue it "
            f"with --resume, or give {file} to start from that step"
        )
    refuse_seen_classes(state["class_names"], job, path)
    load_backbone(job.backbone, state["backbone"], path)
    if state["classes"] != digest(job.images.class_names):
        return
    head = job.head
    own = head.classes if isinstance(head, ShardedHead) else range(len(head.weight))
    rows = class_rows(state, file.parent, own)
    with torch.no_grad():
        for name, value in head.named_parameters(recurse=False):
            if name in rows and rows[name].shape == value.shape:
                value.copy_(rows[name])


def load_classes(job: Job, names: Sequence[str], weight: Tensor, bias: Tensor | None) -> None:
    """Give the head the class weights of a model whose classes have the same names, in any order; else nothing."""
    row_of = {name: row for row, name in enumerate(names)}
    if row_of.keys() != set(job.images.class_names):
        return
    head = job.head
    own = head.classes if isinstance(head, ShardedHead) else range(len(head.weight))
    rows = torch.tensor([row_of[job.images.class_names[label]] for label in own])
    with torch.no_grad():
        for name, values in (("weight", weight), ("bias", bias)):
            parameter = dict(head.named_parameters(recurse=False)).get(name)
            if parameter is not None and values is not None and values[rows].shape == parameter.shape:
                parameter.copy_(values[rows])


def refuse_seen_classes(names: Sequence[str] | None, job: Job, path: Path) -> None:
    """Refuse weights that were trained on classes which the job's validation holds out; warn if that is possible.

    Classes of the same name are the same if all names are among this data's; else two data sets may use the same names
    for different people.

    Args:
        names: of the classes that the weights were trained on; None if unknown.
        job: with or without held-out classes.
        path: of the weights, for messages.
    """
    if job.held_out is None:
        return
    what, held = f"training.start_from: {path}", set(job.held_out.class_names)
    if names is None:
        checks.warn(f"{what} does not name the classes it was trained on; with some held out, validation means nothing")
        return
    common = sorted(held & set(names))
    if not common:
        return
    seen = f"{what} was trained on {len(common)} of the {len(held)} classes that validation holds out ({common[0]!r}"
    seen += ")" if len(common) == 1 else ", ...)"
    if held.union(job.images.class_names).issuperset(names):
        raise InputError(
            f"{seen}; start from a run that held the same ones out (by the same validation.identities and "
            "training.seed), or leave validation out"
        )
    checks.warn(f"{seen}, or on others of these names; if they are the same people, validation means nothing")


def load_backbone(backbone: nn.Module, state: dict[str, Tensor], where: Path) -> None:
    """Load a trained backbone's weights; raises an error that names the first difference."""
    try:
        load_module(backbone, state, "backbone")
    except InputError as error:
        difference = str(error).partition(";")[0].replace("the checkpoint", f"training.start_from: {where}", 1)
        raise InputError(f"{difference}; start from one of this recipe's backbone") from error
