"""What commands show while they work, on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from angulus.cli import progress


def shown(terminal: bool) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=terminal, width=80), stream


def test_counts_are_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    console, stream = shown(False)
    times = iter([0.0, 0.0, 1.0, 9.9, 10.1, 10.1, 10.2, 10.2])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    with progress.counted(console) as show:
        show("reading", 0, 5)  # at 0
        show("[b]trying", 0, 24)  # another text: at once
        show("[b]trying", 1, 24)  # a second later
        show("[b]trying", 2, 24)
        show("[b]trying", 3, 1024)  # more than ten seconds after the last line
    assert stream.getvalue().splitlines() == ["reading: 0 of 5", "[b]trying: 0 of 24", "[b]trying: 3 of 1,024"]


def test_counts_are_a_bar_on_a_terminal() -> None:
    console, stream = shown(True)
    with progress.counted(console) as show:
        show("trying", 3, 12)
    assert "trying" in stream.getvalue() and "25%" in stream.getvalue()


def test_stages_are_lines_where_there_is_no_terminal_and_a_spinner_on_one() -> None:
    console, stream = shown(False)
    with progress.stages(console) as on_stage:
        on_stage("reading [b]images")
        on_stage("writing")
    assert stream.getvalue().splitlines() == ["reading [b]images ...", "writing ..."]
    console, stream = shown(True)
    with progress.stages(console) as on_stage:
        on_stage("reading [b]images")
    assert "reading [b]images ..." in stream.getvalue()


def test_a_training_is_a_line_per_minute_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    console, stream = shown(False)
    times = iter([0.0, 30.0, 90.0, 100.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    with progress.bar(console) as bar:
        for step in (1, 2, 3):  # after 30 s, 90 s and 100 s
            bar.on_step(step, 8, 1.5)
    assert stream.getvalue().splitlines() == ["training  loss  1.5000  25.0%, about 4 min left"]  # 90 s * 3 = 4.5 min
