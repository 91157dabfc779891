"""torch.compile of the backbone; it needs a C++ compiler, such as g++, and on a GPU Triton."""

import digits
import torch
from torch.utils.data import DataLoader

from angulus import DenseHead


def train(epochs, checkpoint, resume=False):
    torch.manual_seed(0)
    backbone = digits.backbone()
    backbone.compile()  # in place, so that no name in state_dict begins with "_orig_mod."; the head stays as it is
    head = DenseHead(digits.SIZE, digits.CLASSES, digits.OBJECTIVE)
    optimizer = torch.optim.SGD([*backbone.parameters(), *head.parameters()], lr=0.05, momentum=0.9)
    first = 0
    if resume:
        state = torch.load(checkpoint, weights_only=True)
        first = state["epoch"]
        for name, part in {"backbone": backbone, "head": head, "optimizer": optimizer}.items():
            part.load_state_dict(state[name])
    for _ in range(first, epochs):
        for images, labels in DataLoader(digits.train, digits.BATCH, drop_last=True):  # one size: compiled once
            optimizer.zero_grad()
            head(backbone(images), labels).backward()
            optimizer.step()
    state = {"backbone": backbone.state_dict(), "head": head.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({"epoch": epochs, **state}, checkpoint)
    return backbone, head


digits.check("torch.compile", train)
