"""The gallery's benchmark on a tiny one."""

from __future__ import annotations

from pathlib import Path

import pytest

import search
from angulus import InputError

pytest.importorskip("lancedb")


def test_every_step_is_measured(tmp_path: Path) -> None:
    rows = list(search.time_gallery(tmp_path / "g", rows=1000, size=16, queries=10, kinds=["ivf-pq"]))
    assert [row["what"] for row in rows] == [
        "import of 1,000 rows",
        "matrix product in memory",
        "exact",
        "index ivf-pq",
        *["approximate, ivf-pq"] * 3,
    ]
    assert [row["effort"] for row in rows[4:]] == list(search.EFFORTS)
    assert all(0.8 < row["recall"] <= 1 for row in rows[4:])
    assert rows[2]["ratio"] == pytest.approx(rows[2]["median_ms"] / rows[1]["median_ms"])
    assert rows[0]["mib"] > 1000 * 16 * 4 / 2**20


def test_too_few_rows_queries_and_unknown_indices_are_refused(tmp_path: Path) -> None:
    for options, said in (
        ({"rows": 10}, "rows must be"),
        ({"rows": 1000, "queries": 1}, "queries must be"),
        ({"rows": 1000, "kinds": ["lsh"]}, "kinds must be one of"),
    ):
        with pytest.raises(InputError, match=said):
            list(search.time_gallery(tmp_path / "g", **options))
