"""Class sampling: what a step sees, what it changes, and that the corrected sum is unbiased."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from angulus import ClassSampling, DenseHead, InputError, ShardedHead, SparseSGD, losses
from angulus.heads.optimizers import BackwardSGD
from angulus.heads.sampling import sample
from angulus.losses import Objective

OBJECTIVE = losses.arcface(16.0, 0.5)
MV_IAM = losses.mv_softmax(16.0, losses.margins.AdditiveAngle(0.5), 0.3, "adaptive") + losses.iam(0.1)


def head(sampling: ClassSampling | None = None, classes: int = 40, **options: object) -> DenseHead:
    torch.manual_seed(0)
    return DenseHead(6, classes, OBJECTIVE, sampling=sampling, **options).double()  # type: ignore[arg-type]


def batch(seed: int = 1, rows: int = 5, classes: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, 6, generator=generator, dtype=torch.float64)
    return features, torch.randint(classes, (rows,), generator=generator)


def test_a_sample_holds_every_class_of_the_rows_and_as_many_as_asked() -> None:
    weight = torch.arange(40.0)[:, None]
    labels = torch.tensor([3, 39, -1, 3, 0])
    for rate, wanted in ((0.01, 3), (0.1, 4), (0.26, 11), (1.0, 40)):
        seen = sample(ClassSampling(rate), weight, weight.squeeze(1), labels)
        assert len(seen.weight) == wanted == len(set(seen.weight.flatten().tolist()))
        assert seen.weight[seen.labels[[0, 1, 3, 4]], 0].tolist() == [3.0, 39.0, 3.0, 0.0]
        assert seen.labels[2] == -1
        assert seen.bias is not None and seen.bias.tolist() == seen.weight.flatten().tolist()


def test_every_other_class_is_drawn_as_often() -> None:
    torch.manual_seed(0)
    weight, labels = torch.arange(20.0)[:, None], torch.tensor([7])
    counts = torch.zeros(20)
    for _ in range(4000):
        counts[sample(ClassSampling(0.25), weight, None, labels).weight.flatten().long()] += 1
    assert counts[7] == 4000
    others = torch.cat([counts[:7], counts[8:]]) / 4000
    assert (others - 4 / 19).abs().max() < 5 * math.sqrt(4 / 19 * 15 / 19 / 4000)


def test_rate_one_is_the_full_head_and_eval_sees_all_classes() -> None:
    features, labels = batch()
    full, whole, few = head(), head(ClassSampling(1.0)), head(ClassSampling(0.2)).eval()
    expected = full(features, labels)
    expected.backward()
    for other in (whole, few):
        found = other(features, labels)
        torch.testing.assert_close(found, expected)
    whole(features, labels).backward()
    torch.testing.assert_close(whole.weight.grad.to_dense(), full.weight.grad)


@pytest.mark.parametrize("impl", ["reference", "chunked"])
@pytest.mark.parametrize("objective", [OBJECTIVE, losses.c_triplet(classes="hardest")])
def test_the_loss_is_that_of_a_head_with_the_sampled_classes_alone(objective: Objective, impl: str) -> None:
    features, labels = batch()
    few = DenseHead(6, 40, objective, sampling=ClassSampling(0.3), impl=impl).double()
    torch.manual_seed(7)
    loss = few(features, labels)
    loss.backward()
    rows = few.weight.grad.coalesce().indices()[0]
    alone = DenseHead(6, len(rows), objective).double()
    with torch.no_grad():
        alone.weight.copy_(few.weight[rows])
    expected = alone(features, torch.searchsorted(rows, labels))
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(few.weight.grad.coalesce().values(), alone.weight.grad)


def test_the_corrected_sum_is_unbiased() -> None:
    """The mean over many draws of e^{loss} − 1 = Σ_{j≠y} e^{z_j − t} is that of all classes, within its deviation."""
    features, labels = batch()
    objective = losses.normface(4.0, learn=False)
    torch.manual_seed(0)
    few = DenseHead(6, 40, objective, sampling=ClassSampling(0.3, corrected=True)).double()
    drawn = torch.stack([few(features, labels, reduction="none").exp() - 1 for _ in range(1500)]).detach()
    full = few.eval()(features, labels, reduction="none").exp() - 1
    error = drawn.std(dim=0) / math.sqrt(len(drawn))
    assert ((drawn.mean(dim=0) - full).abs() < 4 * error).all()
    biased = DenseHead(6, 40, objective, sampling=ClassSampling(0.3)).double()
    biased.load_state_dict(few.state_dict())
    plain = torch.stack([biased(features, labels, reduction="none").exp() - 1 for _ in range(300)]).detach()
    assert (plain.mean(dim=0) < 0.7 * full).all()


def test_only_sampled_rows_move_and_they_move_as_by_sgd() -> None:
    features, labels = batch()
    few = head(ClassSampling(0.2))
    mirror = few.weight.detach().clone()
    velocity = torch.zeros_like(mirror)
    optimizer = SparseSGD([few.weight], lr=0.1, momentum=0.9, weight_decay=0.01)
    for step in range(4):
        few(features, labels).backward()
        gradient = few.weight.grad.coalesce()
        before, moving = few.weight.detach().clone(), buffer(optimizer, few).clone()
        optimizer.step()
        optimizer.zero_grad()
        rows = gradient.indices()[0].tolist()
        for row, value in zip(rows, gradient.values(), strict=True):
            velocity[row] = 0.9 * velocity[row] + value + 0.01 * mirror[row]
            mirror[row] -= 0.1 * velocity[row]
        torch.testing.assert_close(few.weight.detach(), mirror, rtol=1e-14, atol=1e-15, msg=str(step))
        torch.testing.assert_close(buffer(optimizer, few), velocity, rtol=1e-14, atol=1e-15)
        others = [row for row in range(40) if row not in rows]
        assert len(others) == 32
        assert bool((few.weight[others] == before[others]).all())
        assert bool((buffer(optimizer, few)[others] == moving[others]).all())


def buffer(optimizer: SparseSGD, head: DenseHead) -> Tensor:
    return optimizer.state[head.weight].get("momentum_buffer", torch.zeros_like(head.weight))


def test_dense_gradients_are_updated_as_by_torch() -> None:
    features, labels = batch()
    ours, theirs = head(), head()
    first = SparseSGD(ours.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    second = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(3):
        for each, optimizer in ((ours, first), (theirs, second)):
            optimizer.zero_grad()
            each(features, labels).backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    assert first.step(lambda: 3.0) == 3.0


@pytest.mark.parametrize("sharded", [False, True])
def test_updates_within_backward_are_those_of_sgd_and_hold_no_gradient(sharded: bool) -> None:
    kind = ShardedHead if sharded else DenseHead
    heads = []
    for _ in range(2):
        torch.manual_seed(0)
        heads.append(kind(6, 40, MV_IAM, impl="chunked").double())
    ours, theirs = heads
    first = BackwardSGD(ours, lr=0.1, momentum=0.9, weight_decay=0.01)
    second = torch.optim.SGD([theirs.weight], lr=0.1, momentum=0.9, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(first, 1, 0.5)
    other = torch.optim.lr_scheduler.StepLR(second, 1, 0.5)
    for step in range(4):
        features, labels = batch(seed=step)
        leaves = [features.clone().requires_grad_(), features.clone().requires_grad_()]
        theirs.zero_grad()
        ours(leaves[0], labels).backward()
        theirs(leaves[1], labels).backward()
        first.step()
        second.step()
        schedule.step()
        other.step()
        assert ours.weight.grad is None
        torch.testing.assert_close(leaves[0].grad, leaves[1].grad)
        torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.01, math.nan])
def test_a_rate_outside_the_range_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match=r"sampling rate must be a.*number in \(0, 1\]"):
        ClassSampling(rate)


def test_what_cannot_go_together_is_refused() -> None:
    with pytest.raises(InputError, match=r"leave iam out"):
        DenseHead(6, 40, OBJECTIVE + losses.iam(0.1), sampling=ClassSampling(0.5, corrected=True))
    with pytest.raises(InputError, match=r"class sampling is not defined with c_triplet"):
        DenseHead(6, 40, OBJECTIVE + losses.c_triplet(), sampling=ClassSampling(0.5))
    with pytest.raises(InputError, match=r"leave c_triplet out, or give corrected=False"):
        DenseHead(6, 40, losses.c_triplet(classes="hardest"), sampling=ClassSampling(0.5, corrected=True))
    with pytest.raises(InputError, match=r"class sampling is not defined with proxy_anchor"):
        DenseHead(6, 40, OBJECTIVE + losses.proxy_anchor(), sampling=ClassSampling(0.5))
    with pytest.raises(InputError, match=r"class sampling is not defined with label smoothing"):
        DenseHead(6, 40, losses.label_smoothing(), sampling=ClassSampling(0.5))
    with pytest.raises(InputError, match=r"a sum of sigmoid losses; give corrected=False"):
        DenseHead(6, 40, losses.uniface(), sampling=ClassSampling(0.5, corrected=True))
    focal = MV_IAM.replace(weighting=losses.weighting.Focal(2.0, probability="plain"), iam=None)
    with pytest.raises(InputError, match=r"probability='plain' over changed negatives"):
        DenseHead(6, 40, focal, sampling=ClassSampling(0.5, corrected=True))
    with pytest.raises(InputError, match=r"must be an angulus\.ClassSampling"):
        DenseHead(6, 40, OBJECTIVE, sampling=0.1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="needs a head with impl='chunked', 'fused' or 'blocked' and no"):
        BackwardSGD(head(), lr=0.1)
    with pytest.raises(InputError, match="head must be a DenseHead or a ShardedHead; got Linear"):
        BackwardSGD(torch.nn.Linear(2, 2), lr=0.1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no sampling; got impl='chunked'"):
        BackwardSGD(head(ClassSampling(0.1), impl="chunked"), lr=0.1)
    with pytest.raises(InputError, match="momentum must be"):
        SparseSGD(head().parameters(), lr=0.1, momentum=1.0)


@pytest.mark.parametrize("impl", ["reference", "chunked"])
@pytest.mark.parametrize("corrected", [False, True])
def test_sampling_with_a_bias_is_a_head_of_the_sample(impl: str, corrected: bool) -> None:
    features, labels = batch()
    torch.manual_seed(0)
    objective, sampling = losses.softmax(bias=True), ClassSampling(0.3, corrected)
    few = DenseHead(6, 40, objective, sampling=sampling, impl=impl).double()
    with torch.no_grad():
        few.bias.normal_()
    torch.manual_seed(7)
    few(features, labels).backward()
    rows = few.weight.grad.coalesce().indices()[0]
    assert rows.tolist() == few.bias.grad.coalesce().indices()[0].tolist()
    weight, bias = (each.detach()[rows].requires_grad_() for each in (few.weight, few.bias))
    logits, own = features @ weight.T + bias, torch.searchsorted(rows, labels)
    chance = (12 - len(set(labels.tolist()))) / (40 - len(set(labels.tolist())))
    offset = torch.where(torch.isin(rows, labels), 0.0, -math.log(chance) if corrected else 0.0)
    negatives = (logits + offset).scatter(1, own[:, None], -torch.inf).logsumexp(dim=1)
    torch.nn.functional.softplus(negatives - logits.gather(1, own[:, None]).squeeze(1)).mean().backward()
    torch.testing.assert_close(few.weight.grad.coalesce().values(), weight.grad)
    torch.testing.assert_close(few.bias.grad.coalesce().values(), bias.grad)


@pytest.mark.parametrize("objective", [losses.uniface(8.0), losses.circle(gamma=8.0)], ids=["uniface", "circle"])
def test_sampled_sigmoids_and_circles_are_heads_of_the_sample(objective: losses.Objective) -> None:
    features, labels = batch()
    few = DenseHead(6, 40, objective, sampling=ClassSampling(0.3), impl="chunked").double()
    loss = few(features, labels)
    loss.backward()
    rows = few.weight.grad.coalesce().indices()[0]
    small = DenseHead(6, len(rows), objective).double()
    with torch.no_grad():
        small.weight.copy_(few.weight[rows])
        for one, other in zip(small.objective.parameters(), few.objective.parameters(), strict=True):
            one.copy_(other)
    expected = small(features, torch.searchsorted(rows, labels))
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(few.weight.grad.coalesce().values(), small.weight.grad)


def test_sparse_gradients_accumulate_over_two_batches() -> None:
    few = head(ClassSampling(0.2))
    parts = []
    for seed in (1, 2):
        few(*batch(seed)).backward()
        parts.append(few.weight.grad.to_dense().clone())
    before = few.weight.detach().clone()
    SparseSGD([few.weight], lr=0.1).step()
    torch.testing.assert_close(few.weight.detach(), before - 0.1 * parts[1])


def test_a_copy_of_a_head_is_not_updated_within_backward() -> None:
    attached = head(impl="chunked")
    optimizer = BackwardSGD(attached, lr=0.1, momentum=0.9)
    copied = copy.deepcopy(attached)
    copied(*batch()).backward()
    assert copied.weight.grad is not None and bool((copied.weight == attached.weight).all())
    with pytest.raises(InputError, match=r"call its detach\(\) first"):
        BackwardSGD(attached, lr=0.1)
    optimizer.detach()
    attached(*batch()).backward()
    assert attached.weight.grad is not None
    assert optimizer.step(lambda: float(torch.is_grad_enabled())) == 1.0


@pytest.mark.parametrize("batch_size", [5, 40])
def test_a_second_backward_before_step_is_refused_and_changes_nothing(batch_size: int) -> None:
    attached = head(impl="chunked")
    optimizer = BackwardSGD(attached, lr=0.1, momentum=0.9)
    attached(*batch(rows=batch_size)).backward()
    once, velocity = attached.weight.detach().clone(), optimizer.state[attached.weight]["momentum_buffer"].clone()
    with pytest.raises(InputError, match=r"call step\(\) after each backward\(\)"):
        attached(*batch(rows=batch_size)).backward()
    assert bool((attached.weight == once).all())
    assert bool((optimizer.state[attached.weight]["momentum_buffer"] == velocity).all())
    optimizer.step()
    attached(*batch(rows=batch_size)).backward()
    assert not bool((attached.weight == once).all())


def test_momentum_is_made_once() -> None:
    attached = head(impl="chunked")
    optimizer = BackwardSGD(attached, lr=0.1, momentum=0.9)
    attached(*batch()).backward()
    first = optimizer.state[attached.weight]["momentum_buffer"]
    optimizer.step()
    attached(*batch()).backward()
    assert optimizer.state[attached.weight]["momentum_buffer"] is first
