#!/usr/bin/env python3
"""Compile the Triton kernels for an H100, which needs no GPU: registers, spills and shared memory of each, from ptxas.

    python benchmarks/gpu/compiled.py [--kernels reduce_block,finish_rows] [--save]

`programs` is how many programs one of its multiprocessors can hold, by these figures and NVIDIA's limits. Nothing
is run, so nothing here is a time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)  # before triton is imported

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

import torch  # noqa: E402

from angulus.core import environment  # noqa: E402
from angulus.kernels import blocked, fused, tuned  # noqa: E402

# of a multiprocessor of compute capability 9.0; source: CUDA C++ Programming Guide, Technical Specifications
REGISTERS, SHARED, THREADS, PROGRAMS = 65536, 228 * 1024, 2048, 32
RESERVED = 1024  # bytes of shared memory that CUDA takes for each program
NARROW = ("unit", "coefficients")
WIDE = ("inverse", "bias", "table", "partials", "by_class", "products", "running", "on_lengths", "on_bias", "gradient",
        "grad_rows")  # fmt: skip
ALIGNED = ("unit_row", "weight_row", "coefficients_row", "products_row", "stash_row", "gradient_row", "out_row", "size")
ARCFACE = {"RADIUS": 1, "LOGS": 1, "HINGES": 0, "UNIT": 1, "COSINES": 1, "MAPPED": 0, "BIASED": 0, "MEANS": 0}
LOSSES = {"ArcFace": ARCFACE, "MV + IAM": ARCFACE | {"LOGS": 2, "MAPPED": 1}}
Row = dict[str, Any]


def cases() -> Iterator[tuple[str, Any, dict[str, Any], dict[str, str], dict[str, int]]]:
    """(what, kernel, what is known, dtypes of the pointers that vary, launch options) of what a GPU would run."""
    module, other = fused.kernels(), blocked.kernels()
    dtypes = {"bf16": "bf16", "tf32": "fp32", "ieee": "fp32"}
    for loss, flags in LOSSES.items():
        for precision, dtype in dtypes.items():
            for kernel, tile in zip((module.reduce_tile, module.coefficient_tile), tuned.TILES[precision], strict=True):
                known = flags | {"BLOCK_B": tile.rows, "BLOCK_C": tile.classes, "BLOCK_D": tile.inner}
                known["PRECISION"] = "ieee" if precision == "bf16" else precision
                options = {"num_warps": tile.warps, "num_stages": tile.stages}
                yield f"{loss}, {precision}", kernel, known, {"narrow": dtype, "weight": dtype}, options
        for kernel, flag, shape in (
            (other.reduce_block, "KEPT", tuned.BLOCKING.reduce),
            (other.coefficient_block, "STASHED", tuned.BLOCKING.coefficients),
        ):
            for stash in (0, 1):
                known = flags | {flag: stash, "BLOCK_C": shape.classes, "BLOCK_B": shape.rows}
                types = {"narrow": "bf16", "stash": "fp16"}
                if flag == "STASHED" and stash:
                    types["products"] = "fp16"
                name = f"{loss}, bf16{', stash' * stash}"
                yield name, kernel, known, types, {"num_warps": shape.warps}
    for dtype in ("fp32", "bf16"):
        sides = {"BLOCK_C": blocked.FINISH[0], "BLOCK_D": blocked.FINISH[1]}
        types = {"weight": dtype, "out": dtype}
        yield f"{dtype} dW", other.finish_rows, {"COSINES": 1} | sides, types, {"num_warps": 4}
        sides = {"BLOCK_C": blocked.LENGTHS[0], "BLOCK_D": blocked.LENGTHS[1]}
        yield f"{dtype} W", other.invert_lengths, sides, types, {"num_warps": 4}


def compiled(kernel: Any, known: dict[str, Any], types: dict[str, str], options: dict[str, int]) -> Any:
    """The kernel for contiguous, aligned operands."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    known = known | {"unit_column": 1, "weight_column": 1}
    pointers = dict.fromkeys(NARROW, types.get("narrow", "bf16")) | dict.fromkeys(WIDE, "fp32") | types
    pointers |= {"labels": "i64", "order": "i64", "starts": "i32"}
    scalars = {"eps": "fp32"}
    signature = {
        name: "constexpr" if name in known else f"*{pointers[name]}" if name in pointers else scalars.get(name, "i32")
        for name in kernel.arg_names
    }
    places = {name: (place,) for place, name in enumerate(kernel.arg_names)}
    constants = {places[name]: value for name, value in known.items() if name in places}
    aligned = {name for name, kind in signature.items() if kind.startswith("*") or name in ALIGNED}
    divisible = {places[name]: [["tt.divisibility", 16]] for name in aligned if signature[name] != "constexpr"}
    source = ASTSource(kernel, signature, constants, divisible)
    return compile(source, target=GPUTarget("cuda", 90, 32), options=options | {"enable_fp_fusion": False})


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


def main() -> None:
    """Print, and perhaps store, a line per kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", help="names, separated by commas; all without it")
    parser.add_argument(
        "--save", action="store_true", help="write benchmarks/results/compiled.jsonl, for this version of triton"
    )
    arguments = parser.parse_args()
    wanted = arguments.kernels and arguments.kernels.split(",")
    rows = []
    for what, kernel, known, types, options in cases():
        if wanted and kernel.__name__ not in wanted:
            continue
        result = compiled(kernel, known, types, options)
        row: Row = {"kernel": kernel.__name__, "what": what, "gpu": "sm_90a"} | options
        row |= {"tile": [known[side] for side in ("BLOCK_B", "BLOCK_C", "BLOCK_D") if side in known]}
        row |= {"shared_bytes": result.metadata.shared} | assembled(result.asm["ptx"])
        row["programs"] = programs(row["registers"], row["shared_bytes"], options["num_warps"])
        row["tensor_cores"] = "wgmma" in result.asm["ptx"] or "mma.sync" in result.asm["ptx"]
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


if __name__ == "__main__":
    main()
