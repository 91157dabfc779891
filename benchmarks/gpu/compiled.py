#!/usr/bin/env python3
"""Compile the Triton kernels for an H100, which needs no GPU: registers, spills and shared memory of each, from ptxas.

    python benchmarks/gpu/compiled.py [--impl fused] [--every] [--save]

Training steps of a head run on the CPU, and what they would launch on the GPU is compiled instead: with the very
arguments, flags, tiles and alignments of the launch. These are steps of two losses in each precision; with `--every`,
of every named loss, every size of a tile, unaligned sizes, and every candidate of the stage `tune`.

`programs` is how many programs one multiprocessor can hold, by these figures and NVIDIA's limits. Nothing is run, so
nothing here is a time. It ends with code 1 if a kernel does not compile or needs more shared memory than there is.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)  # before triton is imported

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(Path(__file__).resolve().parent)]

import torch  # noqa: E402
from common import ARCFACE, MV_IAM  # noqa: E402
from torch import Tensor  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime import driver  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402
from tuning import CANDIDATES  # noqa: E402

from angulus import DenseHead, InputError, losses  # noqa: E402
from angulus.core import environment  # noqa: E402
from angulus.heads import deferred  # noqa: E402
from angulus.kernels import blocked, fused, tuned  # noqa: E402

# of a multiprocessor of compute capability 9.0; source: CUDA C++ Programming Guide, Technical Specifications
REGISTERS, SHARED, THREADS, PROGRAMS = 65536, 228 * 1024, 2048, 32
RESERVED = 1024  # bytes of shared memory that CUDA takes for each program
MOST_SHARED = SHARED - RESERVED  # of one program
Row = dict[str, Any]


class Card:
    """What Triton asks its driver of the GPU before it compiles."""

    utils = SimpleNamespace(get_device_properties=lambda device: {"max_shared_mem": MOST_SHARED})

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


@dataclasses.dataclass(frozen=True)
class Case:
    """A training step to compile."""

    what: str
    objective: losses.Objective
    impl: str
    precision: str  # a key of `tuned.TILES`
    shape: tuple[int, int, int] = (1024, 2048, 512)  # B, C, d
    weight: torch.dtype = torch.float32
    entry: tuned.Tuned = tuned.DEFAULT


NAMED = {"ArcFace": ARCFACE, "MV + IAM": MV_IAM}


def usual() -> Iterator[Case]:
    """Two losses in each precision."""
    for name, objective in NAMED.items():
        for precision in tuned.TILES:
            yield Case(f"{name}, {precision}", objective, "fused", precision)
        yield Case(f"{name}, bf16", objective, "blocked", "bf16", (1040, 2048, 512))
        yield Case(f"{name}, bf16, stash", objective, "blocked", "bf16")
    yield Case("ArcFace, bf16 W", ARCFACE, "blocked", "bf16", weight=torch.bfloat16)
    yield Case("ArcFace, exact", ARCFACE, "blocked", "exact")


def every() -> Iterator[Case]:
    """Whatever the launchers can choose: losses, precisions, alignments, sizes of tiles, and candidates to tune."""
    learned = losses.normface(16, learn=True) + losses.iam(0.1)
    named = NAMED | {"learned s": learned, "bias": losses.softmax(bias=True)}
    for name, make in losses.ALIASES.items():
        named[name] = make().with_counts(range(1, 2049)) if make().needs_counts else make()
        if named[name].radius is None and name != "subcenter_spread":
            named[f"ArcFace + {name}"] = ARCFACE + named[name]
    for impl, precision in itertools.product(("fused", "blocked"), tuned.TILES):
        for name, objective in named.items():
            yield Case(f"{name}, {precision}", objective, impl, precision)
        for name, objective in {**NAMED, "learned s": learned}.items():
            for shape in ((1025, 2049, 511), (1024, 2047, 512), (24, 2047, 511), (7, 5, 3)):
                yield Case(f"{name}, {precision}, {shape}", objective, impl, precision, shape)
            if precision != "exact":
                yield Case(f"{name}, {precision}, bf16 W", objective, impl, precision, weight=torch.bfloat16)
    for precision, rows, classes, inner in itertools.product(
        tuned.TILES, (16, 32, 64, 128), (16, 32, 64, 128, 256), (16, 32, 64)
    ):
        yield Case(f"ArcFace, {precision}, tile", ARCFACE, "fused", precision, (rows, classes, inner))
    for what, impl, candidates in CANDIDATES:
        for candidate, objective in itertools.product(candidates, (ARCFACE, MV_IAM)):
            yield Case(f"candidate for {what}", objective, impl, "bf16", entry=candidate(tuned.Tuned()))


@contextlib.contextmanager
def posing() -> Iterator[list[tuple[JITFunction, Any, dict[str, Any]]]]:
    """A CPU poses as an H100 whose launches are compiled and not run.

    Yields a list to which each kernel is added when it is first compiled: (kernel, compiled, its named arguments).
    """
    seen: list[tuple[JITFunction, Any, dict[str, Any]]] = []
    known: list[Any] = []
    run, product = JITFunction.run, fused.product
    before = (fused.unavailable, deferred.POSING, fused.kernels().shared_memory)

    def compile_only(kernel: JITFunction, *args: Any, grid: Any, warmup: bool, **named: Any) -> Any:
        compiled = run(kernel, *args, grid=grid, warmup=True, **named)
        if all(compiled is not other for other in known):
            known.append(compiled)
            seen.append((kernel, compiled, named))
        return compiled

    def unmultiplied(left: Tensor, right: Tensor, dtype: torch.dtype, out: Tensor | None = None) -> Tensor:
        return left.new_zeros(len(left), right.shape[1], dtype=dtype) if out is None else out

    driver.set_active(Card())
    JITFunction.run, fused.product, blocked.product = compile_only, unmultiplied, unmultiplied
    fused.unavailable, deferred.POSING = lambda *of: None, True
    fused.kernels().shared_memory = lambda device: MOST_SHARED
    try:
        yield seen
    finally:
        JITFunction.run, fused.product, blocked.product = run, product, product
        fused.unavailable, deferred.POSING, fused.kernels().shared_memory = before


def launch(case: Case) -> None:
    """Forward and backward of the case; what they return is of no use."""
    torch.backends.cuda.matmul.allow_tf32 = case.precision == "tf32"
    tuned.DEFAULT = case.entry
    batch, classes, size = case.shape
    products = torch.bfloat16 if case.precision == "bf16" else None
    dtype = torch.float64 if case.precision == "exact" else case.weight
    head = DenseHead(size, classes, case.objective, impl=case.impl, products=products).to(dtype)
    features = torch.randn(batch, size, dtype=dtype, requires_grad=True)
    try:
        head(features, torch.arange(batch) % classes).backward()
    finally:
        tuned.DEFAULT, torch.backends.cuda.matmul.allow_tf32 = tuned.Tuned(), False


def described(compiled: Any, named: dict[str, Any]) -> Row:
    """The figures of a kernel that was launched with these named arguments."""
    row: Row = {name: named[name] for name in ("num_warps", "num_stages") if name in named}
    row["tile"] = [named[side] for side in ("BLOCK_B", "BLOCK_C", "BLOCK_D") if side in named]
    row |= {"shared_bytes": compiled.metadata.shared} | assembled(compiled.asm["ptx"])
    row["programs"] = programs(row["registers"], row["shared_bytes"], named["num_warps"])
    row["tensor_cores"] = "wgmma" in compiled.asm["ptx"] or "mma.sync" in compiled.asm["ptx"]
    return row


def assembled(ptx: str) -> Row:
    """Registers of a thread and bytes that it spills, by the ptxas that comes with triton."""
    from triton.backends.nvidia.compiler import get_ptxas

    ptxas = get_ptxas(90).path
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        command = [ptxas, "-v", "--fmad=false", "--gpu-name=sm_90a", source, "-o", source.with_suffix(".cubin")]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    registers = re.search(r"Used (\d+) registers", done.stderr)
    assert spills is not None and registers is not None, done.stderr
    return {"registers": int(registers[1]), "spilled_bytes": int(spills[1]) + int(spills[2])}


def programs(registers: int, shared: int, warps: int) -> int:
    """How many programs a multiprocessor holds: registers are given to a warp in units of 256."""
    per_warp = -(-registers * 32 // 256) * 256
    limits = (REGISTERS // (per_warp * warps), SHARED // (shared + RESERVED), THREADS // (32 * warps), PROGRAMS)
    return min(limits)


def rows_of(cases: Iterator[Case]) -> Iterator[Row]:
    """A line per kernel that no earlier case had."""
    with posing() as seen:
        for case in cases:
            row: Row = {"what": case.what, "gpu": "sm_90a"}
            try:
                launch(case)
            except InputError:  # the kernel does not take this loss
                continue
            except Exception as error:
                yield {"kernel": case.impl} | row | {"failed": f"{type(error).__name__}: {error}"[:500]}
            while seen:
                kernel, compiled, named = seen.pop(0)
                yield {"kernel": kernel.__name__} | row | described(compiled, named)


def main() -> int:
    """Print, and perhaps store, a line per kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--impl", choices=("fused", "blocked"), help="only the kernels of this one")
    parser.add_argument("--every", action="store_true", help="whatever the launchers can choose; takes long")
    parser.add_argument(
        "--save", action="store_true", help="write benchmarks/results/compiled.jsonl, for this version of triton"
    )
    arguments = parser.parse_args()
    rows = []
    cases = (case for case in (every() if arguments.every else usual()) if arguments.impl in (None, case.impl))
    for row in rows_of(cases):
        print(json.dumps(row), flush=True)
        rows.append(row)
    if arguments.save:
        facts = environment.of_timing(torch.device("cpu"), "triton")
        facts["command"] = ["python", "benchmarks/gpu/compiled.py", *sys.argv[1:]]
        path = ROOT / "benchmarks" / "results" / "compiled.jsonl"
        stored = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
        stored = [row for row in stored if row["environment"]["triton"] != facts["triton"]]
        stored += [row | {"environment": facts} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in stored), encoding="utf-8")
    return int(any("failed" in row or row["shared_bytes"] > MOST_SHARED for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
