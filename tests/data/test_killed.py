"""Convert, prepare and audit --apply, killed at every step that makes a file durable: run again, they end the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="jobs are run in forks")
TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("job", ["convert_folder", "prepare_photos", "apply_lists"])
def test_killed_anywhere_the_same_command_goes_on(tmp_path: Path, job: str) -> None:
    places = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    run = subprocess.run(
        [sys.executable, str(TESTS / "killed.py"), f"kill_jobs:{job}", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 12  # steps at which it was killed
