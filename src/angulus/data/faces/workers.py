"""Processes that turn photos into crops, one a core, with results in the order of the tasks."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import torch

from angulus.core import checks, extras
from angulus.data.faces import detect
from angulus.data.faces.detect import Detector
from angulus.data.faces.photos import Crops, Outcome, process
from angulus.data.records import Row

Task = list[Row]


class Workers:
    """Holds the processes, which start with the first tasks; to be closed."""

    def __init__(self, detector: str | Detector, crops: Crops, count: int | None = None) -> None:
        """Set up, and look whether the detector can be had.

        Args:
            detector: a word as `detect.make` takes, or a detector; one that can be pickled, for two processes or more.
            crops: which face of a photo, and which crop of it.
            count: processes, >= 1; 1 works in this one; None is one a core.

        Raises:
            checks.InputError: no such detector, or a package or file that it lacks.
        """
        self.count = _cores() if count is None else checks.integer("workers", count, low=1)
        self._crops = crops
        self._detector = detect.make(detector) if isinstance(detector, str) else detector
        self._pool: ProcessPoolExecutor | None = None
        if self.count > 1:
            context = multiprocessing.get_context("spawn")  # a fork would inherit locks that other threads hold
            self._pool = ProcessPoolExecutor(self.count, context, _begin, (detector, crops))

    def process(self, tasks: Iterable[Task]) -> Generator[list[Outcome], None, None]:
        """What becomes of each task's photos, in their order; a few tasks are taken ahead.

        Raises:
            checks.InputError: a process ended of itself.
        """
        if self._pool is None:
            for task in tasks:
                yield process(task, self._detector, self._crops)
            return
        waiting: deque[tuple[Future[list[Outcome]], Task]] = deque()
        for task in tasks:
            waiting.append((self._pool.submit(_work, task), task))
            if len(waiting) > 2 * self.count:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())

    def close(self) -> None:
        """Let the processes end; what they have not begun is not done."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _cores() -> int:
    """Cores that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _result(future: Future[list[Outcome]], task: Task) -> list[Outcome]:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise checks.InputError(
            f"a worker process ended of itself, for want of memory perhaps, at the photos {task[0].id} to {task[-1].id}"
            " or shortly after; what was done is kept: run the same command again, with fewer workers"
        ) from error


_state: tuple[Detector, Crops] | None = None  # of this process, if it is a worker


def _begin(detector: str | Detector, crops: Crops) -> None:
    """Make this process a worker: on one core, deaf to Ctrl-C, which the parent answers, and gone with the parent."""
    global _state
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave_with, args=(parent.sentinel,), daemon=True).start()
    torch.set_num_threads(1)
    extras.load("cv2", "faces", "preparing faces").setNumThreads(1)
    _state = detect.make(detector) if isinstance(detector, str) else detector, crops


def _leave_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _work(task: Task) -> list[Outcome]:
    if _state is None:
        raise RuntimeError("a worker must begin before it works")
    return process(task, *_state)
