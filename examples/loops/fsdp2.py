"""FSDP2: the backbone spread over the ranks by layers, the head by classes: torchrun --nproc-per-node 2 fsdp2.py"""

import digits
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, DistributedSampler

from angulus import ShardedHead
from angulus.heads.clipping import clip_grad_norm_
from angulus.heads.saving import load_head, save_head


def train(epochs, folder, resume=False):
    torch.manual_seed(0)
    backbone, mesh = digits.backbone(), init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in backbone:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(backbone, mesh=mesh)  # the backbone alone: the head spreads its classes itself
    head = ShardedHead(digits.SIZE, digits.CLASSES, digits.OBJECTIVE)
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1, momentum=0.9)  # after fully_shard
    head_optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9)
    first = 0
    if resume:
        model_state, optimizer_state = get_state_dict(backbone, optimizer)
        state = {"model": model_state, "optimizer": optimizer_state, "epoch": 0}
        dcp.load(state, checkpoint_id=f"{folder}/backbone")
        set_state_dict(backbone, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        load_head(head, f"{folder}/head", head_optimizer)
        first = state["epoch"]
    sampler = DistributedSampler(digits.train)
    for epoch in range(first, epochs):
        sampler.set_epoch(epoch)
        for images, labels in DataLoader(digits.train, digits.BATCH // dist.get_world_size(), sampler=sampler):
            optimizer.zero_grad()
            head_optimizer.zero_grad()
            for half, more in ((slice(0, None, 2), True), (slice(1, None, 2), False)):
                backbone.set_requires_gradient_sync(not more)
                with head.accumulate(more):
                    (head(backbone(images[half]), labels[half]) / 2).backward()
            clip_grad_norm_([*backbone.parameters(), *head.parameters()], 5.0, head)  # PyTorch's refuses the mixture
            optimizer.step()
            head_optimizer.step()
    model_state, optimizer_state = get_state_dict(backbone, optimizer)
    state = {"model": model_state, "optimizer": optimizer_state, "epoch": epochs}
    dcp.save(state, checkpoint_id=f"{folder}/backbone")
    save_head(head, f"{folder}/head", head_optimizer)  # DCP would keep the classes of one rank
    return backbone, head


dist.init_process_group("gloo")
digits.check("FSDP2 next to a ShardedHead", train)
dist.destroy_process_group()
