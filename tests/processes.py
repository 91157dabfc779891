"""Several processes of a test that meet by a file."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path


def run_ranks(worker: Path, count: int, *arguments: str) -> None:
    """Run `worker RANK COUNT ARGUMENTS...` in so many processes, and ask each for a clean end."""
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(worker), str(rank), str(count), *arguments],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        said = [process.communicate(timeout=400)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    assert not any(codes), f"exit codes {codes}\n" + "\n".join(said)[-4000:]


def _run(worker: str) -> None:
    """Run a worker, and end as `angulus` does: gloo's threads may abort a process that ends by itself."""
    from angulus.distributed.launch import end_process

    sys.path[0] = str(Path(worker).parent)
    runpy.run_path(worker, run_name="__main__")
    end_process(0)


if __name__ == "__main__":
    del sys.argv[0]
    _run(sys.argv[0])
