"""The first weights of a run: class weights drawn alike for any number of ranks, and those of another training."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from angulus import checks
from angulus.heads.checkpoint import Head
from angulus.heads.sharded import ShardedHead
from angulus.training import checkpoint
from angulus.training.state import digest

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


def from_checkpoint(path: Path, backbone: nn.Module, head: Head, class_names: tuple[str, ...]) -> None:
    """Start from a run's checkpoint: its backbone, and its class weights where it was trained on the same classes.

    What the objective learns or keeps (s, R, running figures, centres) starts anew.

    Raises:
        checks.InputError: a checkpoint of another backbone.
    """
    found = checkpoint.load(path)
    load_backbone(backbone, found["backbone"], path)
    if found.get("classes") != digest(class_names):
        return
    own = head.classes if isinstance(head, ShardedHead) else range(len(head.weight))
    rows = checkpoint.class_rows(found, path.parent, own)
    with torch.no_grad():
        for name, value in head.named_parameters(recurse=False):
            if name in rows and rows[name].shape == value.shape:
                value.copy_(rows[name])


def load_backbone(backbone: nn.Module, state: dict[str, Tensor], where: Path) -> None:
    """Put a trained backbone's weights into this one, or say how it differs."""
    try:
        checkpoint.load_module(backbone, state, "backbone")
    except checks.InputError as error:
        difference = str(error).partition(";")[0].replace("the checkpoint", f"training.start_from: {where}", 1)
        raise checks.InputError(f"{difference}; start from one of this recipe's backbone") from error
