"""IJB-A, IJB-B and IJB-C: which images make a template, which templates are compared, landmarks and scores."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.core.formats.columns import text_array
from angulus.evaluation.lists.text import Layout, first_line, malformed, read_table, stream_table

# IJB-A and the first IJB-B say FILE, later releases FILENAME. A medium is MEDIA_ID in IJB-A (where
# SIGHTING_ID names a single face); IJB-B and IJB-C have SIGHTING_ID only, one per person and medium.
_FILES = ("FILE", "FILENAME")
_MEDIA = ("MEDIA_ID", "SIGHTING_ID")


@dataclass(frozen=True, eq=False)
class TemplateImages:
    """Images of templates, one entry per image in a template."""

    ids: NDArray[np.str_]  # [N] of str, ids of embeddings; an image that is in two templates stands twice
    templates: NDArray[np.int64]  # [N] int64
    media: NDArray[np.int64] | None  # [N] int64, or None if the list has none
    subjects: NDArray[np.int64] | None  # [N] int64, one subject per template, or None if the list has none
    source: str  # what the list is, for messages and results

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, chosen: NDArray[np.bool_]) -> "TemplateImages":
        """The images where `chosen` [N] is true."""
        media, subjects = (None if column is None else column[chosen] for column in (self.media, self.subjects))
        return TemplateImages(self.ids[chosen], self.templates[chosen], media, subjects, self.source)

    def subject_of(self, templates: ArrayLike) -> NDArray[np.int64]:
        """The subjects of templates [K].

        Raises:
            InputError: the list does not say who is shown, or lacks a template (counted, the first three named).
        """
        if self.subjects is None:
            raise InputError(f"{self.source} must say who each template shows; it has no SUBJECT_ID")
        known, first = np.unique(self.templates, return_index=True)
        asked = np.asarray(templates, dtype=np.int64)
        place = np.minimum(np.searchsorted(known, asked), len(known) - 1)
        missing = np.unique(asked[known[place] != asked])
        if len(missing):
            named = ", ".join(map(str, missing[:3].tolist()))
            raise InputError(f"{self.source} must hold every template asked for; it lacks {len(missing)}: {named}")
        return self.subjects[first[place]]


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Pairs of templates: left [K] and right [K] int64, same [K] bool."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    same: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.left)


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Five points and a detector's score per image: ids [N], points [N, 5, 2] in pixels (x, y), scores [N]."""

    ids: NDArray[np.str_]
    points: NDArray[np.float64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)


def read_templates(*paths: str | os.PathLike[str], ids: str = "file") -> TemplateImages:
    """Read metadata tables with a heading, one after the other: IJB-A's `verify_metadata_1.csv`; IJB-B's and IJB-C's
    galleries, mixed probes, and templates to enrol and to verify.

    Used columns: TEMPLATE_ID, SUBJECT_ID, FILE or FILENAME, and MEDIA_ID, else SIGHTING_ID, where there is one.

    Args:
        paths: at least one.
        ids: "file": an id is the file's path in the list, `img/10281.jpg`; "file-subject": with `#` and the subject
            behind it, `img/10281.jpg#2102`, for lists that have images of two people.

    Raises:
        InputError: names file and line of what is malformed; a column is missing; a template shows two subjects; by
            file, an image that shows two subjects.
    """
    checks.choice("ids", ids, ("file", "file-subject"))
    if not paths:
        raise InputError("read_templates needs at least one path; got none")
    tables = [_metadata(path) for path in paths]
    source = ", ".join(os.fspath(path) for path in paths)
    files, templates, subjects = (np.concatenate([table[name] for table in tables]) for name in ("f", "t", "s"))
    if len({"m" in table for table in tables}) > 1:
        raise InputError(f"{source} must all have MEDIA_ID or SIGHTING_ID, or none of them; got some with it")
    media = np.concatenate([table["m"] for table in tables]) if "m" in tables[0] else None
    _refuse_two(source, "template", templates, subjects, "")
    if ids == "file":
        _refuse_two(source, "image", files, subjects, '; pass ids="file-subject" and name the embeddings so')
    else:
        files = text_array([f"{file}#{who}" for file, who in zip(files.tolist(), subjects.tolist(), strict=True)])
    return TemplateImages(files, templates, media, subjects, source)


def read_template_media(path: str | os.PathLike[str]) -> TemplateImages:
    """Read `face_tid_mid.txt`: a line is `name template medium`, separated by spaces; ids are the names.

    Raises:
        InputError: names file and line.
    """
    layout = Layout(("name", "template", "medium"), {"name": str, "template": int, "medium": int}, " ", False)
    table = read_table(path, layout)
    return TemplateImages(table["name"], table["template"], table["medium"], None, os.fspath(path))


