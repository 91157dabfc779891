"""The stage `tune`: sizes of tiles and blocks, and the fastest kernel, for the table `angulus.kernels.tuned`."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
from common import ARCFACE, DEVICE, GPU, Row, kernels, milliseconds_of

from angulus import class_loss
from angulus.kernels import tuned


def tune() -> Iterator[Row]:
    """Try a few sizes of tiles and blocks in turn; the last line is this GPU's entry for kernels/tuned.py."""
    best, before = tuned.DEFAULT, (tuned.DEFAULT, tuned.TABLE)
    shape = (1024, 200_000, 512) if GPU else (8, 40, 16)
    try:
        for what, impl, candidates in CANDIDATES:
            times: list[tuple[float, tuned.Tuned]] = []
            for candidate in candidates if GPU else candidates[:1]:
                entry = candidate(best)
                try:
                    times.append((time_entry(entry, impl, shape), entry))
                except Exception as error:  # such as too much shared memory
                    yield {"what": what, "impl": impl, "failed": f"{type(error).__name__}: {error}"[:200]}
            if times:
                least, best = min(times, key=lambda pair: pair[0])
                yield {"what": what, "impl": impl, "ms": [round(ms, 3) for ms, _ in times], "best_ms": round(least, 3)}
        shapes = ((1024, 1_000_000), (256, 100_000), (256, 10_000)) if GPU else ((8, 40),)
        fastest = []
        for batch, classes in shapes:
            times_by = {}
            for impl in kernels():
                try:
                    times_by[impl] = time_entry(best, impl, (batch, classes, shape[2]))
                except Exception as error:  # the entry is worth having without it
                    row: Row = {"what": "fastest", "impl": impl, "shape": (batch, classes)}
                    yield row | {"failed": f"{type(error).__name__}: {error}"[:200]}
            if times_by:
                fastest.append((batch, classes, min(times_by, key=times_by.__getitem__)))
        best = dataclasses.replace(best, fastest=tuple(fastest))
    finally:
        tuned.DEFAULT, tuned.TABLE = before
    yield {"gpu": torch.cuda.get_device_name() if GPU else "none", "entry": repr(best)}


def time_entry(entry: tuned.Tuned, impl: str, shape: tuple[int, int, int]) -> float:
    """The median milliseconds of ArcFace's forward and backward with bfloat16 products, by these sizes."""
    tuned.DEFAULT, tuned.TABLE = entry, {}
    batch, classes, size = shape
    features = torch.randn(batch, size, device=DEVICE).requires_grad_()
    weight = torch.randn(classes, size, device=DEVICE).requires_grad_()
    labels = torch.randint(classes, (batch,), device=DEVICE)

    def call() -> None:
        features.grad = weight.grad = None
        class_loss(features, weight, labels, ARCFACE, impl=impl, products=torch.bfloat16).backward()

    call()
    return statistics.median(milliseconds_of(call) for _ in range(5 if GPU else 1))


def tile(place: int, *shape: int) -> Callable[[tuned.Tuned], tuned.Tuned]:
    """A change of the fused kernel's bfloat16 tile, forward (0) or backward (1)."""

    def change(entry: tuned.Tuned) -> tuned.Tuned:
        both = list(entry.tiles["bf16"])
        both[place] = tuned.TileShape(*shape)
        return dataclasses.replace(entry, tiles=entry.tiles | {"bf16": (both[0], both[1])})

    return change


def blocking(**sizes: Any) -> Callable[[tuned.Tuned], tuned.Tuned]:
    """A change of the blocked kernel's sizes."""
    return lambda entry: dataclasses.replace(entry, blocking=entry.blocking._replace(**sizes))


PASSES = [tuned.PassShape(*shape) for shape in ((64, 64, 4), (32, 128, 4), (64, 128, 8), (128, 64, 8))]
ALL_ROWS = [tuned.PassShape(*shape) for shape in ((8, 256, 4), (16, 128, 4), (4, 512, 4), (16, 256, 8))]
CANDIDATES: list[tuple[str, str, list[Callable[[tuned.Tuned], tuned.Tuned]]]] = [
    ("elements of a block", "blocked", [blocking(elements=1 << power) for power in (22, 21, 23, 24, 25)]),
    ("reduce", "blocked", [blocking(reduce=shape) for shape in PASSES]),
    ("coefficients", "blocked", [blocking(coefficients=shape) for shape in ALL_ROWS]),
    (
        "forward tile",
        "fused",
        [
            tile(0, 128, 256, 64, 8, 3),
            tile(0, 128, 128, 64, 8, 3),
            tile(0, 128, 128, 64, 8, 4),
            tile(0, 64, 256, 64, 8, 3),
        ],
    ),
    (
        "backward tile",
        "fused",
        [
            tile(1, 128, 128, 64, 8, 3),
            tile(1, 64, 128, 64, 4, 3),
            tile(1, 128, 64, 64, 4, 3),
            tile(1, 128, 128, 32, 8, 4),
        ],
    ),
]
