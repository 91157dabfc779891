"""Every loss at the edges: zero features, 0° and 180°, tiny and huge norms, few samples and classes, 16-bit numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from angulus import DenseHead, class_loss, losses
from angulus.core.checks import InputError
from angulus.losses import BoundObjective, Objective
from angulus.losses.classifiers import Sigmoid
from angulus.losses.margins import AdditiveAngle, Multiplicative
from losses.aliases import CASES, arc
from losses.oracles import ANGLES, Case, Point, add_subcenters, batch, point
from scalar import margins as scalar_margins
from scalar import mining
from scalar import sigmoid_family as sigmoids
from scalar import softmax_family as family
from scalar.geometry import Matrix, Vector, cosine, log_sum_exp, softplus

pytestmark = pytest.mark.filterwarnings("ignore:contraction bounds assume:UserWarning")

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
PLAIN = torch.tensor([[0.3, -1.2, 0.8], [-0.7, 0.4, 1.1], [1.5, 0.2, -0.3], [-0.2, -0.9, -1.4]])
NOISE = torch.tensor([[0.9, 0.1, -0.4], [-0.3, 1.3, 0.2], [0.5, -0.8, 1.0], [0.7, 0.6, -1.1]])
LABELS = torch.tensor([0, 1, 2, 3])
Scene = tuple[Tensor, Tensor, Tensor]  # features, weight, labels

SCENES: dict[str, Scene] = {
    "a zero feature": (NOISE * torch.tensor([[0.0], [1.0], [1.0], [1.0]]), PLAIN, LABELS),
    "zero features": (NOISE * 0, PLAIN, LABELS),
    "features along their weights": (3 * PLAIN, PLAIN, LABELS),
    "features against their weights": (-2 * PLAIN, PLAIN, LABELS),
    "exactly 0 and 180 degrees": (
        torch.eye(3)[[0, 1, 0, 1]] * torch.tensor([[2.0], [2.0], [-2.0], [-2.0]]),
        torch.cat([torch.eye(3), -torch.eye(3)[:1]]),
        torch.tensor([0, 1, 0, 1]),
    ),
    "norms of 1e-8": (1e-8 * NOISE, PLAIN, LABELS),
    "norms of 1e4": (1e4 * NOISE, PLAIN, LABELS),
    "norms from 1e-8 to 1e4": (torch.tensor([[1e-8], [1e-4], [1.0], [1e4]]) * NOISE, PLAIN, LABELS),
    "weights from 1e-8 to 1e4": (NOISE, torch.tensor([[1e-8], [1e-4], [1.0], [1e4]]) * PLAIN, LABELS),
    "one sample": (NOISE[:1], PLAIN, LABELS[1:2]),
    "one class in the batch": (NOISE, PLAIN, torch.tensor([2, 2, 2, 2])),
    "equal samples": (NOISE[[1, 1, 1, 1]], PLAIN, torch.tensor([2, 2, 2, 2])),
    "two classes": (NOISE, PLAIN[:2], torch.tensor([0, 1, 1, 0])),
    "equal weights": (NOISE, PLAIN[[0, 0, 2, 2]], LABELS),
    "a zero weight": (NOISE, PLAIN * torch.tensor([[1.0], [0.0], [1.0], [1.0]]), LABELS),
    "all zero": (NOISE * 0, PLAIN * 0, LABELS),
}
ZEROS = {"a zero feature", "zero features", "a zero weight", "all zero"}


def outcome(bound: BoundObjective, scene: Scene, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses and gradients, of features, weight, bias and learned parameters, by name."""
    features, weight, labels = scene
    weight = add_subcenters(weight, bound.spec.rows_per_class)
    leaves = {
        "features": features.to(dtype, copy=True).requires_grad_(),
        "weight": weight.to(max(dtype, torch.float32, key=lambda kind: kind.itemsize), copy=True).requires_grad_(),
        **dict(bound.named_parameters()),
    }
    if bound.spec.bias:
        leaves["bias"] = torch.full(weight.shape[:1], 0.25, requires_grad=True)
    loss = class_loss(leaves["features"], leaves["weight"], labels, bound, bias=leaves.get("bias"), reduction="none")
    gradients = torch.autograd.grad(loss.sum(), list(leaves.values()), allow_unused=True)
    return loss, {name: value for name, value in zip(leaves, gradients, strict=True) if value is not None}


def allowed(case: Case, scene: Scene) -> bool:
    return len(scene[1]) >= case.least


