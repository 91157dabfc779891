"""An objective in words and as a formula."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from angulus.losses import roles

if TYPE_CHECKING:
    from angulus.losses.objective import Objective


def words(objective: Objective) -> Iterator[str]:
    """The parts of the objective in words, one string each."""
    o = objective
    if o.radius is not None:
        details = " with bias" * o.bias + (f" (eps = {o.eps:g})" if o.eps else "")
        yield f"{_factor(o.cross_entropy, ' × ')}{o.classifier.name} on {o.weights} weights{details}"
        yield o.radius.words()
        if o.classifier.words():
            yield o.classifier.words()
        if o.margin is not None:
            yield f"target {o.margin.formula()}{_options(o)}"
        if o.negatives.remaps:
            above = ", I_j = 1 where cos θ_j exceeds the margined target" if o.compares else ""
            yield f"negatives {o.negatives.formula()}{above}"
        if o.weighting is not None:
            yield o.weighting.words()
    if o.subcenters is not None:
        yield o.subcenters.words()
    for weight, penalty in o.penalties:
        yield _factor(weight, " × ") + penalty.words()
    for term in o.feature_terms:
        yield term.words()
    if o.ramp is not None:
        yield o.ramp.words()
    if o.nested:
        yield _nested(o)


def formula(objective: Objective) -> str:
    """The loss of one sample as a formula; symbols that it leaves open are defined after it."""
    o = objective
    terms = [_factor(weight, "·") + _at_base(o, penalty).formula() for weight, penalty in o.penalties]
    terms += [term.formula() for term in o.feature_terms]
    where = [] if o.subcenters is None else [o.subcenters.formula()]
    if o.nested:
        where.append(_nested(o))
    if o.radius is None:
        return ", ".join([" + ".join(terms), *where])
    raw = o.weights == "raw"
    target = "cos θ" if o.margin is None else o.margin.formula()
    t = f"{o.radius.formula()}·{'‖w_y‖·' * raw}{target}{' + b_y' * o.bias}"
    z = f"{o.radius.formula()}·{'‖w_j‖·' * raw}{o.negatives.formula()}{' + b_j' * o.bias}"
    factor = _factor(o.cross_entropy, "·") + ("" if o.weighting is None else f"{o.weighting.formula()}·")
    fraction = o.classifier.loss_formula()
    body = f"{factor}({fraction})" if factor else fraction
    where = [f"t = {t}{_options(o)}", f"z_j = {z}", *where]
    if o.radius.where:
        where.append(o.radius.where)
    if o.eps:
        where.append(f"unit vectors v / √(‖v‖² + {o.eps:g})")
    if o.plain_probability:
        where.append("p° without margin")
    if o.ramp is not None:
        where.append(o.ramp.words())
    return ", ".join([" + ".join([body, *terms]), *where])


def _nested(objective: Objective) -> str:
    return f"summed over the first {', '.join(map(str, objective.nested))} and all numbers of the feature"


def _factor(number: float, sign: str) -> str:
    return "" if number == 1 else f"{number:g}{sign}"


def _options(objective: Objective) -> str:
    options = "" if objective.margin is None else objective.margin.options
    return f" ({options})" if options else ""


def _at_base(objective: Objective, penalty: roles.Penalty) -> roles.Penalty:
    """The penalty with the base's scale written in, if that is a number already."""
    scale = None if objective.radius is None else objective.radius.scale
    return penalty if scale is None else penalty.at_scale(scale)
