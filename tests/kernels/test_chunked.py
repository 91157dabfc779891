"""The chunked kernel against the reference, over every case of the algebra, and its own hazards."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import angulus
from angulus import InputError, class_loss, losses
from angulus.kernels import blocks, chunked, dispatch
from angulus.kernels.reduction import Request
from kernels.problems import answers, check, everything
from kernels.problems import problem as random_problem
from losses.aliases import CASES
from losses.oracles import Case, batch, point

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def loss_and_gradients(case: Case, impl: str, dtype: torch.dtype) -> tuple[Tensor, list[Tensor | None]]:
    p = point()
    bound, data = case.bind_at(p).to(dtype), batch(p, case, dtype)
    leaves = [data.features, data.weight, *([] if data.bias is None else [data.bias]), *bound.parameters()]
    loss = class_loss(data.features, data.weight, data.labels, bound, bias=data.bias, impl=impl, reduction="none")
    upstream = torch.linspace(0.5, 2.0, len(loss), dtype=loss.dtype)
    return loss.detach(), list(torch.autograd.grad(loss, leaves, upstream, allow_unused=True))


@pytest.mark.parametrize("block", [1, 2, 64])
@every_case
def test_equals_the_reference(case: Case, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(blocks, "LEAST_BLOCK", block)
    expected, gradients = loss_and_gradients(case, "reference", torch.float64)
    found, others = loss_and_gradients(case, "chunked", torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for other, gradient in zip(others, gradients, strict=True):
        if gradient is None or other is None:
            assert all(each is None or not each.any() for each in (gradient, other))
        else:
            torch.testing.assert_close(other, gradient, rtol=1e-10, atol=1e-12)


@every_case
def test_float32_is_no_further_from_float64_than_the_reference(case: Case) -> None:
    truth, exact = loss_and_gradients(case, "reference", torch.float64)
    plain, _ = loss_and_gradients(case, "reference", torch.float32)
    found, gradients = loss_and_gradients(case, "chunked", torch.float32)
    allowed = 3 * (plain.double() - truth).abs().max() + 1e-5 * truth.abs().max()
    worst = (found.double() - truth).abs().argmax()
    assert (found.double() - truth).abs().max() <= allowed, f"row {worst}: {found[worst]} for {truth[worst]}"
    for gradient, right in zip(gradients, exact, strict=True):
        if gradient is not None and right is not None:
            assert (gradient.double() - right).abs().max() <= 2e-4 * max(1.0, float(right.abs().max()))


def problem(batch_size: int, num_classes: int = 50, size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch_size)
    features = torch.randn(batch_size, size, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(num_classes, size, generator=generator, dtype=torch.float64, requires_grad=True)
    return features, weight, torch.randint(num_classes, (batch_size,), generator=generator)


@pytest.mark.parametrize("batch_size", [1, 7, 8, 9, 40], ids="B={}".format)
@pytest.mark.parametrize(
    "objective", [losses.softmax(), losses.arcface(64, 0.5) + losses.iam(0.1)], ids=["raw", "unit"]
)
def test_stash_and_recompute(batch_size: int, objective: losses.Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    """With d = 8 the products of up to eight rows fit into the gradient's storage; more are multiplied again."""
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(blocks, "LEAST_BLOCK", 16)
    features, weight, labels = problem(batch_size)
    results = []
    for impl in ("reference", "chunked"):
        loss = class_loss(features, weight, labels, objective, impl=impl)
        results.append(torch.autograd.grad(loss, (features, weight)))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("s", [64.0, 80.0, 1000.0])
def test_scales_beyond_the_range_of_exp(s: float) -> None:
    features, weight, labels = problem(6)
    objective = losses.mv_softmax(s, losses.margins.AdditiveAngle(0.5), 0.3, "adaptive")
    expected = class_loss(features, weight, labels, objective, reduction="none")
    found = class_loss(features.float(), weight.float(), labels, objective, impl="chunked", reduction="none")
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-3)


def test_keeps_nothing_without_gradients() -> None:
    features, weight, labels = problem(4)
    with torch.no_grad():
        loss = class_loss(features, weight, labels, losses.arcface(64, 0.5), impl="chunked")
    assert not loss.requires_grad


