"""Segments of the classes on several threads, for the chunked kernel on a CPU.

A block is a product and a dozen short passes. If PyTorch splits each of these over its threads, every one ends in a
barrier, and on a busy machine each barrier waits for the thread that the system has just set aside. Here every thread
walks segments of its own, one intra-op thread each, and there is one wait per walk. Whoever is free takes the next
segment. Sums are kept per segment and merged in the order of the segments, so the bits do not depend on the load.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

MOST_SEGMENTS = 32  # enough that a thread that falls behind is not waited for; their sums cost little
MOST_THREADS = 8  # each has its own buffers; more intra-op threads per walker beyond that


def segments(blocks: int, device: torch.device) -> list[range]:
    """The blocks in up to `MOST_SEGMENTS` ranges, by their number alone; in one range on a GPU."""
    count = min(blocks, MOST_SEGMENTS) if device.type == "cpu" else 1
    return [range(blocks * k // count, blocks * (k + 1) // count) for k in range(count)]


def walk(work: Callable[[Iterator[int]], None], numbers: range, device: torch.device) -> None:
    """Call `work` on one thread or several, each with an iterator; together they yield every number once, in order.

    The first error of a thread is raised after all of them have stopped.
    """
    count = min(torch.get_num_threads(), MOST_THREADS, len(numbers))
    # a dispatch mode, such as a counter of operations, sees only the operations of the thread that entered it
    if device.type != "cpu" or count < 2 or not _per_thread() or _get_current_dispatch_mode() is not None:
        work(iter(numbers))
        return
    shared, lock, stopped = iter(numbers), threading.Lock(), threading.Event()

    def take() -> Iterator[int]:
        while not stopped.is_set():
            with lock:
                number = next(shared, None)
            if number is None:
                return
            yield number

    inference, intra_op = torch.is_inference_mode_enabled(), torch.get_num_threads() // count

    def run() -> None:
        try:
            if torch.get_num_threads() != intra_op:
                torch.set_num_threads(intra_op)
            with torch.inference_mode(inference), torch.set_grad_enabled(False):
                work(take())
        except BaseException:
            stopped.set()
            raise

    total = torch.get_num_threads()
    futures = [_pool(os.getpid()).submit(run) for _ in range(count)]
    try:
        for future in futures:
            future.result()
    finally:
        stopped.set()
        for future in futures:
            future.exception()
        torch.set_num_threads(total)  # new threads get the number that was set last, by whichever thread


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """The threads of this process: a fork has none of its parent's. They live on, as MKL keeps buffers per thread."""
    return ThreadPoolExecutor(MOST_THREADS, f"angulus-kernel-{process}")


@functools.cache
def _per_thread() -> bool:
    """Whether `torch.set_num_threads` is about the calling thread, as it is with OpenMP."""
    return "parallel backend: OpenMP" in torch.__config__.parallel_info()


class InOrder:
    """Adds numbered parts to a total in the order of their numbers, whichever comes first."""

    def __init__(self, total: Tensor) -> None:
        self.total = total
        self._next, self._waiting, self._lock = 0, dict[int, Tensor](), threading.Lock()

    def add(self, number: int, part: Tensor) -> None:
        with self._lock:
            self._waiting[number] = part
            while self._next in self._waiting:
                self.total += self._waiting.pop(self._next)
                self._next += 1
