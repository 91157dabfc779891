"""A trained head on disk: saved by any number of ranks, loaded by any other, or read as one [C, d] tensor.

A folder holds one safetensors file a rank (rows of the class weights, and of what optimisers keep of them), one of
what all ranks hold (learned s, running figures), and `head.json`, which names them and is written last: until then
the folder is the checkpoint that it was before.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from angulus.core import checks, files, limits, tensor_files
from angulus.distributed.runtime import Ranks
from angulus.heads.dense import DenseHead
from angulus.heads.sharded import ShardedHead
from angulus.losses.serialize import to_mapping

Head = DenseHead | ShardedHead
Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None
INDEX, FORMAT = "head.json", 1
KEYS = ("num_classes", "embedding_size", "objective", "optimizers", "common", "shards")
ROWS = ("weight", "bias")  # what has one row per class
OWN_FILE = re.compile(r"(classes-\d+|common)-[0-9a-f]{8}\.safetensors")


def save_head(head: Head, folder: Path, optimizers: Optimizers = None) -> None:
    """Write the head, and what optimisers keep of it; every rank of a sharded head must call it.

    Args:
        head: dense or sharded.
        folder: made where it is not; a checkpoint in it is replaced only once the new one is whole. Other files in it
            are left alone.
        optimizers: one, or several, whose state of the head's parameters is saved with them (momentum, moments,
            step counts).

    Raises:
        checks.InputError: on every rank, where one cannot write, or an optimiser keeps what has no row a class.
    """
    ranks, classes = _place(head)
    folder = Path(folder)
    tag = ranks.gather_objects(uuid.uuid4().hex[:8])[0]
    shard = {"file": f"classes-{classes.start}-{tag}.safetensors", "start": classes.start, "stop": classes.stop}
    common = f"common-{tag}.safetensors"

    def own() -> None:
        files.make_folder(folder)
        rows, shared = _split(head, _several(optimizers))
        tensor_files.write(folder / str(shard["file"]), rows)
        if ranks.rank == 0:
            tensor_files.write(folder / common, shared)

    def index(shards: list[Any]) -> None:
        if ranks.rank == 0:
            content = {
                "format": FORMAT,
                "num_classes": head.num_classes,
                "embedding_size": head.embedding_size,
                "objective": to_mapping(head.objective.spec),
                "optimizers": _kinds(head, _several(optimizers)),
                "common": common,
                "shards": shards,
            }
            files.write_json(folder / INDEX, content)

    try:
        ranks.run_on_all(own)
        shards = ranks.gather_objects(shard)
        ranks.run_on_all(lambda: index(shards))
    except Exception:
        for name in (str(shard["file"]), common):
            with contextlib.suppress(OSError):
                (folder / name).unlink()
        raise
    if ranks.rank == 0:
        for path in folder.iterdir():
            if OWN_FILE.fullmatch(path.name) and tag not in path.name:
                path.unlink(missing_ok=True)
    ranks.gather_objects(None)  # no rank goes on before the folder holds this checkpoint alone


def load_head(head: Head, folder: Path, optimizers: Optimizers = None) -> None:
    """Load what `save_head` wrote, on however many ranks, into a head of the same C, d and objective.

    Args:
        head: changed only once everything is read and fits.
        folder: of `save_head`.
        optimizers: of the same kinds as those saved; what they keep of the head's parameters is replaced.

    Raises:
        checks.InputError: on every rank, where one finds no checkpoint, a damaged one, or one of another C, d,
            objective or optimiser.
    """
    ranks, classes = _place(head)
    given = _several(optimizers)
    state, kept = ranks.run_on_all(lambda: _fitting(head, Path(folder), classes, given))
    head.load_state_dict(state)
    for name, parameter in head.named_parameters():
        for optimizer in given:
            if any(parameter is each for group in optimizer.param_groups for each in group["params"]):
                prefix = f"optimizer.{name}."
                found = {key.removeprefix(prefix): value for key, value in kept.items() if key.startswith(prefix)}
                optimizer.state[parameter] = {key: _as(value, parameter) for key, value in found.items()}


def read_weight(folder: Path) -> Tensor:
    """All class weights of a saved head as one tensor [C, d]."""
    return read_rows(folder)["weight"]


def read_rows(folder: Path, classes: range | None = None) -> dict[str, Tensor]:
    """The `weight` [C, d], and the `bias` [C] where there is one, of some classes of a saved head, or of all."""
    index = _index(Path(folder))
    chosen = range(index["num_classes"]) if classes is None else classes
    return {name: part for only in ROWS for name, part in _rows(Path(folder), index, chosen, only).items()}


def _place(head: Head) -> tuple[Ranks, range]:
    if isinstance(head, ShardedHead):
        return head.ranks, head.classes
    return Ranks(), range(len(head.weight))


def _several(optimizers: Optimizers) -> list[torch.optim.Optimizer]:
    if optimizers is None:
        return []
    return [optimizers] if isinstance(optimizers, torch.optim.Optimizer) else list(optimizers)


def _kinds(head: Head, optimizers: Iterable[torch.optim.Optimizer]) -> dict[str, str]:
    """By which optimiser each parameter of the head is trained."""
    return {
        name: type(optimizer).__name__
        for name, parameter in head.named_parameters()
        for optimizer in optimizers
        if any(parameter is each for group in optimizer.param_groups for each in group["params"])
    }


def _split(head: Head, optimizers: list[torch.optim.Optimizer]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(what has one row per class of this rank, what all ranks hold)."""
    rows: dict[str, Tensor] = {}
    common: dict[str, Tensor] = {}
    for name, value in head.state_dict().items():
        (rows if name in ROWS else common)[name] = value
    for name, parameter in head.named_parameters():
        for optimizer in optimizers:
            for key, value in optimizer.state.get(parameter, {}).items():
                value = value if isinstance(value, Tensor) else torch.as_tensor(value)
                by_row = name in ROWS and value.ndim > 0
                if by_row and len(value) != len(parameter):
                    raise checks.InputError(
                        f"{type(optimizer).__name__} keeps {key} {list(value.shape)} of {name} "
                        f"{list(parameter.shape)}: without one row per class it cannot "
                        "be saved for another number of ranks"
                    )
                (rows if by_row else common)[f"optimizer.{name}.{key}"] = value
    return rows, common


