"""DistributedDataParallel around the backbone, a ShardedHead next to it: torchrun --nproc-per-node 2 ddp_sharded.py"""

import digits
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from angulus import ShardedHead
from angulus.heads.clipping import clip_grad_norm_
from angulus.heads.saving import load_head, save_head


def train(epochs, folder, resume=False):
    torch.manual_seed(0)
    backbone = digits.backbone()
    network = DistributedDataParallel(backbone)
    head = ShardedHead(digits.SIZE, digits.CLASSES, digits.OBJECTIVE)  # after init_process_group
    # two optimisers: that of the backbone is the same on all ranks, that of the head is not
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1, momentum=0.9)
    head_optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9)
    first = 0
    if resume:
        state = torch.load(f"{folder}/backbone.pt", weights_only=True)
        backbone.load_state_dict(state["backbone"])
        optimizer.load_state_dict(state["optimizer"])
        load_head(head, f"{folder}/head", head_optimizer)  # also on another number of processes
        first = state["epoch"]
    sampler = DistributedSampler(digits.train)
    for epoch in range(first, epochs):
        sampler.set_epoch(epoch)
        for images, labels in DataLoader(digits.train, digits.BATCH // dist.get_world_size(), sampler=sampler):
            optimizer.zero_grad()
            head_optimizer.zero_grad()
            with network.no_sync(), head.accumulate():  # the head is outside DDP, so say it to both
                (head(network(images[::2]), labels[::2]) / 2).backward()
            (head(network(images[1::2]), labels[1::2]) / 2).backward()
            clip_grad_norm_([*backbone.parameters(), *head.parameters()], 5.0, head)  # PyTorch's sees one shard
            optimizer.step()
            head_optimizer.step()
    save_head(head, f"{folder}/head", head_optimizer)  # every rank calls it, and writes its classes
    if dist.get_rank() == 0:
        state = {"backbone": backbone.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epochs}
        torch.save(state, f"{folder}/backbone.pt")
    dist.barrier()
    return backbone, head


dist.init_process_group("gloo")
digits.check("DDP next to a ShardedHead", train)
dist.destroy_process_group()
