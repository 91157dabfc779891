"""The losses by their papers' names, each an `Objective` of a few pieces; `ALIASES` is the table.

Angles are in radians; s, m and t are the papers'. Every alias has defaults: those of its paper, or of the paper here
that compares with it, as its docstring says.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from angulus.core import checks
from angulus.losses import serialize
from angulus.losses.center import CenterLoss
from angulus.losses.classifiers import Sigmoid, Softmax
from angulus.losses.margins import (
    AdditiveAngle,
    AdditiveCosine,
    Annealing,
    CircleCosine,
    ClassAngle,
    Combined,
    Elastic,
    Multiplicative,
    NormAngle,
    NormQuality,
    PowerCosine,
)
from angulus.losses.memory import CrossBatchMemory
from angulus.losses.negatives import Circle, Curricular, MVAdaptive, MVFixed
from angulus.losses.negatives import PowerCosine as PowerNegatives
from angulus.losses.objective import Objective, Term
from angulus.losses.penalties import (
    IAM,
    CContrastive,
    CTriplet,
    FeatureIncay,
    Magnitude,
    ProxyAnchor,
    Ring,
    SubcenterSpread,
)
from angulus.losses.radius import AdaCos, Coco, Contraction, Fixed, Identity, Learned
from angulus.losses.roles import Margin, Penalty
from angulus.losses.subcenters import Nearest, Weighted
from angulus.losses.weighting import ClassWeights, Focal, HardMining

# t of MV Sec. 4, by kind of margin and mode
MV_T = {
    ("additive_angle", "fixed"): 0.2,
    ("additive_angle", "adaptive"): 0.3,
    ("additive_cosine", "fixed"): 0.25,
    ("additive_cosine", "adaptive"): 0.2,
}


def softmax(bias: bool = False) -> Objective:
    """Softmax loss: logits w_j·x (+ b_j). Source: CM Eq. 1, NF Eq. 1, FI Eq. 1."""
    return Objective(radius=Identity(), weights="raw", bias=bias)


def weight_normalized() -> Objective:
    """Weight-normalised ("modified") softmax: logits ‖x‖ cosθ_j. Source: CM Eq. 3."""
    return Objective(radius=Identity())


def feature_normalized(s: float = 20.0, learn: bool = True) -> Objective:
    """Feature-normalised softmax: logits s w_j·x̂, s > 0 learned or fixed. Source: NF Table 2."""
    return Objective(radius=_scale(s, learn), weights="raw")


def l2_softmax(alpha: float = 30.0, learn: bool = False, bias: bool = False) -> Objective:
    """L2-softmax: logits α w_j·x̂ (+ b_j), α > 0 fixed or learned. Source: Ranjan et al. 2017.

    The paper bounds α from below (`theory.contraction_lower`); 30 is the value of our recipe for IAM Table 5.
    """
    return Objective(
        radius=_scale(checks.number("alpha", alpha, low=0, open_low=True), learn), weights="raw", bias=bias
    )


def normface(s: float = 20.0, learn: bool = True, eps: float = 0.0) -> Objective:
    """NormFace: logits s cosθ_j, s = ℓ² > 0 learned or fixed.

    `eps` is the ε of its normalisation layer, x / sqrt(‖x‖² + ε), for both features and weights. Source: NF Eq. 3, 6.
    """
    return Objective(radius=_scale(s, learn), eps=eps)


def coco(alpha: float | None = None) -> Objective:
    """COCO: logits α cosθ_j, α fixed, by default ½ log(C − 1) + 3. Source: Liu et al. 2017c."""
    return Objective(radius=Coco() if alpha is None else Fixed(checks.number("alpha", alpha, low=0, open_low=True)))


def cosface(s: float = 64.0, m: float = 0.35) -> Objective:
    """CosFace, AM-Softmax: target s (cosθ − m), others s cosθ_j. Source: IAM Eq. 5.

    Defaults: Wang et al. 2018 (CosFace); MV takes s = 32, IAM s = 30.
    """
    return Objective(radius=Fixed(s), margin=AdditiveCosine(m))


def arcface(s: float = 64.0, m: float = 0.5, beyond_pi: str = "linear", gradient: str = "exact") -> Objective:
    """ArcFace: target s cos(θ + m), others s cosθ_j, m in radians. Source: IAM Eq. 6.

    Defaults: Deng et al. 2019; MV takes s = 32, CM s = 10 on MNIST. `beyond_pi` and `gradient` as in
    `margins.AdditiveAngle`.
    """
    return Objective(radius=Fixed(s), margin=AdditiveAngle(m, beyond_pi, gradient))


def combined_margin(
    s: float = 64.0, *, multiplier: float = 1.0, angle: float = 0.0, cosine: float = 0.0, form: str = "raw"
) -> Objective:
    """Combined margin: target s (cos(multiplier·θ + angle) − cosine), others s cosθ_j.

    insightface's `margin_list=(m1, m2, m3)` is `multiplier=m1, angle=m2, cosine=m3`; the paper swaps m2 and m3. By
    default none of the three has an effect. See `margins.Combined`. Source: MV Sec. 3.1.
    """
    return Objective(radius=Fixed(s), margin=Combined(multiplier=multiplier, angle=angle, cosine=cosine, form=form))


def sphereface(
    m: float = 4.0, s: float | None = None, form: str = "psi", annealing: float | Annealing | None = None
) -> Objective:
    """SphereFace, A-Softmax: target r ψ(θ), others r cosθ_j; r = s, or ‖x‖ where s is None. Source: IAM Eq. 4.

    Default: m = 4 of Liu et al. 2017 (SphereFace), without annealing; MV takes m = 3 and s = 32. To train from scratch,
    give `annealing=margins.Annealing()`.
    """
    return Objective(radius=Identity() if s is None else Fixed(s), margin=Multiplicative(m, form, annealing))


def l_softmax(m: float = 4.0, annealing: float | Annealing | None = None) -> Objective:
    """L-Softmax: target ‖w_y‖‖x‖ ψ(θ), others w_j·x. Source: Liu et al. 2016; FI Table 1.

    Default: m = 4 of Liu et al. 2016, without annealing.
    """
    return Objective(radius=Identity(), weights="raw", margin=Multiplicative(m, "psi", annealing))


def focal_softmax(
    s: float = 32.0, gamma: float = 2.0, margin: Margin | None = None, probability: str = "margin"
) -> Objective:
    """F-Softmax: (1 − p_y)^γ times the loss at scale s, over any margin. Source: MV Eq. 2 and 4.

    Defaults: s = 32, γ = 2 of MV Sec. 4.
    """
    return Objective(radius=Fixed(s), margin=margin, weighting=Focal(gamma, probability))


def hm_softmax(s: float = 32.0, keep: float = 0.9, margin: Margin | None = None, divide: str = "kept") -> Objective:
    """HM-Softmax: the floor(keep · B) highest losses at scale s, over any margin. Source: MV Sec. 3.1, Eq. 4.

    Defaults: s = 32, keep = 0.9 of MV Sec. 4.
    """
    return Objective(radius=Fixed(s), margin=margin, weighting=HardMining(keep, divide))


def mv_softmax(
    s: float = 32.0,
    margin: Margin | None = AdditiveAngle(0.5),  # noqa: B008  # frozen
    t: float | None = None,
    mode: Literal["fixed", "adaptive"] = "adaptive",
) -> Objective:
    """MV-Softmax: non-target cosines above the margined target become c + t, or (1 + t) c + t. Source: MV Eq. 6 to 8.

    Defaults: MV Sec. 4: s = 32, ArcFace's margin, adaptive; t = 0.3 for an additive angle, 0.2 for an additive cosine,
    and with mode "fixed" 0.2 and 0.25. For any other margin t must be given.

    Differs: the authors' code has the margin only where cosθ > 0 (`beyond_pi="easy"` of the angle), but compares the
    negatives with the margined value everywhere; here they are compared with the target that the loss uses.
    """
    checks.choice("mode", mode, ("fixed", "adaptive"))
    if t is None:
        kind = getattr(margin, "kind", "none")
        if (kind, mode) not in MV_T:
            raise checks.InputError(f"the paper gives no t for this margin ({kind}); give t, such as 0.2")
        t = MV_T[kind, mode]
    return Objective(radius=Fixed(s), margin=margin, negatives=MVFixed(t) if mode == "fixed" else MVAdaptive(t))


def subcenter_arcface(s: float = 64.0, m: float = 0.5, k: int = 3, beyond_pi: str = "linear") -> Objective:
    """Sub-center ArcFace: K weight rows per class, cos θ_j = max_k cos θ_jk, then ArcFace. Source: Deng et al. 2020.

    Defaults: s = 64, m = 0.5, K = 3 of the paper. After training, `heads.subcenters.drop_subcenters` keeps the dominant
    row of each class. Over any other base: `base.replace(subcenters=subcenters.Nearest(3))`.
    """
    return arcface(s, m, beyond_pi).replace(subcenters=Nearest(k))


def subcenter_cosface(s: float = 64.0, m: float = 0.35, k: int = 3) -> Objective:
    """Sub-center CosFace: K weight rows per class, cos θ_j = max_k cos θ_jk, then CosFace. Source: Deng et al. 2020.

    Defaults: s and m of Wang et al. 2018 (CosFace), K = 3 of Deng et al. See `subcenter_arcface`.
    """
    return cosface(s, m).replace(subcenters=Nearest(k))


def soft_triple(
    s: float = 20.0, delta: float = 0.01, k: int = 10, gamma: float = 0.1, tau: float = 0.2, eps: float = 0.0
) -> Objective:
    """SoftTriple: cos θ_j = Σ_k softmax_k(cos θ_jk / γ) cos θ_jk, target s (cos θ − δ), and the spread of sub-centres.

    s is the paper's λ; δ the margin; τ and `eps` as in `penalties.SubcenterSpread`, γ as in `subcenters.Weighted`. With
    k = 1 there is no spread. Defaults: λ = 20, δ = 0.01, K = 10, γ = 0.1, τ = 0.2 of the paper. Source: Qian et al.
    2019, Eq. 8 to 11.
    """
    base = cosface(s, delta).replace(subcenters=Weighted(k, gamma))
    return base if k == 1 else base + subcenter_spread(tau, eps)


def cm_softmax(
    p: float = 0.9,
    gamma: float | Literal["auto"] = 1.0,
    lower: float | None = None,
    upper: float | None = None,
    bound: str = "ideal",
    upper_factor: float = 3.0,
    detach_norm: bool = False,
) -> Objective:
    """CM-Softmax: logits f(‖x‖) cosθ_j, f the contraction of the norm; arguments as in `radius.Contraction`.

    Source: CM Eq. 4, 8, 9.
    """
    return Objective(radius=Contraction(p, gamma, lower, upper, bound, upper_factor, detach_norm))


def cm_m_softmax(
    margin: Margin = AdditiveAngle(0.5),  # noqa: B008  # frozen
    p: float = 0.9,
    gamma: float | Literal["auto"] = 1.0,
    lower: float | None = None,
    upper: float | None = None,
    bound: str = "ideal",
    upper_factor: float = 3.0,
    detach_norm: bool = False,
) -> Objective:
    """CM-M-Softmax: target f(‖x‖) margin(θ), others f(‖x‖) cosθ_j. Source: CM Eq. 5.

    Default margin: the additive angle of 0.5 that CM's ArcFace has.
    """
    return cm_softmax(p, gamma, lower, upper, bound, upper_factor, detach_norm).replace(margin=margin)


def magface(
    s: float = 64.0,
    l_a: float = 10.0,
    u_a: float = 110.0,
    l_m: float = 0.45,
    u_m: float = 0.8,
    lam: float = 35.0,
    beyond_pi: str = "linear",
) -> Objective:
    """MagFace: target s cos(θ + m(a)), a = ‖x‖ in [l_a, u_a], plus λ (1/a + a/u_a²). Source: Meng et al. 2021, Eq. 3-5.

    See `margins.NormAngle` and `penalties.Magnitude`.
    """
    margin, penalty = NormAngle(l_a, u_a, l_m, u_m, beyond_pi), Magnitude(lam, l_a, u_a)
    return Objective(radius=Fixed(s), margin=margin, penalties=(Term(1.0, penalty),))


def adaface(
    s: float = 64.0, m: float = 0.4, h: float = 0.333, statistics: str = "running", rate: float = 0.01
) -> Objective:
    """AdaFace: target s (cos(θ − m·ẑ) − (m + m·ẑ)), ẑ the normalised norm. Source: Kim et al. 2022, Eq. 14-16.

    See `margins.NormQuality`; `statistics="batch"` is the default of the authors' code.
    """
    return Objective(radius=Fixed(s), margin=NormQuality(m, h, statistics, rate))


def curricularface(s: float = 64.0, m: float = 0.5, rate: float = 0.01) -> Objective:
    """CurricularFace: ArcFace whose hard negatives become s cosθ_j (t + cosθ_j). Source: Huang et al. 2020, Eq. 4-7.

    t is a running mean of cosθ; see `negatives.Curricular`.
    """
    return Objective(radius=Fixed(s), margin=AdditiveAngle(m), negatives=Curricular(rate))


# (m, σ, σ with plus) of ElasticFace, by the form
ELASTIC = {"arc": (0.5, 0.05, 0.0125), "cos": (0.35, 0.05, 0.0025)}


def elasticface(
    form: str = "arc",
    s: float = 64.0,
    m: float | None = None,
    sigma: float | None = None,
    plus: bool = False,
    order: str = "rank",
    seed: int = 0,
    beyond_pi: str = "linear",
) -> Objective:
    """ElasticFace: ArcFace or CosFace with a margin drawn from N(m, σ) for each sample. Source: Boutros et al. 2022.

    `form` is `"arc"` or `"cos"`. Defaults of m: 0.5 or 0.35; of sigma: 0.05, with `plus` 0.0125 or 0.0025.
    See `margins.Elastic`.
    """
    usual, plain, with_plus = ELASTIC[checks.choice("form", form, ELASTIC)]
    m = usual if m is None else m
    sigma = (with_plus if checks.flag("plus", plus) else plain) if sigma is None else sigma
    base = "angle" if form == "arc" else "cosine"
    return Objective(radius=Fixed(s), margin=Elastic(base, m, sigma, plus, order, seed, beyond_pi))


def adacos(mode: str = "dynamic") -> Objective:
    """AdaCos: logits s cosθ_j, s = √2 log(C − 1), fixed or updated at every step. Source: Zhang et al. 2019, Eq. 12-14.

    See `radius.AdaCos`; C ≥ 3.
    """
    return Objective(radius=AdaCos(mode))


def dynamic_margin(
    s: float = 64.0,
    low: float = 0.05,
    high: float = 0.5,
    power: float = 0.25,
    counts: Sequence[int] | Literal["auto"] = "auto",
) -> Objective:
    """Dynamic margin: ArcFace whose margin falls with the images of the class. Source: Ha et al. 2020, Sec. 3.

    m_y = a n_y^(−power) + b from `high` for the fewest images to `low` for the most; see `margins.ClassAngle`.
    """
    margin = ClassAngle(low, high, power, counts)  # type: ignore[arg-type]  # it takes any sequence
    return Objective(radius=Fixed(s), margin=margin)


def weighted_softmax(
    s: float = 32.0,
    weights: Sequence[float] | str = "balanced",
    margin: Margin | None = None,
    divide: str = "rows",
    counts: Sequence[int] | Literal["auto"] | None = None,
) -> Objective:
    """Class weights: w_y times the loss at scale s, over any margin. Source: PyTorch, `cross_entropy(weight=...)`.

    See `weighting.ClassWeights`; `divide="weights"` is PyTorch's mean.
    """
    weighting = ClassWeights(weights, counts, divide)  # type: ignore[arg-type]  # it takes any sequence
    return Objective(radius=Fixed(s), margin=margin, weighting=weighting)


def sphereface2(
    form: Literal["C", "A", "M"] = "C",
    r: float = 40.0,
    m: float | None = None,
    t: float = 3.0,
    lam: float = 0.7,
    gradient: str = "exact",
) -> Objective:
    """SphereFace2: one sigmoid per class, (λ/r) log(1 + e^{−z_y}) + ((1 − λ)/r) Σ_{j≠y} log(1 + e^{z_j}).

    z_j = r g(cosθ_j) + b with b learned and g(c) = 2((c + 1)/2)^t − 1. "C" takes z_y = r (g(cosθ) − m) + b and adds
    m to the other g(cosθ_j); "A" takes g(cos(θ + m)) and "M" g(cos(mθ)) for the target, the angle at most π, with the
    gradient of g(cosθ). Defaults: r = 40, t = 3, λ = 0.7, m = 0.4 (C, A) or 1.7 (M). b starts where the loss is
    lowest if all angles are 90°, as in the authors' code. Source: Wen et al. 2022 (SphereFace2), Eq. 5 to 9.
    """
    checks.choice("form", form, ("C", "A", "M"))
    checks.number("r", r, low=0, open_low=True)
    checks.number("lam", lam, low=0, high=1, open_low=True, open_high=True)
    m = (1.7 if form == "M" else 0.4) if m is None else m
    target = PowerCosine(m, t, {"C": "cosine", "A": "angle", "M": "multiple"}[form], gradient)
    return Objective(
        radius=Fixed(r),
        margin=target,
        negatives=PowerNegatives(m if form == "C" else 0.0, t, gradient),
        classifier=Sigmoid(lam / r, (1 - lam) / r, "balanced"),
    )


def uniface(s: float = 64.0, m: float = 0.4, lam: float = 1.0) -> Objective:
    """UniFace: log(1 + e^{−s(cosθ − m) − b}) + λ Σ_{j≠y} log(1 + e^{s cosθ_j + b}), b learned.

    Defaults: s = 64, m = 0.4, λ = 1 (no weight). b starts at −log(10 C), as in the authors' code. Source: Zhou et al.
    2023 (UniFace). Differs: the paper's b is −b; the authors' code clamps every logit to ±s, without gradient beyond.
    """
    return Objective(radius=Fixed(s), margin=AdditiveCosine(m), classifier=Sigmoid(1.0, lam, "classes"))


def siglip(s: float = 10.0, b: float = -10.0, learn: bool = True) -> Objective:
    """SigLIP's sigmoid loss over class weights: log(1 + e^{−z_y}) + Σ_{j≠y} log(1 + e^{z_j}), z_j = s cosθ_j + b.

    s and b are learned, from 10 and −10. Source: Zhai et al. 2023 (SigLIP), Sec. 3.2. Differs: the paper pairs images
    and texts of a batch, whose place the class weights take, and learns log s.
    """
    return Objective(radius=_scale(s, learn), classifier=Sigmoid(start=checks.number("b", b), learn=learn))


def label_smoothing(s: float = 32.0, smoothing: float = 0.1, margin: Margin | None = None) -> Objective:
    """Softmax with label smoothing: the label has the probability 1 − ε + ε/C and every other class ε/C.

    Over any margin; the logits are those with the margin. In another objective:
    `replace(classifier=losses.classifiers.Softmax(0.1))`. Defaults: ε = 0.1 of the paper, s = 32 as our other losses
    over any margin. Source: Szegedy et al. 2016, Sec. 7.
    """
    return Objective(radius=Fixed(s), margin=margin, classifier=Softmax(smoothing))


def circle(m: float = 0.25, gamma: float = 256.0, detach: bool = True) -> Objective:
    """Circle loss at class level: softmax over γ [1 + m − cosθ]₊ (cosθ − 1 + m) and γ [cosθ_j + m]₊ (cosθ_j − m).

    With `detach` the factors in brackets have no gradient, as in the paper and its code. Defaults: m = 0.25, γ = 256.
    Source: Sun et al. 2020 (circle loss), Eq. 6 to 8.
    """
    return Objective(radius=Fixed(gamma), margin=CircleCosine(m, detach), negatives=Circle(m, detach))


def c_contrastive(m: float = 1.0, classes: str = "sum") -> Objective:
    """C-contrastive, alone or added to another loss; see `penalties.CContrastive`. Source: NF Eq. 10."""
    return _penalty(CContrastive(m, classes))


def c_triplet(m: float = 0.8, classes: str = "sum", center: str | None = None) -> Objective:
    """C-triplet, alone or added to another loss; see `penalties.CTriplet`. Source: NF Eq. 11."""
    return _penalty(CTriplet(m, classes, center))


def proxy_anchor(alpha: float = 32.0, delta: float = 0.1) -> Objective:
    """Proxy-Anchor, alone or added to another loss; see `penalties.ProxyAnchor`. Source: Kim et al. 2020, Eq. 4.

    Defaults: α = 32, δ = 0.1 of the paper.
    """
    return _penalty(ProxyAnchor(alpha, delta))


def iam(beta: float = 0.1, s: float | None = None, logits: str = "plain") -> Objective:
    """The inter-class angular margin, added to another loss; see `penalties.IAM`. Source: IAM Eq. 7, 8, 12.

    Default: β = 0.1 of IAM Table 5; Table 3, without a margin, has 0.8.
    """
    return _penalty(IAM(beta, s, logits))


def feature_incay(
    lam: float = 0.1,
    form: str = "reciprocal",
    eps: float = 1e-8,
    bound: float | str | None = None,
    start_step: int = 0,
    reference_norm: float | None = None,
) -> Objective:
    """Feature incay, added to another loss; see `penalties.FeatureIncay`. Source: FI Eq. 8.

    Default: λ = 0.1, the best of FI Table 3 (1, 0.1 and 0.01).
    """
    return _penalty(FeatureIncay(lam, form, eps, bound, start_step, reference_norm))


def ring_loss(lam: float = 0.01, radius: float | None = None) -> Objective:
    """Ring loss, added to another loss; see `penalties.Ring`. Source: Zheng et al. 2018.

    Default: λ = 0.01, the value of our recipe for IAM Table 5.
    """
    return _penalty(Ring(lam, radius))


def subcenter_spread(tau: float = 0.2, eps: float = 0.0) -> Objective:
    """The spread of each class's sub-centres, added to another loss; see `penalties.SubcenterSpread`.

    Default: τ = 0.2 of Qian et al. Source: Qian et al. 2019, Eq. 9 to 11.
    """
    return _penalty(SubcenterSpread(tau, eps))


def center_loss(lam: float = 0.003, alpha: float = 0.5, normalize: bool = False) -> Objective:
    """Center loss, added to another loss; see `center.CenterLoss`. Source: Wen et al. 2016.

    Defaults: λ = 0.003, α = 0.5 of Wen et al.; NF takes λ = 0.008.
    """
    return Objective(center_loss=CenterLoss(lam, alpha, normalize))


def cross_batch_memory(size: int = 8192, margin: float = 0.5, weight: float = 1.0, start_step: int = 0) -> Objective:
    """Cross-batch memory, added to another loss; see `memory.CrossBatchMemory`. Source: Wang et al. 2020.

    Defaults: size, margin and weight of the authors' code, which starts at step 1,000 or 2,000.
    """
    return Objective(cross_batch_memory=CrossBatchMemory(size, margin, weight, start_step))


ALIASES: dict[str, Callable[..., Objective]] = {
    alias.__name__: alias
    for alias in (
        softmax,
        weight_normalized,
        feature_normalized,
        l2_softmax,
        normface,
        coco,
        cosface,
        arcface,
        combined_margin,
        sphereface,
        l_softmax,
        focal_softmax,
        hm_softmax,
        mv_softmax,
        subcenter_arcface,
        subcenter_cosface,
        soft_triple,
        cm_softmax,
        cm_m_softmax,
        magface,
        adaface,
        curricularface,
        elasticface,
        adacos,
        dynamic_margin,
        weighted_softmax,
        sphereface2,
        uniface,
        siglip,
        label_smoothing,
        circle,
        c_contrastive,
        c_triplet,
        proxy_anchor,
        iam,
        feature_incay,
        ring_loss,
        subcenter_spread,
        center_loss,
        cross_batch_memory,
    )
}


def list_losses() -> list[str]:
    """The names of the losses, for `build` and for `kind:` in a recipe.

    >>> list_losses()[:3]
    ['softmax', 'weight_normalized', 'feature_normalized']
    """
    return list(ALIASES)


def build(name: str, **parameters: Any) -> Objective:
    """The objective with this name; a margin may be a mapping such as `{"kind": "additive_angle", "m": 0.5}`.

    >>> build("arcface", s=64, m=0.5) == arcface(64, 0.5)
    True
    """
    checks.choice("kind of objective", name, ALIASES)
    if "margin" in parameters:
        parameters["margin"] = serialize.build_piece("margin", parameters["margin"])
    if isinstance(parameters.get("annealing"), Mapping):
        parameters["annealing"] = serialize.call_checked(Annealing, "annealing", parameters["annealing"])
    objective: Objective = serialize.call_checked(ALIASES[name], name, parameters)
    return objective


def from_recipe(mapping: Mapping[str, Any] | str) -> Objective:
    """The objective of a recipe: its pieces, or `kind: NAME` with its parameters and further pieces.

    A plain name is the loss with its defaults.

    >>> from_recipe({"kind": "arcface", "s": 64, "m": 0.5, "iam": {"beta": 0.1}}) == arcface(64, 0.5) + iam(0.1)
    True
    >>> from_recipe("arcface") == arcface()
    True
    """
    if isinstance(mapping, str):
        mapping = {"kind": mapping}
    if not isinstance(mapping, Mapping):
        raise checks.InputError(f"an objective must be a mapping or the name of a loss; got {checks.shown(mapping)}")
    if "kind" not in mapping:
        return serialize.from_mapping(mapping)
    parameters = dict(mapping)
    name = checks.choice("objective.kind", parameters.pop("kind"), ALIASES, hint=serialize.PLUGIN_HINT)
    own = inspect.signature(ALIASES[name]).parameters
    rest = {key: parameters.pop(key) for key in serialize.part_names() if key in parameters and key not in own}
    _refuse_bare_margin(name, own, rest)
    return build(name, **parameters).replace(**{key: serialize.build_part(key, value) for key, value in rest.items()})


def _refuse_bare_margin(name: str, own: Mapping[str, object], rest: Mapping[str, object]) -> None:
    """Refuse `margin: 0.3`: the size of a loss's margin is a parameter of the loss, and `margin` is a whole piece."""
    value = rest.get("margin")
    if value is None or isinstance(value, Mapping) or hasattr(value, "kind"):
        return
    shown = checks.shown(value)
    way = f"for the margin of {name}, set objective.m={shown}" if "m" in own else f"{name} has no margin of its own"
    raise checks.InputError(
        f"objective.margin must be a whole margin, such as {{kind: additive_angle, m: 0.3}}; got {shown}; {way}"
    )


def _scale(s: float, learn: bool) -> Fixed | Learned:
    return Learned(s) if checks.flag("learn", learn) else Fixed(s)


def _penalty(penalty: Penalty) -> Objective:
    return Objective(penalties=(Term(1.0, penalty),))
