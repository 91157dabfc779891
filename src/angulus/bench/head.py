"""Time and extra memory of a training step of the head, beside the products it cannot do without.

    python benchmarks/head.py --classes 100000 [--batch 256] [--size 512] [--repeats 5] [--save]

The floors are bare products in the same run: 3 (logits, dX, dW), and 4 (logits twice). Rounds are interleaved, so that
the machine's drift falls on all alike; the median of the ratio to the 3-product floor is printed. Memory is the peak
resident set of a fresh process during one step, over what it held before, less dW (Linux only).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from angulus import class_loss, environment, losses

RESULTS = Path(__file__).parent / "results" / "head.jsonl"
PEER = "pytorch-metric-learning ArcFace"
ARCFACE = losses.arcface(64, 0.5)
MV_IAM = losses.mv_softmax(32, losses.margins.AdditiveAngle(0.5), 0.3, "adaptive") + losses.iam(0.1)


def steps(batch: int, classes: int, size: int, *, peer: bool = True) -> dict[str, Callable[[], object]]:
    """What is timed, by name; all on the same features and weights."""
    torch.manual_seed(0)
    features = torch.randn(batch, size, requires_grad=True)
    weight = torch.randn(classes, size, requires_grad=True)
    labels = torch.randint(classes, (batch,))

    def products(twice: bool) -> None:
        with torch.no_grad():
            logits = features @ weight.T
            if twice:
                logits = features @ weight.T
            _ = logits @ weight, logits.T @ features

    def step(objective: losses.Objective, impl: str) -> None:
        features.grad = weight.grad = None
        class_loss(features, weight, labels, objective, impl=impl).backward()

    chosen: dict[str, Callable[[], object]] = {
        "3 products": lambda: products(False),
        "4 products": lambda: products(True),
        "reference ArcFace": lambda: step(ARCFACE, "reference"),
        "chunked ArcFace": lambda: step(ARCFACE, "chunked"),
        "chunked MV + IAM": lambda: step(MV_IAM, "chunked"),
    }
    other = metric_learning_step(features, weight, labels) if peer else None
    return chosen | ({} if other is None else {PEER: other})


def metric_learning_step(features: Tensor, weight: Tensor, labels: Tensor) -> Callable[[], object] | None:
    """The same ArcFace by pytorch-metric-learning, where it is installed; its margin is in degrees."""
    try:
        from pytorch_metric_learning.losses import ArcFaceLoss
    except ImportError:
        return None
    classes, size = weight.shape
    loss = ArcFaceLoss(classes, size, margin=28.6479, scale=64)
    loss.W.data = weight.detach().T.contiguous()

    def step() -> None:
        features.grad = loss.W.grad = None
        loss(features, labels).backward()

    return step


def extra_mib(name: str, arguments: argparse.Namespace) -> float:
    """Peak memory of one step beyond W, dW and what was there before, in a process of its own."""
    command = [sys.executable, __file__, "--memory", name]
    for option in ("batch", "classes", "size"):
        command += [f"--{option}", str(getattr(arguments, option))]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_memory(name: str, arguments: argparse.Namespace) -> None:
    """Print what one step takes beyond W and dW, in MiB."""
    steps(8, 64, 32)[name]()  # libraries load and threads start before the baseline
    step = steps(arguments.batch, arguments.classes, arguments.size, peer=name == PEER)[name]
    before = status_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    step()
    gradient = arguments.classes * arguments.size * 4 / 2**20
    print(status_mib("VmHWM") - before - gradient)


def status_mib(field: str) -> float:
    """A field of /proc/self/status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def main() -> None:
    """Run, print, and store where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in (("batch", 256), ("classes", 100_000), ("size", 512), ("repeats", 5)):
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--save", action="store_true", help="append to benchmarks/results/head.jsonl")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        return measure_memory(arguments.memory, arguments)
    chosen = steps(arguments.batch, arguments.classes, arguments.size)
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for each in chosen.values():
        each()
    for _ in range(arguments.repeats):
        for name, each in chosen.items():
            started = time.perf_counter()
            each()
            seconds[name].append(time.perf_counter() - started)
    rows = []
    for name, values in seconds.items():
        ratios = [value / floor for value, floor in zip(values, seconds["3 products"], strict=True)]
        memory = None if "products" in name else round(extra_mib(name, arguments), 1)
        rows.append(
            {
                "what": name,
                "median_s": round(statistics.median(values), 4),
                "ratio_to_3_products": round(statistics.median(ratios), 3),
                "ratio_low": round(min(ratios), 3),
                "ratio_high": round(max(ratios), 3),
                "extra_mib": memory,
            }
        )
        shown = "" if memory is None else f"{memory:9.1f} MiB beyond W and dW"
        print(f"{name:32} {rows[-1]['median_s']:8.3f} s  {rows[-1]['ratio_to_3_products']:6.2f} x {shown}", flush=True)
    if arguments.save:
        RESULTS.parent.mkdir(exist_ok=True)
        shape = {option: getattr(arguments, option) for option in ("batch", "classes", "size", "repeats")}
        facts = environment.describe(torch.device("cpu")) | {"date": time.strftime("%Y-%m-%d")}
        facts["command"] = ["python", "benchmarks/head.py", *sys.argv[1:]]
        with RESULTS.open("a", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(shape | row | {"environment": facts}) + "\n")


if __name__ == "__main__":
    main()
