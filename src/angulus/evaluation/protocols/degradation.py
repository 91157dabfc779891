"""Whether the norm falls as images get worse: its rank correlation with the strength of a degradation."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks, formats
from angulus.evaluation.metrics.image_quality import spearman
from angulus.evaluation.metrics.intervals import Flags, Floats, Samples, Statistic, Units
from angulus.evaluation.protocols.figures import Resampling, measure
from angulus.evaluation.protocols.result import Result

PROTOCOL = "degradation"
MEASURED = ("norms",)  # the samples that the model gave; the others say what was done to which image

COLUMNS = ("norms", "strengths", "images", "kinds")


def evaluate(
    norms: ArrayLike,
    strengths: ArrayLike,
    images: ArrayLike,
    kinds: ArrayLike | None = None,
    *,
    source: str = "these norms",
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Spearman's ρ of norm and strength, for each kind of degradation; −1 where every step lowers the norm.

    Args:
        norms: [N], >= 0, of degraded images' features.
        strengths: [N], such as a blur's radius or 100 less JPEG's quality: higher for worse.
        images: [N], which image each is made from; these are resampled.
        kinds: [N], such as "blur" or "noise", or None for one kind.
        source: where the norms come from.
        draws, seed: resamples of the images for the intervals (0 for none) and their seed.

    Raises:
        checks.InputError: shapes that differ, numbers that are not finite, or a kind with one strength only.
    """
    samples: dict[str, NDArray[Any]] = {
        "norms": np.asarray(norms, dtype=np.float64),
        "strengths": np.asarray(strengths, dtype=np.float64),
        "images": np.asarray(images).astype(np.str_),
    }
    if kinds is not None:
        samples["kinds"] = np.asarray(kinds).astype(np.str_)
    shapes = [values.shape for values in samples.values()]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1 or not shapes[0][0]:
        raise checks.InputError(
            f"{source}: {', '.join(samples)} must be [N] each with N >= 1; got shapes "
            + ", ".join(str(list(shape)) for shape in shapes)
        )
    if not np.isfinite([samples["norms"], samples["strengths"]]).all() or (samples["norms"] < 0).any():
        raise checks.InputError(f"{source}: norms must be finite numbers >= 0 and strengths finite; got others")
    members = _members(samples)
    for kind, member in members.items():
        if len(np.unique(samples["strengths"][member])) < 2:
            raise checks.InputError(f"{source}: {kind or 'the degradation'} needs two strengths or more; got one")
    flat = [kind for kind, member in members.items() if np.ptp(samples["norms"][member]) == 0]
    undefined = ", ".join(f"Spearman ρ{', ' if kind else ''}{kind}" for kind in flat)
    choices = {"correlation": "Spearman (equal values share their mean rank)"}
    counts = {"samples": len(samples["norms"]), "images": len(np.unique(samples["images"]))}
    counts |= {f"of {kind}": int(member.sum()) for kind, member in members.items() if kind}
    notes = (f"{undefined} is undefined: all norms are equal",) if flat else ()
    resampling, about = Resampling("images", draws, seed), {"embeddings": source}
    return measure(PROTOCOL, statistic(samples), samples, choices, counts, resampling, notes=notes, about=about)


def read(path: Path) -> dict[str, NDArray[Any]]:
    """Read `.npz`: norms, strengths, images, and where there are several kinds of degradation, kinds.

    Raises:
        checks.InputError: the file cannot be read, or lacks one of them.
    """
    if path.suffix != ".npz":
        raise checks.InputError(f"norms of degraded images must be in a file that ends in .npz; got {path}")
    return formats.read(path, COLUMNS, ("images", "kinds"), needed=COLUMNS[:3])


def statistic(samples: Samples) -> tuple[Statistic, Units]:
    """The figures of `evaluate` by weights of the samples, and the images that are resampled."""
    members = _members(samples)

    def figures(weights: Floats) -> dict[str, float]:
        return {
            f"Spearman ρ{', ' if kind else ''}{kind}": spearman(
                samples["norms"][member], samples["strengths"][member], weights[member]
            )
            for kind, member in members.items()
        }

    return figures, Units.of(samples["images"])


def _members(samples: Samples) -> dict[str, Flags]:
    if "kinds" not in samples:
        return {"": np.ones(len(samples["norms"]), dtype=bool)}
    return {str(kind): samples["kinds"] == kind for kind in np.unique(samples["kinds"])}
