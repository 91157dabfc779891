"""Accelerate: one process, or several by accelerate launch or torchrun."""

import digits
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from angulus import DenseHead


class Model(nn.Module):
    """One module that holds both, so that several processes wrap both in one DistributedDataParallel."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = digits.backbone(), DenseHead(digits.SIZE, digits.CLASSES, digits.OBJECTIVE)

    def forward(self, images, labels):
        return self.head(self.backbone(images), labels)


accelerator = Accelerator(gradient_accumulation_steps=4, mixed_precision="bf16", cpu=True)


def train(epochs, folder, resume=False):
    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loader = DataLoader(digits.train, digits.BATCH // 4 // accelerator.num_processes)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    head = accelerator.unwrap_model(model).head
    if resume:
        accelerator.load_state(folder)
    first = digits.EPOCHS // 2 if resume else 0  # register_for_checkpointing() keeps such a count, too
    for _ in range(first, epochs):
        for images, labels in loader:
            with accelerator.accumulate(model), head.accumulate(not accelerator.sync_gradients):
                accelerator.backward(model(images, labels))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 5.0)
                optimizer.step()
                optimizer.zero_grad()
    accelerator.save_state(folder)  # the head is a part of the model, its figures are buffers
    accelerator.free_memory()
    return accelerator.unwrap_model(model).backbone, head


digits.check("Accelerate", train)
accelerator.end_training()
