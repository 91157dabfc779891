"""Compile the Triton kernels for an H100, without one; test_fused.py runs it in a process without the interpreter."""

from __future__ import annotations

import sys
from typing import Any

SHARED = 227 * 1024  # bytes that a program may have
TYPES = {
    **dict.fromkeys(("unit", "weight", "coefficients"), "narrow"),
    **dict.fromkeys(("inverse", "bias", "table", "partials", "by_class"), "wide"),
    "labels": "i64",
}
SIXTEENS = ("unit_row", "weight_row", "coefficients_row", "size")  # what is taken to be a multiple of 16
ALL = {"RADIUS": 1, "LOGS": 2, "HINGES": 1, "UNIT": 1, "COSINES": 1, "MAPPED": 1, "BIASED": 1, "MEANS": 1}
FEW = ALL | {"LOGS": 1, "HINGES": 0, "MAPPED": 0, "BIASED": 0}


def compiled(kernel: Any, known: dict[str, Any], types: dict[str, str], **options: Any) -> Any:
    """The kernel with these arguments known, and operands that are contiguous and aligned."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    known = known | {"unit_column": 1, "weight_column": 1}
    pointers = {name: f"*{types.get(of, of)}" for name, of in TYPES.items()}
    signature = {name: "constexpr" if name in known else pointers.get(name, "i32") for name in kernel.arg_names}
    places = {name: (place,) for place, name in enumerate(kernel.arg_names)}
    constants = {places[name]: value for name, value in known.items() if name in places}
    aligned = {name for name, kind in signature.items() if kind.startswith("*") or name in SIXTEENS}
    divisible = {places[name]: [["tt.divisibility", 16]] for name in aligned}
    source = ASTSource(kernel, signature, constants, divisible)
    return compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def main() -> None:
    """Compile both kernels with tensor cores, and with everything that can be asked for."""
    import angulus.kernels.fused

    assert "angulus.kernels.fused_kernels" not in sys.modules, "importing the package must not import the kernels"
    module, tiles = angulus.kernels.fused.kernels(), angulus.kernels.tuned.TILES
    assert module.COMPILED and not module.INTERPRETED
    narrow, wide = {"narrow": "bf16", "wide": "fp32"}, {"narrow": "fp64", "wide": "fp64"}
    for key, types, flags, expected in (("bf16", narrow, FEW, "wgmma"), ("exact", wide, ALL, "fma.rn.f64")):
        for kernel, tile in zip((module.reduce_tile, module.coefficient_tile), tiles[key], strict=True):
            known = flags | {"PRECISION": "exact" if key == "exact" else "ieee"}
            known |= {"BLOCK_B": tile.rows, "BLOCK_C": tile.classes, "BLOCK_D": tile.inner}
            result = compiled(kernel, known, types, num_warps=tile.warps, num_stages=tile.stages, enable_fp_fusion=True)
            assert result.metadata.shared <= SHARED, f"{key}: {result.metadata.shared} bytes of shared memory"
            assert expected in result.asm["ptx"], f"{key}: no {expected}"
            print(key, result.metadata.name, result.metadata.shared)


if __name__ == "__main__":
    main()
