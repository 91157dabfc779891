"""The features of images, and the classes that the head predicts, found by all processes together."""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist

from angulus.data.images import Images
from angulus.distributed.collectives import gather
from angulus.training.batches import share
from angulus.training.job import Job


@torch.no_grad()
def embed(job: Job, images: Images, batch_size: int, *, classify: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """(features [N, d] float32, predicted classes [N]) of images, in float32; every rank calls it and gets the same.

    Backbone and head are in evaluation mode afterwards. Without `classify` there are no predictions.
    """
    ranks, size = job.ranks, job.head.weight.shape[1]
    if ranks.count > 1:  # the running figures of batch norm are each rank's own: rank 0's count
        for buffer in job.backbone.buffers():
            dist.broadcast(buffer, 0, group=ranks.group)
    job.backbone.eval()
    job.head.eval()
    features, predictions = [], []
    for pixels in torch.split(images.pixels, batch_size):
        sizes = [len(part) for part in torch.arange(len(pixels)).tensor_split(ranks.count)]
        own = share(pixels, ranks).to(job.device)
        batch = job.backbone(job.contract(own)) if len(own) else torch.zeros(0, size, device=job.device)
        features.append(gather(batch, sizes, ranks).float().cpu())
        if classify:
            predictions.append(gather(job.head.logits(batch).argmax(dim=1), sizes, ranks).cpu())
    found = torch.cat(predictions) if classify else torch.empty(0, dtype=torch.int64)
    return torch.cat(features).numpy(), found.numpy()
