"""What becomes of a part of a source that cannot be read: the whole is refused, or the part is left out and named."""

from __future__ import annotations

from dataclasses import dataclass

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.data.sources.common import LeftOut

CHOICES = ("stop", "skip")


@dataclass(frozen=True)
class OnError:
    """The choice for one source.

    Attributes:
        choice: "stop" or "skip".
    """

    choice: str = "stop"

    def __post_init__(self) -> None:
        """Check the choice."""
        checks.choice("on_error", self.choice, CHOICES)

    @property
    def skips(self) -> bool:
        """Whether the rest is read."""
        return self.choice == "skip"

    def left_out(self, where: str, error: InputError) -> LeftOut:
        """The part as left out.

        Raises:
            checks.InputError: `error`, with the way out, where the whole is refused.
        """
        if self.skips:
            return LeftOut(where, str(error))
        raise InputError(
            f"{error}; `angulus convert --on-error skip` leaves out what is damaged and reads the rest"
        ) from error
