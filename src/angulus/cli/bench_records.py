"""`angulus bench records`: random reads and decoded batches, beside other ways to keep images."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.table import Table

from angulus.cli.bench import append, refuse


def bench_records(
    source: Annotated[Path, typer.Argument(help="Records of images of one size.")],
    rounds: Annotated[int, typer.Option(help="Times that each is timed, in turn with the others.")] = 5,
    out: Annotated[Optional[Path], typer.Option(help="Append the results to this file, as JSON lines.")] = None,  # noqa: UP045
) -> None:
    """Time reads in random order, and decoded batches, from records, a folder, a zip, Arrow, Parquet and Lance."""
    from angulus.bench import records
    from angulus.data.records import Records

    refuse(out)
    count = len(Records(source))
    table = Table(title=f"{count:,} images, batches of {records.BATCH}, {rounds} rounds")
    for name in ("store", "workers", "images/s", "ratio to a folder", "CPU µs/image", "MiB"):
        table.add_column(name, justify="left" if name == "store" else "right")
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        for timing in records.run(source, Path(scratch), rounds):
            what = f"{timing.store}, decoded" if timing.decoded else timing.store
            ratio = f"{timing.ratio:.2f} [{timing.ratio_low:.2f}, {timing.ratio_high:.2f}]"
            cost = "" if timing.cpu_us is None else f"{timing.cpu_us:,.1f}"
            table.add_row(what, str(timing.workers), f"{timing.images_per_s:,.0f}", ratio, cost, f"{timing.mib:,.1f}")
            lines.append(json.dumps(records.record(count, rounds, timing)) + "\n")
    Console().print(table)
    if out is not None:
        append(out, lines)
