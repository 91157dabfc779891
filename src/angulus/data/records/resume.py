"""What earlier tries have done, compared by content with what the source holds now."""

from __future__ import annotations

from collections.abc import Mapping

from angulus.core.checks import InputError
from angulus.data.records.row import Row


class Earlier:
    """The rows of a source that earlier tries have dealt with, by id and checksum."""

    def __init__(self, checksums: Mapping[str, int], where: object) -> None:
        """Keep them.

        Args:
            checksums: `Row.checksum` of each as it was then, by id.
            where: what holds the result, for errors.
        """
        self._left, self._where = dict(checksums), where

    def __len__(self) -> int:
        return len(self._left)

    def has(self, row: Row) -> bool:
        """Whether a row was dealt with; each is asked for once.

        Raises:
            InputError: it was another row of this id.
        """
        checksum = self._left.pop(row.id, None)
        if checksum not in (None, row.checksum()):
            raise InputError(
                f"{self._where} was begun with another {row.id!r}: its identity, landmarks, score or image has "
                "changed; remove what was begun, and run the same command again"
            )
        return checksum is not None

    def check_none_left(self, source: object) -> None:
        """Refuse rows that the source no longer has, after all of it was asked for.

        Raises:
            InputError: there is one.
        """
        if self._left:
            raise InputError(
                f"{self._where} was begun with {len(self._left)} rows that {source} has not, {min(self._left)!r} among "
                "them; the source has changed since: remove what was begun, and run the same command again"
            )
