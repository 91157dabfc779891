"""Lists of pairs of several groups as one list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from angulus.core import checks
from angulus.evaluation.lists.pairs import Pairs


def joined(lists: Mapping[str, Pairs]) -> Pairs:
    """The lists of groups one after the other, each pair with its group's name.

    Raises:
        checks.InputError: a list without folds, over which the accuracy of a group is taken.
    """
    lacking = [each.source for each in lists.values() if each.folds is None]
    if lacking:
        raise checks.InputError(f"{lacking[0]} has no folds, over which the accuracy of a group is taken; add them")
    columns = {name: _column(lists, name) for name in ("left", "right", "same", "folds")}
    people = {name: _column(lists, name) for name in ("left_identity", "right_identity")}
    if any(side is None for side in people.values()):
        people = {}
    groups = np.repeat(list(lists), [len(each) for each in lists.values()])
    return Pairs(**columns, **people, groups=groups, source=", ".join(each.source for each in lists.values()))


def _column(lists: Mapping[str, Pairs], name: str) -> Any:
    """A column of all lists, one after the other; None where one has none."""
    columns = [getattr(each, name) for each in lists.values()]
    return None if any(column is None for column in columns) else np.concatenate(columns)
