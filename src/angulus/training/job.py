"""What to train, and how to place it on its device."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from angulus.core.contract import Preprocessing
from angulus.data.augment import Augment
from angulus.data.sets.images import Images
from angulus.distributed.batch_norm import synchronized
from angulus.distributed.runtime import Ranks
from angulus.heads.saving import Head
from angulus.training import finetune, sharding
from angulus.training.compatible import OldClasses
from angulus.training.settings import Training, Validation


@dataclass
class Job:
    """What to train, on what, and how."""

    backbone: nn.Module  # the head is sharded if several ranks train
    head: Head
    contract: Preprocessing  # the preprocessing of pixels
    images: Images  # to train on, the same on every rank
    settings: Training  # see `Training`
    device: torch.device  # this rank's
    augment: Augment | None = None  # the augmentation, or None
    ranks: Ranks = field(default_factory=Ranks)  # the processes that train together
    update_in_backward: bool = False  # update the class weights within backward, by `BackwardSGD`
    validation: Validation | None = None  # how and on what to validate, or None
    held_out: Images | None = None
    name: str = "training"  # what loggers call it
    about: Mapping[str, Any] = field(default_factory=dict)  # what loggers keep of it, secrets masked
    compatible: OldClasses | None = None  # the classes of an old model that the features stay compatible with
    rounding: str | None = None  # by which `BackwardSGD` trains class weights in bfloat16; None: they are float32
    shell: nn.Module | None = None  # the backbone without values, while `backbone` is spread over the ranks

    def __post_init__(self) -> None:
        finetune.prepare(self.backbone, self.settings)

    @property
    def steadier(self) -> str:
        """What would make it steadier if it diverged."""
        return self.settings.steadier(clip=self.head.sampling is None and not self.update_in_backward)


def place_on_device(job: Job) -> nn.Module:
    """Move backbone and head to their device; returns the (compiled, distributed) network to call for the backbone."""
    if job.settings.sync_batch_norm and job.ranks.count > 1:
        job.backbone = synchronized(job.backbone, job.ranks)
    job.head.to(job.device)
    if job.compatible is not None:
        job.compatible.head.to(job.device)
    if job.settings.shard_backbone and job.ranks.count > 1:
        with job.ranks.raise_on_all():
            sharding.shard(job)  # moves each block to the device by itself
        return job.backbone
    job.backbone.to(job.device)
    if job.settings.channels_last:
        job.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network: nn.Module = job.backbone
    if job.settings.compile:
        network = torch.compile(network)  # type: ignore[assignment]  # it is a module
    if job.ranks.count > 1:
        # harmless, but shown for every convolution whose gradient has another memory format
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        network = DistributedDataParallel(network, process_group=job.ranks.group)
    return network


def has_batch_norm(backbone: nn.Module) -> bool:
    """Whether a row's feature depends on the other rows of its batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules())
