"""The fused and the blocked kernel against the reference: in Triton's interpreter, or on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import angulus
from angulus import InputError, class_loss, losses
from angulus.kernels import blocked, fused, fused_launch, reduction, tuned
from angulus.kernels.reduction import Reduced, Request
from kernels import problems
from kernels.problems import DEVICE, Problem, answers, assert_no_worse, changed, everything, problem
from losses.aliases import CASES
from losses.oracles import Case, batch, point

pytest.importorskip("triton", reason="impl='fused' and 'blocked' need the package triton")

KERNELS = {"fused": fused, "blocked": blocked}
SMALL = tuned.TileShape(16, 16, 16, 4, 1)
impl = "fused"  # the kernel under test


@pytest.fixture(params=KERNELS, autouse=True)
def each_kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "impl", request.param)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tiles, and one of them a chunk, so that little problems have many of both."""
    shape = tuned.PassShape(16, 8, 4)
    few = tuned.Tuned(dict.fromkeys(tuned.TILES, (SMALL, SMALL)), tuned.Blocking(1, shape, shape))
    monkeypatch.setattr(tuned, "DEFAULT", few)
    monkeypatch.setattr(fused_launch, "SCRATCH", 1)


def reduce_rows(*inputs: Any) -> Reduced:
    return KERNELS[impl].reduce_rows(*inputs)


def check(p: Problem, dtype: torch.dtype = torch.float64, products: torch.dtype | None = None) -> None:
    problems.check(reduce_rows, p, dtype, products)


EXACT = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
SIZES = [(1, 1, 3), (1, 70, 40), (9, 33, 17), (20, 16, 5)]


@EXACT
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("unit_weight", [True, False], ids=["unit", "raw"])
@pytest.mark.usefixtures("small")
def test_everything_at_once(sizes: tuple[int, int, int], unit_weight: bool, dtype: torch.dtype) -> None:
    check(problem(sizes, everything(unit_weight=unit_weight, eps=0.1), biased=True, mapped=True), dtype)


@pytest.mark.parametrize(
    ("request_", "biased", "mapped"),
    [
        (everything(0, 0), False, False),
        (everything(0, 0, unit_weight=False), False, False),
        (everything(0, 0, unit_weight=False), True, False),
        (everything(0, 0, unit_weight=False), False, True),
        (everything(3, 0, unit_weight=False), False, False),
        (everything(0, 3), False, True),
        (replace(everything(1, 0), radius=None), True, False),
        (replace(everything(0, 2), radius=None), False, False),
    ],
    ids=["radius", "raw", "raw bias", "raw mapped", "raw scales", "hinges", "scale alone", "hinges alone"],
)
def test_one_thing_at_a_time(request_: Request, biased: bool, mapped: bool) -> None:
    """With the tiles that a GPU gets, as far as the sizes fill them."""
    check(problem((9, 70, 40), request_, biased=biased, mapped=mapped), torch.float32)


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(1, 9), st.integers(1, 70), st.integers(1, 40))
def test_any_sizes(rows: int, classes: int, size: int) -> None:
    check(problem((rows, classes, size), everything(1, 1), mapped=True))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.usefixtures("small")
def test_bfloat16_products(sizes: tuple[int, int, int]) -> None:
    check(problem(sizes, everything(1, 1), mapped=True), torch.float32, torch.bfloat16)


STRUCTURES = (
    "softmax-bias",
    "l2_softmax-bias-learned",
    "normface-eps-learned",
    "arcface-64",
    "sphereface-raw",
    "focal_softmax-over-l_softmax-plain",
    "mv_softmax-fixed-arc",
    "mv_softmax-adaptive-am",
    "mv_softmax-focal-plain",
    "mv_softmax-contracted",
    "magface",
    "curricularface-seen-iam",
    "cm_m_softmax-arc",
    "c_triplet-gated",
    "c_triplet-hardest-gated",
    "iam-softmax-bias",
    "mv_softmax-everything",
)


