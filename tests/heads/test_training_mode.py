"""What a head keeps moves by training, as BatchNorm's does: in anyone's own loop, and under nothing else."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import angulus
from angulus import DenseHead, InputError, ShardedHead, losses
from angulus.heads.class_loss import resolve
from angulus.losses import BoundObjective, Objective
from angulus.losses.margins import Annealing

L = losses
CLASSES, SIZE = 5, 6
EVERYTHING = (
    L.cm_m_softmax(losses.margins.Multiplicative(3, annealing=Annealing()), gamma="auto", lower=3, upper=9)
    + L.feature_incay(0.1, bound="auto", start_step=2)
    + L.ring_loss(0.1)
    + L.center_loss(0.1)
    + L.cross_batch_memory(20, 0.1)
)
Head = DenseHead | ShardedHead
every_head = pytest.mark.parametrize("kind", [DenseHead, ShardedHead])


def rows(seed: int = 0, count: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, SIZE, generator=generator), torch.randint(CLASSES, (count,), generator=generator)


def state(head: Head | BoundObjective) -> dict[str, Tensor]:
    objective = head if isinstance(head, BoundObjective) else head.objective
    return {name: value.clone() for name, value in objective.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@every_head
def test_ten_lines_anneal_sphereface(kind: type[Head]) -> None:
    torch.manual_seed(0)
    backbone = nn.Linear(SIZE, SIZE)
    head = kind(SIZE, CLASSES, L.sphereface(4, s=16, annealing=Annealing(start=1000, low=5, rate=1)))
    optimizer = torch.optim.SGD([*backbone.parameters(), *head.parameters()], lr=0.01)
    first = head.objective.margin(torch.tensor([1.0]), torch.ones(1))
    for step in range(300):
        features, labels = rows(step)
        loss = head(backbone(features), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    theta = torch.tensor(1.0)
    cos, psi = torch.cos(theta), -torch.cos(4 * theta) - 2
    assert first.item() == pytest.approx(((1000 * cos + psi) / 1001).item())
    margin = head.objective.margin(theta, theta)
    assert margin.item() == pytest.approx(((5 * cos + psi) / 6).item())  # 1000 / 301 is below the low of 5
    assert int(head.objective.margin.counter.step) == 300


@every_head
def test_ten_lines_move_the_centres_to_their_classes(kind: type[Head]) -> None:
    head = kind(2, 3, L.softmax() + L.center_loss(0.01))
    places = torch.tensor([[3.0, 0.0], [0.0, -2.0], [-1.0, 1.0]])
    generator = torch.Generator().manual_seed(1)
    for _ in range(60):
        labels = torch.randint(3, (16,), generator=generator)
        head(places[labels] + 0.01 * torch.randn(16, 2, generator=generator), labels).backward()
    torch.testing.assert_close(head.objective.center_loss.centers, places, rtol=0, atol=0.02)


@every_head
def test_the_loss_reads_the_state_before_it_moves(kind: type[Head]) -> None:
    head = kind(SIZE, CLASSES, EVERYTHING)
    for step in range(3):
        features, labels = rows(step)
        expected = copy.deepcopy(head).eval()(features, labels)
        before = state(head)
        assert torch.equal(head(features, labels), expected)
        assert not same(before, state(head))


@every_head
def test_nothing_moves_in_eval_mode_or_without_gradients(kind: type[Head]) -> None:
    head = kind(SIZE, CLASSES, EVERYTHING)
    head(*rows())
    before = state(head)
    with torch.no_grad():
        head(*rows(1))
    with torch.inference_mode():
        head(*rows(1))
    head.eval()(*rows(1)).backward()
    head.train().logits(rows(1)[0])
    head.statistics(*rows(1))
    if isinstance(head, DenseHead):
        head.diagnose(*rows(1))
    head.objective.eval()  # frozen, within a head that trains
    head(*rows(1))
    assert same(before, state(head))


@every_head
def test_a_refused_batch_moves_nothing(kind: type[Head]) -> None:
    head = kind(SIZE, CLASSES, EVERYTHING)
    before = state(head)
    features, labels = rows()
    for wrong, of in ((features, labels + CLASSES), (features * torch.nan, labels), (features * 1e30, labels)):
        with pytest.raises(InputError):
            head(wrong, of)
    assert same(before, state(head))


@every_head
def test_micro_batches_move_once_by_all_rows(kind: type[Head]) -> None:
    """Three of uneven size, one row ignored, against one batch of all rows."""
    features, labels = rows(count=9)
    labels[4] = -100
    whole, parts = (kind(SIZE, CLASSES, EVERYTHING).double() for _ in range(2))
    parts.load_state_dict(whole.state_dict())
    for _ in range(2):
        whole(features.double(), labels)
        with parts.accumulate():
            for cut in (slice(0, 4), slice(4, 6)):
                parts(features[cut].double(), labels[cut])
        parts(features[6:].double(), labels[6:])
    for name, value in state(whole).items():
        torch.testing.assert_close(state(parts)[name], value, rtol=1e-12, atol=1e-12)
    for name, value in whole.seen.items():
        if "radius" not in name:  # of the micro-batch's own mean norm at the first step
            torch.testing.assert_close(parts.seen[name], value, rtol=1e-12, atol=1e-12)


def test_a_loop_may_wrap_every_micro_batch() -> None:
    head = DenseHead(SIZE, CLASSES, EVERYTHING)
    for more, steps in ((True, 0), (True, 0), (False, 1), (False, 2)):
        with head.accumulate(more):
            head(*rows())
        assert int(head.objective.margin.counter.step) == steps
    with pytest.raises(InputError, match="more must be true or false; got 2"):
        head.accumulate(2)  # type: ignore[arg-type]


def test_a_copy_of_data_parallel_is_refused_in_training() -> None:
    copied = DenseHead(SIZE, CLASSES, L.normface())._replicate_for_data_parallel()
    with pytest.raises(InputError, match="one process per GPU with torchrun"):
        copied(*rows())


def test_a_step_given_up_within_accumulate_is_forgotten() -> None:
    head, other = (DenseHead(SIZE, CLASSES, EVERYTHING) for _ in range(2))
    other.load_state_dict(head.state_dict())
    with pytest.raises(KeyboardInterrupt), head.accumulate():
        head(*rows(1))
        raise KeyboardInterrupt
    head(*rows(2))
    other(*rows(2))
    assert same(state(head), state(other))


@pytest.mark.parametrize("last", ["head", "class_loss"])
@every_head
def test_a_step_whose_last_micro_batch_is_bad_is_forgotten(kind: type[Head], last: str) -> None:
    head, other = (kind(SIZE, CLASSES, EVERYTHING) for _ in range(2))
    other.load_state_dict(head.state_dict())
    with head.accumulate():
        head(*rows(1))
    features, labels = rows(1)
    with pytest.raises(InputError, match="labels must be in"):
        if last == "head":
            head(features, labels + CLASSES)
        else:
            angulus.class_loss(features, head.weight, labels + CLASSES, head.objective, bias=head.bias)
    head(*rows(2))
    other(*rows(2))
    assert same(state(head), state(other))


def test_class_loss_moves_a_bound_objective_and_no_spec() -> None:
    features, labels = rows()
    weight = torch.randn(CLASSES, SIZE)
    bound = EVERYTHING.bind(SIZE, CLASSES)
    before = state(bound)
    angulus.class_loss(features, weight, labels, bound.eval())
    assert same(before, state(bound))
    angulus.class_loss(features, weight, labels, bound.train())
    assert not same(before, state(bound))
    assert bound.seen["norm"].item() == pytest.approx(features.norm(dim=1).mean().item())
    spec = L.arcface() + L.iam(0.1)
    angulus.class_loss(features, weight, labels, spec)
    assert not resolve(spec, weight).seen  # all callers share what a spec is bound to


@pytest.mark.parametrize("impl", ["reference", "chunked", "fused", "blocked"])
@every_head
def test_backward_after_the_move_is_that_of_the_loss(kind: type[Head], impl: str) -> None:
    """What backward reads was read before: against the same loss in eval mode."""
    if impl == "fused":
        pytest.importorskip("triton")
    head = kind(SIZE, CLASSES, EVERYTHING, impl=impl)
    for step in range(3):
        found = []
        for each in (copy.deepcopy(head).eval(), head):
            each.zero_grad()
            each(*rows(step)).backward()
            found.append([parameter.grad for parameter in each.parameters()])
        for expected, got in zip(*found, strict=True):
            assert torch.equal(expected, got)


@pytest.mark.parametrize("impl", ["reference", "chunked"])
@every_head
def test_checkpointing_gives_the_same_gradients_or_is_refused(kind: type[Head], impl: str) -> None:
    """Forward within backward would read figures that have moved since the loss was returned."""
    for objective in (EVERYTHING, L.arcface() + L.iam(0.1)):
        head = kind(SIZE, CLASSES, objective, impl=impl)
        features, labels = rows()
        plain, recomputed = (features.clone().requires_grad_() for _ in range(2))
        copy.deepcopy(head)(plain, labels).backward()
        loss = checkpoint(head, recomputed, labels, use_reentrant=False)
        if objective is EVERYTHING:
            with pytest.raises(InputError, match="checkpoint the backbone alone"):
                loss.backward()
        else:
            loss.backward()
            assert torch.equal(plain.grad, recomputed.grad)


def _features(backbone: nn.Module, inputs: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.float16):
        features: Tensor = backbone(inputs)
    return features


@pytest.mark.parametrize("impl", ["reference", "chunked"])
@every_head
@pytest.mark.parametrize("objective", [L.arcface(64, 0.5), EVERYTHING, L.softmax(bias=True)], ids=str)
def test_a_gradient_scaler_skips_a_step_that_overflows(objective: Objective, kind: type[Head], impl: str) -> None:
    backbone, head = nn.Linear(SIZE, SIZE), kind(SIZE, CLASSES, objective, impl=impl)
    parameters = [*backbone.parameters(), *head.parameters()]
    optimizer, scaler = torch.optim.SGD(parameters, lr=0.1), torch.amp.GradScaler("cpu", init_scale=8.0)
    inputs, labels = rows()
    scales = []
    for factor in (1.0, 1e6, 1.0):  # the second overflows in float16
        before, kept = [each.detach().clone() for each in parameters], state(head)
        optimizer.zero_grad()
        loss = head(_features(backbone, factor * inputs), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
        skipped = all(torch.equal(a, b) for a, b in zip(parameters, before, strict=True))
        assert skipped == (factor > 1) == bool(loss.isnan())
        if factor > 1:
            assert same(kept, state(head))
    assert scales == [8.0, 4.0, 4.0]


@every_head
def test_without_float16_features_that_are_not_finite_stay_an_error(kind: type[Head]) -> None:
    head, (features, labels) = kind(SIZE, CLASSES, L.arcface(64, 0.5)), rows()
    features[2] = torch.inf
    calls: list[Callable[[], object]] = [
        lambda: head(features, labels),
        lambda: head(features.bfloat16(), labels),
        lambda: head.statistics(features.half(), labels),
    ]
    for call in calls:
        with pytest.raises(InputError, match="features must be finite; got NaN or Inf at row 2"):
            call()
    with torch.no_grad(), pytest.raises(InputError, match="features must be finite"):
        head(features.half(), labels)
    with torch.autocast("cpu", torch.float16):
        rows_lost = head(features, labels, reduction="none")
    assert bool(rows_lost.isnan().all())


def test_the_loop_on_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[2] / "docs/your-loop.md"
    loop, *others = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)
    accumulated = next(block for block in others if "head.accumulate()" in block)
    names: dict[str, Any] = {}
    exec(loop, names)
    assert "target_cos" in capsys.readouterr().out
    head: DenseHead = names["head"]
    assert int(head.objective.margin.counter.step) == 10 and bool(head.objective.center_loss.centers.any())
    exec(accumulated, names)
    assert int(head.objective.margin.counter.step) == 11