@every_case
def test_losses_and_gradients_are_finite(case: Case) -> None:
    for name, scene in SCENES.items():
        if allowed(case, scene):
            loss, gradients = outcome(case.bind(*scene[1].shape, torch.float32), scene, torch.float32)
            assert loss.dtype == torch.float32 and loss.shape == scene[2].shape, name
            assert bool(torch.isfinite(loss).all()), f"{name}: {loss}"
            assert {"features", *([] if case.objective.radius is None else ["weight"])} <= set(gradients), name
            for what, gradient in gradients.items():
                assert bool(torch.isfinite(gradient).all()), f"{name}: {what} {gradient}"


@every_case
def test_16_bit_features_are_computed_in_float32(case: Case) -> None:
    """The same losses as of the rounded features in float32, and gradients that are rounded once, at the end.

    So they are finite, in float16 unless the true gradient exceeds 65504. What widens them knows no loss: scenes take
    turns with the two formats.
    """
    turns = itertools.cycle([torch.bfloat16, torch.float16])
    for (name, (features, weight, labels)), dtype in zip(SCENES.items(), turns, strict=False):
        if allowed(case, (features, weight, labels)):
            bound, rounded = case.bind(*weight.shape, torch.float32), features.to(dtype)
            loss, gradients = outcome(bound, (rounded, weight, labels), dtype)
            expected, wanted = outcome(bound, (rounded.float(), weight, labels), torch.float32)
            assert torch.equal(loss, expected) and bool(torch.isfinite(loss).all()), name
            assert gradients.keys() == wanted.keys() and gradients["features"].dtype == dtype
            for what, gradient in gradients.items():
                assert bool(torch.isfinite(wanted[what]).all()), f"{name}: {what}"
                assert torch.equal(gradient, wanted[what].to(gradient.dtype)), f"{name}: {what}"


def test_two_classes_reach_every_loss_that_allows_them() -> None:
    refused = {name for name, case in CASES.items() if case.least > 2}
    assert refused == {name for name in CASES if name.startswith("cm_")} - {
        "cm_softmax-exact",
        "cm_softmax-bounds",
        "cm_softmax-lower",
        "cm_m_softmax-psi",
    } | {"mv_softmax-contracted", "iam-cm", "magface-cm", "adacos", "adacos-fixed", "soft_triple-cm-mv"}
    for name in refused:
        said = (
            r"needs C >= 3 classes; got C = 2; give lower and upper, or|num_classes must be a whole number >= 3; got 2"
        )
        with pytest.raises(InputError, match=said):
            CASES[name].objective.bind(3, 2)


@every_case
def test_edge_losses_against_scalar(case: Case) -> None:
    metric = {"c_contrastive", "c_triplet", "subcenter_spread"} & {
        term.penalty.name for term in case.objective.penalties
    }
    for name, (features, weight, labels) in SCENES.items():
        if not allowed(case, (features, weight, labels)):
            continue
        if name in ZEROS and metric:
            continue  # ‖x̂ − ŵ‖² is 2 − 2 cos only between unit vectors
        if name == "equal weights" and case.objective.remaps and case.objective.margin is None:
            continue  # a tie of computed cosines is settled by their rounding
        if name in {"zero features", "all zero"} and case.name == "cm_softmax-auto-unseen":
            continue  # γ · 0 = ln 3 has no solution
        centers = NOISE.double().flip(0)[: len(weight)].tolist()
        rows = features.double().tolist(), weight.double().tolist(), labels.tolist()
        p = Point(*rows, [0.5, -0.25, 0.75, 1.0][: len(weight)], 11.0, 1.75, centers)
        expected = torch.tensor(case.losses(p)(p), dtype=torch.float64)
        actual = batch(p, case).loss(case.bind_at(p))
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9, msg=lambda text, at=name: f"{at}: {text}")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@every_case
def test_autocast_changes_nothing(case: Case, dtype: torch.dtype) -> None:
    bound = case.bind(4, 3, torch.float32)
    features, weight = NOISE.clone().requires_grad_(), case.widen(PLAIN).clone().requires_grad_()
    bias = torch.full((4,), 0.25) if case.objective.bias else None
    expected = class_loss(features, weight, LABELS, bound, bias=bias)
    with torch.autocast("cpu", dtype=dtype):
        assert (NOISE @ PLAIN.T).dtype == dtype  # it is on
        loss = class_loss(features, weight, LABELS, bound, bias=bias)
    assert torch.equal(loss, expected)
    for one, other in zip(*(torch.autograd.grad(value, (features, weight)) for value in (loss, expected)), strict=True):
        assert torch.equal(one, other)