def test_frozen_weight_and_frozen_features() -> None:
    features, weight, labels = problem(4)
    objective = losses.arcface(16, 0.5)
    both = torch.autograd.grad(class_loss(features, weight, labels, objective), (features, weight))
    of_features = torch.autograd.grad(
        class_loss(features, weight.detach(), labels, objective, impl="chunked"), features
    )
    of_weight = torch.autograd.grad(class_loss(features.detach(), weight, labels, objective, impl="chunked"), weight)
    torch.testing.assert_close(of_features[0], both[0])
    torch.testing.assert_close(of_weight[0], both[1])


def test_second_backward_is_refused() -> None:
    features, weight, labels = problem(4)
    loss = class_loss(features, weight, labels, losses.arcface(16, 0.5), impl="chunked")
    loss.backward(retain_graph=True)
    with pytest.raises(InputError, match="differentiated already"):
        loss.backward()


def test_second_derivative_is_refused() -> None:
    features, weight, labels = problem(4)
    loss = class_loss(features, weight, labels, losses.arcface(16, 0.5), impl="chunked")
    with pytest.raises(InputError, match="first derivatives only"):
        torch.autograd.grad(loss, features, create_graph=True)


def test_a_weight_changed_in_between_is_refused() -> None:
    features, weight, labels = problem(4)
    loss = class_loss(features, weight, labels, losses.arcface(16, 0.5), impl="chunked")
    with torch.no_grad():
        weight += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_gradients_accumulate_over_two_batches() -> None:
    head = angulus.DenseHead(8, 20, losses.normface(), impl="chunked")
    other = angulus.DenseHead(8, 20, losses.normface(), impl="reference")
    other.load_state_dict(head.state_dict())
    for step in range(2):
        features, labels = torch.randn(5, 8), torch.arange(5) + step
        head(features, labels).backward()
        other(features, labels).backward()
    for one, two in zip(head.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


def test_unknown_kernel_is_named() -> None:
    with pytest.raises(
        InputError, match="impl must be one of 'auto', 'reference', 'chunked', 'fused', 'blocked'; got 'chunk'"
    ):
        angulus.DenseHead(8, 20, losses.normface(), impl="chunk")


def test_auto_takes_chunked_where_the_matrix_is_large_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[str] = []

    def spy(name: str) -> Any:
        real = dispatch.TABLE[name]
        return lambda *arguments: (taken.append(name), real(*arguments))[1]

    monkeypatch.setattr(dispatch, "TABLE", {name: spy(name) for name in dispatch.TABLE})
    monkeypatch.setattr(dispatch, "LARGE", 4 * 50)
    dispatch._log_choice.cache_clear()
    with caplog.at_level(logging.DEBUG, "angulus"):
        for batch_size in (4, 5, 5):
            class_loss(*problem(batch_size), losses.arcface(16, 0.5))
    assert taken == ["reference", "chunked", "chunked"]
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "impl='auto' takes 'reference'",
        "impl='auto' takes 'chunked'",
    ]


def test_memory_beside_one_gradient_is_a_few_blocks() -> None:
    """B x C would be 51 MiB; the reference needs several of them. Of W's size there is dW alone: no copy of either."""
    features = torch.randn(64, 64, requires_grad=True)
    weight = torch.randn(200_000, 64, requires_grad=True)
    labels = torch.arange(64)
    largest, as_large = 0, set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            for each in out if isinstance(out, tuple | list) else [out]:
                if isinstance(each, Tensor):
                    storage = each.untyped_storage()
                    if storage.nbytes() == weight.untyped_storage().nbytes():
                        as_large.add(storage.data_ptr())
                    else:
                        largest = max(largest, storage.nbytes())
            return out

    with Watch():
        class_loss(features, weight, labels, losses.arcface(16, 0.5), impl="chunked").backward()
    assert as_large - {weight.data_ptr()} == {weight.grad.data_ptr()}
    assert largest <= 4 * blocks.BLOCK_ELEMENTS


def test_backward_within_autocast_is_not_rounded() -> None:
    features, weight, labels = (each.detach() for each in problem(6))
    leaf = weight.float().requires_grad_()
    loss = class_loss(features.float(), leaf, labels, losses.arcface(16, 0.5), impl="chunked")
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = torch.autograd.grad(loss, leaf)
    exact = class_loss(features, leaf.double(), labels, losses.arcface(16, 0.5), impl="reference")
    (expected,) = torch.autograd.grad(exact, leaf)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch_size", [4, 40])
def test_a_second_backward_is_refused_whatever_the_shape(batch_size: int) -> None:
    features, weight, labels = problem(batch_size)
    loss = class_loss(features, weight, labels, losses.arcface(16, 0.5), impl="chunked")
    loss.backward(retain_graph=True)
    with pytest.raises(InputError, match="was differentiated already"):
        loss.backward()


