"""The scoring engine under the commands: the device, and the share of this process where torchrun started several."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from angulus.scoring import Options

Device = Annotated[str, typer.Option("--device", help="Where all pairs are scored: cpu or cuda.")]


@contextlib.contextmanager
def engine(device: str) -> Iterator[Options]:
    """How all pairs are scored: on the device; under torchrun each process has a share, and a CUDA device of its own.

    Every process comes to the whole result; the one with rank 0 should show it.
    """
    import torch.distributed as dist

    from angulus import scoring
    from angulus.distributed.runtime import Ranks

    if not dist.is_torchelastic_launched():
        yield scoring.Options(device=device)
        return
    dist.init_process_group("gloo")  # small objects in memory are all that is exchanged
    try:
        own = f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device
        yield scoring.Options(device=own, ranks=Ranks.here())
    finally:
        dist.destroy_process_group()
