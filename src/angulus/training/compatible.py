"""Backward-compatible training: the features of a new model also pass through the classes of an old one, frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from angulus.core.checks import InputError
from angulus.core.contract import Contract
from angulus.data.sets.images import Images
from angulus.distributed.collectives import total
from angulus.distributed.runtime import Ranks
from angulus.heads.saving import Head
from angulus.heads.sharded import ShardedHead
from angulus.losses.objective import FEATURE_TERMS, Objective
from angulus.models.artifact import Model
from angulus.training.batches import rank_share

_BATCH = 256  # images that the old model embeds at a time


@dataclass(frozen=True, eq=False)
class OldClasses:
    """The influence loss λ · L(features, old class vectors), which moves the features alone.

        total loss = L(new head) + λ · L(old head)

    Source: Y. Shen et al., "Towards Backward-Compatible Representation Learning", CVPR 2020, Eq. 4 (the loss) and Sec.
    3.3 (class means of old features for classes that the old model never saw).
    Differs: old classes enter by direction only, since galleries are compared by cosine.
    """

    head: Head  # frozen; the classes of the new training, as the old model sees them
    weight: float  # λ
    model: str  # fingerprint of the old model

    @staticmethod
    def of(head: Head, vectors: Tensor, weight: float, model: str) -> OldClasses:
        """Fill a head with the old model's class vectors [C, d] and freeze it."""
        own = head.classes if isinstance(head, ShardedHead) else range(len(head.weight))
        with torch.no_grad():
            head.weight.copy_(vectors[own.start : own.stop])
        return OldClasses(head.requires_grad_(False), weight, model)

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """λ · L, the mean over the batch of all ranks."""
        return self.weight * self.head(features, labels)  # type: ignore[no-any-return]

    def state(self) -> dict[str, object]:
        """For a checkpoint: which model it is, and what its objective counts or keeps, as on every rank."""
        return {"model": self.model, "objective": self.head.objective.state_dict()}


def influence(objective: Objective) -> Objective:
    """The loss over the old classes: the training's own, without what does not compare features with classes.

    Class vectors are unit vectors, one per class, without biases; center loss, cross-batch memory and, next to a
    cross-entropy, penalties are left out, as the new head has them already.

    >>> from angulus import losses
    >>> print(influence(losses.softmax() + losses.ring_loss(lam=0.01)))
    softmax cross-entropy on unit weights; radius ‖x‖, the feature's own norm
    """
    changes: dict[str, Any] = dict.fromkeys(FEATURE_TERMS)
    if objective.radius is not None:
        changes["penalties"] = ()
    return objective.replace(weights="unit", bias=False, subcenters=None, **changes)


def refuse_other(old: Model, embedding_size: int, source: object) -> None:
    """Refuse an old model whose features have another size than the new ones."""
    if old.config.embedding_size != embedding_size:
        raise InputError(
            f"compatible_with: features of {source} have {old.config.embedding_size} numbers, and backbone."
            f"embedding_size is {embedding_size}: one gallery needs one size; set backbone.embedding_size="
            f"{old.config.embedding_size}, or train freely and map the old vectors with angulus upgrade"
        )


def class_vectors(
    old: Model, images: Images, contract: Contract, classes: str, ranks: Ranks, device: torch.device, source: object
) -> Tensor:
    """Unit vectors [C, d] of the classes of a training, as the old model sees them; every rank calls it.

    A class that the old model was trained on, by its name, has its class weight; any other, the mean of its images'
    unit features under the old model.

    Args:
        classes: "auto"; "weights": of all classes; or "means": of all classes.
        contract: of the new training; the old model embeds its images only if both align faces the same way.

    Raises:
        InputError: "weights" of a model without them or with others, images that the old model cannot embed, a class
            without direction.
    """
    names = images.class_names
    vectors = torch.full((len(names), old.config.embedding_size), torch.nan)
    stored = old.classifier
    if classes != "means" and stored is not None and stored.weight.ndim == 2:  # sub-centres: the mean is one vector
        row_of = {name: row for row, name in enumerate(stored.names)}
        known = [number for number, name in enumerate(names) if name in row_of]
        vectors[known] = stored.weight[[row_of[names[number]] for number in known]].float()
    missing = vectors[:, 0].isnan()
    if classes == "weights" and missing.any():
        raise InputError(_no_weights(old, names, missing, source))
    if missing.any():
        _refuse_other_images(old, images, contract, source)
        vectors[missing] = _means(old, images, missing, ranks, device)[missing]
    vectors = F.normalize(vectors.double(), dim=1).float()
    if bad := [names[number] for number in (~vectors.isfinite().all(1) | ~vectors.any(1)).nonzero()[:, 0].tolist()]:
        raise InputError(
            f"compatible_with: {source} gives {len(bad)} of the {len(names)} classes no direction ({bad[0]!r}): the "
            "mean of its features is zero, NaN or infinite; leave that class out, or use another model"
        )
    return vectors


def _means(old: Model, images: Images, wanted: Tensor, ranks: Ranks, device: torch.device) -> Tensor:
    """The mean unit feature of each wanted class [C, d], of the images of all ranks; other rows are zero."""
    rows = rank_share(wanted[images.labels].nonzero()[:, 0], ranks)
    sums = torch.zeros(len(wanted), old.config.embedding_size)
    old = old.with_flip("none").to(device)

    def add() -> None:
        for part in torch.split(rows, _BATCH):
            features = F.normalize(old.embed(images.pixels[part]).double(), dim=1).float().cpu()
            sums.index_add_(0, images.labels[part], features)

    ranks.run_on_all(add)
    return total(sums.to(device), ranks).cpu()


def _no_weights(old: Model, names: Sequence[str], missing: Tensor, source: object) -> str:
    fault = f"{source} holds no class weights"
    if old.classifier is not None:
        first = names[int(missing.nonzero()[0])]
        fault = f"{source} holds no single class weight of {int(missing.sum())} of the {len(names)} classes ({first!r})"
    way = "compatible_with.classes=auto, which takes the mean of a class's features for those"
    return f"compatible_with.classes is weights, but {fault}; use {way}"


def _refuse_other_images(old: Model, images: Images, contract: Contract, source: object) -> None:
    """Refuse images that the old model cannot embed as it embedded the gallery's."""
    want = [old.config.in_channels, *old.config.image_size]
    got = list(images.pixels.shape[1:])
    aligned = [str(each.template or "none") for each in (old.config.contract, contract)]
    fault = ""
    if want != got:
        fault = f"takes images {want}, and these are {got}"
    elif aligned[0] != aligned[1]:
        fault = f"takes images aligned by the template {aligned[0]}, and input.template is {aligned[1]}"
    if fault:
        raise InputError(
            "compatible_with: the old model must embed the training images of classes whose weights it lacks, and "
            f"{source} {fault}; prepare the images as it takes them, or give a model with the weights of all classes"
        )
