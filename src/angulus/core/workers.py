"""Run a function over items in other processes, of this machine or of a Ray cluster; results keep the tasks' order.

A task is a list of items. Where a process dies during a task, the task's items are tried again one by one, each in a
process that has nothing else to do; an item at which that process dies each time gives `Died`. So a process that is
killed costs nothing, and an item that kills its process is found.

All results come to the process that gave the tasks, which writes them: what is on its disk is done, and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import socket
import statistics
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from angulus.core import checks, extras
from angulus.core.checks import InputError

ENGINES = ("local", "ray")
SAVED = "progress is saved: run the same command again"

_TRIES = 3  # of an item alone
_RETRIES = 3  # Ray's, of a task whose process or machine is lost
_KNOCK_S = 20.0  # to wait for the first answer of a cluster
_COUNT_S = 10.0  # how long a count of a cluster's cores, which may grow, is used
_SLOW_S, _SLOW_TIMES = 10.0, 5  # a task is slow after this long, and this many times the median of the last tasks
_LAST = 64  # tasks

Kept = TypeVar("Kept")
Item = TypeVar("Item")
Made = TypeVar("Made")
Work = Callable[[list[Item]], list[Made]]


@dataclass(frozen=True)
class Died:
    """Instead of an item's result: its process died each time that it was tried alone."""

    reason: str = f"its worker process died {_TRIES} times, perhaps for lack of memory"

    def error(self, name: str) -> InputError:
        """The error for those who do not leave the item out."""
        return InputError(f"{name} cannot be used: {self.reason}; remove it, or leave it out with --on-error skip")


class Workers(Protocol[Item, Made]):
    """Processes at work on one function."""

    @property
    def ahead(self) -> int:
        """How many tasks to start before the first result is asked for."""

    def submit(self, items: list[Item]) -> Callable[[], list[Made | Died]]:
        """Start a task; returns what waits for its results, one per item."""

    def close(self) -> None:
        """Stop the processes; tasks that have not started are dropped."""


def check_engine(engine: str, ray_address: str | None) -> None:
    """Refuse an unknown engine, and the address of a cluster for another than ray."""
    if checks.choice("engine", engine, ENGINES) == "local" and ray_address is not None:
        raise InputError(f"ray_address needs the engine ray; got {ray_address!r} with local; give --engine ray too")


def start_workers(
    start: Callable[[], Work[Item, Made]],
    engine: str = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    *,
    usual: int | None = None,
) -> Workers[Item, Made]:
    """Processes for one function; they start with the first task.

    Args:
        start: called once per process, returns the function that makes a list of results from a list of items. With
            more than this process, it and all items and results must be picklable.
        engine: "local": processes of this machine; "ray": of a Ray cluster, with one core for each task.
        workers: processes, >= 1; local: 1 works in this process. None: one per core, or locally `usual`. Must be None
            for a cluster that runs.
        ray_address: of a running cluster; None: that of the environment's RAY_ADDRESS, or else a cluster of this
            machine, for as long as the workers.
    """
    check_engine(engine, ray_address)
    if workers is not None:
        checks.integer("workers", workers, low=1)
    if engine == "ray":
        return _RayWorkers(start, workers, ray_address)
    count = workers or usual or _count_cores()
    return _LocalWorkers(start, count) if count > 1 else _NoWorkers(start)


def map_tasks(
    workers: Workers[Item, Made], tasks: Iterable[tuple[Kept, list[Item]]]
) -> Generator[tuple[Kept, list[Made | Died]], None, None]:
    """Yield the results of each task, in order, with what was given along with it, which stays in this process."""
    waiting: deque[tuple[Kept, Callable[[], list[Made | Died]]]] = deque()
    for kept, items in tasks:
        waiting.append((kept, workers.submit(items) if items else list))  # a part that is done already has none
        while len(waiting) > workers.ahead:
            kept, results = waiting.popleft()
            yield kept, results()
    for kept, results in waiting:
        yield kept, results()


class _NoWorkers(Generic[Item, Made]):
    """This process, which does a task when its results are asked for."""

    ahead = 0

    def __init__(self, start: Callable[[], Work[Item, Made]]) -> None:
        self._start = start
        self._work: Work[Item, Made] | None = None

    def submit(self, items: list[Item]) -> Callable[[], list[Made | Died]]:
        self._work = self._work or self._start()
        work = self._work
        return lambda: [*work(items)]

    def close(self) -> None:
        pass


