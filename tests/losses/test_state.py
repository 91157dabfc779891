"""What an objective learns and keeps: saved, restored, and moved as the papers say."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from angulus import DenseHead, class_loss, losses
from angulus.losses import BoundObjective, Objective, Statistics
from angulus.losses.margins import AdditiveAngle, Annealing, Combined
from angulus.losses.running import Batch, RunningMean, StepCount
from losses.aliases import CASES
from losses.oracles import SEEN_STEP, Case
from scalar import margins as scalar_margins
from scalar import penalties as scalar_penalties
from scalar import softmax_family as family

L = losses
CLASSES, SIZE = 4, 3
FEATURES = torch.tensor([[0.9, 0.1, -0.4], [-0.3, 1.3, 0.2], [0.5, -0.8, 1.0], [0.7, 0.6, -1.1]], dtype=torch.float64)
WEIGHT = 2 * FEATURES.flip(0) + 0.1
LABELS = torch.tensor([0, 1, 1, 3])
KEPT: dict[str, tuple[Objective, set[str]]] = {
    "arcface": (L.arcface(64, 0.5), set()),
    "learned s": (L.normface(), {"radius.s"}),
    "learned R": (L.softmax() + L.ring_loss(0.1), {"ring_loss.R", "ring_loss.started"}),
    "centres": (L.softmax() + L.center_loss(0.1), {"center_loss.centers"}),
    "a memory": (
        L.softmax() + L.cross_batch_memory(5),
        {f"cross_batch_memory.{name}" for name in ("features", "labels", "place", "step")},
    ),
    "gamma": (L.cm_softmax(gamma="auto"), {"radius.mean_norm.value", "radius.mean_norm.count"}),
    "incay's bound": (
        L.softmax() + L.feature_incay(0.1, bound="auto"),
        {"feature_incay.mean_norm.value", "feature_incay.mean_norm.count"},
    ),
    "incay's start": (L.softmax() + L.feature_incay(0.1, start_step=3), {"feature_incay.counter.step"}),
    "AdaFace's mean and deviation": (L.adaface(), {"margin.mean", "margin.deviation"}),
    "CurricularFace's t": (L.curricularface(), {"negatives.t"}),
    "ElasticFace's step": (L.elasticface(), {"margin.step"}),
    "AdaCos's s": (L.adacos(), {"radius.s"}),
    "annealing": (L.sphereface(4, annealing=Annealing()), {"margin.counter.step"}),
}


def stats(norm: float = 2.0, features: Tensor = FEATURES, labels: Tensor = LABELS) -> Statistics:
    rows = torch.tensor([[norm / 2, 1.5 * norm], [0.2, 0.6], [1.369, 0.927], [1.5, 2.5]], dtype=torch.float64)
    return Statistics({"norm": torch.tensor(norm)}, len(features), features, labels, Batch(*rows))


def go_to(bound: BoundObjective, step: int) -> None:
    """Let every schedule stand at this optimiser step."""
    for module in bound.modules():
        if isinstance(module, StepCount):
            module.step.fill_(step)


def loss(bound: BoundObjective, features: Tensor = FEATURES, **more: Any) -> Tensor:
    return class_loss(features, WEIGHT, LABELS, bound.eval(), reduction="none", **more)


@pytest.mark.parametrize(("objective", "names"), KEPT.values(), ids=KEPT.keys())
def test_what_is_kept_is_in_state_dict(objective: Objective, names: set[str]) -> None:
    assert set(objective.bind(SIZE, CLASSES).state_dict()) == names
    learned = {name for name in names if name in ("radius.s", "ring_loss.R") and objective != L.adacos()}
    assert {name for name, _ in objective.bind(SIZE, CLASSES).named_parameters()} == learned
    head = DenseHead(SIZE, CLASSES, objective)
    assert set(head.state_dict()) == {"weight"} | {f"objective.{name}" for name in names}


# but what in eval mode does not depend on its state
STATEFUL = {
    name: case
    for name, case in CASES.items()
    if case.objective.stateful and not name.startswith(("elasticface", "adaface-without"))
}


@pytest.mark.parametrize("case", STATEFUL.values(), ids=STATEFUL.keys())
def test_state_is_saved_and_restored(case: Case) -> None:
    bound = case.objective.bind(SIZE, CLASSES).double()
    bias = torch.full((CLASSES,), 0.5, dtype=torch.float64) if case.objective.bias else None
    fresh = loss(bound, bias=bias)
    with torch.no_grad():
        for parameter in bound.parameters():
            parameter.mul_(1.25)
    bound.observe(stats(norm=0.7))
    bound.observe(stats(norm=0.4))
    go_to(bound, SEEN_STEP + 1)
    file = io.BytesIO()
    torch.save(bound.state_dict(), file)
    file.seek(0)
    restored = case.objective.bind(SIZE, CLASSES).double()
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(loss(restored, bias=bias), loss(bound, bias=bias))
    assert not torch.equal(loss(restored, bias=bias), fresh)
    restored.observe(stats(norm=3.0))
    bound.observe(stats(norm=3.0))
    for name, value in bound.state_dict().items():
        assert torch.equal(restored.state_dict()[name], value), name


@pytest.mark.parametrize("case", STATEFUL.values(), ids=STATEFUL.keys())
def test_a_copy_is_independent(case: Case) -> None:
    bound = case.objective.bind(SIZE, CLASSES).double()
    bias = torch.full((CLASSES,), 0.5, dtype=torch.float64) if case.objective.bias else None
    before = loss(bound, bias=bias)
    copied = copy.deepcopy(bound)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(1.25)
    copied.observe(stats(norm=0.4))
    go_to(copied, SEEN_STEP + 1)
    assert torch.equal(loss(bound, bias=bias), before)
    assert not torch.equal(loss(copied, bias=bias), before)


@pytest.mark.parametrize(("objective", "names"), KEPT.values(), ids=KEPT.keys())
def test_to_moves_all_of_it(objective: Objective, names: set[str]) -> None:
    bound = objective.bind(SIZE, CLASSES)
    bound.observe(stats())
    bound.to(torch.float64)
    whole = {
        "ring_loss.started",
        *(name for name in names if name.endswith((".count", ".step", "memory.labels", "place"))),
    }
    for name, value in bound.state_dict().items():
        assert value.is_floating_point() != (name in whole)
        assert name in whole or value.dtype == torch.float64
    assert loss(bound).dtype == torch.float64


def test_an_optimiser_moves_what_is_learned() -> None:
    head = DenseHead(SIZE, CLASSES, L.normface(20) + L.ring_loss(0.1)).double()
    optimiser = torch.optim.SGD(head.parameters(), lr=0.1)
    before = {name: value.detach().clone() for name, value in head.named_parameters()}
    head(FEATURES, LABELS).backward()
    optimiser.step()
    assert set(before) == {"weight", "objective.radius.s", "objective.ring_loss.R"}
    for name, value in head.named_parameters():
        assert not torch.equal(value, before[name]), name


def test_running_means_weigh_a_short_history_evenly_and_then_forget() -> None:
    running = RunningMean().double()
    assert running.value_or(torch.tensor(9.0)).item() == 9.0
    seen = [0.5, 2.0, -1.0, 4.0]
    for k, value in enumerate(seen, 1):
        running.update(torch.tensor(value))
        assert running.value_or(torch.tensor(9.0)).item() == pytest.approx(sum(seen[:k]) / k, rel=1e-6)
    for _ in range(200):
        running.update(torch.tensor(1.0))
    before = running.value.item()
    running.update(torch.tensor(11.0))
    assert running.value.item() == pytest.approx(0.99 * before + 0.01 * 11.0, rel=1e-6)
    assert running.count.item() == 205


def test_gamma_auto_takes_the_mean_norm_to_the_middle() -> None:
    bound = L.cm_softmax(gamma="auto", lower=3, upper=7).bind(SIZE, CLASSES).double()
    norms = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    # before anything was observed, the batch's own mean, 3
    assert bound.radius(norms).tolist() == pytest.approx(
        [family.f_contraction(n, 3, 7, family.gamma_auto(3.0)) for n in (1.0, 2.0, 6.0)]
    )
    bound.observe(stats(norm=2.0))
    assert bound.radius.gamma(norms).item() == pytest.approx(math.log(3) / 2, rel=1e-12)
    assert bound.radius(norms)[1].item() == pytest.approx(5.0, rel=1e-12)
    assert bound.radius.saturation(norms)[1].item() == pytest.approx(0.5, rel=1e-12)
    bound.observe(stats(norm=6.0))
    assert bound.radius.gamma(norms).item() == pytest.approx(math.log(3) / 4, rel=1e-12)


@pytest.mark.parametrize(("classes", "factor"), [(5, 1 + math.sqrt(2)), (6, 3.0), (40, 3.0)])
def test_the_bound_of_incay_follows_the_mean_norm(classes: int, factor: float) -> None:
    """d = 3: (1 + √2) times the mean norm while C < 6, else 3 times; a norm equal to the bound still counts."""
    bound = (L.softmax() + L.feature_incay(1.0, "linear", bound="auto")).bind(SIZE, classes).double()
    bound.observe(stats(norm=0.5))
    limit = factor * 0.5
    features = torch.tensor([[limit - 1e-6, 0, 0], [0, limit + 1e-6, 0]], dtype=torch.float64)
    weight = torch.zeros(classes, SIZE, dtype=torch.float64)
    rows = class_loss(features, weight, torch.tensor([0, 1]), bound.eval(), reduction="none") - math.log(classes)
    assert rows.tolist() == pytest.approx([-((limit - 1e-6) ** 2), 0.0], abs=1e-12)


def test_a_norm_equal_to_the_bound_still_counts() -> None:
    objective = L.softmax() + L.feature_incay(1.0, "linear", bound=5)
    features = torch.tensor([[3.0, 4.0], [3.0, 4.0001]])
    rows = class_loss(features, torch.zeros(3, 2), torch.tensor([0, 1]), objective, reduction="none") - math.log(3)
    assert rows.tolist() == pytest.approx([-25.0, 0.0], abs=1e-5)


def test_incay_starts_at_its_step() -> None:
    bound = (L.softmax() + L.feature_incay(1.0, start_step=3)).bind(SIZE, CLASSES).double()
    plain = class_loss(FEATURES, WEIGHT, LABELS, L.softmax(), reduction="none")
    full = class_loss(FEATURES, WEIGHT, LABELS, L.softmax() + L.feature_incay(1.0), reduction="none")
    for expected in (plain, plain, full, full):
        bound.observe(stats())
        assert torch.equal(loss(bound), expected)


def test_annealing_follows_the_step() -> None:
    bound = L.sphereface(3, 16, annealing=Annealing(40.0, 3.0, 0.1)).bind(SIZE, CLASSES).double()
    features, weight, labels = FEATURES.tolist(), WEIGHT.tolist(), LABELS.tolist()
    for step in (0, 1, 57, 1000):
        go_to(bound, step)
        lam = scalar_margins.annealing_lam(step, 40.0, 3.0)
        expected = family.sphereface(features, weight, labels, 3, 16.0, lam=lam)
        torch.testing.assert_close(loss(bound), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)


def test_the_ring_starts_at_the_first_mean_norm() -> None:
    bound = (L.softmax() + L.ring_loss(2.0)).bind(SIZE, CLASSES).double()
    ring = bound.get_submodule("ring_loss")
    norms = FEATURES.norm(dim=1)
    plain = class_loss(FEATURES, WEIGHT, LABELS, L.softmax(), reduction="none")
    torch.testing.assert_close(loss(bound) - plain, (norms - norms.mean()) ** 2)
    gradient = torch.autograd.grad(loss(bound)[0], ring.R)[0]
    torch.testing.assert_close(gradient, -2 * (norms[0] - norms.mean()))
    bound.observe(stats(norm=1.5))
    assert (ring.R.item(), ring.started.item()) == (1.5, True)
    torch.testing.assert_close(loss(bound) - plain, (norms - 1.5) ** 2)
    bound.observe(stats(norm=9.0))
    assert ring.R.item() == 1.5


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 0.0])
def test_centres_move_by_their_own_rule(alpha: float, normalize: bool) -> None:
    bound = (L.softmax() + L.center_loss(0.1, alpha, normalize)).bind(SIZE, CLASSES).double()
    centers = FEATURES.roll(1, 0) * 0.3
    bound.center_loss.centers.copy_(centers)
    for labels, rows in ((LABELS, slice(None)), (torch.tensor([2, -100, 2, -100]), slice(None, None, 2))):
        expected = scalar_penalties.center_update(
            FEATURES[rows].tolist(), labels[rows].tolist(), bound.center_loss.centers.tolist(), alpha, normalize
        )
        bound.observe(stats(labels=labels))
        torch.testing.assert_close(
            bound.center_loss.centers, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0
        )
    assert torch.equal(bound.center_loss.centers[2] == centers[2], torch.full((3,), alpha == 0))
    assert not bound.center_loss.centers.requires_grad


def test_class_loss_gives_the_centres_no_gradient_of_their_own() -> None:
    bound = (L.softmax() + L.center_loss(0.1)).bind(SIZE, CLASSES)
    assert list(bound.parameters()) == []


def test_a_training_step_reaches_every_piece() -> None:
    objective = (
        L.cm_m_softmax(losses.margins.Multiplicative(3, annealing=Annealing()), gamma="auto")
        + L.feature_incay(0.1, bound="auto", start_step=2)
        + L.ring_loss(0.1)
        + L.center_loss(0.1)
    )
    head = DenseHead(SIZE, CLASSES, objective).double()
    before = {name: value.clone() for name, value in head.objective.state_dict().items()}
    head(FEATURES, LABELS)
    after = head.objective.state_dict()
    assert {name for name in after if torch.equal(after[name], before[name])} == set()
    mean = FEATURES.norm(dim=1).mean()
    for name in ("radius.mean_norm.value", "feature_incay.mean_norm.value", "ring_loss.R"):
        torch.testing.assert_close(after[name], mean)
    assert after["margin.counter.step"] == after["feature_incay.counter.step"] == 1


HEADS: dict[str, Objective] = {
    "softmax": L.softmax(bias=True),
    "weight_normalized": L.weight_normalized(),
    "arcface": L.arcface(16, 0.5),
    "combined": Objective(radius=losses.radius.Fixed(16), margin=Combined(cosine=0.1, angle=0.9)),
    "cosface": L.cosface(16, 0.35),
    "normface eps": L.normface(8.0, eps=0.2),
    "contraction": L.cm_softmax(gamma=0.5, lower=3, upper=7),
    "c_triplet": L.c_triplet(),
}


def head_and_data(objective: Objective) -> tuple[DenseHead, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    head = DenseHead(3, 5, objective).double()
    with torch.no_grad():
        head.weight.copy_(torch.randn(5, 3, generator=generator, dtype=torch.float64))
        if head.bias is not None:
            head.bias.copy_(torch.randn(5, generator=generator, dtype=torch.float64))
    features = 2 * torch.randn(60, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(5, (60,), generator=generator)
    labels[::7] = -100
    return head, features, labels


def by_numpy(head: DenseHead, features: Tensor, labels: Tensor) -> dict[str, Any]:
    """Norms, cosines, radii and logits of the rows that count, computed again."""
    rows = labels.numpy() >= 0
    x, w, y = features.numpy()[rows], head.weight.detach().numpy(), labels.numpy()[rows]
    eps = head.objective.spec.eps
    norms = np.sqrt((x**2).sum(1))
    divisors = np.sqrt((w**2).sum(1) + eps)
    dots = x @ w.T / np.sqrt(norms**2 + eps)[:, None]
    cosines = dots / divisors
    radii = {
        "identity": norms,
        "fixed": np.full_like(norms, 16.0),
        "learned": np.full_like(norms, 8.0),
        "contraction": 3 + np.tanh(0.25 * norms) * 4,
        None: np.ones_like(norms),
    }[getattr(head.objective.spec.radius, "kind", None)]
    logits = radii[:, None] * (dots if head.objective.spec.weights == "raw" else cosines)
    if head.bias is not None:
        logits = logits + head.bias.detach().numpy()
    own = cosines[np.arange(len(y)), y]
    return {"rows": rows, "y": y, "norms": norms, "cosines": cosines, "own": own, "radii": radii, "logits": logits}


@pytest.mark.parametrize("objective", HEADS.values(), ids=HEADS.keys())
def test_logits_statistics_and_diagnosis_by_numpy(objective: Objective) -> None:
    head, features, labels = head_and_data(objective)
    by = by_numpy(head, features, labels)
    np.testing.assert_allclose(head.logits(features).detach().numpy()[by["rows"]], by["logits"], rtol=1e-11, atol=1e-12)

    seen = head.statistics(features, labels)
    theta = np.arccos(by["own"])
    expected = {
        "norm": by["norms"].mean(),
        "target_cos": by["own"].mean(),
        "agent_distortion": (2 - 2 * by["own"]).mean(),
    }
    if objective.radius is not None:
        expected["radius"] = by["radii"].mean()
    if objective.radius is not None and objective.radius.kind == "contraction":
        expected["radius_saturation"] = ((by["radii"] - 3) / 4).mean()
    m = {"additive_angle": 0.5, "combined": 0.9}.get(getattr(objective.margin, "kind", ""))
    if m is not None:
        expected["beyond_pi_minus_m"] = (theta > math.pi - m).mean()
        assert expected["beyond_pi_minus_m"] > 0
    assert seen.keys() == expected.keys()
    for name, value in expected.items():
        assert seen[name].item() == pytest.approx(value, rel=1e-6), name
        assert not seen[name].requires_grad and seen[name].ndim == 0
    head(features, labels)
    assert {name: value.item() for name, value in head.seen.items()} == {
        name: pytest.approx(value, rel=1e-6) for name, value in expected.items()
    }

    found = head.diagnose(features, labels)
    target = {
        "none": by["own"],
        "additive_cosine": by["own"] - 0.35,
        "additive_angle": np.where(theta + 0.5 > math.pi, by["own"] - 0.5 * math.sin(0.5), np.cos(theta + 0.5)),
        "combined": np.cos(theta + 0.9) - 0.1,
    }[getattr(objective.margin, "kind", "none")]
    others = np.ones_like(by["cosines"], dtype=bool)
    others[np.arange(len(by["y"])), by["y"]] = False
    above = (by["cosines"] > target[:, None]) & others
    right = by["logits"].argmax(1) == by["y"]
    assert found["misclassified_vectors"].item() == pytest.approx(above.sum() / others.sum(), rel=1e-6)
    assert found["accuracy"].item() == pytest.approx(right.mean(), rel=1e-6)
    assert found["norm_right"].item() == pytest.approx(by["norms"][right].mean(), rel=1e-9)
    assert found["norm_wrong"].item() == pytest.approx(by["norms"][~right].mean(), rel=1e-9)
    assert set(found) == {"misclassified_vectors", "accuracy", "norm_right", "norm_wrong"}


def test_diagnosis_of_nothing_wrong_is_nan() -> None:
    head = DenseHead(3, 3, L.cosface(16, 0.1)).double()
    with torch.no_grad():
        head.weight.copy_(torch.eye(3))
    found = head.diagnose(torch.eye(3, dtype=torch.float64), torch.arange(3))
    assert found["accuracy"] == 1 and found["misclassified_vectors"] == 0
    assert found["norm_right"] == 1 and math.isnan(found["norm_wrong"])


def test_logits_are_what_the_loss_is_the_softmax_of() -> None:
    """For every objective without margin, negatives and penalties."""
    for objective in (L.softmax(True), L.weight_normalized(), L.l2_softmax(9), L.coco(), L.cm_softmax(), L.normface()):
        head, features, labels = head_and_data(objective)
        kept = labels >= 0
        expected = torch.nn.functional.cross_entropy(head.logits(features[kept]), labels[kept])
        torch.testing.assert_close(head(features, labels), expected, rtol=1e-12, atol=0)


def test_a_new_head() -> None:
    torch.manual_seed(0)
    head = DenseHead(64, 500, L.softmax(bias=True))
    assert head.weight.shape == (500, 64) and head.bias is not None and head.bias.tolist() == [0.0] * 500
    assert head.weight.std().item() == pytest.approx(1 / 8, rel=0.02)
    before = head.weight.detach().clone()
    head.reset_parameters()
    assert not torch.equal(head.weight, before)
    assert DenseHead(4, 5, L.arcface(16, 0.5)).bias is None
    assert repr(DenseHead(4, 5, L.arcface(16, 0.5))).startswith(
        "DenseHead(\n  embedding_size=4, num_classes=5, impl='auto'"
    )


def test_figures_ask_for_no_gradient_and_keep_none() -> None:
    head, features, labels = head_and_data(L.normface() + L.ring_loss(0.1) + L.center_loss(0.2))
    features.requires_grad_()
    for _ in range(2):
        head(features, labels).backward()
    assert not any(value.requires_grad for value in [*head.seen.values(), *head.buffers()])
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_arcface_margin_is_read_from_the_spec_it_was_built_with() -> None:
    head, features, labels = head_and_data(L.mv_softmax(16, AdditiveAngle(2.5), 0.3, "fixed"))
    by = by_numpy(head, features, labels)
    share = (np.arccos(by["own"]) > math.pi - 2.5).mean()
    assert head.statistics(features, labels)["beyond_pi_minus_m"].item() == pytest.approx(share, rel=1e-6)


@pytest.mark.parametrize("cast", [torch.bfloat16, torch.float16], ids=str)
def test_running_figures_stay_wide_whatever_the_heads_dtype(cast: torch.dtype) -> None:
    """600 steps at a mean norm that rises from 20 to 24: in bfloat16 a hundredth of the difference rounds away."""
    objective = L.cm_softmax(gamma="auto") + L.center_loss(0.1, alpha=0.01) + L.feature_incay(0.1, bound="auto")
    plain, narrow = DenseHead(SIZE, CLASSES, objective), DenseHead(SIZE, CLASSES, objective).to(cast)
    for step in range(600):
        seen = stats(norm=20.0 + 4 * min(step, 200) / 200, features=FEATURES.float())
        plain.objective.observe(seen)
        narrow.objective.observe(seen)
    assert narrow.weight.dtype == cast
    for name, value in plain.objective.state_dict().items():
        assert torch.equal(narrow.objective.state_dict()[name], value), name
    assert plain.objective.radius.mean_norm.value.item() > 23.9
    assert narrow.double().objective.center_loss.centers.dtype == torch.float64


def test_figures_made_under_a_narrow_default_are_wide() -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        bound = (L.cm_softmax(gamma="auto") + L.center_loss(0.1)).bind(SIZE, CLASSES)
    finally:
        torch.set_default_dtype(before)
    assert bound.radius.mean_norm.value.dtype == bound.center_loss.centers.dtype == torch.float32
