"""A CSV that names the group of each image: `id,group`, in place of the embeddings' own column."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from angulus.core.checks import InputError, nearest, shown
from angulus.core.embeddings import Embeddings
from angulus.core.formats.columns import known_or_empty, text_array
from angulus.core.id_rule import AS_THEY_ARE, propose, stem
from angulus.evaluation.lists.named_columns import read_rows
from angulus.evaluation.lists.text import malformed

COLUMNS = ("id", "group")


def read_groups(path: Path, change: Callable[[str], str] = str) -> dict[str, str]:
    """The group of each id.

    The first line names the columns, `id` and `group` among them; commas, semicolons or tabs separate them. A group
    may be empty, which is unknown. An id may come twice with the same group.

    Args:
        path: the CSV.
        change: what makes the ids of the CSV those of the embeddings.

    Raises:
        InputError: names file and line: a missing column, another number of cells, an empty id, or an id with two
            groups.
    """
    (_, heading), *rows = read_rows(path)
    columns = [name.lower() for name in heading]
    for name in COLUMNS:
        if columns.count(name) != 1:
            raise InputError(
                f"{path} must name a column {name!r} once in its first line, as in id,group; got "
                f"{shown(','.join(heading))}{nearest(name, columns)}"
            )
    if not rows:
        raise InputError(f"{path} must hold lines after its heading; got none")
    ids, groups = ([cells[columns.index(name)] for _, cells in rows] for name in COLUMNS)
    found: dict[str, str] = {}
    known = known_or_empty(text_array(groups)).tolist()
    for (line, _), name, group in zip(rows, ids, known, strict=True):
        if not name:
            raise malformed(path, line, "a row with an id", "")
        if found.setdefault(change(name), group) != group:
            raise malformed(path, line, f"one group for each id; {name!r} has {found[change(name)]!r} above", group)
    return found


def with_groups(embeddings: Embeddings, path: Path, *, needed: bool = True) -> Embeddings:
    """The embeddings with the groups of the CSV; images that it does not name have none.

    The groups of images without embedding are kept in `absent_groups`, so that failures to enrol count in theirs.

    Its ids are changed by the rule of the embeddings. If then none is found, image suffixes (.jpg, .png, ...) are
    dropped on both sides.

    Args:
        embeddings: of the images.
        path: the CSV.
        needed: whether it must name some of these images; if not, and it names none, the embeddings stay as they are.

    Raises:
        InputError: as `read_groups`, or the CSV names no image of the embeddings.
    """
    rule, ids = embeddings.id_rule or AS_THEY_ARE, embeddings.ids.tolist()
    named = listed = read_groups(path, rule.change)
    if named.keys().isdisjoint(ids):
        ids = [stem(name) for name in ids]
        named = read_groups(path, lambda name: stem(rule.change(name)))
    if not named.keys().isdisjoint(ids):
        groups = np.asarray(text_array([named.get(name, "") for name in ids]))
        absent = {name: group for name, group in named.items() if name not in set(ids)}
        return replace(
            embeddings, groups=groups, absent_groups={stem(name): group for name, group in absent.items()} | absent
        )
    if not needed:
        return embeddings
    raise InputError(
        f"{path} must name images of {embeddings.source}; none of its {len(named):,} ids is among them: its ids "
        f"look like {shown(next(iter(listed)))}, those of the embeddings like {shown(str(embeddings.ids[0]))}"
        + (f"; {way}" if (way := propose(embeddings.ids.tolist(), list(listed))) else "")
    )
