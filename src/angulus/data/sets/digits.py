"""scikit-learn's digits: 1,797 real handwritten digits of 8x8 pixels that need no download."""

from __future__ import annotations

import os

import numpy as np
import torch

from angulus.core.checks import InputError
from angulus.data.sets.images import Images, Splits

TEST_SHARE = 1 / 3
SPLIT_SEED = 0
HIGHEST_VALUE = 16  # scikit-learn's pixels count the set bits of a 4x4 block: 0..16


def load(*, root: str | os.PathLike[str] | None = None, download: bool = False) -> Splits:
    """Read the digits and split them, always in the same way.

    A value v in 0..16 becomes the byte round(v * 255 / 16). The split is scikit-learn's `train_test_split` with
    `test_size=1/3, stratify=labels, random_state=0`: 1,198 images to train on and 599 to test on, every class in
    the same share in both (to one image); within a split the images keep scikit-learn's order. Images are split, not
    writers: the data does not say who wrote which digit, so the same hand is in both splits.

    Args:
        root: must be left out, since there are no files.
        download: changes nothing.

    Returns:
        Splits with pixels uint8 [1198 or 599, 1, 8, 8] and ten classes "0" to "9".

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
    1998; scikit-learn's `load_digits` holds its test part.

    >>> splits = load()
    >>> len(splits.train), len(splits.test)
    (1198, 599)
    """
    if root is not None:
        raise InputError(f"root must be left out for 'digits', which scikit-learn carries; got {os.fspath(root)!r}")
    # Imported here: scikit-learn takes a second to import, and most commands never read the digits.
    import sklearn
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    pixels = np.rint(digits.images * 255 / HIGHEST_VALUE).astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    rows = np.arange(len(labels))
    train, test = train_test_split(rows, test_size=TEST_SHARE, stratify=labels, random_state=SPLIT_SEED)
    names = tuple(str(name) for name in digits.target_names)

    def select(chosen: np.ndarray) -> Images:
        chosen = np.sort(chosen)
        return Images(torch.from_numpy(pixels[chosen]), torch.from_numpy(labels[chosen]), names)

    source = f"scikit-learn {sklearn.__version__} load_digits; test share 1/3, stratified, seed {SPLIT_SEED}"
    return Splits("digits", select(train), select(test), source)
