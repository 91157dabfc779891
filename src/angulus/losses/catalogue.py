"""The losses by their papers' names, each an `Objective` of a few pieces; `ALIASES` is the table.

Angles are in radians; s, m and t are the papers'. Every alias has defaults: those of its paper, or of the paper here
that compares with it, as its docstring says.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

from angulus.core import checks
from angulus.losses import serialize
from angulus.losses.center import CenterLoss
from angulus.losses.margins import AdditiveAngle, AdditiveCosine, Annealing, Combined, Multiplicative
from angulus.losses.negatives import MVAdaptive, MVFixed
from angulus.losses.objective import Objective, Term
from angulus.losses.penalties import IAM, CContrastive, CTriplet, FeatureIncay, Ring
from angulus.losses.radius import Coco, Contraction, Fixed, Identity, Learned
from angulus.losses.roles import Margin, Penalty
from angulus.losses.weighting import Focal, HardMining

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
    """
    checks.choice("mode", mode, ("fixed", "adaptive"))
    if t is None:
        kind = getattr(margin, "kind", "none")
        if (kind, mode) not in MV_T:
            raise checks.InputError(f"the paper gives no t for this margin ({kind}); give t, such as 0.2")
        t = MV_T[kind, mode]
    return Objective(radius=Fixed(s), margin=margin, negatives=MVFixed(t) if mode == "fixed" else MVAdaptive(t))


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


def c_contrastive(m: float = 1.0, classes: str = "sum") -> Objective:
    """C-contrastive, alone or added to another loss; see `penalties.CContrastive`. Source: NF Eq. 10."""
    return _penalty(CContrastive(m, classes))


def c_triplet(m: float = 0.8, classes: str = "sum", center: str | None = None) -> Objective:
    """C-triplet, alone or added to another loss; see `penalties.CTriplet`. Source: NF Eq. 11."""
    return _penalty(CTriplet(m, classes, center))


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


def center_loss(lam: float = 0.003, alpha: float = 0.5, normalize: bool = False) -> Objective:
    """Center loss, added to another loss; see `center.CenterLoss`. Source: Wen et al. 2016.

    Defaults: λ = 0.003, α = 0.5 of Wen et al.; NF takes λ = 0.008.
    """
    return Objective(center_loss=CenterLoss(lam, alpha, normalize))


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
        cm_softmax,
        cm_m_softmax,
        c_contrastive,
        c_triplet,
        iam,
        feature_incay,
        ring_loss,
        center_loss,
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
