"""The processes that torchrun starts: how one joins and leaves them, and which of them reports."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from angulus.core import checks

if TYPE_CHECKING:  # the command line asks who speaks before it needs torch
    from angulus.distributed.runtime import Ranks

LONGEST_S = 7 * 86_400.0  # seconds
RESUME = "go on from the last checkpoint by the same command with --resume"
AGAIN = "run the same command again"
_groups = count()  # numbers the process groups that this process has joined
_stores: dict[tuple[str, ...], Any] = {}  # where they meet; kept, since others may come to their next group first
GRACE_S = 5.0  # seconds to report what happened after torchrun's SIGTERM
NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets


class LostRank(Exception):
    """Another process of the run has ended or does not answer."""


def is_distributed() -> bool:
    """Whether torchrun started this process as one of several."""
    return all(name in os.environ for name in NEEDED) and int(os.environ["WORLD_SIZE"]) > 1


def local_rank() -> int:
    """The number of this process on this machine, and of its CUDA device."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def reports(error: BaseException | None = None) -> bool:
    """Whether this process reports the error, or progress without one: rank 0 does, others only errors of their own."""
    if not is_distributed() or os.environ["RANK"] == "0":
        return True
    from angulus.distributed.runtime import SharedError

    return not (error is None or isinstance(error, SharedError))


def quiet_code(code: int) -> int:
    """The exit code of a process that leaves an error to rank 0: 0 on rank 0's machine, `code` on another.

    torchrun ends all processes of a machine as soon as one fails, also the one that is about to print. So rank 0 alone
    fails there, and its code is the run's. On another machine, torchrun would take 0 for the end of the work and wait.
    """
    return 0 if os.environ.get("GROUP_RANK", "0") == "0" else code


@contextmanager
def process_group(timeout_s: float, way: str = RESUME) -> Iterator[Ranks]:
    """Join the processes that torchrun started, and leave them at the end; does nothing for a single process.

    Args:
        timeout_s: seconds that a process waits for another before it gives up, > 0, at most a week.
        way: how to resume after a process was lost, for the error.

    Raises:
        LostRank: a process has ended or did not answer in time.
        checks.InputError: the processes cannot connect to each other.
    """
    import torch
    import torch.distributed as dist

    from angulus.distributed.runtime import Ranks, SharedError

    try:
        timeout = timedelta(seconds=checks.number("--timeout-s", timeout_s, low=0, open_low=True, high=LONGEST_S))
    except checks.InputError as error:  # every process has the same value
        raise SharedError(str(error)) from error
    if not is_distributed():
        yield Ranks()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    hint, started = _restart_hint(), time.monotonic()
    if hint and os.environ["RANK"] == "0" and not _stores:
        checks.warn(hint)
    try:
        _join(backend, timeout)
    except (RuntimeError, ValueError) as error:
        raise checks.InputError(
            f"the processes that torchrun started did not connect to each other; this one gave up after "
            f"{time.monotonic() - started:.0f} s of {timeout_s:g} ({_first_line(error)}); "
            + (hint or "is MASTER_ADDR reachable from every machine?")
        ) from error
    previous = _delay_exit()
    try:
        yield Ranks.here()
    except RuntimeError as error:  # keep the group: leaving it would wait for the lost process
        if not _is_connection_error(error):
            raise
        raise LostRank(
            f"another process of the run has ended, or did not answer for {timeout_s:g} s ({_first_line(error)}); {way}"
        ) from error
    except BaseException:
        _leave(previous)
        raise
    _leave(previous)


@contextmanager
def patient(ranks: Ranks) -> Iterator[Ranks]:
    """The same ranks, which wait for each other for up to a week: one of them has long work of its own."""
    import torch.distributed as dist

    if ranks.count == 1:
        yield ranks
        return
    group = dist.new_group(backend="gloo", timeout=timedelta(seconds=LONGEST_S))
    yield type(ranks).here(group)
    dist.destroy_process_group(group)  # not after an error: it would wait for a process that is lost


def _join(backend: str, timeout: timedelta) -> None:
    """Join the default process group, under keys of its own.

    PyTorch gives each first group the same keys, so a process that comes early to its second group would connect to
    the addresses of the group that the others have not left yet. The same holds for processes that torchrun started
    again with the store of those that have ended. One torchrun counts its restarts; several count different ones.
    """
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    place = tuple(os.environ[name] for name in NEEDED)
    if place not in _stores:
        _stores[place] = next(rendezvous("env://", timeout=timeout))
    store, rank, size = _stores[place]
    store.set_timeout(timeout)
    restarts = "" if _has_several_nodes() else os.environ.get("TORCHELASTIC_RESTART_COUNT", "")
    own = PrefixStore(f"angulus-{restarts}-{next(_groups)}", store)
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=timeout)


def _has_several_nodes() -> bool:
    return os.environ.get("GROUP_WORLD_SIZE", "1") != "1"


def _restart_hint() -> str | None:
    """What to change if processes of several nodes may be started again with a store that holds old addresses.

    torchrun publishes the address of its store on the first start alone: a node that joins later waits for it in vain,
    and a node whose rank becomes 0 opens a store of its own (torch 2.13, `DynamicRendezvousHandler.next_rendezvous`).
    """
    keeps_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"
    if not (keeps_store and restarts and _has_several_nodes()):
        return None
    return (
        "torchrun keeps the addresses of its first start, so processes that it starts again, or on a node that joins, "
        "may not find each other; start torchrun with --rdzv-backend c10d and TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in "
        "its environment"
    )


def _delay_exit() -> Any:
    """Delay the exit on SIGTERM by a few seconds, and return the previous handler.

    When one process ends, the others fail at their next collective, and torchrun sends them SIGTERM at about the same
    time: without a delay, none would report what happened. A process that waits in a collective handles the signal when
    the collective returns; torchrun kills it after half a minute.
    """
    if threading.current_thread() is not threading.main_thread():
        return None

    def exit_soon(number: int, frame: FrameType | None) -> None:
        end = threading.Timer(GRACE_S, os._exit, (128 + number,))
        end.daemon = True
        end.start()

    return signal.signal(signal.SIGTERM, exit_soon)


def _leave(previous: Any) -> None:
    if previous is not None:
        signal.signal(signal.SIGTERM, previous)
    import torch.distributed as dist

    dist.destroy_process_group()


def end_process(code: int) -> NoReturn:
    """End a process that was in a process group, without the end of Python itself.

    PyTorch can leave the threads of gloo running after `destroy_process_group()`. A thread that drops a tensor while
    Python ends aborts the process ("terminate called without an active exception"), after a run that succeeded.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _is_connection_error(error: RuntimeError) -> bool:
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo" in str(error) or "NCCL" in str(error)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
