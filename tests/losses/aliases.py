"""The one table of losses under test. The first word of a case's name is the alias it is built by."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from angulus import losses
from angulus.losses.classifiers import Sigmoid, Softmax
from angulus.losses.margins import AdditiveAngle, AdditiveCosine, Annealing, Combined, Multiplicative, NormQuality
from angulus.losses.negatives import MVAdaptive, MVFixed
from angulus.losses.radius import Contraction, Identity
from angulus.losses.subcenters import Nearest, Weighted
from angulus.losses.weighting import ClassWeights, Focal, HardMining
from losses.oracles import (
    SEEN_ANGLES,
    SEEN_LOG_SUMS,
    SEEN_NORM,
    SEEN_NORMS,
    SEEN_STEP,
    Case,
    Losses,
    Oracle,
    Point,
    at,
    center,
    contracted,
    focal,
    image_counts,
    mean_norm,
    memory,
    nearest,
    of,
    plus,
    rowwise,
    straight_through,
    times,
    unstarted_ring,
)
from scalar import adaptive, mining, penalties, subcenters
from scalar import margins as scalar_margins
from scalar import sigmoid_family as sigmoids
from scalar import softmax_family as family
from scalar.geometry import Vector, angle, cosine, dot, norm, softplus


def arc(theta: float) -> float:
    return scalar_margins.additive_angle(theta, 0.5)


def am(theta: float) -> float:
    return scalar_margins.additive_cosine(theta, 0.35)


def kept(n: int) -> int:
    return mining.kept_count(n, 0.6)


def hm(p: Point, keep: float, margin: Callable[[float], float] | None = None, s: float = 8.0) -> Vector:
    return mining.hm_softmax(p.features, p.weight, p.labels, s, keep, margin)[0]


def moved(start: float, new: float, rate: float) -> float:
    """A running figure after SEEN_STEP steps."""
    for _ in range(SEEN_STEP):
        start = adaptive.running(start, new, rate)
    return start


SEEN_COS = math.fsum(math.cos(theta) for theta in SEEN_ANGLES) / len(SEEN_ANGLES)


def ada(h: float = 0.333, mean: float = 20.0, deviation: float = 100.0) -> Oracle:
    """AdaFace at these figures; the norms are held."""

    def held(base: Point) -> Losses:
        norms = [norm(x) for x in base.features]
        return lambda p: adaptive.adaface(p.features, p.weight, p.labels, 16.0, 0.4, h, mean, deviation, norms)

    return held


def balanced(loss: Oracle) -> Oracle:
    """Every loss times the balanced weight of its class."""

    def weighted(base: Point) -> Losses:
        values = loss(base)
        weights = adaptive.balanced(image_counts(len(base.weight)))
        return lambda p: [weights[y] * value for y, value in zip(p.labels, values(p), strict=True)]

    return weighted


def adacos(p: Point, s: float) -> Vector:
    return family.normface(p.features, p.weight, p.labels, s)


def dynamic(p: Point) -> Vector:
    counts = image_counts(len(p.weight))
    return adaptive.dynamic_margin(p.features, p.weight, p.labels, 16.0, counts, 0.05, 0.5)


MAG = {"l_a": 0.8, "u_a": 2.5, "l_m": 0.3, "u_m": 0.6}
normface = at(lambda p: family.normface(p.features, p.weight, p.labels, p.s))
biased = at(lambda p: family.softmax(p.features, p.weight, p.labels, p.bias))
arcface = of(family.arcface, 16.0)
mv_arc = partial(family.mv_softmax, margin=arc, t=0.3, mode="adaptive")
ARC, AM = AdditiveAngle(0.5), AdditiveCosine(0.35)
L = losses


def uniface(
    p: Point,
    s: float,
    m: float,
    b: float | None = None,
    factors: tuple[float, float] = (1.0, 1.0),
    others: sigmoids.Map = sigmoids.keep,
) -> Vector:
    def target(theta: float) -> float:
        return math.cos(theta) - m

    b = p.b if b is None else b
    return sigmoids.binary(p.features, p.weight, p.labels, [s] * len(p.labels), b, target, others, factors)


def siglip(p: Point, radii: Vector, target: Callable[[float], float] = math.cos) -> Vector:
    return sigmoids.binary(p.features, p.weight, p.labels, radii, p.b, target)


def mv(c: float, target: float) -> float:
    return 1.3 * c + 0.3 if c > target else c


def moved_sphereface2(form: str, m: float) -> Oracle:
    """SphereFace2-A and -M at r = 8: what the margin adds to g is held."""

    def one(p: Point, i: int, base: Point) -> float:
        added = sigmoids.moved(angle(base.features[i], base.weight[base.labels[i]]), form, m, 3.0)
        return sigmoids.binary(
            [p.features[i]],
            p.weight,
            [p.labels[i]],
            [8.0],
            p.b,
            lambda theta: sigmoids.power(math.cos(theta), 3.0) + added,
            lambda c, _: sigmoids.power(c, 3.0),
            (0.7 / 8, 0.3 / 8),
        )[0]

    return rowwise(one)


def straight_sphereface2(r: float, m: float, t: float) -> Oracle:
    """SphereFace2-C with λ = 0.7, where all that its map adds to the cosines is held."""

    def one(p: Point, i: int, base: Point) -> float:
        total = 0.0
        for j, w in enumerate(p.weight):
            before = cosine(base.features[i], base.weight[j])
            moved = cosine(p.features[i], w) + sigmoids.power(before, t) - before
            own = j == p.labels[i]
            z = r * (moved - m if own else moved + m) + p.b
            total += (0.7 if own else 0.3) / r * softplus(-z if own else z)
        return total

    return rowwise(one)


def smoothed(
    s: float, smoothing: float, margin: Callable[[float], float] = math.cos, others: sigmoids.Map = sigmoids.keep
) -> Oracle:
    def losses(p: Point) -> Vector:
        radii = [s] * len(p.labels)
        return sigmoids.label_smoothing(p.features, p.weight, p.labels, radii, smoothing, margin, others)

    return at(losses)


def smoothed_softmax(p: Point, smoothing: float) -> Vector:
    rows = [[dot(x, w) + b for w, b in zip(p.weight, p.bias, strict=True)] for x in p.features]
    return [sigmoids.smoothed(logits, y, smoothing) for logits, y in zip(rows, p.labels, strict=True)]


def held_circle(gamma: float, m: float) -> Oracle:
    def losses(base: Point) -> Callable[[Point], Vector]:
        held = [[cosine(x, w) for w in base.weight] for x in base.features]
        return lambda p: sigmoids.circle(p.features, p.weight, p.labels, gamma, m, held)

    return losses


def circle_target(theta: float, m: float) -> float:
    return max(0.0, 1 + m - math.cos(theta)) * (math.cos(theta) - 1 + m)


TABLE = (
    # softmax, with raw or unit weights and features
    Case("softmax", L.softmax(), of(family.softmax), least=1),
    Case("softmax-factor", L.softmax().replace(radius=Identity(6.0)), of(family.scaled_softmax, 6.0), least=1),
    Case("softmax-bias", L.softmax(bias=True), biased, learns=("bias",), least=1),
    Case("weight_normalized", L.weight_normalized(), of(family.weight_normalized), least=1),
    Case("feature_normalized-fixed", L.feature_normalized(12.0, False), of(family.feature_normalized, 12.0), least=1),
    Case(
        "feature_normalized-learned",
        L.feature_normalized(),
        at(lambda p: family.feature_normalized(p.features, p.weight, p.labels, p.s)),
        learns=("s",),
        least=1,
    ),
    Case("l2_softmax", L.l2_softmax(9.0), of(family.l2_softmax, 9.0), least=1),
    Case(
        "l2_softmax-bias-learned",
        L.l2_softmax(9.0, learn=True, bias=True),
        at(lambda p: family.l2_softmax(p.features, p.weight, p.labels, p.s, p.bias)),
        learns=("s", "bias"),
        least=1,
    ),
    Case("normface", L.normface(), normface, learns=("s",), least=1),
    Case("normface-fixed", L.normface(20, learn=False), of(family.normface, 20.0), least=1),
    Case("normface-eps", L.normface(8.0, learn=False, eps=0.3), of(family.normface, 8.0, 0.3), least=1),
    Case(
        "normface-eps-learned",
        L.normface(eps=0.05),
        at(lambda p: family.normface(p.features, p.weight, p.labels, p.s, 0.05)),
        learns=("s",),
        least=1,
    ),
    Case("coco", L.coco(), of(family.coco)),
    Case("coco-alpha", L.coco(5), of(family.coco, 5.0), least=1),
    # margins
    Case("cosface", L.cosface(16, 0.35), of(family.cosface, 16.0, 0.35), least=1),
    Case("arcface", L.arcface(16, 0.5), arcface, least=1),
    Case("arcface-64", L.arcface(64, 0.5), of(family.arcface, 64.0), least=1),
    Case("arcface-plain", L.arcface(16, 0.5, "plain"), of(family.arcface, 16.0, 0.5, "plain"), least=1),
    Case("arcface-easy", L.arcface(16, 0.5, "easy"), of(family.arcface, 16.0, 0.5, "easy"), least=1),
    Case(
        "arcface-straight_through",
        L.arcface(16, 0.5, gradient="straight_through"),
        straight_through(16.0, arc),
        held=True,
        least=1,
    ),
    Case(
        "combined_margin",
        L.combined_margin(16, multiplier=1.1, cosine=0.2, angle=0.3),
        of(family.combined_margin, 16.0, 1.1, 0.2, 0.3),
        least=1,
    ),
    Case(
        "combined_margin-psi",
        L.combined_margin(16, multiplier=2.5, cosine=0.1, angle=0.4, form="psi"),
        of(family.combined_margin, 16.0, 2.5, 0.1, 0.4, "psi"),
        least=1,
    ),
    Case(
        "combined_margin-straight_through",
        L.normface(16, False).replace(
            margin=Combined(multiplier=2.0, cosine=0.1, angle=0.3, form="psi", gradient="straight_through")
        ),
        straight_through(16.0, lambda theta: scalar_margins.combined(theta, 2.0, 0.1, 0.3, "psi")),
        held=True,
        least=1,
    ),
    Case("sphereface-1", L.sphereface(1), of(family.sphereface, 1), least=1),
    Case("sphereface-2", L.sphereface(2), of(family.sphereface, 2), least=1),
    Case("sphereface-3-s", L.sphereface(3, 16.0), of(family.sphereface, 3, 16.0), least=1),
    Case("sphereface-4", L.sphereface(4), of(family.sphereface, 4), least=1),
    Case("sphereface-raw", L.sphereface(1.5, 16, "raw"), of(family.sphereface, 1.5, 16.0, "raw"), least=1),
    Case("sphereface-lam", L.sphereface(4, annealing=5), of(family.sphereface, 4, lam=5.0), least=1),
    Case(
        "sphereface-annealing",
        L.sphereface(3, annealing=Annealing(20.0, 2.0, 0.1)),
        of(family.sphereface, 3, lam=scalar_margins.annealing_lam(SEEN_STEP, 20.0, 2.0)),
        seen=True,
        least=1,
    ),
    Case("l_softmax-2", L.l_softmax(2), of(family.l_softmax, 2), least=1),
    Case("l_softmax-3-lam", L.l_softmax(3, annealing=4.0), of(family.l_softmax, 3, 4.0), least=1),
    Case(
        "l_softmax-4-annealing",
        L.l_softmax(4, Annealing()),
        of(family.l_softmax, 4, scalar_margins.annealing_lam(SEEN_STEP, 1000.0, 5.0)),
        seen=True,
        least=1,
    ),
    # mining by loss value
    Case("focal_softmax", L.focal_softmax(8), of(mining.focal_softmax, 8.0), least=1),
    Case("focal_softmax-0", L.focal_softmax(8, 0), of(family.normface, 8.0), least=1),
    Case("focal_softmax-arc", L.focal_softmax(8, 1.5, ARC), of(mining.focal_softmax, 8.0, 1.5, arc), least=1),
    Case(
        "focal_softmax-am-plain",
        L.focal_softmax(8, 2.0, AM, "plain"),
        of(mining.focal_softmax, 8.0, 2.0, am, "plain"),
        least=1,
    ),
    Case(
        "focal_softmax-over-arcface",
        L.arcface(16, 0.5).replace(weighting=Focal(2.0, "plain")),
        of(mining.focal_softmax, 16.0, 2.0, arc, "plain"),
        least=1,
    ),
    Case(
        "focal_softmax-over-l_softmax-plain",
        L.l_softmax(2).replace(weighting=Focal(2.0, "plain")),
        focal(of(family.l_softmax, 2), of(family.softmax), 2.0),
        least=1,
    ),
    Case(
        "hm_softmax", L.hm_softmax(8), at(lambda p: hm(p, 0.9)), divisor=partial(mining.kept_count, keep=0.9), least=1
    ),
    Case("hm_softmax-arc", L.hm_softmax(8, 0.6, ARC), at(lambda p: hm(p, 0.6, arc)), divisor=kept, least=1),
    Case("hm_softmax-am-all", L.hm_softmax(8, 0.6, AM, "all"), at(lambda p: hm(p, 0.6, am)), least=1),
    Case(
        "hm_softmax-incay",
        L.hm_softmax(8, 0.6) + L.feature_incay(0.5),
        at(lambda p: hm(p, 0.6)),
        of(penalties.feature_incay, 0.5),
        divisor=kept,
        least=1,
    ),
    # misclassified vectors
    *(
        Case(
            f"mv_softmax-{mode}-{name}",
            L.mv_softmax(16, margin, t, mode),
            of(family.mv_softmax, 16.0, scalar, t, mode),
            least=1,
        )
        for mode in ("fixed", "adaptive")
        for name, margin, scalar, t in (("arc", ARC, arc, 0.2), ("am", AM, am, 0.25), ("none", None, math.cos, 0.3))
    ),
    Case(
        "mv_softmax-sphere",
        L.mv_softmax(16, Multiplicative(3), 0.2, "fixed"),
        of(family.mv_softmax, 16.0, partial(scalar_margins.psi, m=3), 0.2, "fixed"),
        least=1,
    ),
    Case(
        "mv_softmax-focal",
        L.mv_softmax(8, ARC, 0.3, "adaptive").replace(weighting=Focal()),
        focal(of(mv_arc, 8.0), of(mv_arc, 8.0), 2.0),
        least=1,
    ),
    Case(
        "mv_softmax-focal-plain",
        L.mv_softmax(8, ARC, 0.3, "adaptive").replace(weighting=Focal(1.0, "plain")),
        focal(of(mv_arc, 8.0), of(family.normface, 8.0), 1.0),
        least=1,
    ),
    Case(
        "mv_softmax-contracted",
        L.mv_softmax(32, ARC, 0.3, "adaptive").replace(radius=Contraction()),
        contracted(mv_arc),
        least=3,
    ),
    # contraction mapping
    Case("cm_softmax", L.cm_softmax(), of(family.cm_softmax), least=3),
    Case("cm_softmax-exact", L.cm_softmax(0.8, 0.5, bound="exact"), of(family.cm_softmax, 0.8, 0.5, bound="exact")),
    Case(
        "cm_softmax-bounds",
        L.cm_softmax(gamma=0.7, lower=3, upper=7),
        of(family.cm_softmax, gamma=0.7, lower=3.0, upper=7.0),
        least=1,
    ),
    Case("cm_softmax-lower", L.cm_softmax(lower=2.5), of(family.cm_softmax, lower=2.5), least=1),
    Case("cm_softmax-factor", L.cm_softmax(upper_factor=2.4), of(family.cm_softmax, upper_factor=2.4), least=3),
    Case(
        "cm_softmax-detached",
        L.cm_softmax(detach_norm=True),
        lambda base: (
            lambda p: family.cm_softmax(p.features, p.weight, p.labels, norms=[norm(x) for x in base.features])
        ),
        held=True,
        least=3,
    ),
    Case(
        "cm_softmax-auto-unseen",
        L.cm_softmax(gamma="auto"),
        lambda base: (
            lambda p: family.cm_softmax(p.features, p.weight, p.labels, gamma=family.gamma_auto(mean_norm(base)))
        ),
        held=True,
        least=3,
    ),
    Case(
        "cm_softmax-auto",
        L.cm_softmax(gamma="auto"),
        of(family.cm_softmax, gamma=family.gamma_auto(SEEN_NORM)),
        seen=True,
        least=3,
    ),
    Case("cm_m_softmax-arc", L.cm_m_softmax(ARC), of(family.cm_m_softmax, arc), least=3),
    Case("cm_m_softmax-am", L.cm_m_softmax(AM, upper=9), of(family.cm_m_softmax, am, upper=9.0), least=3),
    Case(
        "cm_m_softmax-psi",
        L.cm_m_softmax(Multiplicative(3), bound="exact"),
        of(family.cm_m_softmax, partial(scalar_margins.psi, m=3), bound="exact"),
    ),
    Case(
        "cm_m_softmax-focal",
        L.cm_m_softmax(ARC).replace(weighting=Focal()),
        contracted(partial(mining.focal_softmax, margin=arc)),
        least=3,
    ),
    # margins, negatives and scales that follow the norm, the batch or the class
    Case(
        "magface",
        L.magface(16, **MAG, lam=2.0),
        of(adaptive.magface, 16.0, **MAG),
        of(adaptive.magnitude_penalty, 2.0, 0.8, 2.5),
        least=1,
    ),
    Case(
        "magface-cm",
        L.magface(16, **MAG, lam=0.5).replace(radius=Contraction()) + L.feature_incay(0.1),
        contracted(partial(adaptive.magface, **MAG)),
        plus(of(adaptive.magnitude_penalty, 0.5, 0.8, 2.5), of(penalties.feature_incay, 0.1)),
        least=3,
    ),
    Case("adaface", L.adaface(16), ada(), held=True, least=1),
    Case(
        "adaface-without-norms",
        L.adaface(16).replace(margin=NormQuality(0.4, h=0.0, eps=1e-4)),
        of(adaptive.adaface, 16.0, 0.4, 0.0, 20.0, 100.0, [1.0] * 5, 1e-4),
        least=1,
    ),
    Case(
        "adaface-seen",
        L.adaface(16, rate=0.5),
        ada(
            mean=moved(20.0, adaptive.mean_and_deviation(list(SEEN_NORMS))[0], 0.5),
            deviation=moved(100.0, adaptive.mean_and_deviation(list(SEEN_NORMS))[1], 0.5),
        ),
        held=True,
        seen=True,
        least=1,
    ),
    Case(
        "adaface-batch",
        L.adaface(16, h=1.5, statistics="batch"),
        ada(1.5, *adaptive.mean_and_deviation(list(SEEN_NORMS))),
        held=True,
        seen=True,
        least=1,
    ),
    Case("curricularface", L.curricularface(16), of(adaptive.curricularface, 16.0), least=1),
    Case(
        "curricularface-seen-iam",
        L.curricularface(16, rate=0.5) + L.iam(0.2),
        of(adaptive.curricularface, 16.0, t=moved(0.0, SEEN_COS, 0.5)),
        of(penalties.iam, 0.2, 16.0),
        seen=True,
    ),
    Case("elasticface", L.elasticface(s=16), arcface, least=1),
    Case("elasticface-cos-plus", L.elasticface("cos", 16, plus=True), of(family.cosface, 16.0, 0.35), least=1),
    Case("adacos-fixed", L.adacos("fixed"), at(lambda p: adacos(p, adaptive.adacos_scale(len(p.weight)))), least=3),
    Case(
        "adacos",
        L.adacos() + L.iam(0.2),
        at(lambda p: adacos(p, adaptive.adacos_of(list(SEEN_LOG_SUMS), list(SEEN_ANGLES), 0.0))),
        of(penalties.iam, 0.2, adaptive.adacos_of(list(SEEN_LOG_SUMS), list(SEEN_ANGLES), 0.0)),
        seen=True,
        least=3,
    ),
    Case("dynamic_margin", L.dynamic_margin(16), at(dynamic), least=1),
    Case("weighted_softmax", L.weighted_softmax(8), balanced(of(family.normface, 8.0)), least=1),
    Case(
        "weighted_softmax-mv",
        L.mv_softmax(16, ARC, 0.3, "adaptive").replace(weighting=ClassWeights()),
        balanced(of(mv_arc, 16.0)),
        least=1,
    ),
    # one sigmoid per class
    *(
        Case(
            f"sphereface2-C-{t:g}",
            L.sphereface2(r=8, m=0.3, t=t, lam=0.6),
            at(lambda p, t=t: sigmoids.sphereface2(p.features, p.weight, p.labels, p.b, 8.0, 0.3, t, 0.6)),
            learns=("b",),
        )
        for t in (1.0, 2.5, 3.0)
    ),
    *(
        Case(f"sphereface2-{form}", L.sphereface2(form, r=8), moved_sphereface2(name, m), learns=("b",), held=True)
        for form, name, m in (("A", "angle", 0.4), ("M", "multiple", 1.7))
    ),
    Case(
        "sphereface2-straight_through",
        L.sphereface2(r=8, gradient="straight_through"),
        straight_sphereface2(8.0, 0.4, 3.0),
        learns=("b",),
        held=True,
    ),
    Case(
        "sphereface2-iam-incay",
        L.sphereface2(r=8) + L.iam(0.2) + L.feature_incay(0.1),
        at(lambda p: sigmoids.sphereface2(p.features, p.weight, p.labels, p.b, 8.0, 0.4, 3.0, 0.7)),
        plus(of(penalties.iam, 0.2, 8.0), of(penalties.feature_incay, 0.1)),
        learns=("b",),
    ),
    Case("uniface", L.uniface(8, 0.3), at(lambda p: uniface(p, 8.0, 0.3)), learns=("b",)),
    Case(
        "uniface-fixed-lam",
        L.uniface(8, 0.3, lam=0.2).replace(classifier=Sigmoid(negative=0.2, start=-3.0, learn=False)),
        at(lambda p: uniface(p, 8.0, 0.3, b=-3.0, factors=(1.0, 0.2))),
    ),
    Case(
        "uniface-mv-focal",
        L.uniface(8, 0.3).replace(negatives=MVAdaptive(0.3), weighting=Focal(2.0)),
        focal(
            at(lambda p: uniface(p, 8.0, 0.3, others=mv)),
            at(lambda p: uniface(p, 8.0, 0.3, factors=(1.0, 0.0))),
            2.0,
        ),
        learns=("b",),
    ),
    Case(
        "uniface-focal-plain-mining",
        L.uniface(8, 0.3).replace(weighting=Focal(1.5, "plain")),
        focal(at(lambda p: uniface(p, 8.0, 0.3)), at(lambda p: uniface(p, 8.0, 0.0, factors=(1.0, 0.0))), 1.5),
        learns=("b",),
    ),
    Case("siglip", L.siglip(), at(lambda p: siglip(p, [p.s] * len(p.labels))), learns=("s", "b")),
    Case(
        "siglip-contracted-arc",
        L.siglip().replace(radius=Contraction(lower=3, upper=9), margin=ARC),
        at(lambda p: siglip(p, [family.f_contraction(norm(x), 3.0, 9.0) for x in p.features], target=arc)),
        learns=("b",),
    ),
    # label smoothing
    Case("label_smoothing", L.label_smoothing(8), smoothed(8.0, 0.1), least=1),
    Case(
        "label_smoothing-arc-mv",
        L.label_smoothing(8, 0.3, ARC).replace(negatives=MVFixed(0.2)),
        smoothed(8.0, 0.3, arc, lambda c, target: c + 0.2 if c > target else c),
        least=1,
    ),
    Case(
        "label_smoothing-normface",
        L.normface().replace(classifier=Softmax(0.2)),
        at(lambda p: sigmoids.label_smoothing(p.features, p.weight, p.labels, [p.s] * len(p.labels), 0.2)),
        learns=("s",),
        least=1,
    ),
    Case(
        "label_smoothing-softmax-bias",
        L.softmax(bias=True).replace(classifier=Softmax(0.2)),
        at(lambda p: smoothed_softmax(p, 0.2)),
        learns=("bias",),
        least=1,
    ),
    # circle loss
    Case("circle", L.circle(gamma=8), held_circle(8.0, 0.25), held=True, least=1),
    Case("circle-exact", L.circle(0.3, 8, detach=False), of(sigmoids.circle, 8.0, 0.3), least=1),
    Case(
        "circle-smoothed-iam",
        L.circle(0.3, 8, detach=False).replace(classifier=Softmax(0.1)) + L.iam(0.1),
        smoothed(8.0, 0.1, lambda theta: circle_target(theta, 0.3), lambda c, _: max(0.0, c + 0.3) * (c - 0.3)),
        of(penalties.iam, 0.1, 8.0),
    ),
    Case(
        "circle-focal-plain",
        L.circle(0.3, 8, detach=False).replace(weighting=Focal(2.0, "plain")),
        focal(of(sigmoids.circle, 8.0, 0.3), of(family.normface, 8.0), 2.0),
        least=1,
    ),
    # metric losses on their own
    Case("c_contrastive", L.c_contrastive(), extra=of(penalties.c_contrastive)),
    Case("c_contrastive-mean", L.c_contrastive(1.3, "mean"), extra=of(penalties.c_contrastive, 1.3, "mean")),
    Case("c_triplet", L.c_triplet(), extra=of(penalties.c_triplet)),
    Case("c_triplet-mean", L.c_triplet(0.6, "mean"), extra=of(penalties.c_triplet, 0.6, "mean")),
    Case("c_triplet-additive", L.c_triplet(center="additive"), extra=of(penalties.c_triplet, center="additive")),
    Case("c_triplet-gated", L.c_triplet(center="gated"), extra=of(penalties.c_triplet, center="gated")),
    Case(
        "c_triplet-gated-mean",
        L.c_triplet(0.8, "mean", "gated"),
        extra=of(penalties.c_triplet, 0.8, "mean", "gated"),
    ),
    Case(
        "c_triplet-additive-mean",
        L.c_triplet(0.8, "mean", "additive"),
        extra=of(penalties.c_triplet, 0.8, "mean", "additive"),
    ),
    Case("c_triplet-hardest", L.c_triplet(0.8, "hardest"), extra=of(penalties.c_triplet, 0.8, "hardest")),
    Case(
        "c_triplet-hardest-gated",
        L.c_triplet(0.6, "hardest", "gated"),
        extra=of(penalties.c_triplet, 0.6, "hardest", "gated"),
    ),
    Case(
        "c_triplet-hardest-additive",
        L.c_triplet(0.8, "hardest", "additive"),
        extra=of(penalties.c_triplet, 0.8, "hardest", "additive"),
    ),
    # over the batch for each class
    Case("proxy_anchor", L.proxy_anchor(), extra=of(penalties.proxy_anchor, 32.0, 0.1), least=1),
    Case(
        "proxy_anchor-cosface-iam",
        L.cosface(8, 0.2) + 0.5 * L.proxy_anchor(6, 0.2) + L.iam(0.2),
        of(family.cosface, 8.0, 0.2),
        plus(times(0.5, of(penalties.proxy_anchor, 6.0, 0.2)), of(penalties.iam, 0.2, 8.0)),
    ),
    # penalties added to a loss
    Case(
        "c_triplet-hardest-arcface",
        L.arcface(16, 0.5) + 0.5 * L.c_triplet(0.8, "hardest"),
        arcface,
        times(0.5, of(penalties.c_triplet, 0.8, "hardest")),
    ),
    Case("iam-arcface", L.arcface(16, 0.5) + L.iam(0.3), arcface, of(penalties.iam, 0.3, 16.0)),
    Case(
        "iam-arcface-margin",
        L.arcface(16, 0.5) + L.iam(0.3, logits="margin"),
        arcface,
        of(penalties.iam, 0.3, 16.0, arc),
    ),
    Case(
        "iam-mv-own-s-margin",
        L.mv_softmax(16, ARC, 0.3, "adaptive") + L.iam(0.3, 6, "margin"),
        of(mv_arc, 16.0),
        of(penalties.iam, 0.3, 6.0, arc),
    ),
    Case(
        "iam-normface-learned",
        L.normface() + L.iam(0.2),
        normface,
        at(lambda p: penalties.iam(p.features, p.weight, p.labels, 0.2, p.s)),
        learns=("s",),
    ),
    Case(
        "iam-coco",
        L.coco() + L.iam(0.2),
        of(family.coco),
        at(lambda p: penalties.iam(p.features, p.weight, p.labels, 0.2, 0.5 * math.log(len(p.weight) - 1) + 3)),
    ),
    Case("iam-softmax-bias", L.softmax(bias=True) + L.iam(0.4, 30), biased, of(penalties.iam, 0.4, 30.0), ("bias",)),
    Case("iam-cm", L.cm_softmax() + 0.5 * L.iam(0.4, 10), of(family.cm_softmax), of(penalties.iam, 0.2, 10.0), least=3),
    Case(
        "feature_incay-softmax",
        L.softmax() + L.feature_incay(0.3),
        of(family.softmax),
        of(penalties.feature_incay, 0.3),
        least=1,
    ),
    *(
        Case(
            f"feature_incay-{form}-bound",
            L.softmax() + L.feature_incay(0.3, form, 0.01, bound=2),
            of(family.softmax),
            of(penalties.feature_incay, 0.3, form, 0.01, 2.0),
            least=1,
        )
        for form in ("reciprocal", "log", "linear")
    ),
    Case(
        "feature_incay-auto-unseen",
        L.softmax() + L.feature_incay(0.3, bound="auto"),
        of(family.softmax),
        lambda base: of(penalties.feature_incay, 0.3, bound=(1 + math.sqrt(2)) * mean_norm(base))(base),
        least=1,
    ),
    Case(
        "feature_incay-auto",
        L.softmax() + L.feature_incay(0.3, bound="auto"),
        of(family.softmax),
        of(penalties.feature_incay, 0.3, bound=(1 + math.sqrt(2)) * SEEN_NORM),
        seen=True,
        least=1,
    ),
    Case(
        "feature_incay-reference",
        L.softmax() + L.feature_incay(0.3, bound="auto", reference_norm=0.8),
        of(family.softmax),
        of(penalties.feature_incay, 0.3, bound=(1 + math.sqrt(2)) * 0.8),
        least=1,
    ),
    Case(
        "feature_incay-started",
        L.softmax() + L.feature_incay(0.3, start_step=SEEN_STEP),
        of(family.softmax),
        of(penalties.feature_incay, 0.3),
        seen=True,
        least=1,
    ),
    Case(
        "feature_incay-not-started",
        L.softmax() + L.feature_incay(0.3, start_step=SEEN_STEP + 1),
        of(family.softmax),
        seen=True,
        least=1,
    ),
    Case(
        "feature_incay-normface-eps",
        L.normface(8.0, False, 0.3) + L.feature_incay(0.3, bound=1.5),
        of(family.normface, 8.0, 0.3),
        of(penalties.feature_incay, 0.3, bound=1.5),
        least=1,
    ),
    Case("ring_loss", L.softmax() + L.ring_loss(0.2, 1.1), of(family.softmax), of(penalties.ring, 0.2, 1.1), least=1),
    Case(
        "ring_loss-learned",
        L.arcface(16, 0.5) + L.ring_loss(0.2),
        arcface,
        at(lambda p: penalties.ring(p.features, p.weight, p.labels, 0.2, p.R)),
        learns=("R",),
        seen=True,
        least=1,
    ),
    Case(
        "ring_loss-unstarted",
        L.arcface(16, 0.5) + 0.5 * L.ring_loss(0.4),
        arcface,
        unstarted_ring(0.2),
        learns=("R",),
        held=True,
        least=1,
    ),
    Case("center_loss", L.softmax() + L.center_loss(0.3), of(family.softmax), center(0.3), least=1),
    Case(
        "center_loss-normface-unit",
        L.normface() + L.center_loss(0.3, normalize=True),
        normface,
        center(0.3, True),
        learns=("s",),
        least=1,
    ),
    Case(
        "cross_batch_memory",
        L.normface() + L.cross_batch_memory(16, 0.2),
        normface,
        memory(16, 0.2),
        learns=("s",),
        held=True,
        least=1,
    ),
    Case(
        "cross_batch_memory-overwritten",
        0.5 * (L.arcface(16, 0.5) + L.cross_batch_memory(7, -0.3, 0.8)),
        times(0.5, arcface),
        memory(7, -0.3, 0.4),
        held=True,
        least=1,
    ),
    # sub-centres
    Case("subcenter_arcface", L.subcenter_arcface(16), nearest(arcface), least=1),
    Case(
        "subcenter_cosface",
        L.subcenter_cosface(16, k=2) + 0.5 * L.subcenter_spread(0.3),
        nearest(of(family.cosface, 16.0, 0.35)),
        of(subcenters.spread, 0.15),
        least=1,
    ),
    Case(
        "subcenter_arcface-eps",
        L.normface(8.0, False, eps=0.3).replace(subcenters=Nearest(2)),
        nearest(of(family.normface, 8.0, 0.3), eps=0.3),
        least=1,
    ),
    Case(
        "subcenter_arcface-mv-iam-incay",
        L.mv_softmax(16, ARC, 0.3).replace(subcenters=Nearest(3)) + L.iam(0.2) + L.feature_incay(0.01),
        nearest(of(mv_arc, 16.0)),
        plus(nearest(of(penalties.iam, 0.2, 16.0)), of(penalties.feature_incay, 0.01)),
    ),
    Case(
        "subcenter_cosface-focal-plain",
        L.focal_softmax(8, 2.0, AM, "plain").replace(subcenters=Nearest(2)),
        nearest(of(mining.focal_softmax, 8.0, 2.0, am, "plain")),
        least=1,
    ),
    Case(
        "soft_triple",
        L.soft_triple(12.0, 0.1, k=3, gamma=0.2),
        of(subcenters.soft_triple, 12.0, 0.1, 0.2),
        of(subcenters.spread, 0.2),
        least=1,
    ),
    Case("soft_triple-k1", L.soft_triple(12.0, 0.1, k=1), of(family.cosface, 12.0, 0.1), least=1),
    Case(
        "soft_triple-cm-mv",
        L.mv_softmax(32, ARC, 0.3, "fixed").replace(radius=Contraction(), subcenters=Weighted(2, 0.3)),
        contracted(partial(subcenters.weighted, gamma=0.3, margin=arc, negative=lambda c, t: c + 0.3 * (c > t))),
        least=3,
    ),
    Case(
        "subcenter_spread-c_triplet",
        L.c_triplet().replace(subcenters=Nearest(2)) + L.subcenter_spread(0.4, 1e-3),
        extra=plus(nearest(of(penalties.c_triplet)), of(subcenters.spread, 0.4, 1e-3)),
    ),
    # several at once
    Case(
        "arcface-iam-incay",
        L.arcface(16, 0.5) + L.iam(0.1) + L.feature_incay(0.01),
        arcface,
        plus(of(penalties.iam, 0.1, 16.0), of(penalties.feature_incay, 0.01)),
    ),
    Case(
        "normface-c_contrastive",
        L.normface() + 0.01 * L.c_contrastive(),
        normface,
        times(0.01, of(penalties.c_contrastive)),
        learns=("s",),
    ),
    Case(
        "coco-incay", L.coco() + L.feature_incay(0.1, "log"), of(family.coco), of(penalties.feature_incay, 0.1, "log")
    ),
    Case(
        "arcface-scaled",
        0.25 * (L.arcface(16, 0.5) + L.ring_loss(0.2, 1.1) + L.center_loss(0.3)),
        times(0.25, arcface),
        times(0.25, plus(of(penalties.ring, 0.2, 1.1), center(0.3))),
        least=1,
    ),
    Case(
        "mv_softmax-everything",
        L.mv_softmax(8, ARC, 0.3, "adaptive").replace(weighting=Focal(1.0, "plain"))
        + 0.5 * L.c_triplet(center="gated")
        + 2 * L.c_contrastive()
        + L.iam(0.2, 5)
        + L.feature_incay(0.1)
        + L.ring_loss(0.2)
        + L.center_loss(0.3),
        focal(of(mv_arc, 8.0), of(family.normface, 8.0), 1.0),
        plus(
            times(0.5, of(penalties.c_triplet, center="gated")),
            times(2.0, of(penalties.c_contrastive)),
            of(penalties.iam, 0.2, 5.0),
            of(penalties.feature_incay, 0.1),
            at(lambda p: penalties.ring(p.features, p.weight, p.labels, 0.2, p.R)),
            center(0.3),
        ),
        learns=("R",),
        seen=True,
    ),
    Case(
        "normface-hm-iam-triplet",
        L.normface().replace(weighting=HardMining(0.6)) + L.iam(0.2) + L.c_triplet(),
        at(lambda p: hm(p, 0.6, s=p.s)),
        plus(
            at(lambda p: penalties.iam(p.features, p.weight, p.labels, 0.2, p.s)),
            of(penalties.c_triplet),
        ),
        learns=("s",),
        divisor=kept,
    ),
)


CASES = {case.name: case for case in TABLE}
