"""Which rows have to go: written down before they are deleted, struck out when no file holds them any more."""

from __future__ import annotations

import re
from pathlib import Path

from angulus.core import checks, files, limits

NAME = "removals.json"

_KEY = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Removals:
    """The keys of rows whose removal has begun, in a file of the gallery's folder.

    Args:
        folder: the gallery's.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def begin(self, keys: list[str]) -> None:
        """Keep the keys, on the disk when this returns."""
        files.write_json(self.path, {"keys": keys})

    def pending(self) -> list[str]:
        """The keys that were begun and not ended.

        Raises:
            checks.InputError: a file that `begin` did not write; its text would become part of a condition.
        """
        if not self.path.exists():
            return []
        wrong = (
            f"{self.path} must list the rows that a stopped removal has still to take out, and cannot be used; delete "
            "it, and run angulus search remove again for the ids that have to go"
        )
        try:
            found = limits.parse_json(limits.read_file(self.path), str(self.path))
        except checks.InputError as error:
            raise checks.InputError(f"{wrong} ({error})") from error
        keys = found.get("keys") if isinstance(found, dict) else None
        if not isinstance(keys, list) or not all(isinstance(each, str) and _KEY.fullmatch(each) for each in keys):
            raise checks.InputError(wrong)
        return keys

    def end(self) -> None:
        """Forget them; what was written before is on the disk first."""
        for path in self.path.parent.rglob("*"):
            files.sync_folder(path)  # a file as well as a folder
        self.path.unlink(missing_ok=True)
        files.sync_folder(self.path.parent)
