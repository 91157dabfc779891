"""The scoring engine under the commands: the device, and the share of this process where torchrun started several."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from angulus.evaluation.scoring import ScoringOptions

WAIT_HELP = "Under torchrun: seconds to wait for another process before giving up."
TimeoutS = Annotated[float, typer.Option("--timeout-s", help=WAIT_HELP)]
Device = Annotated[str, typer.Option("--device", help="Where all pairs are scored: cpu or cuda.")]


@contextlib.contextmanager
def engine(device: str, timeout_s: float) -> Iterator[ScoringOptions]:
    """How all pairs are scored: on the device; under torchrun each process has a share, and a CUDA device of its own.

    The processes meet when each has scored its share: `timeout_s` is how much longer one of them may take. Every
    process comes to the whole result; the one with rank 0 should show it.
    """
    from angulus.distributed import launch
    from angulus.evaluation import scoring

    with launch.process_group(timeout_s, launch.AGAIN) as ranks:
        own = f"cuda:{launch.local_rank()}" if device == "cuda" and ranks.count > 1 else device
        yield scoring.ScoringOptions(device=own, ranks=ranks)
