"""Fixtures of the data sets' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from data.mirrors import Mirrors, serve


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirrors]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve() as mirrors:
        yield mirrors
