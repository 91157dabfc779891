"""Plain PyTorch: autocast, a gradient scaler on a GPU, gradient accumulation, clipping, one checkpoint file."""

import digits
import torch
from torch.utils.data import DataLoader

from angulus import DenseHead

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALF = torch.float16 if DEVICE == "cuda" else torch.bfloat16  # bfloat16 needs no scaler


def train(epochs, checkpoint, resume=False):
    torch.manual_seed(0)
    backbone = digits.backbone().to(DEVICE)
    head = DenseHead(digits.SIZE, digits.CLASSES, digits.OBJECTIVE).to(DEVICE)
    parameters = [*backbone.parameters(), *head.parameters()]  # the class weights are trained too
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    scaler = torch.amp.GradScaler(DEVICE, enabled=torch.float16 == HALF)
    parts = {"backbone": backbone, "head": head, "optimizer": optimizer, "scaler": scaler}
    first = 0
    if resume:
        state = torch.load(checkpoint, map_location=DEVICE, weights_only=True)
        first = state.pop("epoch")
        for name, part in parts.items():
            part.load_state_dict(state[name])
    for _ in range(first, epochs):
        for images, labels in DataLoader(digits.train, digits.BATCH):
            micro_batches = list(zip(images.to(DEVICE).chunk(4), labels.to(DEVICE).chunk(4), strict=True))
            optimizer.zero_grad()
            for number, (pixels, targets) in enumerate(micro_batches, start=1):
                with torch.autocast(DEVICE, HALF):
                    features = backbone(pixels)
                with head.accumulate(number < len(micro_batches)):  # the figures move once per optimiser step
                    loss = head(features, targets) / len(micro_batches)  # in float32, under autocast or not
                scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(parameters, 5.0)
            scaler.step(optimizer)
            scaler.update()
    head.check()  # on a GPU, errors of a batch come late: raise them before they are saved
    torch.save({"epoch": epochs, **{name: part.state_dict() for name, part in parts.items()}}, checkpoint)
    return backbone, head


digits.check("plain PyTorch", train)