def loss_and_gradients(case: Case, impl: str, dtype: torch.dtype) -> dict[str, Tensor]:
    p = point()
    bound, data = case.bind_at(p).to(DEVICE, dtype), batch(p, case, dtype)
    leaves = {name: getattr(data, name) for name in ("features", "weight", "bias") if getattr(data, name) is not None}
    leaves = {name: leaf.detach().to(DEVICE).requires_grad_() for name, leaf in leaves.items()}
    features, weight = leaves["features"], leaves["weight"]
    loss = class_loss(
        features, weight, data.labels.to(DEVICE), bound, bias=leaves.get("bias"), impl=impl, reduction="none"
    )
    leaves |= dict(bound.named_parameters())
    upstream = torch.linspace(0.5, 2.0, len(loss), dtype=loss.dtype, device=DEVICE)
    gradients = torch.autograd.grad(loss, list(leaves.values()), upstream, allow_unused=True)
    named = {f"grad {name}": each for name, each in zip(leaves, gradients, strict=True) if each is not None}
    return {name: each.detach().cpu() for name, each in ({"loss": loss} | named).items()}


@EXACT
@pytest.mark.parametrize("case", [CASES[name] for name in STRUCTURES], ids=STRUCTURES)
def test_losses_equal_the_reference(case: Case, dtype: torch.dtype) -> None:
    truth = loss_and_gradients(case, "reference", torch.float64)
    plain = loss_and_gradients(case, "reference", dtype)
    found = loss_and_gradients(case, impl, dtype)
    assert_no_worse(found, plain, truth, 1e-11 if dtype == torch.float64 else 1e-5)


@EXACT
@pytest.mark.usefixtures("small")
def test_labels_at_the_borders_of_tiles(dtype: torch.dtype) -> None:
    p = problem((6, 33, 7), everything(1, 1), mapped=True)
    check(replace(p, labels=torch.tensor([0, 15, 16, 31, 32, 16])), dtype)


@EXACT
@pytest.mark.usefixtures("small")
def test_all_rows_of_one_class(dtype: torch.dtype) -> None:
    p = problem((20, 18, 7), everything(1, 1), biased=True)
    check(replace(p, labels=torch.full((20,), 17)), dtype)


def test_a_class_alone_leaves_nothing_to_sum() -> None:
    p = problem((3, 1, 4), everything(1, 1), mapped=True, biased=True)
    found = answers(reduce_rows, p, torch.float32)
    assert (found["N"] == -torch.inf).all() and (found["P 0"] == -torch.inf).all()
    for name in found.keys() - {"N", "P 0", "rows", "grad weight"}:
        assert not found[name].any(), name


@EXACT
@pytest.mark.parametrize("radius", [1e-4, 300.0, 1e4])
@pytest.mark.usefixtures("small")
def test_radii_beyond_the_range_of_exp(radius: float, dtype: torch.dtype) -> None:
    scaled = lambda values: radius * values  # noqa: E731
    p = changed(problem((5, 40, 6), everything(1, 0), biased=True), **{"radius": scaled, "scale 0": scaled})
    check(p, dtype)


@EXACT
def test_zero_features_and_weights(dtype: torch.dtype) -> None:
    def emptied(values: Tensor) -> Tensor:
        values[[0, 3]] = 0
        return values

    check(changed(problem((5, 20, 6), everything(1, 1), mapped=True), unit=emptied, weight=emptied), dtype)


@pytest.mark.usefixtures("small")
def test_a_class_that_another_rank_holds_masks_nothing() -> None:
    p = problem((4, 20, 6))
    labels = torch.tensor([-1, 3, -1, 19])
    found = answers(reduce_rows, replace(p, labels=labels), torch.float64)
    cosines = p.leaves["unit"] @ torch.nn.functional.normalize(p.leaves["weight"]).T
    logits = p.leaves["radius"][:, None] * cosines
    logits[1, 3] = logits[3, 19] = -torch.inf
    torch.testing.assert_close(found["N"], torch.logsumexp(logits, dim=1), rtol=1e-12, atol=1e-12)
    mean = (torch.softmax(logits, dim=1) * cosines).sum(dim=1)
    upstream = found["grad radius"] / mean
    by_hand = torch.softmax(logits, dim=1) * (upstream * p.leaves["radius"])[:, None]
    expected = by_hand @ torch.nn.functional.normalize(p.leaves["weight"])
    torch.testing.assert_close(found["grad unit"], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("small")
def test_strided_tensors() -> None:
    p = problem((9, 20, 17), everything(1, 1), biased=True)
    apart = changed(
        p,
        unit=lambda values: values.T.contiguous().T,
        weight=lambda values: torch.stack([values, values], dim=2)[..., 0],
        bias=lambda values: values.repeat_interleave(3)[::3],
        radius=lambda values: values[:1].expand(9).contiguous().repeat_interleave(2)[::2],
    )
    straight = changed(p, radius=lambda values: values[:1].expand(9).contiguous())
    labels = p.labels.repeat_interleave(2)[::2]
    assert not apart.leaves["unit"].is_contiguous() and not apart.leaves["weight"].is_contiguous()
    expected = answers(reduce_rows, straight, torch.float64)
    found = answers(reduce_rows, replace(apart, labels=labels), torch.float64)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-12, atol=1e-13, msg=name)


