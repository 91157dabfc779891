"""A step on a GPU waits for nothing, and its checks keep their sentences. A CPU poses as a GPU here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

import angulus
from angulus import InputError, losses
from angulus.heads import deferred
from angulus.kernels import blocked, fused_launch
from heads.waits import NoRead, NoWait, Wait


@pytest.fixture(autouse=True)
def posing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred, "POSING", True)


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Raise where a GPU would be waited for; not within Triton's interpreter, which reads what it is given."""

    def unwatched(launch: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
                return launch(*args, **kwargs)

        return call

    monkeypatch.setattr(fused_launch.Walk, "_launch", unwatched(fused_launch.Walk._launch))
    monkeypatch.setattr(blocked.BlockWalk, "_launch", unwatched(blocked.BlockWalk._launch))
    with NoRead(), NoWait():
        yield


COUNTS = (3, 1, 4, 1, 5, 9, 2, 6, 5)
# every named loss, at a scale that a head of six dimensions stands, and compositions
OBJECTIVES = {
    "adaface of the batch": losses.adaface(16, statistics="batch"),
    "elasticface cos": losses.elasticface("cos", s=16),
    "elasticface+": losses.elasticface(s=16, plus=True),
    "elasticface+ of the code": losses.elasticface("cos", s=16, plus=True, order="argsort"),
    "ramped negatives": losses.arcface(16).replace(
        negatives=losses.negatives.MVAdaptive(0.3), ramp=losses.Ramp(negatives=(0, 0.5), steps=4)
    ),
    "negatives by the running cosine": losses.arcface(16).replace(
        negatives=losses.negatives.MVFixed(0.3), ramp=losses.Ramp(negatives="auto", steps=4)
    ),
    "half of the rows": losses.hm_softmax(16, 0.5),
    "half of the rows, divided by all": losses.normface(16).replace(
        weighting=losses.weighting.HardMining(0.5, divide="all")
    ),
    "class weights": losses.normface(16).replace(weighting=losses.weighting.ClassWeights(counts=COUNTS)),
    "class weights, divided by their sum": losses.normface(16).replace(
        weighting=losses.weighting.ClassWeights(counts=COUNTS, divide="weights")
    ),
    "center loss": losses.normface(16) + losses.center_loss(0.1),
    "memory": losses.normface(16) + losses.cross_batch_memory(6, 0.1),
    "nested": losses.curricularface(16).replace(nested=(3,)),
    "ArcFace": losses.arcface(16, 0.5),
    "MV + IAM": losses.mv_softmax(16, losses.margins.AdditiveAngle(0.5), 0.3, "adaptive") + losses.iam(0.1),
    "contraction": losses.arcface(16, 0.5).replace(radius=losses.radius.Contraction(gamma="auto")),
    "annealed": losses.sphereface(annealing=losses.margins.Annealing()),
    "learned ring": losses.arcface(16, 0.5) + losses.ring_loss(0.1),
    "incay": losses.normface(16) + losses.feature_incay(0.01, form="linear"),
    "bias": losses.softmax(bias=True),
    "focal": losses.focal_softmax(2),
    "C-triplet": losses.c_triplet(),
    "C-triplet, hardest class": losses.c_triplet(classes="hardest", center="gated"),
}


ALONE = {"iam", "feature_incay", "ring_loss", "center_loss", "cross_batch_memory", "subcenter_spread"}
for alias in sorted({*losses.ALIASES} - ALONE):
    objective = losses.ALIASES[alias]()
    OBJECTIVES[alias] = objective.with_counts(COUNTS) if objective.needs_counts else objective


def setting(
    name: str = "ArcFace", impl: str = "reference", kind: Any = angulus.DenseHead, **more: Any
) -> tuple[Any, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    head = kind(6, 9, OBJECTIVES[name], impl=impl, **more)
    return head, torch.randn(4, 6, generator=generator).requires_grad_(), torch.tensor([0, 3, 8, 3])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_waits_for_nothing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    head, features, labels = setting(name)
    with torch.no_grad():
        head(features, labels)  # numbers per class come to the device once
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1, foreach=False)
    for _ in range(2):
        with watched(monkeypatch):
            head(features, labels).backward()
        optimizer.step()
        head.check()


@pytest.mark.parametrize("impl", ["fused", "blocked"])
@pytest.mark.parametrize(
    ("name", "update"),
    [("MV + IAM", None), ("curricularface", "nearest"), ("adacos", "stochastic"), ("nested", "kahan")],
)
def test_the_kernels_for_gpus_wait_for_nothing(
    monkeypatch: pytest.MonkeyPatch, impl: str, name: str, update: str | None
) -> None:
    pytest.importorskip("triton")
    head, features, labels = setting(name, impl)
    if update:
        if update != "nearest":
            head.bfloat16()
        optimizer = angulus.BackwardSGD(head, lr=0.1, momentum=0.9, rounding=update)
    with watched(monkeypatch):
        head(features, labels).backward()
        if update:
            optimizer.step()


@pytest.mark.parametrize("kind", [angulus.DenseHead, angulus.ShardedHead])
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("name", ["bias", "curricularface", "soft_triple"])
def test_sampled_classes_wait_for_nothing_and_are_those_of_a_cpu(
    monkeypatch: pytest.MonkeyPatch, name: str, corrected: bool, kind: Any
) -> None:
    """Five classes are drawn for four rows: the host knows their number."""
    found = []
    for posing in (True, False):
        monkeypatch.setattr(deferred, "POSING", posing)
        sampling = angulus.ClassSampling(0.5, corrected=corrected)
        head, features, labels = setting(name, kind=kind, sampling=sampling)
        labels[1] = -100
        optimizer = angulus.SparseSGD([head.weight], 0.1, momentum=0.9, weight_decay=0.01)
        for _ in range(2):
            with watched(monkeypatch) if posing else nullcontext():
                loss = head(features, labels)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            head.check()
        found.append([loss.detach(), head.weight.detach(), features.grad])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    "wait",
    [
        lambda values: bool(values.any()),
        lambda values: values.tolist(),
        lambda values: values[values > 0],
        lambda values: values.nonzero(),
        lambda values: values.new_tensor(1.0),
        lambda values: values.max().item(),
    ],
)
def test_the_watch_sees_what_waits(monkeypatch: pytest.MonkeyPatch, wait: Any) -> None:
    values = torch.ones(3)
    with watched(monkeypatch), pytest.raises(Wait):
        wait(values)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("labels", [[0, 3, 8, 3], [0, -100, 8, 3]], ids=["all", "ignored"])
