"""Several processes of a test that meet by a file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_ranks(worker: Path, count: int, *arguments: str) -> None:
    """Run `worker RANK COUNT ARGUMENTS...` in so many processes, and ask each for a clean end."""
    processes = [
        subprocess.Popen(
            [sys.executable, str(worker), str(rank), str(count), *arguments],
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
