"""A nested loss against a loop that computes each prefix by itself, and against the equation of the paper."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor

import angulus
from angulus import BackwardSGD, ClassSampling, DenseHead, InputError, SparseSGD, losses
from angulus.heads import deferred
from angulus.losses import Objective
from angulus.losses.serialize import from_mapping, to_mapping

B, C, D, SIZES = 9, 7, 8, (2, 5)
OBJECTIVES = {
    "arcface": losses.arcface(8.0, 0.3),
    "softmax with bias": losses.softmax(bias=True),
    "learned scale": losses.normface(8.0, learn=True),
    "quality of all batches": losses.adaface(8.0, h=0.9, rate=0.5),
    "curricular": losses.curricularface(8.0, 0.3),
    "norm penalty": losses.magface(8.0),
    "norm of all batches": losses.softmax() + losses.ring_loss(0.1),
    "centres": losses.softmax() + losses.center_loss(0.1),
    "a memory": losses.softmax() + losses.cross_batch_memory(12, 0.1),
    "sub-centres": losses.subcenter_arcface(8.0, 0.3, k=2),
    "hard negatives and inter-class": losses.mv_softmax(8.0, losses.margins.AdditiveAngle(0.3), t=0.2)
    + losses.iam(0.2),
    "over the batch": losses.proxy_anchor(),
    "sigmoids": losses.sphereface2("C", 8.0),
    "hard mining": losses.hm_softmax(8.0, 0.6),
}
ON_TRITON = ("arcface", "softmax with bias", "hard negatives and inter-class")  # slow in its interpreter


@pytest.fixture(autouse=True)
def _double() -> None:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(B, D, generator=generator), torch.randint(C, (B,), generator=generator)


def build(objective: Objective, **options: object) -> DenseHead:
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the room for so many classes in two dimensions
        return DenseHead(D, C, objective.replace(nested=SIZES), **options)  # type: ignore[arg-type]


def gradients(head: DenseHead, features: Tensor, labels: Tensor, reduction: str = "mean") -> tuple[Tensor, ...]:
    """The loss, and its gradients by the features and the parameters of the head."""
    features = features.clone().requires_grad_()
    loss = head(features, labels, reduction=reduction)
    found = torch.autograd.grad(loss.sum(), [features, *head.parameters()], allow_unused=True)
    return loss.detach(), *(torch.zeros(()) if each is None else each for each in found)


@pytest.mark.parametrize(
    ("name", "impl"),
    [(name, impl) for name in OBJECTIVES for impl in ("reference", "chunked")]
    + [(name, impl) for name in ON_TRITON for impl in ("fused", "blocked")],
)
def test_is_the_sum_over_prefixes(name: str, impl: str) -> None:
    if impl in ("fused", "blocked"):
        pytest.importorskip("triton")
    head = build(OBJECTIVES[name], impl=impl)
    parts = [(part.embedding_size, copy.deepcopy(part)) for part in head.objective.prefixes]
    parts.append((D, build(OBJECTIVES[name]).objective))
    parts[-1][1].prefixes = torch.nn.ModuleList()
    for step in range(2):  # figures move after the first
        features, labels = batch(step)
        leaf = features.clone().requires_grad_()
        weight, bias = (
            None if each is None else each.detach().clone().requires_grad_() for each in (head.weight, head.bias)
        )
        loss = sum(
            angulus.class_loss(leaf[:, :k], weight[..., :k], labels, bound, bias=bias, impl="reference")
            for k, bound in parts
        )
        loss.backward()
        found, by_features, by_weight, *rest = gradients(head, features, labels)
        torch.testing.assert_close(found, loss.detach())
        torch.testing.assert_close(by_features, leaf.grad)
        torch.testing.assert_close(by_weight, weight.grad)
        if bias is not None:
            torch.testing.assert_close(rest[0], bias.grad)
    for (_, bound), own in zip(parts, [*head.objective.prefixes, head.objective], strict=True):
        for key, value in bound.state_dict().items():
            torch.testing.assert_close(own.state_dict()[key], value, msg=key)


@pytest.mark.parametrize("name", ["sub-centres", "sigmoids"])
def test_what_a_triton_kernel_does_not_compute_is_refused(name: str) -> None:
    pytest.importorskip("triton")
    for impl in ("fused", "blocked"):
        with pytest.raises(InputError, match=f"impl='{impl}' .*use impl='chunked'"):
            build(OBJECTIVES[name], impl=impl)(*batch())


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_is_the_equation_of_the_paper(reduction: str) -> None:
    """L = Σ_m CE(W_{1:m} z_{1:m}; y), with logits s·cos θ."""
    features, labels = batch()
    head = build(losses.normface(8.0))
    rows = torch.zeros(B)
    for k in (*SIZES, D):
        unit = features[:, :k] / features[:, :k].norm(dim=1, keepdim=True)
        classes = head.weight[:, :k] / head.weight[:, :k].norm(dim=1, keepdim=True)
        rows = rows + torch.nn.functional.cross_entropy(8.0 * unit @ classes.T, labels, reduction="none")
    expected = {"mean": rows.mean(), "sum": rows.sum(), "none": rows}[reduction]
    torch.testing.assert_close(head(features, labels, reduction=reduction), expected)


def test_second_derivatives() -> None:
    features, labels = batch()
    head = build(losses.arcface(8.0, 0.3), impl="reference")

    def loss(x: Tensor, w: Tensor) -> Tensor:
        return torch.func.functional_call(head, {"weight": w}, (x, labels))

    point = features[:3].clone().requires_grad_(), head.weight.detach().clone().requires_grad_()
    labels = labels[:3]
    assert torch.autograd.gradgradcheck(loss, point, fast_mode=True)


@pytest.mark.parametrize("impl", ["chunked", "fused", "blocked"])
def test_an_update_within_backward_is_one_update_by_the_whole_gradient(impl: str) -> None:
    if impl != "chunked":
        pytest.importorskip("triton")
    heads = [build(losses.arcface(8.0, 0.3), impl=impl) for _ in range(2)]
    plain = torch.optim.SGD([heads[0].weight], 0.1, momentum=0.9, weight_decay=0.01)
    within = BackwardSGD(heads[1], 0.1, momentum=0.9, weight_decay=0.01)
    for step in range(3):
        for head, optimizer in zip(heads, (plain, within), strict=True):
            optimizer.zero_grad()
            head(*batch(step)).backward()
            optimizer.step()
        assert heads[1].weight.grad is None
        torch.testing.assert_close(heads[1].weight, heads[0].weight)
    heads[1](*batch()).backward()
    before = heads[1].weight.detach().clone()
    with pytest.raises(InputError, match="the second one before step"):
        heads[1](*batch()).backward()
    assert torch.equal(heads[1].weight, before)


def test_all_prefixes_see_the_same_sampled_classes() -> None:
    head = build(losses.cosface(8.0, 0.1), sampling=ClassSampling(0.5))
    features, labels = batch()
    labels = labels % 2
    head(features, labels).backward()
    gradient = head.weight.grad.coalesce()
    assert gradient.is_sparse
    assert len(gradient.indices()[0]) == 4  # ⌈0.5 · 7⌉, not the union of three draws
    drawn = gradient.indices()[0]
    places = torch.searchsorted(drawn, labels)
    weight = head.weight.detach()[drawn].requires_grad_()
    expected = sum(
        angulus.class_loss(features[:, :k], weight[:, :k], places, losses.cosface(8.0, 0.1)) for k in (*SIZES, D)
    )
    expected.backward()
    torch.testing.assert_close(gradient.values(), weight.grad)
    SparseSGD([head.weight], 0.1).step()


def test_checks_that_do_not_wait_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = batch()
    labels[2] = -100
    head, other = (build(losses.softmax() + losses.ring_loss(0.1)) for _ in range(2))
    expected = gradients(head, features, labels)
    monkeypatch.setattr(deferred, "POSING", True)
    for found, wanted in zip(gradients(other, features, labels), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    for key, value in head.state_dict().items():
        torch.testing.assert_close(other.state_dict()[key], value, msg=key)
    before = copy.deepcopy(other.state_dict())
    labels[0] = C
    assert other(features, labels).isnan()
    with pytest.raises(InputError, match="labels"):
        other.check()
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())


def test_micro_batches_move_the_figures_of_every_prefix_once() -> None:
    features, labels = batch()
    whole, parts = (build(losses.adaface(8.0, h=0.9, rate=0.5)) for _ in range(2))
    whole(features, labels)
    with parts.accumulate():
        parts(features[:4], labels[:4])
    parts(features[4:], labels[4:])
    for key, value in whole.objective.state_dict().items():
        torch.testing.assert_close(parts.objective.state_dict()[key], value, msg=key)


def test_is_written_to_recipes_and_described() -> None:
    objective = losses.arcface().replace(nested=[64, 128])
    assert (
        from_mapping(to_mapping(objective)) == objective == losses.from_recipe({"kind": "arcface", "nested": [64, 128]})
    )
    assert "nested" not in to_mapping(losses.arcface())
    assert "summed over the first 64, 128 and all numbers of the feature" in str(objective)
    assert "64, 128" in objective.formula()
    assert (losses.iam(0.1) + objective).nested == (64, 128)


@pytest.mark.parametrize(
    ("nested", "fault"),
    [
        ([128, 64], "ascending"),
        ([64, 64], "ascending"),
        ([0, 4], ">= 1"),
        ([2.5], "a whole number"),
        (64, "a list of sizes"),
        ([4, 8], "below 8"),
    ],
)
def test_bad_sizes_are_refused(nested: object, fault: str) -> None:
    with pytest.raises(InputError, match=f"objective.nested must be .*{fault}"):
        losses.arcface().replace(nested=nested).bind(D, C)
