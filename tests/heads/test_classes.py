"""Classes added to a trained head, removed, and started from means."""

from __future__ import annotations

import pytest
import torch

from angulus import ClassSampling, DenseHead, InputError, losses
from angulus.heads.classes import class_means, with_classes, without_classes


def trained(objective: losses.Objective) -> DenseHead:
    torch.manual_seed(0)
    head = DenseHead(4, 5, objective, impl="chunked", sampling=ClassSampling(0.5), alone=True).double()
    features, labels = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 4])
    head(features, labels)
    with torch.no_grad():
        for parameter in head.objective.parameters():
            parameter.add_(1.0)
    return head


def test_means_are_those_of_the_unit_features() -> None:
    features = torch.tensor([[2.0, 0.0], [0.0, 5.0], [0.0, -3.0]])
    found = class_means(features, torch.tensor([1, 1, 0]), 2)
    torch.testing.assert_close(found, torch.tensor([[0.0, -1.0], [0.5**0.5, 0.5**0.5]]))


def test_new_classes_leave_the_old_as_they_were() -> None:
    head = trained(losses.softmax(bias=True) + losses.ring_loss(0.1) + losses.center_loss(0.1))
    rows = torch.randn(2, 4, dtype=torch.float64)
    more = with_classes(head, rows)
    features = torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(more.logits(features)[:, :5], head.logits(features))
    assert bool((more.weight[5:] == rows).all()) and bool((more.bias[5:] == 0).all())
    assert more.objective.num_classes == 7
    assert bool((more.objective.ring_loss.R == head.objective.ring_loss.R).all())
    assert bool((more.objective.center_loss.centers[:5] == head.objective.center_loss.centers).all())
    assert not more.objective.center_loss.centers[5:].any()
    assert more.kernel == head.kernel and more.sampling == head.sampling and more.alone == head.alone


def test_a_memory_of_the_old_classes_starts_empty() -> None:
    head = trained(losses.normface() + losses.cross_batch_memory(5))  # as many features as classes
    before, fewer = head.objective.cross_batch_memory, without_classes(head, [0]).objective.cross_batch_memory
    assert bool((before.labels >= 0).any()) and int(fewer.step) == int(before.step) > 0
    assert fewer.labels.tolist() == [-100] * 5 and fewer.features.shape == (5, 4)


def test_removed_classes_leave_the_others_in_order() -> None:
    head = trained(losses.normface())
    fewer = without_classes(head, [1, 3, 3])
    features = torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(fewer.logits(features), head.logits(features)[:, [0, 2, 4]])
    assert bool((fewer.objective.radius.s == head.objective.radius.s).all())


def test_what_depends_on_the_number_of_classes_is_computed_again() -> None:
    more = with_classes(trained(losses.cm_softmax()), torch.randn(95, 4, dtype=torch.float64))
    fresh = DenseHead(4, 100, losses.cm_softmax()).objective.radius
    assert (more.objective.radius.lower, more.objective.radius.upper) == (fresh.lower, fresh.upper)


def test_bad_input_is_refused() -> None:
    head = trained(losses.normface())
    with pytest.raises(InputError, match="embedding_size; got 4 and 3"):
        with_classes(head, torch.randn(2, 3))
    with pytest.raises(InputError, match=r"classes must be a whole number in \[0, 4\]; got 5"):
        without_classes(head, [5])
    with pytest.raises(InputError, match=r"classes must be class numbers, as in \[3, 7\]; got 3"):
        without_classes(head, 3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot remove all 5"):
        without_classes(head, range(5))
    with pytest.raises(InputError, match=r"1 of 3 classes have no direction.*the first is class 2"):
        class_means(torch.randn(2, 4), torch.tensor([0, 1]), 3)
    with pytest.raises(InputError, match=r"labels must be in \[0, 3\)"):
        class_means(torch.randn(2, 4), torch.tensor([0, 3]), 3)
