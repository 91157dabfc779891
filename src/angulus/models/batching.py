"""How many images a network takes at a time on the CPU, and decoding the next batch while the network works."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from angulus.core.checks import InputError

# The C library returns blocks of 32 MiB and more to the system at once, so a larger output of a layer is mapped and
# filled with zeros again in every layer of every batch; half of that also stays in the third-level cache.
MOST_BYTES = 2**24  # of one layer's output
MOST_IMAGES = 256
MOST_THREADS = 16

Item = TypeVar("Item")
Made = TypeVar("Made")


def images_at_a_time(network: nn.Module, image: Tensor) -> int:
    """The most images whose largest output of a layer has at most 2^24 bytes; at least 1, at most 256.

    The number depends only on the network and the image's size, so runs on one machine give the same numbers.

    Args:
        network: in evaluation mode.
        image: [1, channels, ...], as the network takes it.

    >>> images_at_a_time(nn.Conv2d(1, 64, 1), torch.zeros(1, 1, 64, 64))  # 64 x 64 x 64 float32: 2^20 bytes
    16
    """
    sizes = [1]
    own = threading.get_ident()  # another thread may send a whole batch through the same layers meanwhile

    def note(layer: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and threading.get_ident() == own:
            sizes.append(output.numel() * 4)

    hooks = [layer.register_forward_hook(note) for layer in network.modules() if not any(layer.children())]
    try:
        network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return min(max(MOST_BYTES // max(sizes), 1), MOST_IMAGES)


def threads() -> int:
    """Threads that decode images: as many as PyTorch uses, at most 16."""
    return min(MOST_THREADS, torch.get_num_threads())


def ahead(
    batches: Iterable[Item], start: Callable[[Item, ThreadPoolExecutor], Made], count: Callable[[], int] = lambda: 1
) -> Generator[tuple[Item, Made], None, None]:
    """Each batch with what `start` has begun for it; that of the next batches has begun as well.

    Args:
        batches: read ahead.
        start: puts a batch's work into a pool of threads.
        count: how many batches to read ahead.
    """
    waiting: deque[tuple[Item, Made]] = deque()
    pool = ThreadPoolExecutor(threads())
    try:
        for batch in batches:
            waiting.append((batch, start(batch, pool)))
            while len(waiting) > count():
                yield waiting.popleft()
        yield from waiting
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def result_or_reason(future: Future[Made]) -> Made | InputError:
    """What a thread has made, or why the input does not allow it."""
    try:
        return future.result()
    except InputError as error:
        return error
