"""What class sampling loses against all classes: the sum of the negatives, the gradient and the hardest negative.

    python benchmarks/sampling.py EMBEDDINGS [--rate 0.1 ...] [--batch 16] [--draws 200] [--save]

EMBEDDINGS is a file of features with labels (.npz, .safetensors or .parquet), as `angulus embed` writes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from angulus import ClassSampling, DenseHead, losses
from angulus.core import checks
from angulus.core.embeddings import Embeddings
from angulus.heads.classes import class_means
from angulus.heads.sampling import sample
from angulus.kernels.reduction import lengths
from harness import options, run, show, store


@dataclass(frozen=True)
class Sampled:
    """How sampled steps compare with steps that see all classes, over the batches and draws.

    Attributes:
        rate: share of the classes drawn.
        corrected: whether classes were weighted by the inverse of their probability.
        ratio: mean of the sampled Σ_{j≠y} e^{z_j} over the full one; 1 where it is unbiased.
        ratio_error: standard error of that mean.
        gradient_cos: mean cosine of the features' gradient with the full one's.
        recall: share of rows whose hardest negative is in the sample.
    """

    rate: float
    corrected: bool
    ratio: float
    ratio_error: float
    gradient_cos: float
    recall: float


def compare(
    features: Tensor, labels: Tensor, rates: Sequence[float], *, s: float = 32.0, batch: int = 128, draws: int = 50
) -> Iterator[Sampled]:
    """Compare, on real features: class weights are the classes' mean directions, the loss is NormFace at s.

    Args:
        features: [N, d].
        labels: [N], every class of [0, C) among them.
        rates: shares of the classes.
        s: scale of the cosines.
        batch: rows a step; the batches go through the features in a random order.
        draws: steps for each rate.
    """
    checks.integer("draws", draws, low=2)
    classes = int(labels.max()) + 1
    objective = losses.normface(s, learn=False)
    full = DenseHead(features.shape[1], classes, objective)
    with torch.no_grad():
        full.weight.copy_(class_means(features, labels, classes))
    order = torch.Generator().manual_seed(0)
    batches = [torch.randperm(len(features), generator=order)[:batch] for _ in range(draws)]
    expected = [_step(full, features[rows], labels[rows]) for rows in batches]
    for rate in rates:
        for corrected in (False, True):
            sampling = ClassSampling(rate, corrected)
            part = DenseHead(features.shape[1], classes, objective, sampling=sampling)
            part.load_state_dict(full.state_dict())
            torch.manual_seed(0)
            ratios, cosines, hits = [], [], []
            for rows, (sums, gradient) in zip(batches, expected, strict=True):
                own_sums, own_gradient = _step(part, features[rows], labels[rows])
                ratios.append(own_sums / sums)
                cosines.append(torch.cosine_similarity(own_gradient, gradient))
                hits.append(_hardest_drawn(full, features[rows], labels[rows], sampling))
            means = torch.stack([ratio.mean() for ratio in ratios])
            error = float(means.std() / len(means) ** 0.5)
            recall = float(torch.cat(hits).float().mean())
            yield Sampled(rate, corrected, float(means.mean()), error, float(torch.cat(cosines).mean()), recall)


def _step(head: DenseHead, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(Σ_{j≠y} e^{z_j − t} of each row, the gradient of the features)."""
    leaf = features.clone().requires_grad_()
    loss = head(leaf, labels, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return torch.expm1(loss.detach()), gradient


@torch.no_grad()
def _hardest_drawn(head: DenseHead, features: Tensor, labels: Tensor, sampling: ClassSampling) -> Tensor:
    """Whether each row's hardest negative is among a sample's classes, [B] of bool."""
    cosines = features @ (head.weight / lengths(head.weight)[:, None]).T
    hardest = cosines.scatter(1, labels[:, None], -torch.inf).argmax(dim=1)
    numbers = torch.arange(len(head.weight), dtype=features.dtype)[:, None]
    drawn = sample(sampling, numbers, None, labels).weight.flatten().long()
    return torch.isin(hardest, drawn)


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", batch=16, draws=200)
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("--rate", type=float, nargs="+", default=[0.1, 0.3, 1.0], help="shares of the classes")
    asked = parser.parse_args(arguments)
    read = Embeddings.read(asked.embeddings)
    if read.labels is None:
        raise checks.InputError(f"{asked.embeddings} has no labels; class sampling needs the identity of each row")
    names, labels = np.unique(read.labels[read.labelled], return_inverse=True)
    features = torch.from_numpy(np.array(read.vectors[read.labelled], dtype=np.float32))
    shape = {"rows": len(labels), "classes": len(names), "batch": asked.batch, "draws": asked.draws}
    rows = list(compare(features, torch.from_numpy(labels), asked.rate, batch=asked.batch, draws=asked.draws))
    unknown = f" ({len(read) - len(labels):,} of unknown people left out)" if len(labels) < len(read) else ""
    show(
        f"{len(labels):,} rows{unknown} of {len(names):,} classes, {asked.draws} steps of {asked.batch}",
        [
            {
                "rate": f"{row.rate:g}",
                "corrected": "yes" if row.corrected else "no",
                "sum / full sum": f"{row.ratio:.3f} ± {row.ratio_error:.3f}",
                "cos of gradients": f"{row.gradient_cos:.3f}",
                "hardest negative drawn": f"{100 * row.recall:.1f} %",
            }
            for row in rows
        ],
    )
    if asked.save:
        store("sampling", [shape | asdict(row) for row in rows])


if __name__ == "__main__":
    run(main)
