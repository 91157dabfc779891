"""Time and extra memory of a training step of the head, next to the matrix products it needs and next to peers.

    python benchmarks/head.py [--batch 256] [--classes 100000] [--size 512] [--device cpu] [--only NAME ...] [--save]

The floor is 3 bare products: logits, dX and dW; 4 compute the logits twice. Memory is the peak during one step over
what was there before it, less dW: of the resident set of a new process on a CPU (Linux only), of the allocator on a
GPU. Where `weight.grad` is kept from the step before, its C x d come on top. `--busy` processes keep a core each busy
meanwhile, as data loaders do.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from angulus import BackwardSGD, ClassSampling, DenseHead, class_loss, losses
from angulus.core import checks
from angulus.kernels import fused
from harness import (
    Clock,
    Row,
    Step,
    Timing,
    busy,
    clock,
    options,
    peak_mib,
    python,
    ratio_text,
    run,
    show,
    store,
    take_turns,
)

FLOOR = "3 products"
PEER = "pytorch-metric-learning ArcFace"
LARGEST = 1 << 28  # elements of B x C that the bare products hold: 1 GiB in float32
S, M = 64.0, 0.5
ARCFACE = losses.arcface(S, M)
MV_IAM = losses.mv_softmax(32, losses.margins.AdditiveAngle(0.5), 0.3, "adaptive") + losses.iam(0.1)


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

    def clock(self, step: Step) -> Clock:
        self.forget()
        return clock(step, torch.cuda.synchronize if self.shape.device == "cuda" else lambda: None)

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


def time_steps(shape: Shape, rounds: int = 5, only: tuple[str, ...] = ()) -> list[tuple[Timing, float | None]]:
    """Time the floors and every step that can run here, or those of `only`; each with its extra MiB."""
    problem = Problem(shape)
    steps = problem.steps()
    for name in only:
        checks.choice("only", name, steps)
    chosen = {name: step for name, step in steps.items() if not only or name in only or "products" in name}
    timings = take_turns({name: partial(problem.clock, step) for name, step in chosen.items()}, rounds)
    return [(timing, None if "products" in timing.what else extra_mib(timing.what, shape)) for timing in timings]


def extra_mib(name: str, shape: Shape) -> float | None:
    """Peak memory of one step beyond W, dW and what was there before; None where it cannot be measured."""
    if shape.device == "cpu":
        flags = [part for field, value in asdict(shape).items() for part in (f"--{field}", value)]
        answer = python(__file__, *flags, "--memory-of", name).split()[-1]
        return None if answer == "None" else float(answer) - _gradient_mib(name, shape)
    problem = Problem(shape)
    step = problem.steps()[name]
    step()
    problem.forget()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    return (torch.cuda.max_memory_allocated() - before) / 2**20 - _gradient_mib(name, shape)


def _gradient_mib(name: str, shape: Shape) -> float:
    """The size of dW; nothing where no whole gradient is made."""
    partial_gradient = "in backward" in name or "sampled" in name
    return 0.0 if partial_gradient else shape.classes * shape.size * 4 / 2**20


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", batch=256, classes=100_000, size=512, rounds=5)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--only", nargs="*", default=(), metavar="NAME", help="names from the table; else all")
    parser.add_argument("--busy", type=int, default=0, help="processes that compute meanwhile")
    parser.add_argument("--memory-of", metavar="NAME", help="print the MiB that one step adds, and time nothing")
    asked = parser.parse_args(arguments)
    shape = Shape(asked.batch, asked.classes, asked.size, asked.device)
    if asked.memory_of:
        warm = Problem(Shape(8, 64, 32))
        warm.steps()[asked.memory_of]()  # libraries load and threads start before the baseline
        print(peak_mib(Problem(shape).steps()[asked.memory_of])[0])
        return
    rows: list[Row] = []
    with busy(asked.busy):
        timed = time_steps(shape, asked.rounds, tuple(asked.only))
    for timing, mib in timed:
        row = {"what": timing.what, "median_ms": 1000 * timing.seconds} | timing.slower() | {"extra_mib": mib}
        rows.append(asdict(shape) | {"rounds": asked.rounds, "busy": asked.busy} | row)
    show(
        f"B = {shape.batch:,}, C = {shape.classes:,}, d = {shape.size}, {shape.device}, {asked.rounds} rounds",
        [
            {
                "step": row["what"],
                "median ms": f"{row['median_ms']:,.1f}",
                f"ratio to {FLOOR}": ratio_text(row),
                "MiB beyond W and dW": "" if row["extra_mib"] is None else f"{row['extra_mib']:,.1f}",
            }
            for row in rows
        ],
    )
    if asked.save:
        store("head", rows, "pytorch-metric-learning", device=shape.device)


if __name__ == "__main__":
    run(main)
