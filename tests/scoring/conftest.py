"""Blocks so small that every set spans several, in either precision."""

from __future__ import annotations

import pytest

from angulus.scoring import Options, tiles


@pytest.fixture(params=["float32", "bfloat16"])
def options(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Options:
    monkeypatch.setattr(tiles, "TILE", {"cpu": (7, 11)})
    return Options(precision=request.param)
