"""Functions for worker processes, some of which die."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path


def square(items: list[int]) -> list[int]:
    return [item**2 for item in items]


def fragile(folder: Path, items: list[int]) -> list[int]:
    """Squares; the process dies at 13, at -2 the first time, at -3 the first two times; 14 is an error."""
    for item in items:
        times = len(list(folder.glob(f"{item} *")))
        if item == 13 or times < -item - 1:
            (folder / f"{item} {times}").touch()
            os._exit(9)
        if item == 14:
            raise ValueError("fourteen")
    return square(items)


def start_square() -> Callable[[list[int]], list[int]]:
    return square


def start_fragile(folder: Path) -> Callable[[list[int]], list[int]]:
    return partial(fragile, folder)


def start_none() -> Callable[[list[int]], list[int]]:
    os._exit(9)
