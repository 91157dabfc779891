"""From folders and results to the page on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from angulus.core import checks, files
from angulus.report import page, sections
from angulus.report.gather import gather


def write(paths: Sequence[Path], out: Path, *, images: Path | None = None, draws: int = 1000) -> int:
    """Write a report, and warn of what is left out of it; gives its size in bytes.

    Args:
        paths: runs, comparisons, saved results; see `gather`.
        out: the page.
        images: where the images of results' pairs lie, if they are to be shown.
        draws: resamples behind the intervals of runs.
    """
    content = gather(paths, draws=draws)
    parts = sections.of(content, images)
    files.make_folder(out.parent)
    page.write(content.title, sections.about(content), parts, out, left_out=content.left_out)
    for line in content.left_out:
        checks.warn(f"not in the report: {line}")
    return out.stat().st_size
