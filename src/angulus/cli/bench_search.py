"""`angulus bench search`: a gallery at scale."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.table import Table

from angulus.cli.bench import append, refuse
from angulus.cli.output import show_table


def bench_search(
    rows: Annotated[int, typer.Option(help="Vectors in the gallery.")] = 20_000,
    size: Annotated[int, typer.Option(help="Numbers a vector.")] = 512,
    queries: Annotated[int, typer.Option(help="Asked one at a time.")] = 50,
    kind: Annotated[Optional[list[str]], typer.Option(help="Of index: ivf-pq, hnsw; both, if none.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option(help="Append the results to this file, as JSON lines.")] = None,  # noqa: UP045
    scratch: Annotated[Optional[Path], typer.Option(help="Folder for the gallery, on the disk to be timed.")] = None,  # noqa: UP045
) -> None:
    """Time import, index, exact and approximate queries of a LanceDB gallery, and measure the recall."""
    from angulus.bench import search
    from angulus.search.lance import KINDS

    refuse(out)
    table = Table(title=f"{rows:,} x {size}, {queries} queries, top {search.TOP}")
    for name in ("what", "effort", "median ms", "10 % .. 90 %", "ratio to matrix product", "recall", "MiB"):
        table.add_column(name, justify="left" if name == "what" else "right")
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for each in search.run(Path(folder) / "gallery", rows=rows, size=size, queries=queries, kinds=kind or KINDS):
            table.add_row(
                each.what,
                "" if each.effort is None else str(each.effort),
                f"{each.median_ms:,.1f}",
                f"{each.low_ms:,.1f} .. {each.high_ms:,.1f}" if each.mib is None else "",
                "" if each.ratio is None else f"{each.ratio:.2f}",
                "" if each.recall is None else f"{100 * each.recall:.1f} %",
                "" if each.mib is None else f"{each.mib:,.0f}",
            )
            if out is not None:  # at once: the next step may take an hour
                append(out, [json.dumps(search.record(rows, size, queries, each)) + "\n"])
    show_table(table)
