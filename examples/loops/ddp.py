"""DistributedDataParallel around backbone and head: torchrun --nproc-per-node 2 ddp.py"""

import digits
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from angulus import DenseHead


class Model(nn.Module):
    """One module that holds both: DDP averages the gradients of what it wraps, and calls what it wraps."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = digits.backbone(), DenseHead(digits.SIZE, digits.CLASSES, digits.OBJECTIVE)

    def forward(self, images, labels):
        return self.head(self.backbone(images), labels)


def train(epochs, checkpoint, resume=False):
    torch.manual_seed(0)
    model = DistributedDataParallel(Model())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    first = 0
    if resume:
        state = torch.load(checkpoint, weights_only=True)
        model.module.load_state_dict(state["model"])  # of the module, so that the names have no "module."
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"]
    sampler = DistributedSampler(digits.train)
    for epoch in range(first, epochs):
        sampler.set_epoch(epoch)
        for images, labels in DataLoader(digits.train, digits.BATCH // dist.get_world_size(), sampler=sampler):
            optimizer.zero_grad()
            with model.no_sync():  # the head knows by it that the step has another micro-batch
                (model(images[::2], labels[::2]) / 2).backward()
            (model(images[1::2], labels[1::2]) / 2).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
    if dist.get_rank() == 0:  # all ranks have the same weights and figures
        state = {"model": model.module.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epochs}
        torch.save(state, checkpoint)
    dist.barrier()
    return model.module.backbone, model.module.head


dist.init_process_group("gloo")
digits.check("DistributedDataParallel", train)
dist.destroy_process_group()
