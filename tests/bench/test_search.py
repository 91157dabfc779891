"""The gallery's benchmark on a tiny one."""

from __future__ import annotations

from pathlib import Path

import pytest

from angulus import InputError
from angulus.bench import search

pytest.importorskip("lancedb")


def test_every_step_is_measured(tmp_path: Path) -> None:
    found = list(search.run(tmp_path / "g", rows=1000, size=16, queries=10, kinds=["ivf-pq"]))
    assert [each.what for each in found] == [
        "import of 1,000 rows",
        "matrix product in memory",
        "exact",
        "index ivf-pq",
        *["approximate, ivf-pq"] * 3,
    ]
    assert [each.effort for each in found[4:]] == list(search.EFFORTS)
    assert all(each.recall is not None and 0.8 < each.recall <= 1 for each in found[4:])
    assert found[2].ratio == pytest.approx(found[2].median_ms / found[1].median_ms)
    assert found[0].mib is not None and found[0].mib > 1000 * 16 * 4 / 2**20
    line = search.record(1000, 16, 10, found[2])
    assert line["rows"] == 1000 and line["what"] == "exact" and line["environment"]["lancedb"]


def test_too_few_rows_queries_and_unknown_indices_are_refused(tmp_path: Path) -> None:
    for options, said in (
        ({"rows": 10}, "rows must be"),
        ({"rows": 1000, "queries": 1}, "queries must be"),
        ({"rows": 1000, "kinds": ["lsh"]}, "kinds must be one of"),
    ):
        with pytest.raises(InputError, match=said):
            list(search.run(tmp_path / "g", **options))
