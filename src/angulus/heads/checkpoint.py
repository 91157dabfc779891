"""A trained head on disk: saved by any number of ranks, loaded by any other, or read as one [C, d] tensor.

A folder holds one safetensors file a rank (rows of the class weights, and of what the optimiser keeps of them), one of
what all ranks hold (learned s, running figures), and `head.json`, which names them and is written last: until then
the folder is the checkpoint that it was before.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from angulus import checks, files
from angulus.distributed.runtime import Ranks
from angulus.heads.dense import DenseHead
from angulus.heads.sharded import ShardedHead
from angulus.losses.pieces import to_mapping

Head = DenseHead | ShardedHead
INDEX, FORMAT = "head.json", 1
ROWS = ("weight", "bias")  # what has a row a class


def save_head(head: Head, folder: Path, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Write the head, and what the optimiser keeps of it; every rank of a sharded head must call it.

    Args:
        head: dense or sharded.
        folder: made where it is not; a checkpoint in it is replaced only once the new one is whole.
        optimizer: whose state of the head's parameters is saved beside them (momentum, moments, step counts).
    """
    ranks, classes = _place(head)
    folder = Path(folder)
    files.make_folder(folder)
    tag = ranks.objects(uuid.uuid4().hex[:8])[0]
    rows, common = _split(head, optimizer)
    own = {"file": f"classes-{classes.start}-{tag}.safetensors", "start": classes.start, "stop": classes.stop}
    _write(folder / str(own["file"]), rows)
    shards = ranks.objects(own)
    if ranks.rank == 0:
        _write(folder / f"common-{tag}.safetensors", common)
        index = {
            "format": FORMAT,
            "num_classes": head.objective.num_classes,
            "embedding_size": head.objective.embedding_size,
            "objective": to_mapping(head.objective.spec),
            "common": f"common-{tag}.safetensors",
            "shards": shards,
        }
        files.write_json(folder / INDEX, index)
        for path in folder.glob("*.safetensors"):
            if tag not in path.name:
                path.unlink(missing_ok=True)
    ranks.objects(None)  # no rank goes on before the checkpoint is whole


def load_head(head: Head, folder: Path, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Load what `save_head` wrote, on however many ranks, into a head of the same C, d and objective.

    Raises:
        checks.InputError: no checkpoint, a damaged one, or one of another C, d or objective.
    """
    folder = Path(folder)
    index = _index(folder)
    bound = head.objective
    for name, own in (("num_classes", bound.num_classes), ("embedding_size", bound.embedding_size)):
        if index[name] != own:
            raise checks.InputError(
                f"{folder} holds a head with {name} = {index[name]}, this one has {own}; make the head as it was "
                "saved, or see angulus.heads.classes to add and remove classes"
            )
    if index["objective"] != json.loads(json.dumps(to_mapping(bound.spec))):
        raise checks.InputError(
            f"{folder} holds a head of another objective ({index['objective']}); to start from its class weights "
            "alone, copy read_weight(folder) into head.weight"
        )
    _, classes = _place(head)
    common = _read(folder / index["common"])
    rows = _rows(folder, index, classes)
    state = {name: value for name, value in (rows | common).items() if not name.startswith("optimizer.")}
    head.load_state_dict(state)
    if optimizer is not None:
        for name, parameter in head.named_parameters():
            prefix = f"optimizer.{name}."
            kept = {key.removeprefix(prefix): value for key, value in (rows | common).items() if key.startswith(prefix)}
            if kept:
                optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in kept.items()}


def read_weight(folder: Path) -> Tensor:
    """All class weights of a saved head as one tensor [C, d]."""
    index = _index(Path(folder))
    return _rows(Path(folder), index, range(index["num_classes"]), only="weight")["weight"]


def _place(head: Head) -> tuple[Ranks, range]:
    if isinstance(head, ShardedHead):
        return head.ranks, head.classes
    return Ranks(), range(len(head.weight))


def _split(head: Head, optimizer: torch.optim.Optimizer | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(what has a row a class of this rank, what all ranks hold alike)."""
    rows: dict[str, Tensor] = {}
    common: dict[str, Tensor] = {}
    for name, value in head.state_dict().items():
        (rows if name in ROWS else common)[name] = value
    for name, parameter in head.named_parameters():
        for key, value in ({} if optimizer is None else optimizer.state.get(parameter, {})).items():
            if isinstance(value, Tensor):
                by_row = name in ROWS and value.shape == parameter.shape
                (rows if by_row else common)[f"optimizer.{name}.{key}"] = value
    return rows, common


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    files.write_atomically(path, lambda file: file.write(save(plain)))


def _index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        spans = [(shard["start"], shard["stop"]) for shard in index["shards"]]
        whole = [start for start, _ in spans] == [0, *(stop for _, stop in spans[:-1])]
        if index["format"] != FORMAT or not whole or spans[-1][1] != index["num_classes"]:
            raise ValueError("its ranges of classes do not join, or another version wrote it")
        return dict(index)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise checks.InputError(
            f"{folder} holds no readable head ({INDEX}: {error}); give what save_head wrote"
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise checks.InputError(f"{path} cannot be read ({error}); restore it from a copy of the checkpoint") from error


def _rows(folder: Path, index: dict[str, Any], classes: range, only: str | None = None) -> dict[str, Tensor]:
    """The rows of these classes, of every tensor, or of one; only the bytes asked for are read."""
    parts: dict[str, list[Tensor]] = {}
    for name, part in _parts(folder, index, classes):
        if only is None or name == only:
            parts.setdefault(name, []).append(part[:])
    return {name: torch.cat(pieces) for name, pieces in parts.items()}


def _parts(folder: Path, index: dict[str, Any], classes: range) -> Iterator[tuple[str, Any]]:
    for shard in index["shards"]:
        first, last = max(classes.start, shard["start"]), min(classes.stop, shard["stop"])
        if first >= last:
            continue
        path = folder / Path(shard["file"]).name
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  # not a mapping
                    yield name, file.get_slice(name)[first - shard["start"] : last - shard["start"]]
        except (OSError, SafetensorError) as error:
            raise checks.InputError(
                f"{path} cannot be read ({error}); restore it from a copy of the checkpoint"
            ) from error
