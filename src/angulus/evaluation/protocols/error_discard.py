"""Error versus discard: FNMR at a fixed FMR as the pairs of lowest quality are discarded."""

from collections.abc import Sequence

import numpy as np

from angulus.core import checks
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.metrics.curves import Presorted
from angulus.evaluation.metrics.image_quality import Discard, area, error_versus_discard
from angulus.evaluation.metrics.intervals import Floats, Samples, Statistic, Units
from angulus.evaluation.metrics.verification import require_support, tar_at_far
from angulus.evaluation.protocols import scored
from angulus.evaluation.protocols.figures import Resampling, measure, rate_label
from angulus.evaluation.protocols.result import Curve, Result

PROTOCOL = "discard"
MEASURED = scored.MEASURED

SHARES = (0.05, 0.1, 0.2)  # of the genuine pairs, after whose discard the FNMR is reported


def evaluate(
    embeddings: Embeddings,
    pairs: PairList,
    *,
    fmr: float = 1e-3,
    up_to: float = 1.0,
    flip: str | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """FNMR by the share of genuine pairs discarded, and areas under it; a pair's quality is its smaller norm.

    The threshold is the lowest whose FMR over all pairs does not exceed `fmr`; it stays while pairs are discarded, as
    the standard has it. At a share between two that equal qualities allow, the smaller one counts.

    Args:
        embeddings: of all images of the list.
        pairs: the list.
        fmr: in (0, 1], which the impostor pairs must support.
        up_to: where the area ends, in (0, 1].
        flip: None, "sum" or "concat", for the scores and the norms.
        draws, seed: resamples of the people for the intervals (0 for none), each with its threshold, and their seed.

    Raises:
        checks.InputError: an image without embedding, or fewer than 1 / fmr impostor pairs.

    Source: ISO/IEC 29794-1:2024, error versus discard characteristic.
    """
    scored.require_norms(embeddings, flip)
    pair_scores = scored.score(embeddings, pairs, flip=flip)
    samples = {
        **pair_scores.samples,
        "fmr": np.array(checks.number("fmr", fmr, low=0, high=1, open_low=True)),
        "up_to": np.array(checks.number("up_to", up_to, low=0, high=1, open_low=True)),
    }
    require_support(fmr, pair_scores.distinct.impostors, of=pair_scores.distinct.supporting, name="FMR")
    point = tar_at_far(Presorted.of(samples["scores"], pairs.same).curve(), fmr)
    return measure(
        PROTOCOL,
        statistic(samples),
        samples,
        {
            **pair_scores.choices,
            "threshold": f"the lowest with FMR <= {rate_label(fmr)} over all pairs (fixed while pairs are discarded)",
            "quality of a pair": "the smaller norm",
            "area up to": up_to,
        },
        pair_scores.counts,
        Resampling(pair_scores.unit, draws, seed),
        thresholds={"FNMR": point.threshold},
        curves=(draw(samples, fmr),),
        notes=pair_scores.notes,
        about=pair_scores.about,
    )


def draw(samples: Samples, fmr: float) -> Curve:
    """The FNMR by the share discarded, at the threshold of an FMR; samples have scores, same and norms [P]."""
    threshold = tar_at_far(Presorted.of(samples["scores"], samples["same"]).curve(), fmr).threshold
    curve = _curve(samples, threshold, np.ones(len(samples["same"])))
    return Curve("discard", f"FMR={rate_label(fmr)}", curve.discarded, curve.fnmr)


def statistic(samples: Samples, shares: Sequence[float] = SHARES) -> tuple[Statistic, Units]:
    """The figures of `evaluate` by weights of the pairs, and the people (or pairs) that are resampled.

    FNMR and partial area at each of the shares, and the area up to `up_to`. A resample that loses all pairs of one kind
    has no figures.
    """
    presorted = Presorted.of(samples["scores"], samples["same"])
    fmr, up_to = float(samples["fmr"]), float(samples["up_to"])

    def figures(weights: Floats) -> dict[str, float]:
        if not all(amount.any() for amount in presorted.amounts(weights)):
            return {}
        curve = _curve(samples, tar_at_far(presorted.curve(weights), fmr, zero_ok=True).threshold, weights)
        values = {"FNMR": float(curve.fnmr[0])}
        for share in shares:
            row = int(np.searchsorted(curve.discarded, share, side="right")) - 1
            values[f"FNMR, {share:.0%} discarded"] = float(curve.fnmr[row])
        values |= {f"area under FNMR to {share:.0%}": area(curve, share) for share in shares}
        return {**values, "area under FNMR": area(curve, up_to)}

    return figures, scored.units_of(samples)


def _curve(samples: Samples, threshold: float, weights: Floats) -> Discard:
    same = samples["same"]
    return error_versus_discard(samples["norms"][same], samples["scores"][same] < threshold, weights[same])
