"""Blocks so small that every set spans several, in either precision, with tiles scored at once or later."""

from __future__ import annotations

import pytest

from angulus.evaluation.scoring import ScoringOptions, tiles


@pytest.fixture(params=[("float32", 1000), ("bfloat16", 1), ("bfloat16", 30)], ids=lambda each: f"{each[0]}-{each[1]}")
def options(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ScoringOptions:
    precision, batch = request.param
    monkeypatch.setattr(tiles, "TILE", {"cpu": (7, 11)})
    monkeypatch.setattr(tiles, "BATCH", batch)
    return ScoringOptions(precision=precision)
