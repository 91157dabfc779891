"""The saved state of a run: its checkpoint, from which any number of processes resumes, and models kept on the way.

One process writes `checkpoint.pt`. Several also write the sharded head to `head-STEP`, one file per process, which
`checkpoint.pt` names; the previous folder is deleted once the new `checkpoint.pt` is in place.
"""

import hashlib
import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from angulus.core import checks, files, tensor_files
from angulus.distributed.runtime import Ranks
from angulus.heads.saving import ROWS, HeadParts, load_head, read_rows, save_head, take_parts, write_parts
from angulus.heads.sharded import CLASSES, ShardedHead
from angulus.training.compatible import OldClasses
from angulus.training.ema import Ema
from angulus.training.job import Job
from angulus.training.optimizer import Optimizers
from angulus.training.schedule import PlateauState
from angulus.training.settings import Snapshots
from angulus.training.sharding import for_file, own_part, spread_as

FORMAT = 1
CHECKPOINT = "checkpoint.pt"
HEAD_FOLDER = "head_folder"  # key of a checkpoint whose head is in a folder next to it
COMPATIBLE = "compatible"  # key of what the classes of an old model count or keep
EMA = "ema"  # key of the running mean of the weights, and the folder of a sharded head's in the head's folder
PARTS = {
    "format", "backbone", "head", "classes", "class_names", "optimizer", "more_optimizers", "plateau", "progress",
    "random",
}  # fmt: skip
SNAPSHOTS, SNAPSHOT_BACKBONE, SNAPSHOT_HEAD = "snapshots", "backbone.safetensors", "head"


@dataclass
class Progress:
    """How far a run is; stored in its checkpoints."""

    step: int = 0  # optimiser steps done
    steps: int = 0  # in total
    seconds: float = 0.0  # of training, over all resumes
    epoch_loss: float = 0.0  # sums over the current epoch
    epoch_wrong: int = 0
    epoch_rows: int = 0
    last_epoch_loss: float = field(default=float("nan"))  # mean of the last whole epoch
    first_loss: float = field(default=float("nan"))  # of the first step
    first_norm: float = field(default=float("nan"))  # mean feature norm of the first step
    findings: list[dict[str, Any]] = field(default_factory=list)  # of the watch: step, sign and sentence
    watch: dict[str, Any] = field(default_factory=dict)  # its state

    def end_epoch(self) -> None:
        """Store the mean of the epoch's losses and start the next epoch."""
        self.last_epoch_loss = self.epoch_loss / self.epoch_rows
        self.epoch_loss, self.epoch_wrong, self.epoch_rows = 0.0, 0, 0


class State(NamedTuple):
    """What this rank writes of a checkpoint."""

    step: int
    checkpoint: dict[str, Any]  # of rank 0; empty on the others
    heads: dict[str, HeadParts]  # of a sharded head, by their folder within head-STEP: the weights, and their mean


def take_state(job: Job, optim: Optimizers, plateau: PlateauState, progress: Progress, ema: Ema | None = None) -> State:
    """The state as it is, not copied; every rank calls it, and errors are raised on all."""
    ranks = job.ranks
    ranks.run_on_all(lambda: _refuse_broken_parameters(job, progress.step))
    sharded = isinstance(job.head, ShardedHead)
    heads: dict[str, HeadParts] = {}
    if sharded:
        heads["."] = ranks.run_on_all(lambda: take_parts(job.head, optim.parts))
        if ema is not None:
            heads[EMA] = take_parts(job.head, replaced=ema.state("head"))
    first, *more = optim.state_dicts(without=tuple(job.head.parameters()) if sharded else ())
    state = {
        "backbone": for_file(job.backbone.state_dict(), ranks),
        "head": {} if sharded else job.head.state_dict(),
        "classes": digest(job.images.class_names),
        "class_names": list(job.images.class_names),  # for a run that starts from this one and holds people out
        "optimizer": for_file(first, ranks),
        "more_optimizers": more,
        "plateau": plateau.state_dict(),
        "progress": vars(progress),
        "random": _random_state(job.device),
    }
    if sharded:
        state[HEAD_FOLDER] = f"head-{progress.step}"
    if job.compatible is not None:
        state[COMPATIBLE] = job.compatible.state()
    if ema is not None:
        state[EMA] = {"backbone": for_file(ema.state("backbone"), ranks), "head": {} if sharded else ema.state("head")}
    return State(progress.step, state if ranks.rank == 0 else {}, heads)


def write_state(folder: Path, state: State, ranks: Ranks) -> None:
    """Write the checkpoint, and remove the previous one; every rank calls it, and errors are raised on all."""
    head_folder = folder / f"head-{state.step}"
    with ranks.raise_on_all():
        for name, parts in state.heads.items():
            write_parts(parts, head_folder / name, ranks)

    def write() -> None:
        write_checkpoint(folder, state.checkpoint)
        for other in folder.glob("head-*"):
            if re.fullmatch(r"head-\d+", other.name) and (other != head_folder or not state.heads):
                shutil.rmtree(other, ignore_errors=True)

    ranks.run_on_first(write)