def test_equals_the_checks_at_once(
    monkeypatch: pytest.MonkeyPatch, name: str, labels: list[int], reduction: str
) -> None:
    found = []
    for posing in (True, False):
        monkeypatch.setattr(deferred, "POSING", posing)
        head, features, _ = setting(name)
        head, features = head.double(), features.detach().double().requires_grad_()
        values = []
        for _ in range(2):
            loss = head(features, torch.tensor(labels), reduction)
            leaves = [features, *head.parameters()]
            grads = torch.autograd.grad(loss.sum(), leaves, allow_unused=True)
            values += [loss.detach(), *(grad for grad in grads if grad is not None)]
        found.append([*values, *(buffer.double() for buffer in head.buffers()), *head.seen.values()])
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


MOVING = ["adaface", "curricularface", "adacos", "elasticface+", "center loss", "memory", "contraction"]


@pytest.mark.parametrize("name", MOVING)
def test_micro_batches_wait_for_nothing_and_move_the_figures_as_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    labels, found = torch.tensor([0, -100, 8, 3]), []
    for posing in (True, False):
        monkeypatch.setattr(deferred, "POSING", posing)
        head, features, _ = setting(name)
        head, features = head.double(), features.detach().double()
        values = []
        for step in range(2):
            for part, more in ((slice(0, 2), True), (slice(2, 4), False)):
                with head.accumulate(more), watched(monkeypatch) if posing else nullcontext():
                    values.append(head((features + step)[part].requires_grad_(), labels[part]).detach())
                head.check()
        found.append([*values, *(buffer.double() for buffer in head.buffers())])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", MOVING)
