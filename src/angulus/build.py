"""From a recipe to the objects that it names."""

from __future__ import annotations

import torch
from torch import nn

from angulus import artifact, backbones, checks, data
from angulus.backbones.layers import UnitFeatures
from angulus.benchmarks.settings import place
from angulus.contract import Contract, Preprocessing
from angulus.data.images import Images, Splits, mean_image
from angulus.heads.dense import DenseHead
from angulus.losses import from_recipe
from angulus.metrics import quality
from angulus.recipe import Recipe
from angulus.training.loop import Job


def splits(recipe: Recipe) -> Splits:
    """The data set of a recipe."""
    root = None if recipe.data.root is None else place(recipe.data.root)
    return data.load(recipe.data.name, root=root, download=recipe.data.download, **recipe.data.options)


def job(recipe: Recipe, images: Splits) -> Job:
    """Network, head and settings, with weights drawn from the recipe's seed; refuses what training would end in."""
    quality.low_count(len(images.test), recipe.evaluation.low_fraction)
    torch.manual_seed(recipe.training.seed)
    _, channels, *sides = images.train.pixels.shape
    recipe.input.check(images.train.pixels[:1])
    if recipe.augment is not None and channels != 3:
        raise checks.InputError(f"augment takes images of three channels; {images.name} has {channels}: leave it out")
    backbone = backbones.build(
        recipe.backbone.name,
        in_channels=channels,
        image_size=tuple(sides),
        embedding_size=recipe.backbone.embedding_size,
        **recipe.backbone.options,
    )
    objective = from_recipe(recipe.objective)
    if recipe.backbone.normalize:
        if objective.reads_norms:
            raise checks.InputError(
                f"backbone.normalize gives every feature length 1, and {objective.reads_norms[0]} needs the length; "
                "leave backbone.normalize out: the head normalises where its loss says so"
            )
        backbone = nn.Sequential(backbone, UnitFeatures())
    head = DenseHead(
        recipe.backbone.embedding_size,
        images.train.num_classes,
        objective,
        impl=recipe.head.impl,
        products=torch.bfloat16 if recipe.head.products == "bfloat16" else None,
    )
    where = device(recipe.training.device)
    contract = preprocessing(recipe.input, images.train).to(where)
    return Job(backbone, head, contract, images.train, recipe.training, where, recipe.augment)


def preprocessing(contract: Contract, images: Images) -> Preprocessing:
    """The contract, with the mean of the training images where it takes that off."""
    return Preprocessing(contract, mean_image(images) if contract.normalize == "mean_image" else None)


def config(recipe: Recipe, images: Splits) -> artifact.Config:
    """What the trained model's folder says of it."""
    return artifact.Config(
        backbone=recipe.backbone.name,
        in_channels=images.train.pixels.shape[1],
        image_size=tuple(images.train.pixels.shape[2:]),
        embedding_size=recipe.backbone.embedding_size,
        options=recipe.backbone.options,
        normalize=recipe.backbone.normalize,
        contract=recipe.input,
        about={"recipe": recipe.name, "data": images.source, "seed": recipe.training.seed},
    )


def device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise checks.InputError(f"training.device {name!r} cannot be used here; use auto or cpu") from error
    return chosen