def _fitting(
    head: Head, folder: Path, classes: range, optimizers: list[torch.optim.Optimizer]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(the head's state, the optimisers'), once they are known to fit."""
    index = _index(folder)
    bound = head.objective
    for name, own in (("num_classes", bound.num_classes), ("embedding_size", bound.embedding_size)):
        if index[name] != own:
            raise checks.InputError(
                f"{folder} holds a head with {name} = {checks.shown(index[name])}, this one has {own}; make the head "
                "as it was saved, or see angulus.heads.classes to add and remove classes"
            )
    if index["objective"] != json.loads(json.dumps(to_mapping(bound.spec))):
        raise checks.InputError(
            f"{folder} holds a head of another objective ({checks.shown(index['objective'])}); to start from its "
            "class weights alone, copy read_weight(folder) into head.weight"
        )
    kinds = _kinds(head, optimizers)
    for name, kind in kinds.items():
        if index["optimizers"].get(name) != kind:
            raise checks.InputError(
                f"{folder} holds no state of {kind} for {name} (it was saved with {index['optimizers'].get(name)}); "
                "load without optimizers, and make new ones"
            )
    everything = _rows(folder, index, classes) | tensor_files.read(folder / Path(index["common"]).name)
    state = {name: value for name, value in everything.items() if not name.startswith("optimizer.")}
    expected = {name: value.shape for name, value in head.state_dict().items()}
    if {name: value.shape for name, value in state.items()} != expected:
        raise checks.InputError(f"{folder} is damaged: its tensors are not those of this head; restore it from a copy")
    return state, {name: value for name, value in everything.items() if name.startswith("optimizer.")}


def _as(value: Tensor, parameter: Tensor) -> Tensor:
    """Optimiser state on the parameter's device, and in its dtype where it is one number an entry."""
    return value.to(parameter) if value.shape == parameter.shape and value.ndim else value.to(parameter.device)


def _index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    try:
        index = limits.parse_json(path.read_bytes(), INDEX)
        _check_index(index)
        return dict(index)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise checks.InputError(
            f"{folder} holds no readable head ({INDEX}: {checks.one_line(error)}); give what save_head wrote"
        ) from error


def _check_index(index: Any) -> None:
    """Refuse what `save_head` does not write; raises what a value of another kind raises, too."""
    if index["format"] != FORMAT or set(KEYS) - set(index):
        raise ValueError("another version wrote it")
    for name in ("num_classes", "embedding_size"):
        checks.integer(name, index[name], low=1)
    spans = [tuple(checks.integer(end, shard[end]) for end in ("start", "stop")) for shard in index["shards"]]
    joined = [start for start, _ in spans] == [0, *(stop for _, stop in spans[:-1])]
    if not joined or any(start >= stop for start, stop in spans) or spans[-1][1] != index["num_classes"]:
        raise ValueError("its ranges of classes do not join")
    if not all(isinstance(name, str) for name in (index["common"], *(shard["file"] for shard in index["shards"]))):
        raise ValueError("it must name its files")
    if not isinstance(index["optimizers"], dict):
        raise ValueError("it must name its optimizers")


def _rows(folder: Path, index: dict[str, Any], classes: range, only: str | None = None) -> dict[str, Tensor]:
    """The rows of these classes, of every tensor, or of one."""
    parts: dict[str, list[Tensor]] = {}
    for shard in index["shards"]:
        first, last = max(classes.start, shard["start"]), min(classes.stop, shard["stop"])
        if first < last:
            rows = slice(first - shard["start"], last - shard["start"])
            for name, part in tensor_files.read(folder / Path(shard["file"]).name, rows, only).items():
                parts.setdefault(name, []).append(part)
    return {name: torch.cat(pieces) for name, pieces in parts.items()}
