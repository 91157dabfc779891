"""Being one of the processes that torchrun starts: joining them, leaving them, and which of them speaks."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any

from angulus.core import checks

if TYPE_CHECKING:  # the command line asks who speaks before it needs torch
    from angulus.distributed.runtime import Ranks

LONGEST_S = 7 * 86_400.0  # seconds
RESUME = "go on from the last checkpoint by the same command with --resume"
AGAIN = "run the same command again"
GRACE_S = 5.0  # seconds to say what happened, once torchrun has asked to end
NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets


class LostRank(Exception):
    """Another process of the run has ended or does not answer."""


def several() -> bool:
    """Whether torchrun started this process as one of several."""
    return all(name in os.environ for name in NEEDED) and int(os.environ["WORLD_SIZE"]) > 1


def local_rank() -> int:
    """Which process of this machine this is, which is also the number of its CUDA device."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def speaks(error: BaseException | None = None) -> bool:
    """Whether this process tells what happened: rank 0 does, any other only what is not known to be told by it."""
    if not several() or os.environ["RANK"] == "0":
        return True
    from angulus.distributed.runtime import SharedError

    return not (error is None or isinstance(error, SharedError))


@contextmanager
def process_group(timeout_s: float, way: str = RESUME) -> Iterator[Ranks]:
    """Join the processes that torchrun started, and leave them at the end; alone, nothing is done.

    Args:
        timeout_s: seconds that one process waits for another before it gives up, > 0, a week at most.
        way: how to go on after a process was lost.

    Raises:
        LostRank: a process ended, or did not answer in time.
        checks.InputError: the processes do not find each other.
    """
    import torch
    import torch.distributed as dist

    from angulus.distributed.runtime import Ranks, SharedError

    try:
        timeout = timedelta(seconds=checks.number("--timeout-s", timeout_s, low=0, open_low=True, high=LONGEST_S))
    except checks.InputError as error:  # every process was given the same
        raise SharedError(str(error)) from error
    if not several():
        yield Ranks()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        raise checks.InputError(
            f"the processes that torchrun started did not find each other within {timeout_s:g} s "
            f"({_first_line(error)}); is MASTER_ADDR reachable from every machine?"
        ) from error
    previous = _end_late()
    try:
        yield Ranks.here()
    except RuntimeError as error:  # the group is left to the end of the process: leaving it waits for the lost one
        if not _of_connection(error):
            raise
        raise LostRank(
            f"another process of the run has ended, or did not answer for {timeout_s:g} s ({_first_line(error)}); {way}"
        ) from error
    except BaseException:
        _leave(previous)
        raise
    _leave(previous)


def _end_late() -> Any:
    """Take SIGTERM as the end within a few seconds, and return what it meant before.

    When one process ends, the others fail at their next collective while torchrun, seeing the end too, sends them
    SIGTERM: without time between the two, none would say what happened. A process that waits for another within a
    collective takes it when that answers; torchrun kills after half a minute.
    """
    if threading.current_thread() is not threading.main_thread():
        return None

    def asked(number: int, frame: FrameType | None) -> None:
        end = threading.Timer(GRACE_S, os._exit, (128 + number,))
        end.daemon = True
        end.start()

    return signal.signal(signal.SIGTERM, asked)


def _leave(previous: Any) -> None:
    if previous is not None:
        signal.signal(signal.SIGTERM, previous)
    import torch.distributed as dist

    dist.destroy_process_group()


def _of_connection(error: RuntimeError) -> bool:
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo" in str(error) or "NCCL" in str(error)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