class _LocalWorkers(Generic[Item, Made]):
    """Processes of this machine. When one dies, Python gives up the whole pool: all of its tasks are tried again."""

    def __init__(self, start: Callable[[], Work[Item, Made]], count: int) -> None:
        self._start, self._count, self.ahead = start, count, 2 * count
        self._pool = self._begin(count)
        self._single: ProcessPoolExecutor | None = None  # for items alone

    def submit(self, items: list[Item]) -> Callable[[], list[Made | Died]]:
        try:
            future = self._pool.submit(_work_here, items)
        except BrokenProcessPool:
            self._pool.shutdown()
            self._pool = self._begin(self._count)
            future = self._pool.submit(_work_here, items)

        def results() -> list[Made | Died]:
            try:
                return future.result()
            except BrokenProcessPool:
                return [self._try_alone(item) for item in items]

        return results

    def _try_alone(self, item: Item) -> Made | Died:
        for _ in range(_TRIES):
            if self._single is None:
                self._single = self._begin(1)
                try:
                    self._single.submit(_work_here, []).result()
                except BrokenProcessPool as error:
                    raise InputError(f"worker processes died before they had any work; {SAVED}") from error
            try:
                made: Made = self._single.submit(_work_here, [item]).result()[0]
                return made
            except BrokenProcessPool:
                self._single.shutdown()
                self._single = None
        return Died()

    def _begin(self, count: int) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")  # a fork would inherit locks that other threads hold
        return ProcessPoolExecutor(count, context, _become_worker, (self._start,))

    def close(self) -> None:
        for pool in (self._pool, self._single):
            if pool is not None:
                pool.shutdown(cancel_futures=True)


