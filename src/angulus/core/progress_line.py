"""A line of progress on standard error."""

from __future__ import annotations

import sys
import time

EVERY_S = 10.0  # between lines without a terminal


class ProgressLine:
    """Shows a text over and over on one line of a terminal; otherwise prints it at most every ten seconds."""

    def __init__(self) -> None:
        self.started = self.last = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the line was made."""
        return time.monotonic() - self.started

    def show(self, text: str, *, ended: bool = False) -> None:
        """Show a text; the last one if `ended`."""
        now = time.monotonic()
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{text}" + ("\n" if ended else ""))
            sys.stderr.flush()
        elif ended or now - self.last >= EVERY_S:
            self.last = now
            sys.stderr.write(f"{text}\n")
