"""FNIR by the size of the gallery: the same searches in smaller galleries, at the thresholds that FPIRs need there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from angulus.evaluation import scoring
from angulus.evaluation.metrics.curves import Presorted
from angulus.evaluation.metrics.identification import OpenSetPoint, dir_at_far, open_set_curve
from angulus.evaluation.metrics.intervals import Floats, Rows, Statistic, Units
from angulus.evaluation.metrics.verification import last_within
from angulus.evaluation.protocols.figures import rate_label
from angulus.evaluation.protocols.vectors import Vectors


@dataclass(frozen=True, eq=False)
class SizedSearches:
    """Searches in galleries of growing size N, with mate and without.

    Of a search with mate, the gallery of size N holds N others of which the mate may be one, and the mate.
    """

    sizes: Rows  # [S], N, rising
    mates: Rows  # [M], the person of each search with mate, as a number
    strangers: Rows  # [I], of each search without
    mate_scores: Floats  # [M], of the search's own person
    ranks: Rows  # [M, S], of the own person; ties count against it
    best: Floats  # [I, S], the highest score of anyone
    fpirs: Sequence[float]  # which the searches without mate support
    within: int  # the rank within which the own person must be
    of: str = ""  # which gallery, if there are several

    def point(self, size: int, fpir: float) -> OpenSetPoint:
        """The operating point at the size with this number."""
        scores = self.mate_scores, self.ranks[:, size], self.best[:, size]
        return dir_at_far(open_set_curve(*scores, rank=self.within), fpir)

    def statistic(self) -> tuple[Statistic, Units]:
        """FNIR(N, R, T) by weights of the searches, those with mate first, and the people who are drawn.

        The FNIR at an FPIR is the share of the searches with mate whose person is not within the rank R or scores below
        T, the lowest threshold whose FPIR does not exceed the one named; T is chosen in each resample and at each N.
        A resample without searches of one kind has no figures.

        Source: P. Grother, M. Ngan, K. Hanaoka, "Face Recognition Vendor Test, Part 2: Identification", NISTIR 8271,
        2019 (FNIR, FPIR); ISO/IEC 19795-1.
        """
        count = len(self.mates)
        kind = np.repeat([True, False], [count, len(self.strangers)])
        sorted_by_size = [
            Presorted.of(np.concatenate([self.mate_scores, self.best[:, size]]), kind)
            for size in range(len(self.sizes))
        ]

        def figures(weights: Floats) -> dict[str, float]:
            genuine = weights[:count].sum()
            if not genuine or not weights[count:].any():
                return {}
            values = {}
            for place, presorted in enumerate(sorted_by_size):
                hits = np.append(weights[:count] * (self.ranks[:, place] <= self.within), weights[count:])
                identified, alarms = (np.append(0.0, np.cumsum(amount)) for amount in presorted.amounts(hits))
                for fpir in self.fpirs:
                    row = last_within(alarms / alarms[-1], fpir)
                    values[fnir_name(fpir, int(self.sizes[place]))] = float(1 - identified[row] / genuine)
            return values

        return figures, Units.of(np.concatenate([self.mates, self.strangers]))


def fnir_name(fpir: float, size: int) -> str:
    """The name of a figure.

    >>> fnir_name(1e-2, 1000)
    'FNIR@FPIR=1e-2, N=1,000'
    """
    return f"FNIR@FPIR={rate_label(fpir)}, N={size:,}"


def sizes_up_to(total: int) -> list[int]:
    """10, 100, ... below all, and all.

    >>> sizes_up_to(100), sizes_up_to(2500), sizes_up_to(7)
    ([10, 100], [10, 100, 1000, 2500], [7])
    """
    return [10**power for power in range(1, 20) if 10**power < total] + [total]


def best_by_size(
    probes: Vectors, gallery: Vectors, sizes: Sequence[int], options: scoring.ScoringOptions = scoring.DEFAULT
) -> Floats:
    """The highest score of each probe among the first `size` gallery rows, for rising sizes, [P, S]."""
    best = np.full((len(probes), len(sizes)), -np.inf)
    if not len(probes):
        return best
    for place, (start, stop) in enumerate(zip([0, *sizes], sizes, strict=False)):  # each row is scored once
        more = scoring.best_per_probe(probes, gallery[start:stop], options=options).numpy()
        best[:, place] = np.maximum(best[:, max(place - 1, 0)], more)
    return best
