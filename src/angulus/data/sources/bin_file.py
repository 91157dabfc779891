"""The pickled `.bin` verification sets as rows; their pairs are `angulus.evaluation.lists.bin_set`'s."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from angulus.data.sources.common import Item, row_or_left_out
from angulus.evaluation.lists.bin_set import read_bin


def read(path: Path) -> Iterator[Item]:
    """The images of a set, named "0", "1", ... as its pairs name them; such sets do not say who is shown.

    Raises:
        checks.InputError: as `read_bin`.
    """
    for number, image in enumerate(read_bin(path, folds=1).images):
        yield row_or_left_out(str(number), image, "")
