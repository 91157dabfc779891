"""What the loops share: scikit-learn's digits, a small backbone, a loss, and the check of a resumed run."""

import json
import os
import tempfile

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from angulus import losses

SIZE, CLASSES, BATCH = 32, 10, 64
EPOCHS = int(os.environ.get("EPOCHS", 4))
data = load_digits()
order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
images, labels = torch.tensor(data.images).float()[order, None] / 16, torch.tensor(data.target)[order]
train, test = TensorDataset(images[:1536], labels[:1536]), TensorDataset(images[1536:], labels[1536:])
STEPS = EPOCHS * len(train) // BATCH
# with what a loop can get wrong: a count of the optimiser steps (the margin grows with it) and centres
OBJECTIVE = losses.arcface(s=16, m=0.3).replace(ramp=losses.Ramp(margin=(0, 0.5), steps=STEPS)) + losses.center_loss()


def backbone() -> nn.Sequential:
    first = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, SIZE))


def check(loop, train):
    """Train at once, and again with a stop in the middle; print the accuracy and how far apart the two end."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    with tempfile.TemporaryDirectory() as folder:
        whole = train(EPOCHS, _first(f"{folder}/whole"))
        train(EPOCHS // 2, _first(f"{folder}/half"))
        resumed = train(EPOCHS, _first(f"{folder}/half"), resume=True)
        net, head = whole[0].eval(), whole[1].eval()  # in eval mode no figure of the head moves
        with torch.no_grad():
            logits = head.logits(net(test.tensors[0].to(head.weight.device))).cpu()
        found = {
            "loop": loop,
            "processes": dist.get_world_size() if dist.is_initialized() else 1,
            "device": head.weight.device.type,
            "accuracy": round(float((logits.argmax(1) == test.tensors[1]).float().mean()), 4),
            "steps": STEPS,
            "steps_counted_by_head": int(head.objective.ramp.counter.step),
            "difference_after_resume": max(_everywhere(_difference(whole, resumed))),
        }
    if rank == 0:
        print(json.dumps(found))


def _difference(one, other):
    """The largest difference of two runs in any weight or figure that this process holds."""
    pairs = [pair for mine, theirs in zip(one, other, strict=True) for pair in _pairs(mine, theirs)]
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


def _pairs(mine, theirs):
    one, other = ([getattr(each, "_local_tensor", each) for each in m.state_dict().values()] for m in (mine, theirs))
    return zip(one, other, strict=True)


def _first(value):
    """The value of rank 0."""
    return _everywhere(value)[0]


def _everywhere(value):
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
