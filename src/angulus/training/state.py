"""Where a run is, and going on from there on as many processes as there are now.

The checkpoint of one process is `checkpoint.pt`. That of several has the head beside it, in `head-STEP`, a file a
process, which `checkpoint.pt` names; the folder before is deleted once the new `checkpoint.pt` is in its place.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from angulus.core import checks
from angulus.heads.saving import ROWS, load_head, save_head
from angulus.heads.sharded import ShardedHead
from angulus.training import checkpoint
from angulus.training.job import Job
from angulus.training.optimizer import Optimizers
from angulus.training.schedule import Plateau


@dataclass
class Progress:
    """Where a run is; goes into its checkpoints."""

    step: int = 0  # optimiser steps done
    steps: int = 0  # in all
    seconds: float = 0.0  # of training, over all sittings
    epoch_loss: float = 0.0  # sums over the running epoch
    epoch_wrong: int = 0
    epoch_rows: int = 0
    last_epoch_loss: float = field(default=float("nan"))  # mean of the last whole epoch
    first_loss: float = field(default=float("nan"))  # of the first step
    first_norm: float = field(default=float("nan"))  # mean feature norm of the first step

    def end_epoch(self) -> None:
        """Take the mean of the epoch's losses, and start the next."""
        self.last_epoch_loss = self.epoch_loss / self.epoch_rows
        self.epoch_loss, self.epoch_wrong, self.epoch_rows = 0.0, 0, 0


def save(folder: Path, job: Job, optim: Optimizers, plateau: Plateau, progress: Progress) -> None:
    """Write the checkpoint; every rank calls it, and it is refused on all alike."""
    ranks = job.ranks
    ranks.run_on_all(lambda: _refuse_broken_parameters(job.backbone, job.head, progress.step))
    sharded = isinstance(job.head, ShardedHead)
    beside = folder / f"head-{progress.step}"
    if sharded:
        with ranks.raise_on_all():
            save_head(job.head, beside, optim.parts)
    first, *more = optim.state_dicts(without=tuple(job.head.parameters()) if sharded else ())
    random = {"cpu": torch.get_rng_state()}
    if job.device.type == "cuda":
        random["cuda"] = torch.cuda.get_rng_state(job.device)
    if job.device.type == "mps":
        random["mps"] = torch.mps.get_rng_state()
    state = {
        "backbone": job.backbone.state_dict(),
        "head": {} if sharded else job.head.state_dict(),
        "classes": digest(job.images.class_names),
        "class_names": list(job.images.class_names),  # for a run that starts from this one and holds people out
        "optimizer": first,
        "more_optimizers": more,
        "plateau": plateau.state_dict(),
        "progress": vars(progress),
        "random": random,
    }
    if sharded:
        state[checkpoint.HEAD_FOLDER] = beside.name

    def write() -> None:
        checkpoint.save(folder, state)
        for other in folder.glob("head-*"):
            if re.fullmatch(r"head-\d+", other.name) and (other != beside or not sharded):
                shutil.rmtree(other, ignore_errors=True)

    ranks.run_on_first(write)


def digest(class_names: Sequence[str]) -> str:
    """What tells whether two runs have the same classes."""
    return hashlib.sha256("\0".join(class_names).encode()).hexdigest()


def restore(folder: Path, job: Job, optim: Optimizers, plateau: Plateau) -> Progress:
    """Go on from the folder's checkpoint, of however many processes it is; every rank calls it."""
    try:
        return _restore(folder, job, optim, plateau)
    except checks.InputError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        path = folder / checkpoint.NAME
        raise checks.InputError(
            f"{path} lacks what a run goes on from ({type(error).__name__}: {checks.one_line(error):.120}); "
            f"{checkpoint.way_out(path)}"
        ) from error


def _restore(folder: Path, job: Job, optim: Optimizers, plateau: Plateau) -> Progress:
    def read() -> dict[str, Any]:
        found = checkpoint.load(folder / checkpoint.NAME)
        checkpoint.load_module(job.backbone, found["backbone"], "backbone")
        if found.get("classes", digest(job.images.class_names)) != digest(job.images.class_names):
            raise checks.InputError(
                f"{folder / checkpoint.NAME} is of other classes than the data has; resume with the data that it was "
                "trained on, or start from it by training.start_from in another --out"
            )
        return found

    ranks = job.ranks
    found = ranks.run_on_all(read)
    states = [found["optimizer"], *found.get("more_optimizers", [])]
    if checkpoint.HEAD_FOLDER in found:
        optim.load_state_dicts(states)
        with ranks.raise_on_all():
            load_head(job.head, folder / Path(found[checkpoint.HEAD_FOLDER]).name, optim.parts)
    else:
        ranks.run_on_all(lambda: _load_whole_head(job, found["head"], optim, states))
    plateau.load_state_dict(found["plateau"])
    torch.set_rng_state(found["random"]["cpu"])
    if job.device.type == "cuda" and "cuda" in found["random"]:
        torch.cuda.set_rng_state(found["random"]["cuda"], job.device)
    if job.device.type == "mps" and "mps" in found["random"]:
        torch.mps.set_rng_state(found["random"]["mps"])
    return Progress(**found["progress"])


def _load_whole_head(job: Job, head: Mapping[str, Tensor], optim: Optimizers, states: list[dict[str, Any]]) -> None:
    """Of a head that one process saved, what this rank holds."""
    if isinstance(job.head, ShardedHead):
        here = slice(job.head.classes.start, job.head.classes.stop)
        _refuse_other_classes(head, job.head.objective.num_classes)
        head = {name: value[here] if name in ROWS else value for name, value in head.items()}
        by_row = {id(parameter) for name, parameter in job.head.named_parameters() if name in ROWS}
        for part, state in zip(optim.parts, states, strict=True):
            own = [parameter for group in part.param_groups for parameter in group["params"]]
            for number, kept in state["state"].items():
                if id(own[number]) in by_row:
                    state["state"][number] = {name: _rows(value, here) for name, value in kept.items()}
    checkpoint.load_module(job.head, head, "head")
    optim.load_state_dicts(states)


def _rows(value: Any, here: slice) -> Any:
    return value[here] if isinstance(value, Tensor) and value.ndim else value


def _refuse_other_classes(head: Mapping[str, Tensor], num_classes: int) -> None:
    if "weight" in head and len(head["weight"]) != num_classes:
        raise checks.InputError(
            f"the checkpoint is of another head: it has {len(head['weight'])} classes, this one {num_classes}; resume "
            "with the recipe that it was made by"
        )


def _refuse_broken_parameters(backbone: nn.Module, head: nn.Module, step: int) -> None:
    for name, value in [*backbone.state_dict().items(), *head.state_dict().items()]:
        if not bool(torch.isfinite(value).all()):
            raise checks.InputError(
                f"training stopped at step {step}: {name} is no longer finite; the checkpoint before it is kept; lower "
                "training.optimizer.lr, or set training.clip_norm"
            )
