"""The one table of data sets: name -> what it is, where to get it, what is checked, and how it is loaded."""

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
    """A row of the table.

    Attributes:
        module: has the `load`; imported when it is asked for, since records and decoding are slow to import.
        title: what it is.
        get: where to get it, and on what terms.
        checked: what is checked when it is read.
        fixed: what `load` is given beside root, download and options.
    """

    module: str
    title: str
    get: str
    checked: str
    fixed: Mapping[str, Any] = field(default_factory=dict)


SETS = {
    "digits": DataSet(
        "angulus.data.sets.digits",
        "1,797 handwritten digits of 8x8 pixels",
        "scikit-learn carries it",
        "nothing: it is part of an installed package",
    ),
    "mnist": DataSet(
        "angulus.data.sets.mnist",
        "70,000 handwritten digits of 28x28 pixels",
        "`angulus data mnist --download`, 11 MB",
        "the four files' published md5 at download; their layout, sizes, counts and labels when read",
    ),
    "cifar10": DataSet(
        "angulus.data.sets.cifar",
        "60,000 small photos of 32x32 pixels in 10 classes",
        "`angulus data cifar10 --download`, 162 MB from https://www.cs.toronto.edu/~kriz/cifar.html",
        _LISTS,
        {"name": "cifar10"},
    ),
    "cifar100": DataSet(
        "angulus.data.sets.cifar",
        "60,000 small photos of 32x32 pixels in 100 classes",
        "`angulus data cifar100 --download`, 161 MB from https://www.cs.toronto.edu/~kriz/cifar.html",
        _LISTS,
        {"name": "cifar100"},
    ),
    "celeba": DataSet(
        "angulus.data.sets.celeba",
        "202,599 faces of 10,177 celebrities",
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, for non-commercial research, after agreeing to its terms: "
        "img_align_celeba.zip, identity_CelebA.txt, list_eval_partition.txt",
        "the published counts of images, identities and parts; that every listed image is there; one size",
    ),
    "luna16": DataSet(
        "angulus.data.sets.luna16",
        "candidate patches of 888 chest CT scans",
        "https://luna16.grand-challenge.org, CC BY 4.0: subset0 to subset9, candidates_V2.csv and "
        "annotations.csv; then `angulus data luna16 --prepare`",
        "that every scan of the candidates is there, whole and of three axes, and every candidate within its scan",
    ),
    "faces": DataSet(
        "angulus.data.sets.faces",
        "faces of your own, as records",
        "`angulus prepare faces PHOTOS RECORDS` or `angulus convert SOURCE RECORDS`, then data.root=RECORDS",
        _RECORDS,
        {"name": "faces"},
    ),
    "ms-celeb": DataSet(
        "angulus.data.sets.faces",
        "a cleaned MS-Celeb-1M, as records: 4.2 million faces of 87,000 people in CM, 3.28 million of 72,690 in MV",
        "its makers withdrew it in 2019; who holds a copy converts it by `angulus convert SOURCE RECORDS` "
        "into $ANGULUS_DATA/ms-celeb, or names the records by data.root",
        _RECORDS,
        {"name": "ms-celeb"},
    ),
    "casia-webface": DataSet(
        "angulus.data.sets.faces",
        "494,414 faces of 10,575 people, as records",
        "from its authors (D. Yi et al., arXiv:1411.7923), for research; convert it by "
        "`angulus convert SOURCE RECORDS` into $ANGULUS_DATA/casia-webface, or name the records by data.root",
        _RECORDS,
        {"name": "casia-webface"},
    ),
}


def load(name: str, *, root: str | os.PathLike[str] | None = None, download: bool = False, **options: Any) -> Splits:
    """Load a data set by its name.

    Arguments:
        name: one of `names()`.
        root: the folder to read it from instead of the usual places; "digits" has no files and refuses one.
        download: fetch the files if they are missing, where they may be fetched.
        options: what else the set's own `load` takes.

    Raises:
        InputError: the name or an option is unknown (the nearest is named), or the data set cannot be read from there.

    >>> load("digits").train.pixels.shape
    torch.Size([1198, 1, 8, 8])
    """
    entry = SETS[checks.choice("name", name, names())]
    checks.flag("download", download)
    load_one = importlib.import_module(entry.module).load
    taken = {"root", "download", *entry.fixed}
    known = [each for each in inspect.signature(load_one).parameters if each not in taken]
    for option in options:
        if option not in known:
            listed = ", ".join(known) if known else "none"
            raise InputError(f"{name!r} has no option {option!r}{checks.nearest(option, known)}; known: {listed}")
    found: Splits = load_one(root=root, download=download, **entry.fixed, **options)
    return found


def names() -> tuple[str, ...]:
    """Name the data sets that `load` knows.

    >>> names()
    ('digits', 'mnist', 'cifar10', 'cifar100', 'celeba', 'luna16', 'faces', 'ms-celeb', 'casia-webface')
    """
    return tuple(SETS)