def test_a_bad_micro_batch_moves_no_figure(name: str) -> None:
    head, features, labels = setting(name)
    head(features, labels)
    before = [buffer.clone() for buffer in head.buffers()]
    with head.accumulate():
        head(features, labels.clone().fill_(9))
    queue = deferred._PENDING.pop(head.weight)  # as if the findings were still on the way
    head(features, labels)
    assert all(torch.equal(*pair) for pair in zip(before, head.buffers(), strict=True))
    deferred._PENDING[head.weight] = queue
    with pytest.raises(InputError, match="got 9 at row 0"):
        head.check()


BAD = {
    "features": (lambda x, y: x.data[2].fill_(math.nan), "features must be finite; got NaN or Inf at row 2"),
    "label": (lambda x, y: y[1:3].fill_(9), r"labels must be in \[0, 9\) or -100 \(ignored\); got 9 at row 1"),
    "negative": (lambda x, y: y[3:].fill_(-1), r"labels must be in \[0, 9\) .* got -1 at row 3"),
    "ignored": (lambda x, y: y.fill_(-100), "every label is -100"),
}


@pytest.mark.parametrize(
    ("name", "impl"),
    [
        ("contraction", "reference"),
        ("contraction", "blocked"),
        ("proxy_anchor", "reference"),
        ("proxy_anchor", "chunked"),
    ],
)
@pytest.mark.parametrize(("spoil", "sentence"), BAD.values(), ids=BAD)
def test_a_bad_batch_changes_nothing_and_the_next_call_names_it(
    spoil: Any, sentence: str, name: str, impl: str
) -> None:
    head, features, labels = setting(name, impl)
    head(features, labels)
    before = [buffer.clone() for buffer in head.buffers()]
    good = features.detach().clone(), labels.clone()
    spoil(features, labels)
    loss = head(features, labels)
    loss.backward()
    assert loss.isnan()
    assert head.weight.grad is not None and not head.weight.grad.any()
    assert features.grad is not None and not features.grad.any()
    assert all(torch.equal(*pair) for pair in zip(before, head.buffers(), strict=True))
    with pytest.raises(InputError, match=sentence + ".*a batch of an earlier step"):
        head(*good)
    assert head(*good).isfinite()


def test_a_bad_bias_and_a_loss_beyond_range_are_named() -> None:
    head, features, labels = setting("bias")
    assert head.bias is not None
    head.bias.data[5] = math.inf
    assert head(features, labels).isnan()
    with pytest.raises(InputError, match="bias must be finite; got NaN or Inf at row 5"):
        head.check()
    head.bias.data[5] = 0.0
    head.weight.data.mul_(1e38)
    head(1e8 * features, labels)
    with pytest.raises(InputError, match=r"the loss is not finite at row .*, though features and weight are"):
        head.check()
    head.check()


def test_float16_features_that_overflow_are_left_to_the_scaler() -> None:
    head, features, labels = setting()
    half = features.detach().half()
    half[1, 2] = math.inf
    loss = head(half.requires_grad_(), labels)
    loss.backward()
    assert loss.isnan() and head.weight.grad is not None and head.weight.grad.isnan().any()
    head.check()


def test_a_gradient_beyond_float16_is_warned_of_later() -> None:
    head, features, labels = setting()
    half = features.detach().half()
    half[1] = 6e-8
    (1e4 * head(half.requires_grad_(), labels)).backward()
    with pytest.warns(UserWarning, match="the gradient of features row 1 exceeds float16's 65504"):
        head.check()


def test_findings_that_have_not_arrived_are_not_waited_for() -> None:
    class Event:
        here = False

        def query(self) -> bool:
            return self.here

        def synchronize(self) -> None:
            self.here = True

    head, features, labels = setting()
    labels[0] = 10
    head(features, labels)
    queue = deferred._PENDING[head.weight]
    queue[0] = queue[0]._replace(arrived=Event())
    labels[0] = 1
    for _ in range(deferred.MOST):
        assert head(features, labels).isfinite()
    with pytest.raises(InputError, match="got 10 at row 0"):  # too many are unread
        head(features, labels)


def test_what_has_no_gradient_is_checked_at_once() -> None:
    head = angulus.DenseHead(6, 9, losses.normface())
    with torch.no_grad(), pytest.raises(InputError, match="got 9 at row 1"):
        head(torch.ones(2, 6), torch.tensor([0, 9]))