@pytest.mark.usefixtures("small")
def test_weights_in_16_bits_get_their_gradient_rounded_once() -> None:
    p = changed(problem((8, 20, 6), everything(1, 0)), weight=lambda values: values.bfloat16().double())
    p = replace(p, labels=torch.tensor([2, 2, 2, 2, 2, 2, 19, 19]))
    expected = answers(reduction.reduce_rows, p, torch.float32)
    t = {name: p.leaves[name].to(DEVICE, torch.float32) for name in ("unit", "radius", "scale 0")}
    weight = p.leaves["weight"].to(DEVICE, torch.bfloat16).requires_grad_()
    request = Request(t["radius"], plain_scales=(t["scale 0"],))
    reduced = reduce_rows(t["unit"], weight, None, p.labels.to(DEVICE), request)
    generator = torch.Generator().manual_seed(5)
    total = torch.zeros((), device=DEVICE)
    for value in (reduced.rows, reduced.log_sum, *reduced.plain):
        assert value is not None
        total = total + (torch.randn(value.shape, generator=generator, dtype=torch.float64).to(t["unit"]) * value).sum()
    (found,) = torch.autograd.grad(total, weight)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.cpu().float(), expected["grad weight"], rtol=2**-8, atol=1e-2)


def simple(rows: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    features = torch.randn(rows, 8, generator=generator, dtype=torch.float64).to(DEVICE).requires_grad_()
    weight = torch.randn(50, 8, generator=generator, dtype=torch.float64).to(DEVICE).requires_grad_()
    return features, weight, torch.randint(50, (rows,), generator=generator).to(DEVICE)


def loss(features: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    return class_loss(features, weight, labels, losses.arcface(16, 0.5) + losses.iam(0.1), impl=impl)


def test_frozen_weight_and_frozen_features() -> None:
    features, weight, labels = simple()
    both = torch.autograd.grad(loss(features, weight, labels), (features, weight))
    of_features = torch.autograd.grad(loss(features, weight.detach(), labels), features)
    of_weight = torch.autograd.grad(loss(features.detach(), weight, labels), weight)
    torch.testing.assert_close((*of_features, *of_weight), both)


def test_keeps_nothing_without_gradients() -> None:
    with torch.no_grad():
        assert not loss(*simple()).requires_grad


def test_second_backward_is_refused() -> None:
    value = loss(*simple())
    value.backward(retain_graph=True)
    with pytest.raises(InputError, match="differentiated already"):
        value.backward()


def test_second_derivative_is_refused() -> None:
    features, weight, labels = simple()
    with pytest.raises(InputError, match="first derivatives only"):
        torch.autograd.grad(loss(features, weight, labels), features, create_graph=True)


def test_a_weight_changed_in_between_is_refused() -> None:
    features, weight, labels = simple()
    value = loss(features, weight, labels)
    with torch.no_grad():
        weight += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_the_same_input_gives_the_same_bits() -> None:
    features, weight, labels = simple(7)
    first, second = (torch.autograd.grad(loss(features, weight, labels), (features, weight)) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_a_head_trains_as_with_the_reference() -> None:
    heads = [angulus.DenseHead(8, 20, losses.normface(), impl=impl).to(DEVICE) for impl in ("reference", impl)]
    heads[1].load_state_dict(heads[0].state_dict())
    for head in heads:
        generator = torch.Generator().manual_seed(0)
        optimizer = torch.optim.SGD(head.parameters(), lr=0.5)
        for step in range(3):
            head(torch.randn(5, 8, generator=generator).to(DEVICE), torch.arange(5, device=DEVICE) + step).backward()
            optimizer.step()
    for expected, found in zip(heads[0].parameters(), heads[1].parameters(), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.usefixtures("small")
def test_update_takes_the_gradient_chunk_by_chunk() -> None:
    features, weight, labels = simple(6)
    radius = torch.full((6,), 9.0, dtype=torch.float64, device=DEVICE)
    taken: list[tuple[slice, Tensor]] = []

    def reduced(update: Callable[[slice, Tensor], None] | None) -> Tensor:
        result = reduce_rows(features, weight, None, labels, Request(radius, update=update))
        assert result.log_sum is not None
        return result.log_sum.sum() + result.rows.square().sum()

    expected = torch.autograd.grad(reduced(None), (features, weight))
    total = reduced(lambda classes, gradient: taken.append((classes, gradient.clone())))
    found = torch.autograd.grad(total, (features, weight), allow_unused=True)
    assert torch.equal(found[0], expected[0]) and found[1] is None
    assert [classes for classes, _ in taken] == [slice(0, 16), slice(16, 32), slice(32, 48), slice(48, 50)]
    assert torch.equal(torch.cat([gradient for _, gradient in taken]), expected[1])


def test_no_buffer_holds_rows_by_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_launch, "SCRATCH", 1 << 11)
    monkeypatch.setattr(tuned, "DEFAULT", tuned.Tuned(blocking=tuned.BLOCKING._replace(elements=1 << 11)))
    p = problem((64, 1500, 2), everything(1, 1), mapped=True)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            for each in out if isinstance(out, tuple | list) else [out]:
                if isinstance(each, Tensor) and each.device == DEVICE:
                    largest = max(largest, each.untyped_storage().nbytes())
            return out

    with Watch():
        answers(reduce_rows, p, torch.float32)
    assert 1500 * 2 * 4 < largest <= 4 * 64 * 64  # a chunk is at least one tile, of 64 classes here


def unavailable(monkeypatch: pytest.MonkeyPatch, device: str = "cpu", **flags: bool) -> str:
    monkeypatch.setattr(fused, "kernels", lambda: SimpleNamespace(**({"INTERPRETED": False, "COMPILED": True} | flags)))
    return str(KERNELS[impl].unavailable(torch.device(device)))


def test_why_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert KERNELS[impl].unavailable(DEVICE) is None
    assert "needs tensors on a CUDA device; got cpu: use impl='chunked'" in unavailable(monkeypatch)
    assert "set it before Python starts" in unavailable(monkeypatch, COMPILED=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "needs a GPU of compute capability 8.0 or newer; got 7.5" in unavailable(monkeypatch, "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (10, 0))
    assert unavailable(monkeypatch, "cuda") == "None"
    with pytest.raises(InputError, match="needs tensors on a CUDA device; got cpu"):
        reduce_rows(*(each.cpu() for each in simple()[:2]), None, torch.zeros(4).long(), Request(torch.ones(4)))

    def missing() -> None:
        raise ImportError("No module named 'triton'")

    monkeypatch.setattr(fused, "kernels", missing)
    assert "needs the package triton (pip install triton)" in str(KERNELS[impl].unavailable(DEVICE))


def test_dtypes_it_does_not_compute_in_are_refused() -> None:
    features, weight, labels = simple()
    request = Request(torch.ones(4, device=DEVICE))
    with pytest.raises(InputError, match=r"needs unit features in float32 or float64; got torch\.bfloat16"):
        reduce_rows(features.bfloat16(), weight, None, labels, request)
    with pytest.raises(
        InputError, match=r"products must be None, torch\.bfloat16 or torch\.float64; got torch\.float16"
    ):
        reduce_rows(features, weight, None, labels, replace(request, products=torch.float16))


def test_nothing_asked_gives_rows_alone() -> None:
    features, weight, labels = simple()
    reduced = reduce_rows(features, weight, None, labels, Request(None))
    assert reduced[:3] == (None, (), ()) and torch.equal(reduced.rows, weight[labels])


@pytest.mark.parametrize("norm", [1e6, 1e10, 1e20, 1e30])
def test_large_logits_keep_a_finite_gradient(norm: float) -> None:
    generator = torch.Generator().manual_seed(3)
    features = norm * torch.nn.functional.normalize(torch.randn(6, 8, generator=generator))
    weight, labels = torch.randn(11, 8, generator=generator), torch.arange(6)
    found = []
    for name in ("reference", impl):
        leaves = features.to(DEVICE).requires_grad_(), weight.to(DEVICE).requires_grad_()
        found.append(torch.autograd.grad(class_loss(*leaves, labels.to(DEVICE), losses.softmax(), impl=name), leaves))
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