def restore_state(folder: Path, job: Job, optim: Optimizers, plateau: PlateauState, ema: Ema | None = None) -> Progress:
    """Load the folder's checkpoint, whatever number of processes wrote it; every rank calls it."""
    try:
        return _restore(folder, job, optim, plateau, ema)
    except checks.InputError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        path = folder / CHECKPOINT
        raise checks.InputError(
            f"{path} lacks what a run resumes from ({type(error).__name__}: {checks.one_line(error):.120}); "
            f"{way_out(path)}"
        ) from error


def _restore(folder: Path, job: Job, optim: Optimizers, plateau: PlateauState, ema: Ema | None) -> Progress:
    def read() -> dict[str, Any]:
        state = load_checkpoint(folder / CHECKPOINT)
        load_module(job.backbone, state["backbone"], "backbone")
        if state["classes"] != digest(job.images.class_names):
            raise checks.InputError(
                f"{folder / CHECKPOINT} has other classes than the data; resume with the data that it was trained on, "
                "or start from it by training.start_from in another --out"
            )
        if job.compatible is not None:
            _restore_compatible(folder, job.compatible, state.get(COMPATIBLE, {}))
        return state

    ranks = job.ranks
    state = ranks.run_on_all(read)
    if ema is not None:
        _restore_ema(folder, job, state, ema)
        ranks.run_on_all(lambda: load_module(job.backbone, state["backbone"], "backbone"))
    optimizer_states = [state["optimizer"], *state["more_optimizers"]]
    if HEAD_FOLDER in state:
        optim.load_state_dicts(optimizer_states)
        with ranks.raise_on_all():
            load_head(job.head, folder / Path(state[HEAD_FOLDER]).name, optim.parts)
    else:
        ranks.run_on_all(lambda: _load_whole_head(job, state["head"], optim, optimizer_states))
    plateau.load_state_dict(state["plateau"])
    _set_random_state(job.device, state["random"])
    return Progress(**state["progress"])


def _restore_compatible(folder: Path, compatible: OldClasses, state: Mapping[str, Any]) -> None:
    """Load what the classes of an old model count or keep; refuse another old model."""
    if state.get("model") != compatible.model:
        raise checks.InputError(
            f"{folder / CHECKPOINT} was made compatible with the model of fingerprint {state.get('model')}, and "
            f"compatible_with names that of {compatible.model}; give the former back, or choose another --out"
        )
    load_module(compatible.head.objective, state["objective"], "old head")


def _restore_ema(folder: Path, job: Job, state: Mapping[str, Any], ema: Ema) -> None:
    """Load the running mean into the job's backbone and head, and from them into `ema`."""

    def read() -> None:
        if EMA not in state:
            raise checks.InputError(
                f"{folder / CHECKPOINT} has no running mean of the weights; resume without training.ema, or start from "
                "it by training.start_from in another --out"
            )
        load_module(job.backbone, state["backbone"] | state[EMA]["backbone"], "backbone")
        if HEAD_FOLDER not in state:
            load_module(job.head, _own_rows(job, state["head"] | state[EMA]["head"]), "head")

    job.ranks.run_on_all(read)
    if HEAD_FOLDER in state:
        with job.ranks.raise_on_all():
            load_head(job.head, folder / Path(state[HEAD_FOLDER]).name / EMA)
    ema.take()


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def _set_random_state(device: torch.device, state: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    if device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])


def _load_whole_head(job: Job, head: Mapping[str, Tensor], optim: Optimizers, states: list[dict[str, Any]]) -> None:
    """Load this rank's part of a head that one process saved."""
    head = _own_rows(job, head)
    if isinstance(job.head, ShardedHead):
        rows = slice(job.head.classes.start, job.head.classes.stop)
        by_row = {id(parameter) for name, parameter in job.head.named_parameters() if name in ROWS}
        for part, state in zip(optim.parts, states, strict=True):
            parameters = [parameter for group in part.param_groups for parameter in group["params"]]
            for number, values in state["state"].items():
                if id(parameters[number]) in by_row:
                    state["state"][number] = {
                        name: value[rows] if isinstance(value, Tensor) and value.ndim else value
                        for name, value in values.items()
                    }
    load_module(job.head, head, "head")
    optim.load_state_dicts(states)


