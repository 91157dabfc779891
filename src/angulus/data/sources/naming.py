"""Who an image shows, by its path: the folders that it lies in, and which of them are parts of a data set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from angulus.core.checks import InputError
from angulus.core.files import IMAGE_SUFFIXES
from angulus.data.sources.common import Remark

SPLITS = frozenset(
    (
        *("train", "training", "trainval", "train_all", "val", "valid", "validation", "dev", "test", "testing", "eval"),
        *("query", "gallery", "probe", "bounding_box_train", "bounding_box_test", "gt_bbox", "gt_query"),  # Market-1501
        *("image_train", "image_test", "image_query"),  # VeRi-776
    )
)
_MOST_NAMES = len(SPLITS) + 1  # of a level, which are kept: more are no splits


@dataclass
class _Level:
    """The names of folders at one depth, while there are few, and how many images each holds."""

    images: dict[str, int] = field(default_factory=dict)

    def add(self, name: str) -> None:
        if name in self.images or len(self.images) < _MOST_NAMES:
            self.images[name] = self.images.get(name, 0) + 1

    def are_splits(self, total: int) -> bool:
        """Whether all of the images that lie in folders lie in splits."""
        return sum(count for name, count in self.images.items() if name.lower() in SPLITS) == total


@dataclass(frozen=True)
class Naming:
    """How paths name identities.

    Attributes:
        depth: the folder of a path, from 1, that names the identity; None: all of them, but for the split's.
        pattern: a regular expression whose first group is the identity, in place of folders.
        split_level: which folder, from 0, is a split; None: the data set has none.
        split: the only split that is read; None: all.
    """

    depth: int | None = None
    pattern: str | None = None
    split_level: int | None = None
    split: str | None = None

    def takes(self, name: str) -> bool:
        """Whether an image is in the split that is read."""
        return self.split is None or self.split_of(name) == self.split

    def split_of(self, name: str) -> str | None:
        """The split that a path lies in."""
        folders = name.split("/")[:-1]
        level = self.split_level
        return folders[level] if level is not None and level < len(folders) else None

    def identity_of(self, name: str) -> str | None:
        """The identity of a path; "" where it names none, None where it is not so deep.

        >>> Naming().identity_of("faces/ann/1.jpg"), Naming(depth=1).identity_of("ann/video/1.jpg")
        ('faces/ann', 'ann')
        >>> Naming(split_level=0).identity_of("train/ann/1.jpg")
        'ann'
        >>> Naming(pattern="([0-9]+)_c").identity_of("query/0042_c1s1.jpg")
        '0042'
        """
        if self.pattern is not None:
            found = re.search(self.pattern, name)
            return (found[1] or "") if found else ""
        folders = name.split("/")[:-1]
        if self.depth is not None:
            return folders[self.depth - 1] if len(folders) >= self.depth else None
        if self.split_level is not None:
            del folders[self.split_level : self.split_level + 1]
        return "/".join(folders)

    def no_folder(self) -> str:
        """Why an image is left out whose path is not deep enough."""
        return f"its path must have {self.depth} folders or more, of which number {self.depth} names the identity"


def check_pattern(pattern: str) -> None:
    """Refuse what is no regular expression with a group."""
    try:
        groups = re.compile(pattern).groups
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(f"identity_pattern must be a regular expression; got {pattern!r:.200}: {error}") from error
    if groups < 1:
        raise InputError(
            f"identity_pattern must have a group in brackets that is the identity, such as '([0-9]+)_'; got {pattern!r}"
        )


@dataclass(frozen=True)
class Wish:
    """What a caller asks of names: as in `Naming`, before the data set is looked at."""

    depth: int | None = None
    pattern: str | None = None
    split: str | None = None


def find_naming(names: Iterable[str], where: object, wish: Wish) -> tuple[Naming, tuple[Remark, ...]]:
    """How a data set's paths name identities, and what to know of that.

    Where all images lie in folders called train, val, test and the like, at one depth, these are splits.

    Raises:
        checks.InputError: the split that is asked for is not there.
    """
    levels: list[_Level] = []
    total = 0
    for name in names:
        if name.lower().endswith(IMAGE_SUFFIXES):
            folders = name.split("/")[:-1]
            total += bool(folders)
            levels += [_Level() for _ in folders[len(levels) :]]
            for level, folder in zip(levels, folders, strict=False):
                level.add(folder)
    if wish.split is not None:
        place = next((place for place, level in enumerate(levels) if wish.split in level.images), None)
        if place is None:
            known = sorted({name for level in levels for name in level.images if name.lower() in SPLITS})
            there = f"; its splits are {', '.join(known)}" if known else "; it has none, such as train/ID/1.jpg"
            raise InputError(f"split must be a folder of {where} that holds images; got {wish.split!r}{there}")
    else:
        place = next((place for place, level in enumerate(levels) if level.are_splits(total)), None)
    naming = Naming(wish.depth, wish.pattern, place, wish.split)
    return naming, tuple(_remarks(naming, levels))


def _remarks(naming: Naming, levels: Sequence[_Level]) -> Iterator[Remark]:
    by_folder = naming.depth is None and naming.pattern is None
    if naming.split_level is not None:
        counted = ", ".join(f"{name} ({count:,} images)" for name, count in levels[naming.split_level].images.items())
        if naming.split is not None:
            yield Remark(".", f"of the folders {counted}, {naming.split} alone is read")
        elif by_folder:
            yield Remark(
                ".",
                f"the folders {counted} are splits and no identities; all are read as one; "
                "`angulus convert --split NAME` reads one",
            )
    elif by_folder:
        for level in levels:
            found = [name for name in level.images if name.lower() in SPLITS]
            others = [name for name in level.images if name.lower() not in SPLITS]
            if len(found) > 1 and others and len(level.images) < _MOST_NAMES:
                yield Remark(
                    ".",
                    f"the folders {', '.join(found)} look like splits, but {others[0]} next to them does not, so all "
                    "are parts of identities' names; `angulus convert` has --split NAME to read one, and --depth N",
                )