def read_landmarks(path: str | os.PathLike[str]) -> Landmarks:
    """Read `name_5pts_score.txt`: a line is `name x1 y1 ... x5 y5 score`, separated by spaces.

    Raises:
        InputError: names file and line: another number of columns, no finite number.
    """
    numbers = [f"{axis}{point}" for point in range(1, 6) for axis in "xy"] + ["score"]
    table = read_table(path, Layout(["name", *numbers], {"name": str} | dict.fromkeys(numbers, float), " ", False))
    values = np.stack([table[name] for name in numbers], axis=1)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise malformed(path, int(bad[0]) + 1, "a name and 11 finite numbers", str(values[bad[0]].tolist()))
    return Landmarks(table["name"], values[:, :10].reshape(-1, 5, 2).copy(), values[:, 10].copy())


def read_comparisons(path: str | os.PathLike[str], images: TemplateImages | None = None) -> Iterator[Comparisons]:
    """Read a list of comparisons in blocks, so that IJB-C's 15,658,489 fit in little memory.

    A line is `template template 0|1` (`template_pair_label.txt`), or `template,template` (IJB-A's
    `verify_comparisons_1.csv`, `ijbc_11_G1_G2_matches.csv`, `match.csv`), where `images` tell which are the same
    subject. A heading is skipped.

    Args:
        path: the list; gzipped where its name ends in .gz.
        images: the templates' subjects; needed where the list has no flags.

    Raises:
        InputError: names file and line: another number of columns, no whole number, a flag that is not 0 or 1; no
            `images` where they are needed, or a template that they lack.
    """
    line = first_line(path)
    separator = "," if "," in line else " "
    cells = line.split(separator)
    if len(cells) not in (2, 3):
        raise malformed(path, 1, "`template template 0|1` or `template,template`", line)
    heading = not any(cell.strip().lstrip("-").isdigit() for cell in cells)
    if len(cells) == 2 and images is None:
        raise InputError(f"{os.fspath(path)} has no flags, so it needs images= with the subjects; got None")
    names = ("left", "right", "same")[: len(cells)]
    layout = Layout(names, dict.fromkeys(names, int), separator, heading)
    return _blocks(path, layout, images if len(cells) == 2 else None)


def _blocks(path: str | os.PathLike[str], layout: Layout, images: TemplateImages | None) -> Iterator[Comparisons]:
    before = 1 + layout.heading
    for block in stream_table(path, layout):
        left, right = block["left"], block["right"]
        if images is not None:
            same = images.subject_of(left) == images.subject_of(right)
        else:
            same = block["same"] == 1
            bad = np.flatnonzero(~same & (block["same"] != 0))
            if len(bad):
                flag = int(block["same"][bad[0]])
                raise malformed(path, before + int(bad[0]), "two templates and a flag 0 or 1", flag)
        yield Comparisons(left, right, same)
        before += len(left)


def _metadata(path: str | os.PathLike[str]) -> dict[str, NDArray[np.generic]]:
    heading = [cell.strip() for cell in first_line(path).split(",")]
    found = {"t": ("TEMPLATE_ID",), "s": ("SUBJECT_ID",), "f": _FILES, "m": _MEDIA}
    names = {key: next((name for name in options if name in heading), "") for key, options in found.items()}
    missing = [" or ".join(found[key]) for key in "tsf" if not names[key]]
    if missing or len(set(heading)) != len(heading):
        rule = "a heading of different names with TEMPLATE_ID, SUBJECT_ID and FILE or FILENAME"
        raise malformed(path, 1, rule, ",".join(heading))
    wanted = {name: str if key == "f" else int for key, name in names.items() if name}
    table = read_table(path, Layout(heading, wanted, ",", True))
    return {key: table[name] for key, name in names.items() if name}


def _refuse_two(source: str, what: str, things: NDArray[np.generic], subjects: NDArray[np.int64], way: str) -> None:
    """Refuse a template or an image that shows two subjects."""
    _, first, inverse = np.unique(things, return_index=True, return_inverse=True)
    bad = np.flatnonzero(subjects != subjects[first][inverse])
    if len(bad):
        row = int(bad[0])
        raise InputError(
            f"{source}: {what} {things[row]} must show one subject; got {subjects[first[inverse[row]]]} and "
            f"{subjects[row]}{way}"
        )
