"""Features of images, and the classes that the head predicts, computed by all processes together."""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional as F

from angulus.data.sets.images import Images
from angulus.distributed.collectives import gather
from angulus.training.batches import rank_share
from angulus.training.job import Job


class Embedded(NamedTuple):
    """A model's output for N images.

    Attributes:
        features: [N, d] float32.
        predictions: [N], the classes of the largest logits.
        probabilities: [N], of the second class if there are two; else 0.
        losses: [N], the softmax cross-entropy of the logits, without margins.
    """

    features: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray
    losses: np.ndarray


@torch.no_grad()
def extract_features(job: Job, images: Images, batch_size: int, *, predict: bool = True) -> Embedded:
    """Features and the head's predictions, in float32; without `predict` features alone.

    Every rank calls it and gets the same; an error on one, such as an unreadable file, is raised on all. Backbone and
    head are in evaluation mode afterwards.
    """
    ranks = job.ranks
    job.backbone.to(job.device).eval()
    job.head.to(job.device).eval()
    if ranks.count > 1:  # each rank has its own running figures of batch norm; use rank 0's
        for buffer in job.backbone.buffers():
            dist.broadcast(buffer, 0, group=ranks.group)
    batches: list[tuple[torch.Tensor, ...]] = []
    for rows in torch.split(torch.arange(len(images)), batch_size):
        sizes = [len(part) for part in rows.tensor_split(ranks.count)]
        own_rows = rank_share(rows, ranks)
        own = ranks.run_on_all(partial(_features, job, images, own_rows))
        labels = images.labels[own_rows].to(job.device)
        outputs = (own, *(_predict(job, own, labels, images.num_classes) if predict else ()))
        batches.append(tuple(gather(output, sizes, ranks).cpu() for output in outputs))
    features, *predicted = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
    predictions, probabilities, losses = predicted or (np.empty(0, np.int64), np.empty(0), np.empty(0))
    return Embedded(features.astype(np.float32), predictions, probabilities, losses)


def _features(job: Job, images: Images, rows: torch.Tensor) -> torch.Tensor:
    """Features of a contiguous, possibly empty, slice of rows."""
    if not len(rows):
        return torch.zeros(0, job.head.embedding_size, device=job.device)
    own = images.pixels[int(rows[0]) : int(rows[-1]) + 1].to(job.device)
    features: torch.Tensor = job.backbone(job.contract(own))
    return features


def _predict(
    job: Job, features: torch.Tensor, labels: torch.Tensor, num_classes: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    logits = job.head.logits(features)
    wide = logits if job.ranks.count > 1 else logits.cpu()  # a Mac's device has no float64
    if num_classes == 2:
        second = torch.softmax(wide.double(), dim=1)[:, -1]
    else:
        second = torch.zeros(len(wide), dtype=torch.float64, device=wide.device)
    return logits.argmax(dim=1), second, F.cross_entropy(logits.float(), labels, reduction="none")
