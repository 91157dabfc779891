"""A learned map of an old model's vectors to a new model's, so that stored vectors need no images to be upgraded."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from angulus.core import checks, files, limits
from angulus.core.checks import InputError
from angulus.core.contract import describe_model, mapped_name
from angulus.core.embeddings import Embeddings

KINDS = ("orthogonal", "mlp")
FORMAT = 1
_META = "angulus"  # the key of the file's metadata
_WIDER = 2  # times as many hidden numbers as the larger vector has
_BATCH, _MOST_PASSES, _PATIENCE, _RATE = 256, 100, 10, 1e-3
_TUNED = 0.1  # of the people fitted on, who decide when the training of an MLP ends
_ROWS = 65_536  # mapped at a time


@dataclass(frozen=True, eq=False)
class VectorMap:
    """Unit vectors of an old model in, unit vectors comparable with a new model's out.

    Attributes:
        kind: "orthogonal": x R with R [d_old, d_new] of orthonormal rows or columns; "mlp": that plus a hidden layer.
        old, new: the models and flip rules, as embeddings name them.
        weights: the tensors.
    """

    kind: str
    old: str
    new: str
    weights: dict[str, Tensor]

    @property
    def name(self) -> str:
        """What mapped vectors are called in galleries and calibrations; another map has another name."""
        digits = hashlib.sha256(safetensors.torch.save(self.weights)).hexdigest()[:8]
        return mapped_name(self.old, self.new, digits)

    @property
    def sizes(self) -> tuple[int, int]:
        """D of the old model and of the new one."""
        old, new = self.weights["rotation"].shape
        return old, new

    @torch.no_grad()
    def __call__(self, vectors: NDArray[np.floating]) -> NDArray[np.float32]:
        """Mapped vectors [N, d_new] of length 1, of vectors [N, d_old]."""
        if vectors.ndim != 2 or vectors.shape[1] != self.sizes[0]:
            raise InputError(f"vectors to map must be [N, {self.sizes[0]}]; got {list(vectors.shape)}")
        parts = [np.empty((0, self.sizes[1]), np.float32)]
        for start in range(0, len(vectors), _ROWS):
            mapped = _mapped(self.weights, _unit(vectors[start : start + _ROWS])).double()
            parts.append(F.normalize(mapped, dim=1).float().numpy())
        return np.concatenate(parts)

    def of(self, embeddings: Embeddings) -> Embeddings:
        """Embeddings of the old model as mapped vectors, with their ids, labels and groups."""
        columns = {name: getattr(embeddings, name) for name in ("labels", "groups", "media", "templates")}
        models = np.full(len(embeddings), self.name)
        source = f"{embeddings.source}, mapped"
        return Embeddings(self(embeddings.vectors), embeddings.ids, models=models, source=source, **columns)

    def write(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all."""
        about = {"format": FORMAT, "kind": self.kind, "old": self.old, "new": self.new}
        data = safetensors.torch.save(self.weights, {_META: json.dumps(about)})
        files.write_atomically(path, lambda file: file.write(data))

    @staticmethod
    def read(path: Path) -> VectorMap:
        """A map that was written, or what is wrong with the file; no code runs."""
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                about = limits.parse_json((file.metadata() or {})[_META], "its description")
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
            if about["format"] != FORMAT or not all(isinstance(about[name], str) for name in ("kind", "old", "new")):
                raise ValueError("another version wrote it")
            made = VectorMap(checks.choice("its kind", about["kind"], KINDS), about["old"], about["new"], weights)
            shapes = {name: tuple(value.shape) for name, value in weights.items()}
            if shapes != _shapes(made.kind, *made.sizes) or not all(map(_is_sound, weights.values())):
                raise ValueError("its numbers must be finite, and as many as its kind has")
            return made
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
            raise InputError(
                f"{path} is not a map of vectors ({checks.one_line(error):.200}); give what angulus upgrade wrote"
            ) from error


def fit(old: Embeddings, new: Embeddings, *, kind: str = "orthogonal", seed: int = 0) -> VectorMap:
    """Fit a map on the vectors of the same images under both models.

        orthogonal: R = U Vᵀ of the singular value decomposition AᵀB = U S Vᵀ, which maximises Σ_i ⟨a_i R, b_i⟩ over
        unit vectors a_i, b_i; angles between old vectors stay as they are if d_new >= d_old.
        mlp: starts there and minimises the mean of 1 − cos(map(a_i), b_i), until it no longer falls on one in ten of
        the people.

    Args:
        old, new: of the same ids, in any order, and of one model each.
        seed: of the order and of the people set apart, for an MLP.

    Raises:
        InputError: other ids, one model twice, a model that is not named, fewer images than the vectors have numbers.

    Source: P. H. Schönemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 31, 1966.
    """
    checks.choice("kind", kind, KINDS)
    checks.integer("seed", seed, low=0)
    rows = _matched(old, new)
    need = max(old.vectors.shape[1], new.vectors.shape[1])
    if len(old) < need:
        raise InputError(
            f"a map of vectors of {old.vectors.shape[1]} numbers to {new.vectors.shape[1]} needs at least {need:,} "
            f"images under both models, else it is not determined; got {len(old):,}; embed more images with both"
        )
    a, b = _unit(old.vectors), _unit(new.vectors[rows])
    left, _, right = torch.linalg.svd(a.double().T @ b.double(), full_matrices=False)
    weights = {"rotation": (left @ right).float()}
    if kind == "mlp":
        weights = _train(a, b, weights["rotation"], old, seed)
    return VectorMap(kind, str(old.model), str(new.model), weights)


