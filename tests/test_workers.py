"""Functions over items in processes: order, processes that die, what is refused."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from angulus.core.checks import InputError
from angulus.core.workers import Died, map_tasks, start_workers
from worker_jobs import square, start_fragile, start_none, start_square


@pytest.mark.parametrize("count", [1, 2])
def test_results_keep_the_order_of_tasks_and_what_came_with_them(count: int) -> None:
    taken = []

    def tasks() -> Iterator[tuple[str, list[int]]]:
        for task in range(12):
            taken.append(task)
            yield f"task {task}", list(range(task % 4))

    with contextlib.closing(start_workers(start_square, workers=count)) as two:
        results = map_tasks(two, tasks())
        assert next(results) == ("task 0", [])
        assert len(taken) == two.ahead + 1  # no more is read than is needed
        assert [*results] == [(f"task {task}", square(range(task % 4))) for task in range(1, 12)]


def test_a_task_of_nothing_asks_no_process() -> None:
    """Most tasks of a conversion that resumes; on Ray, one that waited for a core was told with its first item."""
    asked: list[list[int]] = []

    class Asked:
        ahead = 0

        def submit(self, items: list[int]) -> Callable[[], list[int | Died]]:
            asked.append(items)
            return lambda: [*items]

        def close(self) -> None:
            pass

    assert [*map_tasks(Asked(), [("a", []), ("b", [2]), ("c", [])])] == [("a", []), ("b", [2]), ("c", [])]
    assert asked == [[2]]


def test_a_process_that_dies_costs_nothing_and_an_item_that_kills_it_is_found(tmp_path: Path) -> None:
    with contextlib.closing(start_workers(partial(start_fragile, tmp_path), workers=2)) as two:
        tasks = [("", [1, -2, 2]), ("", [3]), ("", [13, 4]), ("", [5, -3]), ("", [6, 7])]
        results = [result for _, results in map_tasks(two, tasks) for result in results]
        assert results == [1, 4, 4, 9, Died(), 16, 25, 9, 36, 49]
        with pytest.raises(ValueError, match="fourteen"):
            two.submit([14])()
        with pytest.raises(RuntimeError, match="Homebound: fifteen"):
            two.submit([15])()
    assert str(Died().error("13.png")).startswith("13.png cannot be used: its worker process died 3 times, perhaps")


def test_processes_that_cannot_start_are_no_items_fault() -> None:
    said = "worker processes died before they had any work; progress is saved"
    with contextlib.closing(start_workers(start_none, workers=2)) as two, pytest.raises(InputError, match=said):
        two.submit([1])()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"engine": "spark"}, "engine must be one of 'local', 'ray'; got 'spark'"),
        ({"workers": 0}, "workers must be a whole number >= 1; got 0"),
        ({"ray_address": "host:6379"}, "ray_address needs the engine ray; got 'host:6379' with local"),
    ],
)
def test_what_is_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        start_workers(start_square, **options)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"^the engine ray needs `pip install 'angulus\[ray\]'`"):
        start_workers(start_square, "ray")