def test_large_negative_scales_and_transposed_weights() -> None:
    features, weight, labels = problem(4)
    for objective in (losses.normface(16.0), losses.arcface(16.0, 0.5)):
        bound = objective.bind(8, 50).double()
        for parameter in bound.parameters():
            parameter.data.fill_(-200.0)
        sideways = weight.detach().T.contiguous().T.requires_grad_()
        for products in (None, torch.bfloat16):
            found = class_loss(features.float(), sideways.float(), labels, bound, impl="chunked", products=products)
            plain = class_loss(features.float(), weight.float(), labels, bound, impl="reference", products=products)
            torch.testing.assert_close(found, plain, rtol=2e-2, atol=1e-3)
            found.backward()


@pytest.mark.parametrize("name", ["softmax-bias", "arcface", "mv_softmax-adaptive-arc", "c_triplet", "iam-own-scale"])
@pytest.mark.parametrize("batch_size", [6, 30, 70])  # the products fit dW's rows as float32, as bfloat16, not at all
@pytest.mark.parametrize("within", [False, True])
def test_bfloat16_products_are_as_near_as_rounding_allows(
    name: str, batch_size: int, within: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if within and not chunked.amx_available():
        pytest.skip("needs a CPU whose products round their operands to bfloat16 (AMX)")
    monkeypatch.setattr(chunked, "amx_available", lambda: within)
    features, weight, labels = problem(batch_size, num_classes=40, size=24)
    objective = ROUNDED[name]
    bias = torch.linspace(-1, 1, 40) if objective.bias else None

    def run(impl: str, products: torch.dtype | None, dtype: torch.dtype) -> list[Tensor]:
        leaves = [each.detach().to(dtype).requires_grad_() for each in (features, weight)]
        own = None if bias is None else bias.to(dtype)
        loss = class_loss(*leaves, labels, objective, bias=own, impl=impl, products=products)
        return [loss.detach(), *torch.autograd.grad(loss, leaves)]

    exact = run("reference", None, torch.float64)
    rounded = run("reference", torch.bfloat16, torch.float32)
    found = run("chunked", torch.bfloat16, torch.float32)
    for right, plain, mine in zip(exact, rounded, found, strict=True):
        scale = right.norm()
        more = 1e-5 if within else 4e-3  # what the products give is rounded as well
        allowed = (2 if within else 4) * (plain.double() - right).norm() / scale + more
        assert (mine.double() - right).norm() / scale <= allowed
        assert mine.dtype == torch.float32


ROUNDED = {
    "softmax-bias": losses.softmax(bias=True),
    "arcface": losses.arcface(16.0, 0.5),
    "mv_softmax-adaptive-arc": losses.mv_softmax(16.0, losses.margins.AdditiveAngle(0.5), 0.3, "adaptive"),
    "c_triplet": losses.normface(16.0, learn=False) + losses.c_triplet(),
    "iam-own-scale": losses.cm_softmax() + losses.iam(0.3, s=8.0),
    "sigmoids": losses.sphereface2(r=16).replace(classifier=losses.classifiers.Sigmoid(start=-5, learn=False)),
    "label_smoothing": losses.label_smoothing(16.0, 0.2),
    "circle": losses.circle(gamma=16.0),
    "proxy_anchor": losses.proxy_anchor(8.0),
}


def test_other_dtypes_of_products_are_refused() -> None:
    features, weight, labels = problem(4)
    with pytest.raises(InputError, match=r"products must be torch\.bfloat16, or None"):
        class_loss(features, weight, labels, losses.softmax(), products=torch.float16)


@pytest.mark.parametrize("impl", ["reference", "chunked"])
def test_a_row_whose_class_is_elsewhere_is_reduced_over_all(impl: str) -> None:
    features, weight, _ = problem(3)
    unit, radius = torch.nn.functional.normalize(features).detach(), torch.tensor([4.0, 5.0, 6.0])
    labels = torch.tensor([-1, 7, -1])
    reduced = dispatch.Kernel(impl)(unit, weight.detach(), None, labels, Request(radius, eps=0.0))
    logits = radius[:, None] * (unit @ torch.nn.functional.normalize(weight.detach()).T)
    logits[1, 7] = -torch.inf
    torch.testing.assert_close(reduced.log_sum, torch.logsumexp(logits, dim=1))
    torch.testing.assert_close(reduced.rows[1], weight[7])


@pytest.mark.parametrize("block", [1, 8])
def test_an_update_gets_every_block_of_the_gradient_once(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(blocks, "LEAST_BLOCK", block)
    features, weight, labels = problem(5)
    objective = losses.arcface(16.0, 0.5)
    expected = torch.autograd.grad(class_loss(features, weight, labels, objective, impl="reference"), weight)[0]
    given = torch.full_like(weight, torch.nan)

    def update(classes: slice, gradient: Tensor) -> None:
        assert bool(given[classes].isnan().all())
        given[classes] = gradient

    unit, rows = torch.nn.functional.normalize(features.detach()).requires_grad_(), weight.detach().requires_grad_()
    radius = torch.full((5,), 16.0)
    reduced = dispatch.Kernel("chunked")(unit, rows, None, labels, Request(radius, update=update))
    target = torch.nn.functional.normalize(reduced.rows)
    cosines = (unit * target).sum(dim=1)
    margined = torch.cos(torch.acos(cosines) + 0.5)
    torch.nn.functional.softplus(reduced.log_sum - 16.0 * margined).mean().backward()
    torch.testing.assert_close(given, expected, rtol=1e-3, atol=1e-5)
    assert rows.grad is None


def test_an_update_needs_the_chunked_kernel() -> None:
    features, weight, labels = problem(5)
    wanted = Request(torch.ones(5), update=lambda classes, gradient: None)
    with pytest.raises(InputError, match="needs impl='chunked', 'fused' or 'blocked'"):
        dispatch.Kernel("reference")(features, weight, None, labels, wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("unit_weight", [True, False], ids=["unit", "raw"])
@pytest.mark.parametrize(("scales", "offsets"), [(0, 0), (1, 0), (3, 0), (0, 2), (2, 2)])
@pytest.mark.parametrize("radius", [True, False], ids=["radius", "no radius"])
@pytest.mark.parametrize("sizes", [(1, 1, 3), (9, 33, 17), (20, 16, 5)], ids=str)  # rows, classes, size
def test_any_reductions_together(
    sizes: tuple[int, int, int],
    radius: bool,
    scales: int,
    offsets: int,
    unit_weight: bool,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not radius and scales + offsets == 0:
        pytest.skip("nothing is asked")
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(blocks, "LEAST_BLOCK", 8)
    request = everything(scales, offsets, unit_weight=unit_weight, eps=0.1)
    wanted = request if radius else replace(request, radius=None)
    check(chunked.reduce_rows, random_problem(sizes, wanted, biased=radius, mapped=radius), dtype)


EMPTY = torch.empty(0)
FURTHER = {
    "softplus": {"shift": EMPTY},
    "softplus of raw logits": {"shift": EMPTY, "unit_weight": False},
    "softplus of a power": {"shift": EMPTY, "power": (2.5, 0.3)},
    "a power": {"power": (3.0, 0.2)},
    "a power with the slope of the cosine": {"power": (3.0, 0.2), "slope": (0.0, 1.0)},
    "a power with another slope": {"power": (3.0, 0.2), "slope": (0.5, 0.7)},
    "circle": {"threshold": EMPTY, "coefficients": (1.0, 0.0, -0.09), "below": 0.0, "slope": (1.0, 0.3)},
    "a quadratic map above, a number below": {"threshold": EMPTY, "coefficients": (1.0, 0.2, 0.1), "below": 0.4},
    "a line below": {"threshold": EMPTY, "coefficients": (0.0, 1.3, 0.2), "below": -0.4, "shift": EMPTY},
    "the sum of the logits": {"sums_logits": True},
    "the sum of mapped logits": {"sums_logits": True, "threshold": EMPTY, "coefficients": (0.0, 1.3, 0.2)},
    "the sum of raw logits": {"sums_logits": True, "unit_weight": False},
    "class sums": {"class_sums": ((4.0, 0.1), (40.0, 0.3))},
    "class sums alone": {"class_sums": ((4.0, 0.1),), "radius": None},
    "class sums of some rows": {"class_sums": ((4.0, 0.1), (40.0, 0.3)), "kept": EMPTY},
    "all of them": {"class_sums": ((4.0, 0.1),), "sums_logits": True, "shift": EMPTY, "power": (2.0, 0.0)},
}


@pytest.mark.parametrize("products", [None, torch.bfloat16], ids=["", "bfloat16"])
@pytest.mark.parametrize("sizes", [(1, 1, 3), (9, 33, 17), (20, 16, 5)], ids=str)  # rows, classes, size
@pytest.mark.parametrize("wanted", FURTHER.values(), ids=FURTHER.keys())
def test_further_reductions(
    wanted: dict[str, Any],
    sizes: tuple[int, int, int],
    products: torch.dtype | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(blocks, "LEAST_BLOCK", 8)
    others = everything(1, 1) if sizes[0] == 9 else everything(0, 0)
    asked = random_problem(sizes, replace(others, **wanted), biased=wanted.get("radius", EMPTY) is not None)
    if products is None:
        check(chunked.reduce_rows, asked)
    check(chunked.reduce_rows, asked, torch.float32, products)


def test_what_the_fused_kernel_does_not_compute_is_refused() -> None:
    features, weight, labels = problem(5)
    for objective in (
        losses.label_smoothing(),
        losses.circle(),
        losses.proxy_anchor(),
        losses.sphereface2().replace(classifier=losses.classifiers.Softmax()),
        losses.normface(8, False).replace(classifier=losses.classifiers.Sigmoid(learn=False)),
    ):
        with pytest.raises(InputError, match=r"impl='fused' computes no sigmoids, .*; use impl='chunked'"):
            class_loss(features, weight, labels, objective, impl="fused")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("softness", [None, 0.2], ids=["nearest", "weighted"])
@pytest.mark.parametrize(
    ("sizes", "subcenters", "biased"), [((1, 1, 3), 3, False), ((9, 33, 17), 2, True), ((20, 7, 5), 5, False)], ids=str
)
def test_any_reductions_of_subcenters(
    sizes: tuple[int, int, int],
    subcenters: int,
    biased: bool,
    softness: float | None,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No block cuts a class: eight rows at a time are two classes of three, four of two, one of five."""
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(blocks, "LEAST_BLOCK", 8)
    request = everything(2, 1, eps=0.1, softness=softness, spreads=(0.0, 1e-3))
    check(chunked.reduce_rows, random_problem(sizes, request, biased=biased, mapped=True, subcenters=subcenters), dtype)


@pytest.mark.parametrize("softness", [None, 0.2], ids=["nearest", "weighted"])
def test_bfloat16_products_of_subcenters(softness: float | None) -> None:
    """Values; for a gradient, rounding may choose another nearest sub-centre."""
    p = random_problem((9, 33, 32), everything(1, 1, softness=softness, spreads=(0.0,)), subcenters=3)
    found = answers(chunked.reduce_rows, p, torch.float32, torch.bfloat16)
    for name, right in answers(dispatch.TABLE["reference"], p, torch.float64).items():
        if "grad" not in name and "active" not in name:
            torch.testing.assert_close(found[name].double(), right, rtol=2e-2, atol=2e-2)


def test_the_fused_kernel_refuses_subcenters_and_auto_does_not_choose_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "LARGE", 4 * 3 * 5)
    features, weight, labels = torch.randn(4, 6), torch.randn(5, 3, 6), torch.arange(4)
    objective = losses.subcenter_arcface()
    with pytest.raises(InputError, match=r"one weight row per class; got sub-centres, .*: use impl='chunked'"):
        class_loss(features, weight, labels, objective, impl="fused")
    taken: list[str] = []
    for name, kernel in list(dispatch.TABLE.items()):
        spy = lambda *given, name=name, kernel=kernel: (taken.append(name), kernel(*given))[1]  # noqa: E731
        monkeypatch.setitem(dispatch.TABLE, name, spy)
    class_loss(features, weight, labels, objective)
    monkeypatch.setattr(dispatch, "LARGE", 4 * 3 * 5 - 1)  # the products of all rows count
    class_loss(features, weight, labels, objective)
    assert taken == ["reference", "chunked"]


def test_rounding_within_products_ends_with_the_kernel() -> None:
    if not chunked.amx_available():
        pytest.skip("needs a CPU whose products round their operands to bfloat16 (AMX)")
    features, weight, labels = (each.detach() for each in problem(64, num_classes=64, size=64))
    leaf = weight.float().requires_grad_()
    left = torch.full((64, 64), 1 + 2**-12)
    class_loss(features.float(), leaf, labels, losses.arcface(16, 0.5), impl="chunked", products=torch.bfloat16).sum()
    assert bool((left @ torch.ones(64, 64) > 64).all())
    with pytest.raises(ZeroDivisionError), chunked.rounded_products(True):
        assert bool((left @ torch.ones(64, 64) == 64).all())
        _ = 1 / 0
    assert bool((left @ torch.ones(64, 64) > 64).all())
