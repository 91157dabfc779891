"""Pieces that use this step's figure: training steps against scalar loops, and when the figures move."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from angulus import BackwardSGD, ClassSampling, DenseHead, InputError, ShardedHead, class_loss, losses
from angulus.losses import Objective, sample_margins
from angulus.losses.sample_margins import draw_normal
from losses.oracles import point
from scalar import adaptive
from scalar.geometry import Matrix, Vector, angle, norm

L = losses
SIZE, CLASSES = 3, 4
Step = tuple[Matrix, Matrix, list[int]]
Figures = tuple[float, ...]


def adaface(step: Step, figures: Figures, rate: float) -> tuple[Vector, Figures]:
    norms = [norm(x) for x in step[0]]
    pairs = zip(figures, adaptive.mean_and_deviation(norms), strict=True)
    mean, deviation = (adaptive.running(old, new, rate) for old, new in pairs)
    return adaptive.adaface(*step, 16.0, 0.4, 0.9, mean, deviation, norms), (mean, deviation)


def curricular(step: Step, figures: Figures) -> tuple[Vector, Figures]:
    features, weight, labels = step
    own = [math.cos(angle(x, weight[y])) for x, y in zip(features, labels, strict=True)]
    t = adaptive.running(figures[0], math.fsum(own) / len(own), 0.3)
    return adaptive.curricularface(*step, 16.0, t=t), (t,)


def adacos(step: Step, figures: Figures) -> tuple[Vector, Figures]:
    s = adaptive.adacos_step(*step, *figures)
    own = [math.cos(angle(x, step[1][y])) for x, y in zip(step[0], step[2], strict=True)]
    return adaptive.with_targets(*step, s, own), (s,)


def elastic(step: Step, figures: Figures, form: str, assign: Callable[[Vector, Vector], Vector] | None) -> object:
    features, weight, labels = step
    usual = {"arc": 0.5, "cos": 0.35}[form]
    draws = [usual + 0.1 * z for z in draw_normal(7, int(figures[0]), torch.arange(len(labels))).tolist()]
    own = [math.cos(angle(x, weight[y])) for x, y in zip(features, labels, strict=True)]
    margins = draws if assign is None else assign(draws, own)
    return adaptive.elasticface(*step, 16.0, margins, form), (figures[0] + 1,)


ELASTIC = {"s": 16, "sigma": 0.1, "seed": 7}
BY_RANK, BY_ARGSORT = adaptive.assign_by_rank, adaptive.assign_by_argsort
# the objective, the figures at first, and a step of its scalar loop: its losses and the figures after it
STEPS: dict[str, tuple[Objective, Figures, Callable[[Step, Figures], object]]] = {
    "adaface": (L.adaface(16, h=0.9, rate=0.6), (20.0, 100.0), lambda step, at: adaface(step, at, 0.6)),
    "adaface batch": (L.adaface(16, h=0.9, statistics="batch"), (20.0, 100.0), lambda step, at: adaface(step, at, 1)),
    "curricularface": (L.curricularface(16, rate=0.3), (0.0,), curricular),
    "adacos": (L.adacos(), (adaptive.adacos_scale(CLASSES),), adacos),
    "elasticface arc": (L.elasticface(**ELASTIC), (0,), lambda step, at: elastic(step, at, "arc", None)),
    "elasticface cos": (L.elasticface("cos", **ELASTIC), (0,), lambda step, at: elastic(step, at, "cos", None)),
    "elasticface+": (L.elasticface(plus=True, **ELASTIC), (0,), lambda step, at: elastic(step, at, "arc", BY_RANK)),
    "elasticface+ of the code": (
        L.elasticface("cos", plus=True, order="argsort", **ELASTIC),
        (0,),
        lambda step, at: elastic(step, at, "cos", BY_ARGSORT),
    ),
}
every_step = pytest.mark.parametrize("name", STEPS)


def step_of(seed: int) -> tuple[Step, tuple[Tensor, Tensor, Tensor]]:
    p = point(seed)
    rows = [row[:] for row in p.features]
    tensors = (torch.tensor(rows, dtype=torch.float64), torch.tensor(p.weight, dtype=torch.float64))
    return (rows, p.weight, p.labels), (*tensors, torch.tensor(p.labels))


@pytest.mark.parametrize("impl", ["reference", "chunked"])
@every_step
def test_three_steps_against_the_scalar_loop(name: str, impl: str) -> None:
    """Losses by the updated figures, gradients as at fixed figures, and the figures after each step."""
    objective, figures, follow = STEPS[name]
    bound = objective.bind(SIZE, CLASSES).double()
    for buffer, value in zip(bound.buffers(), figures, strict=True):
        buffer.fill_(value)  # the first figure in float64
    for seed in (16, 17, 18):
        step, (features, weight, labels) = step_of(seed)
        expected, figures = follow(step, figures)  # type: ignore[misc]
        features.requires_grad_()
        found = class_loss(features, weight, labels, bound, impl=impl, reduction="none")
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)
        kept = [float(value) for value in bound.state_dict().values()]
        assert kept == pytest.approx(list(figures), rel=1e-9)
        if not name.startswith("elasticface"):
            (gradient,) = torch.autograd.grad(found.sum(), features)
            still = class_loss(features, weight, labels, copy.deepcopy(bound).eval(), impl=impl, reduction="sum")
            torch.testing.assert_close(gradient, torch.autograd.grad(still, features)[0], rtol=1e-9, atol=1e-12)


@every_step
def test_nothing_moves_without_training(name: str) -> None:
    bound = STEPS[name][0].bind(SIZE, CLASSES).double()
    _, (features, weight, labels) = step_of(16)
    class_loss(features, weight, labels, bound)
    before = copy.deepcopy(bound.state_dict())
    expected = class_loss(features, weight, labels, bound.eval())
    with torch.no_grad():
        assert torch.equal(class_loss(features, weight, labels, bound.train()), expected)
    with pytest.raises(InputError, match="weight must be finite"):
        class_loss(features, weight * torch.nan, labels, bound)
    assert all(torch.equal(value, before[key]) for key, value in bound.state_dict().items())
    assert torch.equal(class_loss(features, weight, labels, bound.eval()), expected)  # nothing of the refused step


@pytest.mark.parametrize("kind", [DenseHead, ShardedHead])
@every_step
def test_micro_batches_move_once_by_all_rows(name: str, kind: type[DenseHead] | type[ShardedHead]) -> None:
    objective = STEPS[name][0]
    torch.manual_seed(0)
    whole, parts = (kind(SIZE, CLASSES, objective).double() for _ in range(2))
    parts.load_state_dict(whole.state_dict())
    for seed in (16, 17):
        _, (features, _, labels) = step_of(seed)
        rows = whole(features, labels, reduction="none")
        with parts.accumulate():
            first = parts(features[:2], labels[:2], reduction="none")
        second = parts(features[2:], labels[2:], reduction="none")
        if name in ("elasticface arc", "elasticface cos"):  # the draws count on over micro-batches
            torch.testing.assert_close(torch.cat([first, second]), rows, rtol=1e-12, atol=1e-12)
        state = parts.state_dict()
        for key, value in whole.state_dict().items():
            torch.testing.assert_close(state[key], value, rtol=1e-12, atol=1e-12)


def test_draws_begin_alike_and_differ_by_seed_and_step() -> None:
    many = draw_normal(3, 5, torch.arange(10_000))
    for count in (1, 15, 16, 17, 4096):
        assert torch.equal(draw_normal(3, 5, torch.arange(count)), many[:count])
    assert float(many.mean().abs()) < 0.05 and float((many.std() - 1).abs()) < 0.05
    others = [draw_normal(*other, torch.arange(10)) for other in ((3, 6), (4, 5), (3, 4_000_000_005))]
    assert not any(torch.equal(other, many[:10]) for other in others)
    # Kolmogorov's distance from the normal distribution, and correlations of neighbouring rows, steps and seeds
    ranks = torch.linspace(0, 1, len(many), dtype=torch.float64)
    assert float((torch.special.ndtr(many.sort().values) - ranks).abs().max()) < 0.02
    table = torch.stack([many, many.roll(1), *(draw_normal(*of, torch.arange(len(many))) for of in ((3, 6), (4, 5)))])
    assert float((torch.corrcoef(table) - torch.eye(4)).abs().max()) < 0.04


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bits", [0, -1])
def test_the_outermost_draws_are_finite(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, bits: int) -> None:
    monkeypatch.setattr(sample_margins, "exact_dtype", lambda device: dtype)  # a Mac's GPU has float32
    monkeypatch.setattr(sample_margins, "_mix", lambda mixed: torch.full_like(mixed, bits))
    (drawn,) = draw_normal(0, 0, torch.zeros(1, dtype=torch.int64)).tolist()
    share = 2.0 ** -(24 if dtype == torch.float32 else 53)  # of the distribution, beyond the draw
    assert abs(drawn) == pytest.approx(-float(torch.special.ndtri(torch.tensor(share, dtype=torch.float64))), rel=1e-5)
    assert (drawn > 0) == (bits == -1)


def test_a_resumed_run_draws_what_an_uninterrupted_one_does() -> None:
    _, (features, weight, labels) = step_of(16)
    objective = L.elasticface(plus=True)

    def run(bound: losses.BoundObjective, steps: int) -> list[float]:
        return [class_loss(features, weight, labels, bound).item() for _ in range(steps)]

    whole, first, second = (objective.bind(SIZE, CLASSES).double() for _ in range(3))
    expected = run(whole, 6)
    found = run(first, 2)
    torch.manual_seed(99)  # the draws do not read the global generator
    second.load_state_dict(first.state_dict())
    assert found + run(second, 4) == expected
    assert len(set(expected)) == 6


def test_adacos_keeps_its_scale_where_the_formula_has_none() -> None:
    """Two negatives opposite to the feature: log B = log 2 − s < 0."""
    bound = L.adacos().bind(2, 3).double()
    bound.radius.s.fill_(3.0)
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    class_loss(weight[:1], weight, torch.tensor([0]), bound)
    assert bound.radius.s.item() == 3.0


def test_one_row_has_no_deviation() -> None:
    bound = L.adaface(statistics="batch").bind(SIZE, CLASSES)
    class_loss(torch.ones(1, SIZE), torch.eye(CLASSES, SIZE), torch.tensor([0]), bound)
    assert (bound.margin.mean.item(), bound.margin.deviation.item()) == (pytest.approx(3**0.5), 0.0)


@pytest.mark.parametrize("objective", [L.dynamic_margin(16), L.weighted_softmax(16, divide="weights")], ids=str)
def test_sampled_classes_keep_their_numbers(objective: Objective) -> None:
    """Labels count all C classes, though a step sees some."""
    objective = objective.with_counts([1, 5, 30, 7, 2, 9])
    sampled, full = (DenseHead(SIZE, 6, objective, sampling=each) for each in (ClassSampling(1.0), None))
    full.load_state_dict(sampled.state_dict())
    features, labels = torch.randn(5, SIZE), torch.tensor([5, 3, 3, 0, 2])
    torch.testing.assert_close(sampled(features, labels), full(features, labels))
    few = DenseHead(SIZE, 6, objective, sampling=ClassSampling(0.1)).double()
    assert torch.isfinite(few(features.double(), labels))  # only the classes of the rows: places 0 to 3 stand for them


def test_a_dynamic_scale_is_refused_with_sampling() -> None:
    with pytest.raises(InputError, match="not defined with a dynamic AdaCos"):
        DenseHead(SIZE, CLASSES, L.adacos(), sampling=ClassSampling(0.5))
    DenseHead(SIZE, CLASSES, L.adacos("fixed"), sampling=ClassSampling(0.5))


OTHERS = {
    "magface": L.magface(16, 0.8, 2.5, lam=1.0),
    "dynamic_margin": L.dynamic_margin(16, counts=[9, 1, 4, 2]),
    "weighted_softmax": L.weighted_softmax(16, counts=[9, 1, 4, 2]),
}


@pytest.mark.parametrize("name", [*STEPS, *OTHERS])
def test_updates_within_backward_and_rounded_products(name: str) -> None:
    """BackwardSGD trains as SGD does, and bfloat16 products change a loss by their rounding only."""
    objective = OTHERS[name] if name in OTHERS else STEPS[name][0]
    torch.manual_seed(0)
    first = DenseHead(SIZE, CLASSES, objective, impl="chunked").double()
    plain, rounded = (DenseHead(SIZE, CLASSES, objective, products=each) for each in (None, torch.bfloat16))
    other = copy.deepcopy(first)
    plain.load_state_dict(rounded.state_dict())
    own, usual = BackwardSGD(first, lr=0.1), torch.optim.SGD(other.parameters(), lr=0.1)
    for seed in (16, 17):
        _, (features, _, labels) = step_of(seed)
        first(features, labels).backward()
        own.step()
        usual.zero_grad()
        other(features, labels).backward()
        usual.step()
        losses = [head(features.float(), labels).item() for head in (plain, rounded)]
        assert losses[0] == pytest.approx(losses[1], rel=0.02, abs=0.05)
    torch.testing.assert_close(first.weight, other.weight, rtol=1e-12, atol=1e-12)


def test_class_weights_as_pytorch_divides_them() -> None:
    weights = [0.5, 3.0, 1.0, 0.25]
    _, (features, weight, labels) = step_of(16)
    logits = 8 * torch.nn.functional.normalize(features) @ torch.nn.functional.normalize(weight).T
    for divide, reduction in (("weights", "mean"), ("rows", "sum")):
        expected = torch.nn.functional.cross_entropy(
            logits, labels, torch.tensor(weights, dtype=torch.float64), reduction=reduction
        )
        expected = expected / len(labels) if divide == "rows" else expected
        found = class_loss(features, weight, labels, L.weighted_softmax(8, weights, divide=divide))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
