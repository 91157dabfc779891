"""The table of data sets: name -> what it is, where to get it, what is checked, and how to load it."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.data.sets.images import Splits

_LISTS = "the md5 that its authors publish, the number of images and of each class"
_RECORDS = "every image at conversion (`angulus convert`), one size, an identity for each"


@dataclass(frozen=True)
class DataSet:
    """A row of the table."""

    loader: str  # "module:function" in `angulus.data.sets`, imported on first use
    title: str
    get: str  # where to get it, and on what terms
    checked: str  # what loading it checks
    fixed: Mapping[str, Any] = field(default_factory=dict)  # arguments of the loader

    @property
    def skips(self) -> bool:
        """Whether it takes `on_error` and `most_bad`."""
        return self.loader in ("files:load", "identity_sets:load")


SETS = {
    "digits": DataSet(
        "digits:load_digits",
        "1,797 handwritten digits of 8x8 pixels",
        "scikit-learn carries it",
        "nothing: it is part of an installed package",
    ),
    "mnist": DataSet(
        "digits:load_mnist",
        "70,000 handwritten digits of 28x28 pixels",
        "`angulus data mnist --download`, 11 MB",
        "the four files' published md5 at download; their layout, sizes, counts and labels when read",
    ),
    "cifar10": DataSet(
        "cifar:load",
        "60,000 small photos of 32x32 pixels in 10 classes",
        "`angulus data cifar10 --download`, 162 MB from https://www.cs.toronto.edu/~kriz/cifar.html",
        _LISTS,
        {"name": "cifar10"},
    ),
    "cifar100": DataSet(
        "cifar:load",
        "60,000 small photos of 32x32 pixels in 100 classes",
        "`angulus data cifar100 --download`, 161 MB from https://www.cs.toronto.edu/~kriz/cifar.html",
        _LISTS,
        {"name": "cifar100"},
    ),
    "celeba": DataSet(
        "celeba:load",
        "202,599 faces of 10,177 celebrities",
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, for non-commercial research, after agreeing to its terms: "
        "img_align_celeba.zip, identity_CelebA.txt, list_eval_partition.txt",
        "the published counts of images, identities and parts; that every listed image is there; one size",
    ),
    "luna16": DataSet(
        "luna16:load",
        "candidate patches of 888 chest CT scans",
        "https://luna16.grand-challenge.org, CC BY 4.0: subset0 to subset9, candidates_V2.csv and "
        "annotations.csv; then `angulus data luna16 --prepare`",
        "that every scan of the candidates is there, complete and with three axes, and every candidate within its scan",
    ),
    "files": DataSet(
        "files:load",
        "images of your own, in the shape that you have them",
        "set data.path to a folder, a list, tars, Parquet or a saved data set; docs/data.md shows each",
        "every image's header; that all have a class and one size, or data.size",
    ),
    "faces": DataSet(
        "identity_sets:load",
        "faces of your own, as records",
        "`angulus prepare faces PHOTOS OUT`, then data.root=OUT/records; or `angulus convert SOURCE RECORDS`, then "
        "data.root=RECORDS",
        _RECORDS,
        {"name": "faces"},
    ),
    "ms-celeb": DataSet(
        "identity_sets:load",
        "a cleaned MS-Celeb-1M, as records: 4.2 million faces of 87,000 people in CM, 3.28 million of 72,690 in MV",
        "withdrawn by its makers in 2019; convert a copy of yours with `angulus convert SOURCE RECORDS` into "
        "$ANGULUS_DATA/ms-celeb, or name the records by data.root",
        _RECORDS,
        {"name": "ms-celeb"},
    ),
    "casia-webface": DataSet(
        "identity_sets:load",
        "494,414 faces of 10,575 people, as records",
        "from its authors (D. Yi et al., arXiv:1411.7923), for research; convert it with "
        "`angulus convert SOURCE RECORDS` into $ANGULUS_DATA/casia-webface, or name the records by data.root",
        _RECORDS,
        {"name": "casia-webface"},
    ),
}


def load(name: str, *, root: str | os.PathLike[str] | None = None, download: bool = False, **options: Any) -> Splits:
    """Load a data set by its name, one of `list_datasets()`.

    Args:
        root: the folder to read it from instead of the usual ones; "digits" has no files and refuses one.
        download: fetch missing files, if the set's terms allow it.
        options: further options of the set, as docs/data.md lists them.

    Raises:
        InputError: the name or an option is unknown, or the data set cannot be read from there.

    >>> load("digits").train.pixels.shape
    torch.Size([1198, 1, 8, 8])
    """
    entry = SETS[checks.choice("name", name, SETS)]
    checks.flag("download", download)
    module, _, function = entry.loader.partition(":")
    loader = getattr(importlib.import_module(f"angulus.data.sets.{module}"), function)
    fixed = {"root", "download", *entry.fixed}
    valid = [option for option in inspect.signature(loader).parameters if option not in fixed]
    for option in options:
        if option not in valid:
            listed = ", ".join(valid) if valid else "none"
            raise InputError(f"{name!r} has no option {option!r}{checks.nearest(option, valid)}; known: {listed}")
    splits: Splits = loader(root=root, download=download, **entry.fixed, **options)
    return splits


def list_datasets() -> list[str]:
    """The names of the data sets that `load` and `data.name` in a recipe take.

    >>> list_datasets()
    ['digits', 'mnist', 'cifar10', 'cifar100', 'celeba', 'luna16', 'files', 'faces', 'ms-celeb', 'casia-webface']
    """
    return list(SETS)
