"""Time and extra memory of a training step of the head, beside the products it cannot do without and beside a peer.

Floors are bare products: 3 (logits, dX, dW), and 4 (logits twice). Rounds are interleaved, so that the machine's drift
falls on all alike; a ratio is the median over the rounds of the time to that of the 3 products in the same round.

Memory is the peak during one step over what was there before it, less dW: of the resident set of a fresh process on a
CPU (Linux only), of the allocator on a GPU. Where `weight.grad` is kept from the step before, its C x d come on top.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from angulus import DenseHead, class_loss, losses
from angulus.core import checks, environment
from angulus.heads.optimizers import BackwardSGD
from angulus.heads.sampling import ClassSampling
from angulus.kernels import fused

FLOOR = "3 products"
PEER = "pytorch-metric-learning ArcFace"
LARGEST = 1 << 28  # elements of B x C that the bare products hold: 1 GiB in float32
S, M = 64.0, 0.5
ARCFACE = losses.arcface(S, M)
MV_IAM = losses.mv_softmax(32, losses.margins.AdditiveAngle(0.5), 0.3, "adaptive") + losses.iam(0.1)
Step = Callable[[], object]


@dataclass(frozen=True)
class Shape:
    """What is timed: B rows, C classes, size d, on a device ("cpu" or "cuda")."""

    batch: int = 256
    classes: int = 100_000
    size: int = 512
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("batch", "classes", "size"):
            checks.integer(name, getattr(self, name), low=1)
        checks.choice("device", self.device, ("cpu", "cuda"))
        if self.device == "cuda" and not torch.cuda.is_available():
            raise checks.InputError("device cuda asks for a GPU that PyTorch can use; there is none here: use cpu")


@dataclass(frozen=True)
class Timing:
    """One row of the table; ratios are to the 3 products, over the rounds."""

    what: str
    median_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    extra_mib: float | None


def run(
    shape: Shape, rounds: int = 5, only: tuple[str, ...] = (), tell: Callable[[str], object] = lambda doing: None
) -> Iterator[Timing]:
    """Time everything that can run here, `rounds` times in turn after one warm-up, then measure memory.

    Args:
        shape: what is timed.
        rounds: >= 1.
        only: names beside the floors, or nothing for all.
        tell: is called with what is done now.
    """
    checks.integer("rounds", rounds, low=1)
    problem = Problem(shape)
    known = problem.steps()
    for name in only:
        checks.choice("only", name, known)
    chosen = {name: step for name, step in known.items() if not only or name in only or "products" in name}
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for name, step in chosen.items():
        tell(f"warming up: {name}")
        step()
    for number in range(rounds):
        for name, step in chosen.items():
            tell(f"round {number + 1} of {rounds}: {name}")
            problem.forget()
            problem.wait()
            started = time.perf_counter()
            step()
            problem.wait()
            seconds[name].append(time.perf_counter() - started)
    for name, values in seconds.items():
        tell(f"memory: {name}")
        ratios = [value / floor for value, floor in zip(values, seconds[FLOOR], strict=True)]
        median = 1000 * statistics.median(values)
        memory = None if "products" in name else _extra_mib(name, shape)
        yield Timing(name, median, statistics.median(ratios), min(ratios), max(ratios), memory)


class Problem:
    """Features, class weights and labels, and the steps on them by name."""

    def __init__(self, shape: Shape) -> None:
        torch.manual_seed(0)
        device = torch.device(shape.device)
        self.shape = shape
        self.features = torch.randn(shape.batch, shape.size, device=device, requires_grad=True)
        self.weight = torch.randn(shape.classes, shape.size, device=device, requires_grad=True)
        self.labels = torch.randint(shape.classes, (shape.batch,), device=device)

    def steps(self) -> dict[str, Step]:
        """What can run here, by name; nothing large is made before a step is called."""
        steps: dict[str, Step] = {
            FLOOR: lambda: self.products(1, torch.float32),
            "4 products": lambda: self.products(2, torch.float32),
            "3 products bfloat16": lambda: self.products(1, torch.bfloat16),
            "reference ArcFace": lambda: self.step(ARCFACE, "reference"),
            "chunked ArcFace": lambda: self.step(ARCFACE, "chunked"),
            "chunked MV + IAM": lambda: self.step(MV_IAM, "chunked"),
            "chunked ArcFace bfloat16": lambda: self.step(ARCFACE, "chunked", torch.bfloat16),
            "chunked ArcFace, SGD in backward": self.backward_sgd(),
            "sampled 0.1 ArcFace": self.sampled(0.1),
            "torch.compile ArcFace": self.compiled(),
        }
        if self.shape.device == "cuda" and fused.unavailable(torch.device("cuda")) is None:
            steps["fused ArcFace"] = lambda: self.step(ARCFACE, "fused")
            steps["fused ArcFace bfloat16"] = lambda: self.step(ARCFACE, "fused", torch.bfloat16)
        peer = self.metric_learning()
        return steps if peer is None else steps | {PEER: peer}

    def forget(self) -> None:
        self.features.grad = self.weight.grad = None

    def wait(self) -> None:
        if self.shape.device == "cuda":
            torch.cuda.synchronize()

    @torch.no_grad()
    def products(self, times: int, dtype: torch.dtype) -> None:
        """Logits, `times` times, dX and dW, at once where B x C is within `LARGEST`, else by parts of the classes."""
        features, weight = self.features.to(dtype), self.weight.to(dtype)
        for part in torch.split(weight, max(LARGEST // len(features), 1)):
            for _ in range(times):
                logits = features @ part.T
            _ = logits @ part, logits.T @ features

    def step(self, objective: losses.Objective, impl: str, products: torch.dtype | None = None) -> None:
        self.forget()
        class_loss(self.features, self.weight, self.labels, objective, impl=impl, products=products).backward()  # type: ignore[no-untyped-call]

    def _head(self, impl: str, sampling: ClassSampling | None = None) -> DenseHead:
        head = DenseHead(self.shape.size, 1, ARCFACE, impl=impl, sampling=sampling)
        head.objective = ARCFACE.bind(self.shape.size, self.shape.classes)
        head.weight = torch.nn.Parameter(self.weight.detach())  # shared: no second C x d
        return head

    def backward_sgd(self) -> Step:
        head = self._head("chunked")
        optimizer = BackwardSGD(head, lr=0.0)

        def step() -> None:
            head(self.features, self.labels).backward()
            optimizer.step()

        return step

    def sampled(self, rate: float) -> Step:
        head = self._head("chunked", ClassSampling(rate))

        def step() -> None:
            head.weight.grad = None
            head(self.features, self.labels).backward()

        return step

    def compiled(self) -> Step:
        """ArcFace as one would write it in a few lines, through torch.compile."""

        def naive(features: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
            cosines = F.normalize(features) @ F.normalize(weight).T
            own = F.one_hot(labels, weight.shape[0]).bool()
            theta = torch.acos(cosines.clamp(-1 + 1e-7, 1 - 1e-7))
            return F.cross_entropy(S * torch.where(own, torch.cos(theta + M), cosines), labels)

        fast = torch.compile(naive)

        def step() -> None:
            self.forget()
            fast(self.features, self.weight, self.labels).backward()  # type: ignore[no-untyped-call]

        return step

    def metric_learning(self) -> Step | None:
        """The same ArcFace by pytorch-metric-learning, where it is installed; its margin is in degrees."""
        try:
            from pytorch_metric_learning.losses import ArcFaceLoss
        except ImportError:
            return None
        loss: Any = None

        def step() -> None:
            nonlocal loss
            if loss is None:
                loss = ArcFaceLoss(1, self.shape.size, margin=28.6479, scale=S)
                loss.num_classes = self.shape.classes
                loss.W = torch.nn.Parameter(self.weight.detach().T)
            self.features.grad = loss.W.grad = None
            loss(self.features, self.labels).backward()

        return step


def _extra_mib(name: str, shape: Shape) -> float | None:
    """Peak memory of one step beyond W, dW and what was there before; None where it cannot be measured."""
    if shape.device == "cuda":
        problem = Problem(shape)
        step = problem.steps()[name]
        step()
        problem.forget()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20 - _gradient_mib(name, shape)
    if not Path("/proc/self/clear_refs").exists():
        return None
    code = f"from angulus.bench.head import Shape, measure; measure({shape!r}, {name!r})"
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def measure(shape: Shape, name: str) -> None:
    """Print what one step on the CPU takes beyond W and dW, in MiB; for a process of its own."""
    warm = Problem(Shape(8, 64, 32))
    warm.steps()[name]()  # libraries load and threads start before the baseline
    step = Problem(shape).steps()[name]
    before = _status_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    step()
    sys.stdout.write(f"{_status_mib('VmHWM') - before - _gradient_mib(name, shape)}\n")


def _gradient_mib(name: str, shape: Shape) -> float:
    """What dW takes by right: nothing where no whole gradient is made."""
    partial = "in backward" in name or "sampled" in name
    return 0.0 if partial else shape.classes * shape.size * 4 / 2**20


def _status_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def record(shape: Shape, rounds: int, timing: Timing) -> dict[str, Any]:
    """One line of the stored results: the numbers, the shape, and the environment."""
    about = environment.of_timing(torch.device(shape.device), "pytorch-metric-learning")
    return asdict(shape) | {"rounds": rounds} | asdict(timing) | {"environment": about}
