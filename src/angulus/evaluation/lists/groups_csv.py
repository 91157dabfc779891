"""A CSV that names the group of each image: `id,group`, in place of the embeddings' own column."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from angulus.core.checks import InputError, nearest, shown
from angulus.core.embeddings import Embeddings
from angulus.core.formats.columns import known_or_empty, text_array
from angulus.evaluation.lists.text import Layout, first_line, malformed, read_table

COLUMNS = ("id", "group")


def read_groups(path: Path) -> dict[str, str]:
    """The group of each id.

    The first line names the columns, `id` and `group` among them; commas, semicolons or tabs separate them. A group
    may be empty, which is unknown. An id may come twice with the same group.

    Raises:
        InputError: names file and line: a missing column, a quote, an empty id, or an id with two groups.
    """
    heading = first_line(path)
    separator = next((sign for sign in "\t;" if sign in heading), ",")
    columns = [name.strip().lower() for name in heading.split(separator)]
    for name in COLUMNS:
        if columns.count(name) != 1:
            raise InputError(
                f"{path} must name a column {name!r} once in its first line, as in id,group; got {shown(heading)}"
                f"{nearest(name, columns)}"
            )
    table = read_table(path, Layout(columns, dict.fromkeys(COLUMNS, str), separator, heading=True))
    found: dict[str, str] = {}
    known = known_or_empty(text_array([group.strip() for group in table["group"].tolist()]))
    for number, (name, group) in enumerate(zip(table["id"].tolist(), known.tolist(), strict=True), 2):
        if not name or '"' in name or '"' in group:
            raise malformed(path, number, "an id and a group without quotes, the id not empty", f"{name},{group}")
        if found.setdefault(name, group) != group:
            raise malformed(path, number, f"one group for each id; {name!r} has {found[name]!r} above", group)
    return found


def with_groups(embeddings: Embeddings, path: Path, *, needed: bool = True) -> Embeddings:
    """The embeddings with the groups of the CSV; images that it does not name have none.

    Args:
        embeddings: of the images.
        path: the CSV.
        needed: whether it must name some of these images; if not, and it names none, the embeddings stay as they are.

    Raises:
        InputError: as `read_groups`, or the CSV names no image of the embeddings.
    """
    named = read_groups(path)
    ids = [name for name in embeddings.ids.tolist() if name in named]
    if not ids and not needed:
        return embeddings
    if not ids:
        raise InputError(
            f"{path} must name images of {embeddings.source}; none of its {len(named):,} ids is among them: its ids "
            f"look like {shown(next(iter(named)))}, those of the embeddings like {shown(str(embeddings.ids[0]))}"
        )
    groups = text_array([named.get(name, "") for name in embeddings.ids.tolist()])
    return replace(embeddings, groups=np.asarray(groups))
