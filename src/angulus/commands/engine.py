"""The scoring engine under the commands: the device, and the share of this process where torchrun started several."""

from __future__ import annotations

import contextlib
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
    from angulus import scoring
    from angulus.distributed import launch

    with launch.process_group(launch.LONGEST_S) as ranks:
        own = f"cuda:{launch.local_rank()}" if device == "cuda" and ranks.count > 1 else device
        yield scoring.Options(device=own, ranks=ranks)
