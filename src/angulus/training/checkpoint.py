"""Checkpoints: everything a run needs to go on as if it had not stopped."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from angulus.core import checks, files
from angulus.heads.saving import ROWS, read_rows

FORMAT = 1
NAME = "checkpoint.pt"
HEAD_FOLDER = "head_folder"  # key of a checkpoint whose head lies in a folder beside it
PARTS = {"format", "backbone", "head", "optimizer", "plateau", "progress", "random"}


def save(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the checkpoint of a run folder, atomically."""
    files.write_atomically(folder / NAME, lambda file: torch.save({"format": FORMAT, **state}, file))


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in it can run code."""
    if not path.is_file():
        raise checks.InputError(f"there is no checkpoint {path}; start the run without --resume")
    try:
        with zipfile.ZipFile(path) as parts:  # torch writes a checksum of each part, and reads none
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
    """What is left to do when a checkpoint cannot be read: an earlier one, a model that was kept, or a new start."""
    earlier = sorted(each for each in path.parent.glob("*.pt") if each != path)
    if earlier:
        return f"an earlier checkpoint lies in {earlier[-1]}: copy it to {path}"
    ways = "restore it from a copy, or train again in another --out"
    model = path.parent / "model"
    return f"{ways}, perhaps with training.start_from={model}" if model.is_dir() else ways


def class_rows(state: Mapping[str, Any], folder: Path, classes: range | None = None) -> dict[str, Tensor]:
    """The class weights, and biases where there are, of a checkpoint that was loaded from `folder`.

    Args:
        state: what `load` gave.
        folder: that of the run.
        classes: of these; None: of all.
    """
    if HEAD_FOLDER in state:
        return read_rows(folder / Path(state[HEAD_FOLDER]).name, classes)
    rows = slice(None) if classes is None else slice(classes.start, classes.stop)
    return {name: state["head"][name][rows] for name in ROWS if name in state["head"]}


def load_module(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Fill a module from a checkpoint, or say how the checkpoint's differs."""
    own = module.state_dict()
    missing = sorted(own.keys() - state.keys())
    extra = sorted(state.keys() - own.keys())
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
    module.load_state_dict(state)
