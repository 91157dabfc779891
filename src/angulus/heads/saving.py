"""A trained head on disk: saved by any number of ranks, loaded by any other number, or read as one [C, d] tensor.

A folder holds one safetensors file per rank (rows of the class weights and of their optimiser state), one file for what
all ranks share (learned s, running figures), and `head.json`, which names them and is written last: until then the
folder is the previous checkpoint.
"""

import contextlib
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from angulus.core import checks, files, limits, tensor_files
from angulus.distributed.runtime import Ranks
from angulus.heads.dense import DenseHead
from angulus.heads.sharded import CLASSES, ShardedHead
from angulus.losses.objective import Objective
from angulus.losses.serialize import from_mapping, to_mapping

Head = DenseHead | ShardedHead
Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None
INDEX, FORMAT = "head.json", 1
KEYS = ("num_classes", "embedding_size", "objective", "optimizers", "common", "shards")
ROWS = ("weight", "bias")  # the tensors with one row per class
OWN_FILE = re.compile(r"(classes-\d+|common)-[0-9a-f]{8}\.safetensors")


def save_head(head: Head, folder: Path, optimizers: Optimizers = None) -> None:
    """Save the head and its optimisers' state; every rank of a sharded head must call it.

    Args:
        head: dense or sharded.
        folder: created if missing; a checkpoint in it is replaced once the new one is complete. Other files in it stay.
        optimizers: one or several, whose state of the head's parameters is saved too (momentum, moments, step counts).

    Raises:
        checks.InputError: on every rank, if one cannot write, or an optimiser keeps state without one row per class.
    """
    ranks, _ = _ranks_and_classes(head)
    write_parts(ranks.run_on_all(lambda: take_parts(head, optimizers)), folder, ranks)


class HeadParts(NamedTuple):
    """What is saved of one rank's head: the head's own tensors, not copies."""

    classes: range
    rows: dict[str, Tensor]  # with one row per class of this rank
    common: dict[str, Tensor]  # what all ranks share
    facts: dict[str, Any]  # what the index says of the head


def take_parts(head: Head, optimizers: Optimizers = None, replaced: Mapping[str, Tensor] | None = None) -> HeadParts:
    """What `save_head` writes of this rank, with some of the head's tensors replaced.

    Raises:
        checks.InputError: an optimiser keeps state without one row per class.
    """
    facts = {
        "num_classes": head.num_classes,
        "embedding_size": head.embedding_size,
        "objective": to_mapping(head.objective.spec),
        "optimizers": _optimizer_names(head, _as_list(optimizers)),
    }
    rows, common = _split(head, _as_list(optimizers), replaced or {})
    return HeadParts(_ranks_and_classes(head)[1], rows, common, facts)


def write_parts(parts: HeadParts, folder: Path, ranks: Ranks) -> None:
    """Write what the ranks took of their heads, as `save_head` does; every rank must call it."""
    folder, classes = Path(folder), parts.classes
    tag = ranks.gather_objects(uuid.uuid4().hex[:8])[0]
    shard = {"file": f"classes-{classes.start}-{tag}.safetensors", "start": classes.start, "stop": classes.stop}
    common = f"common-{tag}.safetensors"

    def own() -> None:
        files.make_folder(folder)
        tensor_files.write(folder / str(shard["file"]), parts.rows)
        if ranks.rank == 0:
            tensor_files.write(folder / common, parts.common)

    def index(shards: list[Any]) -> None:
        if ranks.rank == 0:
            files.write_json(folder / INDEX, {"format": FORMAT, **parts.facts, "common": common, "shards": shards})

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
    ranks.gather_objects(None)  # no rank returns before the folder holds only this checkpoint


def load_head(head: Head, folder: Path, optimizers: Optimizers = None) -> None:
    """Load what `save_head` wrote, with any number of ranks, into a head of the same C, d and objective.

    Args:
        head: changed only after everything has been read and fits.
        folder: written by `save_head`.
        optimizers: of the same classes as those saved; their state of the head's parameters is replaced.

    Raises:
        checks.InputError: on every rank, if the checkpoint is missing, damaged, or of another C, d, objective or
            optimiser.
    """
    ranks, classes = _ranks_and_classes(head)
    optimizer_list = _as_list(optimizers)
    state, optimizer_state = ranks.run_on_all(lambda: _read_checked(head, Path(folder), classes, optimizer_list))
    head.load_state_dict(state)
    for name, parameter, optimizer in _trained(head, optimizer_list):
        prefix = f"optimizer.{name}."
        optimizer.state[parameter] = {
            key.removeprefix(prefix): _like(value, parameter)
            for key, value in optimizer_state.items()
            if key.startswith(prefix)
        }


def read_weight(folder: Path) -> Tensor:
    """All class weights of a saved head as one tensor [C, d]."""
    return read_rows(folder)["weight"]


def read_rows(folder: Path, classes: range | None = None) -> dict[str, Tensor]:
    """The `weight` [C, d], and the `bias` [C] if it has one, of these classes of a saved head, or of all."""
    index = _index(Path(folder))
    chosen = range(index["num_classes"]) if classes is None else classes
    return {name: part for only in ROWS for name, part in _rows(Path(folder), index, chosen, only).items()}


