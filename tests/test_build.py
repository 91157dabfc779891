"""From a recipe to objects: what the seed decides, unit features, and what is refused before training."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import tiny
from angulus.core.checks import InputError
from angulus.data import Images, Splits
from angulus.experiments import build
from angulus.heads.dense import DenseHead
from angulus.heads.sharded import ShardedHead


def test_a_job_is_what_the_recipe_says() -> None:
    job = build.job(tiny.validated("objective.s=7", "backbone.embedding_size=5", "input.mean=10"), tiny.splits())
    assert job.head.weight.shape == (10, 5)
    assert job.head.objective.scale == 7
    assert job.backbone.embedding_size == 5
    assert job.contract.contract.mean == 10
    assert job.images is tiny.splits().train
    assert job.settings == tiny.validated().training
    assert job.device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_weights_follow_the_recipes_seed_and_nothing_drawn_before() -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        job = build.job(tiny.validated(f"training.seed={seed}"), tiny.splits())
        return {**job.backbone.state_dict(), "head": job.head.weight}

    torch.manual_seed(1)
    first = weights(0)
    torch.manual_seed(2)
    torch.rand(5)
    assert tiny.differences(first, weights(0)) == []
    other = weights(1)
    assert not torch.equal(first["layers.0.weight"], other["layers.0.weight"])
    assert not torch.equal(first["head"], other["head"])


def test_a_head_may_be_sharded_on_one_process_too_from_the_same_weights() -> None:
    dense, sharded, never = (
        build.job(tiny.validated(f"head.sharded={value}"), tiny.splits()).head for value in ("auto", "true", "false")
    )
    assert [type(head) for head in (dense, sharded, never)] == [DenseHead, ShardedHead, DenseHead]
    assert torch.equal(dense.weight, sharded.weight)


def test_normalize_gives_the_head_unit_features_with_the_same_weights() -> None:
    pixels = torch.rand(6, 1, 8, 8)
    plain, unit = (
        build.job(tiny.validated(f"backbone.normalize={value}"), tiny.splits()).backbone.eval()
        for value in ("false", "true")
    )
    torch.testing.assert_close(unit(pixels), torch.nn.functional.normalize(plain(pixels)))
    assert not torch.allclose(plain(pixels).norm(dim=1), torch.ones(6), atol=0.01)


def test_losses_that_need_counts_get_those_of_the_training_images() -> None:
    chosen = tiny.validated("objective={kind: dynamic_margin, weighting: {kind: class_weights}}")
    images = tiny.splits()
    assert chosen.objective.needs_counts
    spec = build.job(chosen, images).head.objective.spec
    counts = tuple(torch.bincount(images.train.labels, minlength=10).tolist())
    assert spec.margin.counts == spec.weighting.counts == counts
    given = tiny.validated("objective={kind: dynamic_margin, counts: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}")
    assert build.job(given, images).head.objective.spec == given.objective


def test_classes_without_images_or_all_alike_have_no_dynamic_margins() -> None:
    chosen, names = tiny.validated("objective={kind: dynamic_margin}"), ("a", "b")
    for labels, said in (([0, 0, 0, 0], "counts\\[1\\] must be"), ([0, 1, 0, 1], "all 2 have 2")):
        images = Images(tiny.splits().train.pixels[:4], torch.tensor(labels), names)
        with pytest.raises(InputError, match=said):
            build.job(chosen, Splits("two", images, images, "two classes"))


@pytest.mark.parametrize(
    ("objective", "what"),
    [
        ("{kind: softmax}", "radius ‖x‖"),
        ("{kind: normface, ring_loss: {lam: 0.1}}", "ring"),
        ("{kind: adaface}", "target"),
    ],
)
def test_normalize_beside_what_reads_norms_is_refused(objective: str, what: str) -> None:
    chosen = tiny.validated("backbone.normalize=true", f"objective={objective}")
    with pytest.raises(InputError, match=f"backbone.normalize gives every feature length 1, .*{what}"):
        build.job(chosen, tiny.splits())


def test_images_need_not_be_square() -> None:
    images = Images(torch.zeros(30, 1, 16, 12, dtype=torch.uint8), torch.zeros(30, dtype=torch.int64), ("one", "other"))
    splits = Splits("strips", images, images, "made here")
    job = build.job(tiny.validated(), splits)
    assert job.backbone(job.contract(images.pixels)).shape[0] == 30
    assert build.config(tiny.validated(), splits).image_size == (16, 12)


def test_augmentation_and_contract_must_suit_the_images() -> None:
    with pytest.raises(InputError, match="augment takes images of three channels"):
        build.job(tiny.validated("augment={flip: 0.5}"), tiny.splits())
    with pytest.raises(InputError, match="pixels must be 99 high"):
        build.job(tiny.validated("input={size: [99, 99]}"), tiny.splits())


def test_a_test_set_too_small_to_split_is_refused() -> None:
    few = dataclasses.replace(tiny.splits(), test=tiny.splits(test=2).test)
    with pytest.raises(InputError, match=r"a split at 0.2 of 2 samples leaves low empty"):
        build.job(tiny.validated(), few)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("backbone.options={depth: 3}", "options of the backbone 'small' must be left out, since there are none; got"),
        ("objective={ring_loss: {lam: 0.1}}", "nothing here trains the class weights"),
        ("training.device=abacus", "training.device 'abacus' cannot be used here; use auto or cpu"),
    ],
)
def test_what_cannot_be_built_is_told(override: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        build.job(tiny.validated(override), tiny.splits())


def test_one_class_alone_is_refused() -> None:
    def alone(images: Images) -> Images:
        return Images(images.pixels, torch.zeros_like(images.labels), images.class_names[:1])

    whole = tiny.splits()
    one = dataclasses.replace(whole, train=alone(whole.train), test=alone(whole.test))
    with pytest.raises(InputError, match=r"training needs at least two classes; .* has 1: give each person"):
        build.job(tiny.validated(), one)


@pytest.mark.parametrize(("cuda", "mps", "chosen"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_fastest_device_that_there_is(
    cuda: bool, mps: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)  # tried on the device, which is not here
    assert build.device("auto").type == chosen