def _own_rows(job: Job, head: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """This rank's part of a whole head's tensors."""
    if not isinstance(job.head, ShardedHead):
        return head
    rows = slice(job.head.classes.start, job.head.classes.stop)
    _refuse_other_classes(head, job.head.objective.num_classes)
    own = {name: value[rows] if name in ROWS else value for name, value in head.items()}
    stored = {name: value for name, value in job.head.state_dict().items() if name == CLASSES}  # with several ranks
    return own | stored


def _refuse_other_classes(head: Mapping[str, Tensor], num_classes: int) -> None:
    if "weight" in head and len(head["weight"]) != num_classes:
        raise checks.InputError(
            f"the checkpoint is of another head: it has {len(head['weight'])} classes, this one {num_classes}; resume "
            "with the recipe that it was made by"
        )


def _refuse_broken_parameters(job: Job, step: int) -> None:
    for name, value in [*job.backbone.state_dict().items(), *job.head.state_dict().items()]:
        if not bool(torch.isfinite(own_part(value)).all()):
            raise checks.InputError(
                f"training stopped at step {step}: {name} is no longer finite; the previous checkpoint is kept; "
                f"{job.steadier}"
            )


def digest(class_names: Sequence[str]) -> str:
    """A digest by which two runs have the same classes or not."""
    return hashlib.sha256("\0".join(class_names).encode()).hexdigest()


def write_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the checkpoint of a run folder, atomically."""
    files.write_atomically(folder / CHECKPOINT, lambda file: torch.save({"format": FORMAT, **state}, file))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in it can run code."""
    if not path.is_file():
        raise checks.InputError(f"there is no checkpoint {path}; start the run without --resume")
    try:
        with zipfile.ZipFile(path) as parts:  # torch writes a checksum of each part, but never compares it
            damaged = parts.testzip()
        state = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both raise many kinds for a damaged file
        raise checks.InputError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}); is it cut short? {way_out(path)}"
        ) from error
    if damaged:
        raise checks.InputError(
            f"{path} is damaged: the checksum of {damaged} is not the one that was written with it; {way_out(path)}"
        )
    if not isinstance(state, dict) or state.get("format") != FORMAT or not state.keys() >= PARTS:
        raise checks.InputError(f"{path} is not an Angulus checkpoint of format {FORMAT}")
    return state


def way_out(path: Path) -> str:
    """What to do when a checkpoint cannot be read: use an earlier one or a saved model, or train again."""
    earlier = sorted(other for other in path.parent.glob("*.pt") if other != path)
    if earlier:
        return f"an earlier checkpoint is {earlier[-1]}: copy it to {path}"
    ways = "restore it from a copy, or train again in another --out"
    model = path.parent / "model"
    return f"{ways}, perhaps with training.start_from={model}" if model.is_dir() else ways


def class_rows(state: Mapping[str, Any], folder: Path, classes: range | None = None) -> dict[str, Tensor]:
    """The class weights, and biases if any, of a checkpoint; their running mean where it has one.

    Args:
        state: from `load_checkpoint`.
        folder: the run's folder.
        classes: which rows; None: all.
    """
    if HEAD_FOLDER in state:
        saved = folder / Path(state[HEAD_FOLDER]).name
        return read_rows(saved / EMA if EMA in state else saved, classes)
    rows = slice(None) if classes is None else slice(classes.start, classes.stop)
    head = saved_weights(state, "head")
    return {name: head[name][rows] for name in ROWS if name in head}


def saved_weights(state: Mapping[str, Any], part: str) -> dict[str, Tensor]:
    """The weights of a checkpoint's "backbone" or "head"; their running mean where it has one."""
    return dict(state[part] | state.get(EMA, {}).get(part, {}))


def load_module(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Fill a module from a checkpoint; raises an error that names the first difference."""
    own = module.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    for problem, names in (("lacks", missing), ("has also", extra)):
        if names:
            raise checks.InputError(
                f"the checkpoint is of another {what}: it {problem} {names[0]}"
                f"{f' and {len(names) - 1} more' if len(names) > 1 else ''}; resume with the recipe that it was made by"
            )
    for name, value in own.items():
        if value.shape != state[name].shape:
            raise checks.InputError(
                f"the checkpoint is of another {what}: {name} has shape {list(state[name].shape)}, this one's is "
                f"{list(value.shape)}; resume with the recipe that it was made by"
            )
    module.load_state_dict({name: spread_as(value, own[name]) for name, value in state.items()})


def save_snapshot(folder: Path, job: Job, step: int) -> None:
    """Keep the model after `step` steps in `snapshots/step-N`; every rank calls it."""
    where = folder / SNAPSHOTS / f"step-{step}"
    with job.ranks.raise_on_all():
        save_head(job.head, where / SNAPSHOT_HEAD)
    # cloned, because safetensors takes no tensors that share memory
    weights = {name: value.clone() for name, value in for_file(job.backbone.state_dict(), job.ranks).items()}
    job.ranks.run_on_first(lambda: tensor_files.write(where / SNAPSHOT_BACKBONE, weights))


def find_snapshots(folder: Path, settings: Snapshots | None, last: int) -> dict[int, Path]:
    """The complete snapshots of a run up to step `last`, by step."""
    paths: dict[int, Path] = {}
    if settings is None:
        return paths
    for path in (folder / SNAPSHOTS).glob("step-*"):
        step = re.fullmatch(r"step-(\d+)", path.name)
        if step and int(step[1]) <= last and settings.due(int(step[1])) and (path / SNAPSHOT_BACKBONE).exists():
            paths[int(step[1])] = path
    return dict(sorted(paths.items()))


def load_snapshot(where: Path, job: Job) -> None:
    """Load a snapshot into the job's backbone and head; every rank calls it."""
    job.ranks.run_on_all(lambda: load_module(job.backbone, tensor_files.read(where / SNAPSHOT_BACKBONE), "backbone"))
    with job.ranks.raise_on_all():
        load_head(job.head, where / SNAPSHOT_HEAD)
