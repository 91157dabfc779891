"""YouTube Faces: the pairs of videos in `splits.txt`."""

from __future__ import annotations

import os

import numpy as np

from angulus.core.checks import InputError
from angulus.core.formats.columns import text_array
from angulus.evaluation.lists.pairs import Pairs, is_count
from angulus.evaluation.lists.text import malformed, read_lines


def read_ytf_pairs(path: str | os.PathLike[str]) -> Pairs:
    """Read pairs of videos: ids are `Name/number`, one a video; identities are names; folds are the splits.

    A line is `split, pair, first video, second video, 0|1`, with splits from 1 in order; a heading is skipped.

    Raises:
        InputError: names file and line: another number of columns, a flag that is not 0 or 1 or that the names
            contradict, splits out of order or of different sizes.

    Source: L. Wolf, T. Hassner, I. Maoz, "Face Recognition in Unconstrained Videos with Matched Background
    Similarity", CVPR 2011; its 5,000 pairs stand in 10 splits.
    """
    lines = read_lines(path)
    heading = int(lines[0].lower().startswith("split"))
    rows, folds, split = [], [], 0
    for number, line in enumerate(lines[heading:], 1 + heading):
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 5 or not is_count(cells[0]) or not is_count(cells[1]) or cells[4] not in ("0", "1"):
            raise malformed(path, number, "`split, pair, Name/0, Other/1, 0|1`", line)
        if int(cells[0]) not in (split, split + 1):
            raise malformed(path, number, f"of split {max(split, 1)} or the next", line)
        split = int(cells[0])
        first, second = (video.partition("/") for video in cells[2:4])
        if not (first[0] and first[2] and second[0] and second[2]) or (first[0] == second[0]) != (cells[4] == "1"):
            raise malformed(path, number, "two videos `Name/number`, of one person exactly where the flag is 1", line)
        rows.append((cells[2], cells[3], first[0], second[0], cells[4]))
        folds.append(split - 1)
    sizes = np.bincount(folds) if folds else np.zeros(0, dtype=np.int64)
    if not len(sizes) or sizes.min() != sizes.max():
        raise InputError(f"{os.fspath(path)} must have splits of equal size; got {sizes.tolist()}; it is cut short")
    left, right, left_identity, right_identity = (text_array([row[place] for row in rows]) for place in range(4))
    same = np.array([row[4] == "1" for row in rows])
    return Pairs(left, right, same, np.array(folds), left_identity, right_identity, source=os.fspath(path))
