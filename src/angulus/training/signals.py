"""Stop a training by Ctrl-C or SIGTERM, after its current step."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint is written."""


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a request that the loop checks after each step; a second one kills."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: FrameType | None) -> None:
        requested.set()
        restore()

    def restore() -> None:
        for stopping, handler in previous.items():
            signal.signal(stopping, handler)

    for number in previous:
        signal.signal(number, request)
    try:
        yield requested.is_set
    finally:
        restore()