def test_a_head_under_autocast_measures_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(500, 8, generator=generator), torch.arange(500) % 50
    head = DenseHead(8, 50, losses.arcface(16, 0.5))

    def measures() -> list[Tensor]:
        seen, found = head.statistics(features, labels), head.diagnose(features, labels)
        return [head.logits(features).detach(), *seen.values(), *found.values()]

    outside = measures()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = measures()
    assert all(torch.equal(one, other) for one, other in zip(inside, outside, strict=True))


S = 1000.0


def saturated_sigmoids(features: Matrix, weight: Matrix, labels: list[int]) -> Vector:
    radii = [S] * len(labels)
    return sigmoids.binary(features, weight, labels, radii, -5.0, lambda theta: math.cos(theta) - 0.35)


def saturated_smoothing(features: Matrix, weight: Matrix, labels: list[int]) -> Vector:
    return sigmoids.label_smoothing(features, weight, labels, [S] * len(labels), 0.1)


def by_classes(features: Matrix, weight: Matrix, labels: list[int], alpha: float) -> Vector:
    """Proxy-Anchor with δ = 0.1 where e^{α} is beyond the range of floats."""
    own, others = [], []
    for p, w in enumerate(weight):
        cosines = [(cosine(x, w), y == p) for x, y in zip(features, labels, strict=True)]
        own.append(softplus(log_sum_exp([-alpha * (c - 0.1) for c, mine in cosines if mine])))
        others.append(softplus(log_sum_exp([alpha * (c + 0.1) for c, mine in cosines if not mine])))
    return [math.fsum(own) / len(set(labels)) + math.fsum(others) / len(weight)] * len(labels)


SATURATED: dict[str, tuple[Objective, Callable[..., list[float]]]] = {
    "feature_normalized": (losses.feature_normalized(S, False), partial(family.feature_normalized, s=S)),
    "normface": (losses.normface(S, False), partial(family.normface, s=S)),
    "cosface": (losses.cosface(S, 0.35), partial(family.cosface, s=S)),
    "arcface": (losses.arcface(S, 0.5), partial(family.arcface, s=S)),
    "combined_margin": (
        losses.combined_margin(S, multiplier=1.1, cosine=0.2, angle=0.3),
        partial(family.combined_margin, s=S, m1=1.1, m2=0.2, m3=0.3),
    ),
    "sphereface": (losses.sphereface(3, S), partial(family.sphereface, m=3, s=S)),
    "focal_softmax": (losses.focal_softmax(S, 2.0, AdditiveAngle(0.5)), partial(mining.focal_softmax, s=S, margin=arc)),
    "mv_softmax": (
        losses.mv_softmax(S, AdditiveAngle(0.5), 0.3, "adaptive"),
        partial(family.mv_softmax, s=S, margin=arc, t=0.3, mode="adaptive"),
    ),
    "sigmoids": (losses.cosface(S, 0.35).replace(classifier=Sigmoid(start=-5.0, learn=False)), saturated_sigmoids),
    "label_smoothing": (losses.label_smoothing(S, 0.1), saturated_smoothing),
    "circle": (losses.circle(0.25, S, detach=False), partial(sigmoids.circle, gamma=S, m=0.25)),
    "proxy_anchor": (losses.proxy_anchor(S), partial(by_classes, alpha=S)),
    "cm_softmax": (losses.cm_softmax(lower=S / 2, upper=S), partial(family.cm_softmax, lower=S / 2, upper=S)),
    "cm_m_softmax": (
        losses.cm_m_softmax(Multiplicative(3), lower=S / 2, upper=S),
        partial(family.cm_m_softmax, margin=partial(scalar_margins.psi, m=3), lower=S / 2, upper=S),
    ),
}


@pytest.mark.parametrize(("objective", "oracle"), SATURATED.values(), ids=SATURATED.keys())
def test_saturated_scales_are_right_and_not_capped(objective: Objective, oracle: Callable[..., list[float]]) -> None:
    p = point(angles=(*ANGLES[:4], 3.1))
    expected = torch.tensor(oracle(p.features, p.weight, p.labels), dtype=torch.float64)
    assert float(expected.max()) > 500  # far beyond where exp(−loss) is 0 in float32
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-5)):
        data = batch(p, Case("", objective), dtype)
        actual = data.loss(objective)
        torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance * S)
        gradients = torch.autograd.grad(actual.sum(), (data.features, data.weight))
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
        assert float(gradients[0][4].abs().max()) > 1  # a saturated wrong sample still pulls


