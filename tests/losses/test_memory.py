"""Cross-batch memory over several steps: against a scalar loop and pytorch-metric-learning's numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from angulus import DenseHead, InputError, class_loss, losses
from angulus.losses.memory import CrossBatchMemory
from scalar import penalties
from scalar.geometry import unit

SIZE, CLASSES, DOUBLE = 4, 5, torch.float64
BASE = losses.normface(1.0, learn=False)


def rows(step: int, count: int = 6) -> tuple[Tensor, Tensor]:
    """Features without a random number, so that another library can be given the same."""
    place = torch.arange(count * SIZE, dtype=DOUBLE).view(count, SIZE)
    return torch.sin(1.7 * place + 0.9 * step) + 0.3 * torch.cos(place), (torch.arange(count) * 2 + step) % CLASSES


def terms(head: DenseHead, features: Tensor, labels: Tensor) -> Tensor:
    """The memory's part of the losses of a head on BASE; in training mode it takes the rows."""
    plain = class_loss(features, head.weight, labels, BASE, reduction="none")
    whole: Tensor = head(features, labels, reduction="none")
    return whole - plain


def head_with(size: int, weight: float = 1.0, start_step: int = 0) -> DenseHead:
    torch.manual_seed(0)
    return DenseHead(SIZE, CLASSES, BASE + losses.cross_batch_memory(size, 0.2, weight, start_step)).double()


@pytest.mark.parametrize("size", [40, 15, 7, 4])  # 4: less than a batch
def test_steps_equal_a_scalar_loop(size: int) -> None:
    head = head_with(size, weight=0.7)
    memory: list[tuple[list[float], int]] = []
    pairs = 0
    for step in range(5):
        features, labels = rows(step)
        if step == 2:
            labels[1] = -100
        kept = labels != -100
        expected = penalties.cross_batch_memory(
            features[kept].tolist(), labels[kept].tolist(), features[kept].tolist(), memory, size, 0.2, 0.7
        )
        found = terms(head, features, labels)
        torch.testing.assert_close(found[kept], torch.tensor(expected, dtype=DOUBLE), rtol=1e-9, atol=1e-12)
        assert not found[~kept].any()
        memory += zip(features[kept].tolist(), labels[kept].tolist(), strict=True)
        memory = memory[-size:]
        held = head.objective.cross_batch_memory
        oldest = (torch.arange(size) + int(held.place)) % size if len(memory) == size else torch.arange(len(memory))
        assert held.labels[oldest].tolist() == [label for _, label in memory]
        wanted = torch.tensor([unit(x) for x, _ in memory], dtype=DOUBLE)
        torch.testing.assert_close(held.features[oldest], wanted, rtol=1e-12, atol=1e-12)
        pairs += sum(expected) > 0
    assert pairs == 5 and not held.features.requires_grad


# loss and first entries of the gradient of features, by pytorch-metric-learning 2.9.0 in float64:
# CrossBatchMemory(ContrastiveLoss(1, 0.2, distance=CosineSimilarity()), 4, memory_size=15), called with rows(0), ...
PEER: list[tuple[float, list[float]]] = [
    (2.0278957718588755, [-0.11176997052043723, 0.06681146677545052, 0.10769877883286026, 0.002114870373795069]),
    (1.4782934425562952, [-0.026498786459308015, 0.040845280397310495, 0.008833686614990583, -0.01774138026221649]),
    (1.448998116345626, [-0.008633127399339198, 0.018646366733750537, -0.012011710925310393, 0.00854288410006073]),
    (1.5325143283498248, [-0.013877630681844694, 0.013594816635128133, -0.023227211029072707, 0.01952355746981066]),
]


def test_steps_equal_pytorch_metric_learning() -> None:
    head = head_with(15)
    for step, (value, gradient) in enumerate(PEER):
        features, labels = rows(step)
        loss = terms(head, features.requires_grad_(), labels).mean()
        (found,) = torch.autograd.grad(loss, features)
        assert loss.item() == pytest.approx(value, rel=1e-12)
        assert found[0].tolist() == pytest.approx(gradient, rel=1e-10)


@pytest.mark.parametrize("impl", ["chunked", "blocked"])
def test_every_kernel_has_it(impl: str) -> None:
    if impl == "blocked":
        pytest.importorskip("triton")
    heads = [head_with(9).float(), DenseHead(SIZE, CLASSES, head_with(9).objective.spec, impl=impl)]
    heads[1].load_state_dict(heads[0].state_dict())
    for step in range(2):
        features, labels = rows(step)
        found = [head(features.float(), labels) for head in heads]
        torch.testing.assert_close(*found)


def test_gradients_are_those_of_the_values() -> None:
    memory = CrossBatchMemory(9, 0.1).bind(SIZE, CLASSES).double()
    memory.observe(losses.Statistics({}, 6, *rows(0)))
    features, labels = rows(1)
    assert torch.autograd.gradcheck(lambda x: memory(x, labels, features, labels), features.clone().requires_grad_())
    assert torch.autograd.gradgradcheck(
        lambda x: memory(x, labels, features, labels), features.clone().requires_grad_(), atol=1e-4
    )


def test_an_image_seen_twice_counts_the_same_in_every_dtype() -> None:
    """Its cosine with itself is 1 up to rounding, and the mean is over the pairs that count."""
    found = []
    for dtype in (torch.float32, DOUBLE):
        head, (features, labels) = head_with(12).to(dtype), rows(0)
        head(features.to(dtype), labels)
        found.append(terms(head.eval(), features.to(dtype), labels).double())
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def test_it_begins_at_its_step_with_an_empty_memory() -> None:
    head, begun = head_with(20, start_step=2), head_with(20)
    for step in range(2):
        assert not terms(head, *rows(step)).any()
    assert (head.objective.cross_batch_memory.labels == -100).all()
    for step in range(2, 4):
        assert torch.equal(terms(head, *rows(step)), terms(begun, *rows(step)))
    assert (head.objective.cross_batch_memory.labels != -100).sum() == 12


def test_it_takes_rows_once_per_step_and_in_training_only() -> None:
    head = head_with(20)
    memory = head.objective.cross_batch_memory
    head.eval()(*rows(0))
    head.train()
    with torch.no_grad():
        head(*rows(0))
    with pytest.raises(InputError, match="features must be finite"):
        head(rows(0)[0] * math.nan, rows(0)[1])
    assert int(memory.step) == 0 and (memory.labels == -100).all()
    with head.accumulate():
        head(*rows(0))
    assert int(memory.step) == 0 and (memory.labels == -100).all()
    head(*rows(1))
    assert int(memory.step) == 1
    assert memory.labels[:12].tolist() == torch.cat([rows(0)[1], rows(1)[1]]).tolist()
