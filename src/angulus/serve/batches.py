"""Requests that arrive while a batch is computed become the next batch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


class Batches(Generic[Item, Made]):
    """Calls `function` with lists of items, in one thread; nobody waits for a list to fill.

    Args:
        function: of 1 to `most` items, returns one value for each, in their order.
        most: items at a time.
        seen: called with the size of each list.
    """

    def __init__(
        self, function: Callable[[list[Item]], Sequence[Made]], most: int, seen: Callable[[int], object]
    ) -> None:
        self.function, self.most, self.seen = function, most, seen
        self._waiting: asyncio.Queue[tuple[Item, asyncio.Future[Made]]] = asyncio.Queue()

    async def ask(self, item: Item) -> Made:
        """The value of an item."""
        future: asyncio.Future[Made] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((item, future))
        return await future

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Compute until the context ends."""
        self._waiting = asyncio.Queue()  # of the loop that runs
        with ThreadPoolExecutor(1) as pool:
            task = asyncio.create_task(self._run(pool))
            try:
                yield
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _run(self, pool: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self.most and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            batch = [pair for pair in batch if not pair[1].done()]  # a client who left is not computed
            if not batch:
                continue
            self.seen(len(batch))
            try:
                made = await loop.run_in_executor(pool, self._compute, [item for item, _ in batch])
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            else:
                for (_, future), value in zip(batch, made, strict=True):
                    if not future.done():
                        future.set_result(value)

    def _compute(self, items: list[Item]) -> Sequence[Made]:
        try:
            return self.function(items)
        except Exception:
            raise
        except BaseException as error:  # a panic of Rust code is no Exception, and would end `_run` for good
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
