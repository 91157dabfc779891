"""Jobs that are killed before and after every file that they make durable, and run again: all of it by forks.

Run as a program, in a process that has started no threads: `python killed.py MODULE:FUNCTION FOLDER`. FUNCTION takes a
folder for its results; `MODULE.content` tells what is there, or None where that is not whole.
"""

from __future__ import annotations

import importlib
import itertools
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from angulus.core.checks import InputError


def die_at(point: int) -> None:
    """Kill this process at a step of those that make a file durable."""
    steps = itertools.count(1)
    fsync, replace = os.fsync, Path.replace

    def step() -> None:
        if next(steps) == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted_fsync(handle: int) -> None:
        step()
        fsync(handle)

    def counted_replace(self: Path, target: Path) -> Path:
        step()
        done = replace(self, target)
        step()
        return done

    os.fsync, Path.replace = counted_fsync, counted_replace  # type: ignore[assignment]


def in_child(job: Callable[[], Any], answer: Path) -> bool:
    """Run a job in a fork; whether it came to its end, which puts what it returns into the file `answer`."""
    child = os.fork()
    if not child:
        code = 1
        try:
            answer.write_bytes(pickle.dumps(job()))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"a job failed; see above; its place is {answer}")
    return not os.WIFSIGNALED(status)


def again(job: Callable[[Path], None], out: Path, *, whole: bool) -> None:
    """Run a job once more; it may say that all is there."""
    try:
        job(out)
    except InputError as error:
        if not (whole and "whole records" in str(error)):
            raise


def main(named: str, folder: Path) -> int:
    """Kill at each point in turn; returns how many there were."""
    module, _, name = named.partition(":")
    job, content = (getattr(importlib.import_module(module), each) for each in (name, "content"))
    answer = folder / "answer"
    in_child(lambda: (job(folder / "whole"), content(folder / "whole"))[1], answer)
    expected = pickle.loads(answer.read_bytes())
    if expected is None:
        raise SystemExit("an uninterrupted job must leave something whole")
    for point in itertools.count(1):
        out = folder / str(point)
        ended = in_child(lambda point=point, out=out: (die_at(point), job(out), None)[-1], answer)
        in_child(lambda out=out: content(out), answer)
        found = pickle.loads(answer.read_bytes())
        if found not in (None, expected):
            raise SystemExit(f"killed at step {point}, {out} opens as whole and is not")
        in_child(lambda out=out, found=found: again(job, out, whole=found is not None) or content(out), answer)
        found = pickle.loads(answer.read_bytes())
        if found != expected or list(out.rglob(".*.tmp")):
            raise SystemExit(f"killed at step {point} and run again, {out} is not as without")
        if ended:
            return point - 1
    raise AssertionError


if __name__ == "__main__":
    print(main(sys.argv[1], Path(sys.argv[2])))
