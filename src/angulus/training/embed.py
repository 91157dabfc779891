"""The features of images, and the classes that the head predicts, found by all processes together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional as F

from angulus.data.images import Images
from angulus.distributed.collectives import gather
from angulus.training.batches import share
from angulus.training.job import Job


class Embedded(NamedTuple):
    """What a model makes of N images.

    Attributes:
        features: [N, d] float32.
        predictions: [N], the classes of the largest logits.
        probabilities: [N], of two classes the second's; else 0.
        losses: [N], the softmax cross-entropy of the logits, without margins.
    """

    features: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray
    losses: np.ndarray


@torch.no_grad()
def embed(job: Job, images: Images, batch_size: int, *, predict: bool = True) -> Embedded:
    """Features and what the head predicts from them, in float32; without `predict` features alone.

    Every rank calls it and gets the same. Backbone and head are in evaluation mode afterwards.
    """
    ranks = job.ranks
    job.backbone.to(job.device).eval()
    job.head.to(job.device).eval()
    if ranks.count > 1:  # the running figures of batch norm are each rank's own: rank 0's count
        for buffer in job.backbone.buffers():
            dist.broadcast(buffer, 0, group=ranks.group)
    found: list[tuple[torch.Tensor, ...]] = []
    for start in range(0, len(images), batch_size):
        pixels, labels = (each[start : start + batch_size] for each in (images.pixels, images.labels))
        sizes = [len(part) for part in torch.arange(len(pixels)).tensor_split(ranks.count)]
        own, theirs = share(pixels, ranks).to(job.device), share(labels, ranks).to(job.device)
        features = job.backbone(job.contract(own)) if len(own) else own.new_zeros(0, job.head.embedding_size).float()
        parts = (features, *(_predicted(job, features, theirs, images.num_classes) if predict else ()))
        found.append(tuple(gather(part, sizes, ranks).cpu() for part in parts))
    features, *predicted = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    predictions, probabilities, losses = predicted or (np.empty(0, np.int64), np.empty(0), np.empty(0))
    return Embedded(features.astype(np.float32), predictions, probabilities, losses)


def _predicted(
    job: Job, features: torch.Tensor, labels: torch.Tensor, num_classes: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    logits = job.head.logits(features)
    second = (
        torch.softmax(logits.double(), dim=1)[:, -1] if num_classes == 2 else logits.new_zeros(len(logits)).double()
    )
    return logits.argmax(dim=1), second, F.cross_entropy(logits.float(), labels, reduction="none")