def _knock(address: str) -> None:
    """Connect to HOST:PORT once; Ray itself tries for minutes where nobody listens."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


class _RayWorkers(Generic[Item, Made]):
    """Tasks of a Ray cluster, which places, repeats and spills them."""

    def __init__(self, start: Callable[[], Work[Item, Made]], workers: int | None, address: str | None) -> None:
        self._ray = extras.load("ray", "ray", "the engine ray")
        self._own = not self._ray.is_initialized()  # a program that has connected decides when it leaves
        if self._own:
            self._connect(workers, address or os.environ.get("RAY_ADDRESS") or "local")
        self._remote = self._ray.remote(_work_on_ray)
        self._token, self._started = uuid.uuid4().hex, self._ray.put(start)
        self._running: dict[Any, Any] = {}  # what will be the results of a task: what will be its seconds
        self._seconds: deque[float] = deque(maxlen=_LAST)  # of the last tasks
        self._ahead, self._counted = 0, -_COUNT_S

    def _connect(self, workers: int | None, address: str) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address == "local":
            options |= {"num_cpus": workers or _count_cores(), "include_dashboard": False}
        elif workers is not None:
            raise InputError(f"workers must be left out with a Ray cluster that runs, {address}; got {workers}")
        try:
            _knock(address)
            self._ray.init(address, **options)
        except Exception as error:  # Ray raises many kinds, and Exception itself
            why = f"{checks.one_line(error):.300}"
            if address == "local":
                raise InputError(f"a Ray cluster could not be started on this machine: {why}") from error
            rule = f"ray_address must be that of a running Ray cluster, such as HOST:6379; got {address!r}"
            raise InputError(f"{rule}: {why}") from error

    @property
    def ahead(self) -> int:
        """Twice the cluster's cores, so that it grows if it can."""
        now = time.monotonic()
        if now - self._counted > _COUNT_S:
            self._ahead, self._counted = 2 * max(1, int(self._ray.cluster_resources().get("CPU", 1))), now
        return self._ahead

    def submit(self, items: list[Item]) -> Callable[[], list[Made | Died]]:
        copies = [self._submit(items)]

        def results() -> list[Made | Died]:
            made, ended = None, []
            while made is None and copies:  # where a process died, another may have a copy
                ended.append(self._first(copies, items))
                copies.remove(ended[-1])
                made = self._get(ended[-1])
            for copy in copies:
                self._ray.cancel(copy, force=True)  # an interrupt alone might leave an import half done
            for copy in (*copies, *ended):
                seconds = self._running.pop(copy)
                if made is not None and [copy] == copies + ended:
                    self._seconds.append(self._ray.get(seconds))
            return [self._try_alone(item) for item in items] if made is None else made

        return results

    def _submit(self, items: list[Item], **options: Any) -> Any:
        # in a list, the reference is not replaced by what it refers to, which a process needs once
        asked = self._remote.options(**({"num_cpus": 1, "num_returns": 2, "max_retries": _RETRIES} | options))
        made, seconds = asked.remote(self._token, [self._started], items)
        self._running[made] = seconds
        return made

    def _first(self, copies: list[Any], items: list[Item]) -> Any:
        """Wait for a task. If it is slow, say so and have it done by another process too: what ends first counts."""
        started, wait_s = time.monotonic(), _SLOW_S
        while not (ended := self._ray.wait(copies, timeout=wait_s)[0]):
            waited, usual = time.monotonic() - started, self._usual_seconds()
            if waited < _SLOW_TIMES * usual or not usual:
                wait_s = max(_SLOW_TIMES * usual - waited, _SLOW_S)
                continue
            if len(copies) == 1:
                copies.append(self._submit(items, scheduling_strategy="SPREAD"))
            first, *_, last = [f"{getattr(item, 'id', item)!r}" for item in items] * 2
            which = f"{first} is" if len(items) == 1 else f"{len(items):,} items, {first} to {last}, are"
            fact = f"{which} not done after {waited:,.0f} s, where as many usually take {usual:,.1f} s"
            checks.warn(f"{fact}: another process of the cluster does the same, and the first result counts")
            wait_s = waited  # until the next sentence
        return ended[0]

    def _usual_seconds(self) -> float:
        """The median time of the last tasks that have ended; 0 if none has."""
        running = [*self._running.values()]
        seconds = [*self._seconds]
        for reference in self._ray.wait(running, num_returns=len(running), timeout=0)[0]:
            with contextlib.suppress(self._ray.exceptions.RayError):  # its results say what went wrong
                seconds.append(self._ray.get(reference))
        return statistics.median(seconds) if seconds else 0.0

    def _get(self, reference: Any) -> Any:
        """A task's results; None if its process died, for the last time, or the machine that kept them."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError, errors.ObjectLostError):
            return None
        except errors.RayError as error:
            cause = getattr(error, "cause", error)  # of an error in the function: that error
            if isinstance(cause, Exception) and not isinstance(cause, errors.RayError):
                raise cause from None
            raise InputError(f"the Ray cluster failed: {checks.one_line(cause):.300}; {SAVED}") from error

    def _try_alone(self, item: Item) -> Made | Died:
        for _ in range(_TRIES):
            copy = self._submit([item], max_retries=0)
            made = self._get(copy)
            del self._running[copy]
            if made is not None:
                return made[0]  # type: ignore[no-any-return]
        return Died()

    def close(self) -> None:
        if self._own:
            self._ray.shutdown()


def _count_cores() -> int:
    """Cores that this process may use, if the system knows."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_works: dict[str, Work[Any, Any]] = {}  # of this process, if it is a worker: the last one alone


def _begin_work(name: str, start: Callable[[], Work[Any, Any]]) -> None:
    """Make the function, with one core for the libraries that it imports."""
    _works.clear()
    _works[name] = start()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)


def _become_worker(start: Callable[[], Work[Any, Any]]) -> None:
    """Make this process a worker: on one core, ignoring Ctrl-C (the parent handles it), and ending with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with, args=(parent.sentinel,), daemon=True).start()
    _begin_work("here", start)


def _exit_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _work_here(items: list[Any]) -> list[Any]:
    try:
        return _works["here"](items)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # some kinds cannot be made again elsewhere, which the pool takes for a death
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
        raise


def _work_on_ray(token: str, started: list[Any], items: list[Any]) -> tuple[list[Any], float]:
    """The results, and the seconds that they took."""
    began = time.monotonic()
    if token not in _works:
        import ray  # type: ignore[import-not-found, unused-ignore]

        _begin_work(token, ray.get(started[0]))
    made = _works[token](items)
    return made, time.monotonic() - began