def _ranks_and_classes(head: Head) -> tuple[Ranks, range]:
    if isinstance(head, ShardedHead):
        return head.ranks, head.classes
    return Ranks(), range(len(head.weight))


def _as_list(optimizers: Optimizers) -> list[torch.optim.Optimizer]:
    if optimizers is None:
        return []
    return [optimizers] if isinstance(optimizers, torch.optim.Optimizer) else list(optimizers)


def _trained(
    head: Head, optimizers: Iterable[torch.optim.Optimizer]
) -> Iterator[tuple[str, torch.nn.Parameter, torch.optim.Optimizer]]:
    """Each parameter of the head that one of the optimisers trains: its name, itself, and the optimiser."""
    for name, parameter in head.named_parameters():
        for optimizer in optimizers:
            if any(parameter is trained for group in optimizer.param_groups for trained in group["params"]):
                yield name, parameter, optimizer


def _optimizer_names(head: Head, optimizers: Iterable[torch.optim.Optimizer]) -> dict[str, str]:
    """The class of the optimiser that trains each parameter of the head."""
    return {name: type(optimizer).__name__ for name, _, optimizer in _trained(head, optimizers)}


def _split(
    head: Head, optimizers: list[torch.optim.Optimizer], replaced: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(tensors with one row per class of this rank, tensors that all ranks share)."""
    rows: dict[str, Tensor] = {}
    common: dict[str, Tensor] = {}
    for name, value in {**_own_state(head), **replaced}.items():
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


def _own_state(head: Head) -> dict[str, Tensor]:
    """The head's tensors; the index names the range of their classes."""
    return {name: value for name, value in head.state_dict().items() if name != CLASSES}


def _read_checked(
    head: Head, folder: Path, classes: range, optimizers: list[torch.optim.Optimizer]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(the head's state, the optimisers'), checked against the head and the optimisers."""
    index = _index(folder)
    bound = head.objective
    for name, own in (("num_classes", bound.num_classes), ("embedding_size", bound.embedding_size)):
        if index[name] != own:
            raise checks.InputError(
                f"{folder} holds a head with {name} = {checks.shown(index[name])}, this one has {own}; build the "
                "head as it was saved, or see angulus.heads.classes to add and remove classes"
            )
    if not _same_objective(index["objective"], bound.spec):
        raise checks.InputError(
            f"{folder} holds a head with another objective ({checks.shown(index['objective'])}); to start from its "
            "class weights alone, copy read_weight(folder) into head.weight"
        )
    kinds = _optimizer_names(head, optimizers)
    for name, kind in kinds.items():
        if index["optimizers"].get(name) != kind:
            raise checks.InputError(
                f"{folder} holds no state of {kind} for {name} (it was saved with {index['optimizers'].get(name)}); "
                "load without optimizers, and create new ones"
            )
    everything = _rows(folder, index, classes) | tensor_files.read(folder / Path(index["common"]).name)
    state = {name: value for name, value in everything.items() if not name.startswith("optimizer.")}
    expected = {name: value.shape for name, value in _own_state(head).items()}
    if {name: value.shape for name, value in state.items()} != expected:
        raise checks.InputError(f"{folder} is damaged: its tensors are not those of this head; restore it from a copy")
    return state, {name: value for name, value in everything.items() if name.startswith("optimizer.")}


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """Optimiser state on the parameter's device, and in its dtype if it has the parameter's shape."""
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
    """Refuse what `save_head` does not write; values of a wrong type raise their own errors."""
    if index["format"] != FORMAT or set(KEYS) - set(index):
        raise ValueError("another version wrote it")
    for name in ("num_classes", "embedding_size"):
        checks.integer(name, index[name], low=1)
    spans = [tuple(checks.integer(end, shard[end]) for end in ("start", "stop")) for shard in index["shards"]]
    contiguous = [start for start, _ in spans] == [0, *(stop for _, stop in spans[:-1])]
    if not contiguous or any(start >= stop for start, stop in spans) or spans[-1][1] != index["num_classes"]:
        raise ValueError("its ranges of classes are not contiguous")
    if not all(isinstance(name, str) for name in (index["common"], *(shard["file"] for shard in index["shards"]))):
        raise ValueError("it must name its files")
    if not isinstance(index["optimizers"], dict):
        raise ValueError("it must name its optimizers")


def _same_objective(stored: Any, spec: Objective) -> bool:
    """Whether a saved mapping is that objective; keys that came later have their defaults."""
    try:
        return from_mapping(stored) == spec
    except checks.InputError:  # a piece of one's own that no table has
        return bool(stored == json.loads(json.dumps(to_mapping(spec))))


def _rows(folder: Path, index: dict[str, Any], classes: range, only: str | None = None) -> dict[str, Tensor]:
    """The rows of these classes, of every tensor or only of one."""
    parts: dict[str, list[Tensor]] = {}
    for shard in index["shards"]:
        first, last = max(classes.start, shard["start"]), min(classes.stop, shard["stop"])
        if first < last:
            rows = slice(first - shard["start"], last - shard["start"])
            for name, part in tensor_files.read(folder / Path(shard["file"]).name, rows, only).items():
                parts.setdefault(name, []).append(part)
    return {name: torch.cat(pieces) for name, pieces in parts.items()}