def _matched(old: Embeddings, new: Embeddings) -> NDArray[np.int64]:
    """The rows of `new` that belong to the rows of `old`."""
    for embeddings in (old, new):
        if embeddings.model is None:
            raise InputError(
                f"{embeddings.source} must say which model made it; write it with angulus embed, or give images to "
                "embed with both models"
            )
    if old.model == new.model:
        raise InputError(
            f"old and new must be two models; {old.source} and {new.source} are both of {describe_model(old.model)}"
        )
    ids, others = set(old.ids.tolist()), set(new.ids.tolist())
    if ids != others:
        only = sorted(ids - others), sorted(others - ids)
        counts = f"{len(only[0]):,} are in {old.source} alone, {len(only[1]):,} in {new.source} alone"
        first = checks.shown((only[0] or only[1])[0])
        raise InputError(
            f"{old.source} and {new.source} must hold vectors of the same images; {counts} ({first}); embed the same "
            "images with both models"
        )
    return new.rows(old.ids, old.source)


def split_people(embeddings: Embeddings, share: float, seed: int) -> NDArray[np.bool_]:
    """Which rows [N] show a drawn `share` of the people; images of unknown people are in no share."""
    names = np.empty(0) if embeddings.labels is None else np.unique(embeddings.labels[embeddings.labelled])
    count = int(np.ceil(share * len(names)))
    if count < 2 or len(names) - count < 2:
        raise InputError(
            f"{embeddings.source} must show four people or more, by its labels, so that some can be held out of the "
            f"fit; it shows {len(names)}; embed records or a folder with one folder of images per person"
        )
    drawn = np.random.default_rng((seed, 0x3A)).choice(names, count, replace=False)
    assert embeddings.labels is not None
    return np.asarray(np.isin(embeddings.labels, drawn))


def _train(a: Tensor, b: Tensor, rotation: Tensor, old: Embeddings, seed: int) -> dict[str, Tensor]:
    """The weights of an MLP, which starts as the rotation: its last layer is zero at first."""
    tuned = torch.from_numpy(split_people(old, _TUNED, seed))
    generator = torch.Generator().manual_seed(seed)
    weights = {name: torch.zeros(shape) for name, shape in _shapes("mlp", *rotation.shape).items()}
    weights["rotation"] = rotation.clone()
    weights["hidden.weight"] = torch.randn(weights["hidden.weight"].shape, generator=generator)  # of unit vectors
    optim = torch.optim.Adam([value.requires_grad_() for value in weights.values()], lr=_RATE)
    best, kept, waited = math.inf, {}, 0
    fitted = (~tuned).nonzero()[:, 0]
    for _ in range(_MOST_PASSES):
        with torch.no_grad():
            now = _loss(weights, a[tuned], b[tuned]).item()
        waited += 1
        if now < best:
            best, kept, waited = now, {name: value.detach().clone() for name, value in weights.items()}, 0
        if waited >= _PATIENCE:
            break
        for rows in torch.split(fitted[torch.randperm(len(fitted), generator=generator)], _BATCH):
            optim.zero_grad()
            _loss(weights, a[rows], b[rows]).backward()  # type: ignore[no-untyped-call]
            optim.step()
    return kept


def _loss(weights: Mapping[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
    return (1 - F.cosine_similarity(_mapped(weights, a), b, dim=1)).mean()


def _mapped(weights: Mapping[str, Tensor], unit: Tensor) -> Tensor:
    """X R, plus the correction of the hidden layer if there is one."""
    mapped = unit @ weights["rotation"]
    if "out.weight" in weights:
        hidden = F.gelu(F.linear(unit, weights["hidden.weight"], weights["hidden.bias"]))
        mapped = mapped + F.linear(hidden, weights["out.weight"], weights["out.bias"])
    return mapped


def _shapes(kind: str, old: int, new: int) -> dict[str, tuple[int, ...]]:
    hidden = _WIDER * max(old, new)
    layers = {"hidden.weight": (hidden, old), "hidden.bias": (hidden,), "out.weight": (new, hidden), "out.bias": (new,)}
    return {"rotation": (old, new), **(layers if kind == "mlp" else {})}


def _is_sound(value: Tensor) -> bool:
    return value.dtype == torch.float32 and bool(value.isfinite().all())


def _unit(vectors: NDArray[np.floating]) -> Tensor:
    return F.normalize(torch.from_numpy(np.asarray(vectors, dtype=np.float64)), dim=1).float()
