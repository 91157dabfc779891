"""Several ranks whose CPUs pose as GPUs: a step waits for nothing, and a bad batch of one moves none."""

from __future__ import annotations

import json
from pathlib import Path

from processes import run_ranks


def test_several_ranks_wait_for_nothing_and_agree(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    run_ranks(Path(__file__).with_name("later.py"), 2, str(tmp_path / "rendezvous"), str(results))
    found = json.loads(results.read_text())
    assert len(found) > 60
    assert not {name: value for name, value in found.items() if not value <= 1e-12}