def test_tiny_losses_keep_their_digits() -> None:
    """The loss of a sample far on its side is e^{−s(1 − cos)}, not 0."""
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss = class_loss(weight[:1], weight, torch.tensor([0]), losses.normface(64, False))
    assert loss.item() == pytest.approx(math.exp(-64), rel=1e-5)


@every_case
def test_ignored_rows_count_for_nothing(case: Case) -> None:
    bound = case.bind(4, 3, torch.float64)
    bias = torch.full((4,), 0.25, dtype=torch.float64) if case.objective.bias else None
    weight, labels = case.widen(PLAIN.double()), torch.tensor([-100, 0, 1, -100, 2, 3])
    features = NOISE.double()[[3, 0, 1, 2, 2, 3]].requires_grad_()
    kept = labels >= 0
    rows = class_loss(features, weight, labels, bound, bias=bias, reduction="none")
    assert rows[~kept].tolist() == [0.0, 0.0]
    for reduction in ("none", "sum", "mean"):
        whole = class_loss(features, weight, labels, bound, bias=bias, reduction=reduction)
        part = class_loss(features[kept], weight, labels[kept], bound, bias=bias, reduction=reduction)
        assert torch.equal(whole[kept] if reduction == "none" else whole, part)
    gradient = torch.autograd.grad(rows.sum(), features)[0]
    assert bool((gradient[~kept] == 0).all()) and bool((gradient[kept] != 0).any())


@every_case
def test_one_class(case: Case) -> None:
    """Without another class the cross-entropy is 0, or the objective says that it needs one."""
    p = Point(NOISE.double().tolist(), PLAIN.double()[:1].tolist(), [0, 0, 0, 0], [0.5], 11.0, 1.75, [[0.1, 0.2, 0.3]])
    if case.least > 1:
        with pytest.raises(InputError, match=r"num_classes.* >= [23]; got 1"):
            case.objective.bind(3, 1)
        return
    bound, data = case.bind_at(p), batch(p, case)
    extra = [0.0] * 4 if case.extra is None else case.extra(case.at(p))(case.at(p))
    actual = data.loss(bound)
    torch.testing.assert_close(actual, torch.tensor(extra, dtype=torch.float64), rtol=1e-12, atol=0)
    gradients = torch.autograd.grad(actual.sum(), (data.features, data.weight))
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8], ids=str)
def test_labels_of_every_width(dtype: torch.dtype) -> None:
    """156 as a byte is what −100 would be, but stands for class 156."""
    generator = torch.Generator().manual_seed(0)
    weight, features = torch.randn(200, 8, generator=generator), torch.randn(3, 8, generator=generator)
    labels = torch.tensor([156, 0, 199])
    objective = losses.cosface(16, 0.2)
    expected = class_loss(features, weight, labels, objective, reduction="none")
    assert float(expected.min()) > 0
    assert torch.equal(class_loss(features, weight, labels.to(dtype), objective, reduction="none"), expected)
    head = DenseHead(8, 200, objective)
    assert head.statistics(features, labels.to(dtype)) == head.statistics(features, labels)
    assert head.diagnose(features, labels.to(dtype))["accuracy"] == head.diagnose(features, labels)["accuracy"]


@pytest.mark.parametrize("length", [1e-30, 1e-23, 1e20, 1e37])
def test_norms_whose_squares_leave_float32_keep_their_direction(length: float) -> None:
    features = torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 0.0]]) * length
    weight = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    found = class_loss(features, weight, torch.tensor([0, 0]), losses.arcface(16, 0.5), reduction="none")
    expected = class_loss(
        features.double(), weight.double(), torch.tensor([0, 0]), losses.arcface(16, 0.5), reduction="none"
    )
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_a_logit_beyond_the_dtype_is_an_error_that_names_the_row() -> None:
    features, weight = torch.tensor([[1.0, 0.0], [1e30, 0.0]]), torch.tensor([[1e15, 0.0], [0.0, 1e15]])
    with pytest.raises(InputError, match=r"not finite at row 1, .* leaves the range of torch.float32; scale"):
        class_loss(features, weight, torch.tensor([0, 1]), losses.softmax())
