"""A backbone whose parameters `fully_shard` spreads over the processes, and the whole one that others read.

Checkpoints, snapshots and models hold whole tensors, as those of a run that does not shard.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from angulus.core.checks import InputError, one_line
from angulus.distributed.runtime import Ranks
from angulus.training import finetune

if TYPE_CHECKING:
    from angulus.training.job import Job


def shard(job: Job) -> None:
    """Spread the backbone's parameters over the ranks, by its numbered layers or blocks; every rank calls it.

    Forward and backward gather one block at a time. Gradients are averaged over the ranks, as by
    `DistributedDataParallel`, and stay spread, as what the optimiser keeps of them does.

    Source: Y. Zhao et al., "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel", VLDB 2023.

    Raises:
        InputError: `fully_shard` does not take this backbone.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(job.device.type, (job.ranks.count,))
    empty = {id(each): nn.Parameter(torch.empty_like(each, device="meta"), each.requires_grad) for each in
             job.backbone.parameters()}  # fmt: skip
    job.shell = copy.deepcopy(job.backbone, empty)
    try:
        # inner parts first, as fully_shard wants them: a stage of ConvNeXt is a block, and holds some
        for block in sorted(finetune.blocks(job.backbone), key=lambda part: len(list(part.modules()))):
            fully_shard(block, mesh=mesh)
        fully_shard(job.backbone, mesh=mesh)
    except (NotImplementedError, ValueError) as error:
        raise InputError(
            f"training.shard_backbone: PyTorch's fully_shard does not take this backbone ({one_line(error)}); leave it "
            "out"
        ) from error


def is_spread(tensor: object) -> bool:
    """Whether each rank holds a part of it."""
    return hasattr(tensor, "full_tensor")


def own_part(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor, in the same memory."""
    part: Tensor = tensor.to_local() if is_spread(tensor) else tensor  # type: ignore[attr-defined]
    return part


def spread_as(value: Any, like: Tensor) -> Any:
    """A whole tensor of the shape of `like`, spread as that is; anything else as it is."""
    if not is_spread(like) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    place: Any = like
    return distribute_tensor(value.to(like.device), place.device_mesh, place.placements, src_data_rank=None)


def for_file(state: Mapping[Any, Any], ranks: Ranks) -> dict[Any, Any]:
    """A state with whole tensors, for rank 0 to write; the others help, and get it without. Every rank calls it."""
    whole: dict[Any, Any] = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            whole[name] = for_file(value, ranks)
        elif not is_spread(value):
            whole[name] = value
        else:
            gathered = value.full_tensor()  # one at a time
            if ranks.rank == 0:
                whole[name] = gathered.cpu()
    return whole


def gather_backbone(job: Job) -> nn.Module:
    """The backbone with whole parameters, on each rank; every rank calls it."""
    if job.shell is None:
        return job.backbone
    state = {name: _whole(value) for name, value in job.backbone.state_dict().items()}
    backbone = copy.deepcopy(job.shell)
    backbone.load_state_dict(state, assign=True)
    return backbone.to(job.device)


def _whole(value: Any) -> Tensor:
    whole: Tensor = value.full_tensor() if is_spread(value) else value
    return whole


@contextmanager
def whole_backbone(job: Job) -> Iterator[None]:
    """Within, the job has the backbone as `gather_backbone` gives it."""
    sharded = job.backbone
    job.backbone = gather_backbone(job)
    try:
        yield
    finally:
        job.backbone = sharded


def end(job: Job) -> None:
    """Give the job its whole backbone back for good; every rank calls it."""
    job.backbone, job.shell = gather_backbone(job), None
