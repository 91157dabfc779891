"""Every head and bound objective copied, pickled, sent to a process, saved and cast, as any module of PyTorch."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import angulus
from angulus import ClassSampling, DenseHead, ShardedHead, losses
from angulus.losses import BoundObjective, Objective
from losses.aliases import CASES
from losses.oracles import add_subcenters

SIZE, CLASSES, ROWS = 4, 7, 6
OBJECTIVES = {name: case.objective_for(CLASSES) for name, case in CASES.items()}
KINDS: dict[str, Callable[[Objective], nn.Module]] = {
    "dense": lambda objective: DenseHead(SIZE, CLASSES, objective),
    "sharded": lambda objective: ShardedHead(SIZE, CLASSES, objective, impl="chunked"),
    "bound": lambda objective: objective.bind(SIZE, CLASSES),
}
every = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
pytestmark = pytest.mark.filterwarnings("ignore:contraction bounds assume", "ignore:the gradient of features row")


def rows(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    features, weight = (torch.randn(n, SIZE, generator=generator, dtype=torch.float64) for n in (ROWS, CLASSES))
    return features.to(dtype), weight.to(dtype), torch.randint(CLASSES, (ROWS,), generator=generator)


def loss(module: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    """In training mode, so that what is kept moves."""
    features, weight, labels = rows(dtype)
    if isinstance(module, BoundObjective):
        bias = torch.zeros(CLASSES, dtype=dtype) if module.spec.bias else None
        weight = add_subcenters(weight, module.spec.rows_per_class)
        return angulus.class_loss(features, weight, labels, module, bias=bias)
    value: Tensor = module(features, labels)
    return value


def trained(kind: Callable[[Objective], nn.Module], objective: Objective) -> nn.Module:
    torch.manual_seed(1)
    module = kind(objective)
    for _ in range(2):
        value = loss(module)
        if value.requires_grad:
            value.backward()
    return module


def through_pickle(module: nn.Module) -> nn.Module:
    copied: nn.Module = pickle.loads(pickle.dumps(module))
    return copied


def through_state(module: nn.Module) -> nn.Module:
    """Into a fresh module, by a file that can run no code."""
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    objective = module.spec if isinstance(module, BoundObjective) else module.objective.spec
    fresh = KINDS["bound"](objective) if isinstance(module, BoundObjective) else type(module)(SIZE, CLASSES, objective)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


@every_kind
@every
def test_a_copy_goes_on_as_the_original_does(objective: Objective, kind: Callable[[Objective], nn.Module]) -> None:
    original = trained(kind, objective)
    copies = [copy.deepcopy(original), through_pickle(original), through_state(original)]
    before = {name: value.clone() for name, value in original.state_dict().items()}
    expected = [loss(original), loss(original)]
    for each in copies:
        for name, value in each.state_dict().items():
            assert torch.equal(value, before[name]), name
        assert [loss(each).item() for _ in range(2)] == pytest.approx(
            [value.item() for value in expected],
            rel=1e-6,
            abs=1e-6,  # float32 terms of up to 5, whose sum may be near 0
        )
        for name, value in original.state_dict().items():
            torch.testing.assert_close(each.state_dict()[name], value)


@pytest.mark.parametrize(
    ("kind", "name"),
    [*(("dense", name) for name in OBJECTIVES), ("sharded", "cm_softmax-auto"), ("bound", "cm_softmax-auto")],
)
def test_casts_keep_what_is_learned_and_kept(kind: str, name: str) -> None:
    """Of every objective in a dense head: the others cast the same modules by the same function of PyTorch."""
    original = trained(KINDS[kind], OBJECTIVES[name])
    expected = loss(copy.deepcopy(original)).item()
    wide = copy.deepcopy(original).to(torch.float64)
    for name, value in wide.state_dict().items():
        assert not value.is_floating_point() or value.dtype == torch.float64, name
    assert loss(wide, torch.float64).item() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    narrow = copy.deepcopy(original).half()
    assert all(buffer.dtype.itemsize >= 4 for buffer in narrow.buffers() if buffer.is_floating_point())
    assert all(parameter.dtype == torch.float16 for parameter in narrow.parameters())
    found = loss(narrow, torch.float16)
    assert found.dtype == torch.float32 and found.item() == pytest.approx(expected, rel=0.05, abs=0.05)
    back = narrow.float()
    assert loss(copy.deepcopy(back)).item() == pytest.approx(loss(back).item(), rel=1e-6)


def test_the_wrong_state_is_refused_as_pytorch_does() -> None:
    head = DenseHead(SIZE, CLASSES, losses.normface())
    with pytest.raises(RuntimeError, match=r"Missing key.*objective\.radius\.s"):
        head.load_state_dict({"weight": head.weight})


def answer(modules: list[nn.Module], queue: Any) -> None:
    """What a spawned process does."""
    queue.put([loss(module).item() for module in modules])


def test_heads_go_to_a_spawned_process() -> None:
    objective = losses.cm_softmax(gamma="auto", lower=3, upper=9) + losses.center_loss() + losses.ring_loss()
    modules = [trained(kind, objective) for kind in KINDS.values()]
    modules.append(DenseHead(SIZE, CLASSES, losses.sphereface(annealing=losses.margins.Annealing())))
    modules.append(DenseHead(SIZE, CLASSES, losses.arcface(), sampling=ClassSampling(1.0)))
    # beforehand: tensors go over as shared memory, so that what moves there moves here
    expected = [loss(copy.deepcopy(module)).item() for module in modules]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=answer, args=(modules, queue))
    process.start()
    try:
        found = queue.get(timeout=300)
    finally:
        process.join(timeout=60)
    assert found == pytest.approx(expected, rel=1e-6)
