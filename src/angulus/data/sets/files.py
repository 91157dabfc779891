"""Data sets in the shapes that people have: a folder, a list, tars, Parquet, a saved data set; read in place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from angulus.core import checks, wording
from angulus.core.checks import InputError
from angulus.data.loader import Part, part_of
from angulus.data.resize import Resize
from angulus.data.sets.download import as_path
from angulus.data.sets.identity_sets import (
    EVERY,
    MOST_BAD,
    from_records,
    hold_out,
    refuse_many,
    select,
    skipped_share,
    split_part,
)
from angulus.data.sets.images import FILES, Splits
from angulus.data.sets.index import Index, index_of
from angulus.data.sources import LeftOut, Remark, SourceOptions, kind_of
from angulus.data.sources.kinds import splits_of

TRAIN, TEST = ("train", "training"), ("test", "testing", "val", "valid", "validation", "dev", "eval")


def load(
    *,
    path: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
    test: str | None = None,
    size: Sequence[int] | None = None,
    every: int | None = None,
    on_error: str = "skip",
    most_bad: float = MOST_BAD,
) -> Splits:
    """Load what `angulus convert` reads, without converting it; both splits have the same classes.

    Images are read where they lie if they lie there unpacked (files, tars, Arrow, RecordIO); packed ones (Parquet, zip,
    .tar.gz) are kept in memory as they are encoded, up to 2 GiB. Decoded images stay in memory up to 2 GiB too.

    Args:
        path: a folder with one subfolder per class, records, .csv, .lst, .rec, .tar, .parquet, .arrow, a folder of such
            files, or what `save_to_disk` of the package `datasets` writes; None: `root`.
        root: the folder that the paths in a list or a table are relative to; None: its own.
        image_column, label_column: of a .csv, Parquet or Arrow file; None: the usual names.
        split: the part to train on; None: "train" if there is one, else everything.
        test: the part to test on, or another path; None: "test" or "validation" if the source has it, else the
            `every`-th image of each class.
        size: [height, width] to resize images to, as `angulus prepare images` does; None: they have one size.
        every: 10, as None, holds out the 10th, 20th, ... image of a class; only where there is no part to test on.
        on_error: what an image that cannot be read does: "skip" leaves it out, "stop" is an error.
        most_bad: the share of the images that may be skipped; up to ten may, whatever their share.

    Raises:
        InputError: names the file, column or split, the rule and the way out.
    """
    if path is None:
        path, root = root, None
    if path is None or download:
        raise InputError("data.path must name a folder or file of your own; nothing can be downloaded for it")
    source, share = as_path("data.path", path), skipped_share(on_error, most_bad)
    held_out = hold_out(every, "held_out", EVERY["faces"])
    if not source.exists():
        raise InputError(f"data.path must exist; there is no {source}")
    resize = None if size is None else _resize(size)
    if kind_of(source) == "records":
        given = {"data.root": root, "data.image_column": image_column, "data.label_column": label_column}
        for key, value in (given | {"data.split": split, "data.test": test, "data.size": size}).items():
            if value is not None:
                raise InputError(f"{key} does not apply to records, as {source} holds; got {value!r}; leave it out")
        return from_records(FILES, source, held_out, share)
    options = SourceOptions(
        root=None if root is None else as_path("data.root", root),
        split=split,
        image_column=image_column,
        label_column=label_column,
    )
    splits = splits_of(source)
    if split is None:
        options = replace(options, split=next((name for name in splits if name.lower() in TRAIN), None))
    found = None if test is not None or options.split is None else _first(splits, options.split)
    if every is not None and (test or found) is not None:
        rule = f"data.options.every holds out images of training where no others are tested on, and {test or found} is"
        raise InputError(f"{rule}; got {every!r}; leave it out{', or leave data.test out' if found is None else ''}")
    index = _index(source, options, share)
    part = part_of(index, size=None if resize is None else (resize.width, resize.height))
    if len(part.names) < 2:
        raise InputError(f"{source} must show two classes or more; all its images are of {str(part.names[0])!r}")
    about = f"{source}{_of(options.split)}: {len(index):,} images of {len(part.names):,} classes"
    if test is None and found is None:
        result = split_part(FILES, index, part, held_out, f"{about}, {held_out}", resize=resize, most_bad=share)
        return replace(result, left_out=_images(index) + result.left_out)
    other, name = (source, found or test) if found or test in splits else (as_path("data.test", test), None)
    if not other.exists():
        known = f"; {source} has the splits {', '.join(splits)}" if splits else ""
        raise InputError(f"data.test must be a split of {source} or a path; there is no {test!r}{known}")
    tested = _index(other, replace(options, split=name), share)
    train, bad = select(index, part, np.ones(len(index), bool), resize, share)
    held, more = select(tested, _as(part, tested, resize), np.ones(len(tested), bool), resize, share)
    refuse_many(index.where, bad, len(index), share)
    refuse_many(tested.where, more, len(tested), share)
    about = f"{about}; tested on {other}{_of(name)}: {len(tested):,} images"
    return Splits(FILES, train, held, about, left_out=_images(index) + bad + _images(tested) + more)


def _of(split: str | None) -> str:
    return "" if split is None else f" ({split})"


def _first(splits: Sequence[str], training: str) -> str | None:
    """The split to test on: a test before a validation."""
    known = [name for wanted in TEST for name in splits if name.lower() == wanted and name != training]
    return known[0] if known else None


def _resize(size: Sequence[int]) -> Resize:
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise InputError(f"data.size must be [height, width] in pixels; got {size!r}")
    return Resize(*size)


def _images(index: Index) -> tuple[LeftOut, ...]:
    return tuple(item for item in index.left_out if item.image)


def _index(source: Path, options: SourceOptions, share: float | None) -> Index:
    """The images of a source; refuses too many that cannot be read, and warns of some."""
    index, part = index_of(source, options), _of(options.split)
    bad = _images(index)
    refuse_many(f"{source}{part}", bad, len(index) + len(bad), share)
    if not len(index):
        first = f"; {index.left_out[0].where}: {index.left_out[0].reason}" if index.left_out else ""
        raise InputError(
            f"{source}{part} must hold images, in one subfolder per class or as docs/data.md lists; it has none{first}"
        )
    notes = {item.where: item.reason for item in index.left_out if isinstance(item, Remark) and item.where != "."}
    if not (index.identities != "").any():
        why = (
            "; ".join(f"{where}: {reason}" for where, reason in notes.items())
            or "put each class into its own subfolder"
        )
        raise InputError(f"the images of {source}{part} must have classes, and none has one; {why}")
    for where, reason in notes.items():
        checks.warn(f"{where}: {reason}")
    if bad:
        count = f"{len(bad):,} {wording.plural('image', len(bad))} of {source}{part}"
        checks.warn(f"{count} left out; the first is {bad[0].where}: {bad[0].reason}")
    return index


def _as(part: Part, tested: Index, resize: Resize | None) -> Part:
    """The test images as a part with the classes and the size of the training images."""
    own = part_of(tested, size=None if resize is None else part.size)
    unknown = np.setdiff1d(own.names, part.names).tolist()
    if unknown:
        rule = f"images to test on must be of the classes of the training images; {tested.where} has {unknown[0]!r}"
        raise InputError(f"{rule}{checks.nearest(unknown[0], part.names.tolist())}")
    if own.size != part.size:
        way = "set data.size to bring all to one"
        raise InputError(
            f"images to test on must be {part.size[0]}x{part.size[1]} as those to train on; {tested.where} "
            f"has {own.size[0]}x{own.size[1]}; {way}"
        )
    labels = np.searchsorted(part.names, own.names)[own.labels]
    return Part(own.rows, labels.astype(np.int64), part.names, part.size)
