"""Functions for worker processes, some of which die."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path


class Homebound(Exception):
    """An error that can be pickled and not made again."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)


def square(items: list[int]) -> list[int]:
    return [item**2 for item in items]


def fragile(folder: Path, items: list[int]) -> list[int]:
    """Squares; the process dies at 13, at -2 the first time, at -3 the first two times; 14 and 15 are errors."""
    for item in items:
        times = len(list(folder.glob(f"{item} *")))
        if item == 13 or times < -item - 1:
            (folder / f"{item} {times}").touch()
            os._exit(9)
        if item == 14:
            raise ValueError("fourteen")
        if item == 15:
            raise Homebound(15, "fifteen")
    return square(items)


def uneven(folder: Path, items: list[int]) -> list[int]:
    """Squares; the first process to come takes 50 times as long; writes which process did how many."""
    try:
        (folder / "slow").mkdir()
        (folder / "slow" / str(os.getpid())).touch()
    except FileExistsError:
        pass
    slow = (folder / "slow" / str(os.getpid())).exists()
    time.sleep((1.0 if slow else 0.02) * len(items))
    with (folder / ("by slow" if slow else "by fast")).open("a") as file:
        file.write(f"{len(items)}\n")
    return square(items)


def doubtful(folder: Path, items: list[int]) -> list[int]:
    """Squares; the first process that is given 20 or 21 ends long after a second, and of 21 the second dies."""
    for item in items:
        if item in (20, 21):
            try:
                (folder / f"{item}").mkdir()
            except FileExistsError:
                (folder / f"{item} again").touch()
                if item == 21:
                    os._exit(9)
            else:
                while not (folder / f"{item} again").exists():
                    time.sleep(0.05)
                time.sleep(3.0)
                (folder / f"{item} slowly").touch()
    return square(items)


def start_doubtful(folder: Path) -> Callable[[list[int]], list[int]]:
    return partial(doubtful, folder)


def start_square() -> Callable[[list[int]], list[int]]:
    return square


def start_fragile(folder: Path) -> Callable[[list[int]], list[int]]:
    return partial(fragile, folder)


def start_uneven(folder: Path) -> Callable[[list[int]], list[int]]:
    return partial(uneven, folder)


def start_none() -> Callable[[list[int]], list[int]]:
    os._exit(9)
