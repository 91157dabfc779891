"""Objectives as plain values and as words, and how they are changed, added and scaled."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

import angulus
from angulus import InputError, losses
from angulus.losses import ALIASES, Objective, build, from_recipe
from angulus.losses.center import CenterLoss
from angulus.losses.classifiers import Sigmoid, Softmax
from angulus.losses.margins import GRADIENTS, AdditiveAngle, AdditiveCosine, Annealing, Multiplicative
from angulus.losses.memory import CrossBatchMemory
from angulus.losses.negatives import Circle, Curricular, Keep, MVAdaptive, PowerCosine
from angulus.losses.objective import Term
from angulus.losses.penalties import IAM, FeatureIncay, Ring
from angulus.losses.radius import Coco, Contraction, Fixed, Identity, Learned
from angulus.losses.serialize import from_mapping, to_mapping
from angulus.losses.subcenters import Nearest, Weighted
from angulus.losses.weighting import Focal, HardMining
from losses.aliases import CASES
from losses.oracles import Case

L = losses
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@every_case
def test_mappings_bring_the_objective_back(case: Case) -> None:
    mapping = to_mapping(case.objective)
    assert from_mapping(mapping) == case.objective
    assert from_recipe(mapping) == case.objective
    through = json.loads(json.dumps(mapping, allow_nan=False))
    assert through == mapping
    assert from_mapping(through) == case.objective
    assert to_mapping(from_mapping(through)) == mapping
    backwards = dict(reversed(mapping.items()))
    assert from_mapping(backwards) == case.objective


def test_different_objectives_have_different_mappings() -> None:
    written = {}
    for case in CASES.values():
        written.setdefault(json.dumps(to_mapping(case.objective), sort_keys=True), set()).add(case.objective)
    assert all(len(objectives) == 1 for objectives in written.values())
    assert len(written) > 0.9 * len(CASES)


@every_case
def test_words_and_formula_mention_every_piece(case: Case) -> None:
    objective = case.objective
    words, formula = str(objective), objective.formula()
    # IAM at the base's scale is written with that scale, where it is fixed
    scale = f"{objective.radius.s:g}" if isinstance(objective.radius, Fixed) else "s"
    mentioned = [
        (penalty.words(), penalty.formula().replace("e^{s·", f"e^{{{scale}·")) for _, penalty in objective.penalties
    ]
    mentioned += [(f"{weight:g} × ", f"{weight:g}·") for weight, _ in objective.penalties if weight != 1]
    mentioned += [(term.words(), term.formula()) for term in objective.feature_terms]
    if objective.radius is not None:
        mentioned.append((objective.radius.words(), objective.radius.formula()))
        mentioned.append((f"{objective.weights} weights", "‖w_j‖" if objective.weights == "raw" else "z_j = "))
    if objective.margin is not None:
        mentioned.append((objective.margin.formula(), objective.margin.formula()))
    if objective.remaps:
        mentioned.append((objective.negatives.formula(), objective.negatives.formula()))
    if objective.weighting is not None:
        mentioned.append((objective.weighting.words(), objective.weighting.formula()))
    if objective.bias:
        mentioned.append(("with bias", "+ b_j"))
    if objective.eps:
        mentioned.append((f"eps = {objective.eps:g}", ""))
    if objective.cross_entropy != 1:
        mentioned.append(
            (f"{objective.cross_entropy:g} × {objective.classifier.name}", f"{objective.cross_entropy:g}·")
        )
    assert mentioned
    for said, written in mentioned:
        assert said in words
        assert written in formula
    assert ("cross-entropy" in words) == (objective.radius is not None)
    assert objective.radius is None or objective.classifier.loss_formula() in formula
    assert objective.classifier.words() in words
    assert "None" not in words and "None" not in formula


WRITTEN = {
    "softmax-bias": (
        "softmax cross-entropy on raw weights with bias; radius ‖x‖, the feature's own norm",
        "−log(e^t / (e^t + Σ_{j≠y} e^{z_j})), t = ‖x‖·‖w_y‖·cos θ + b_y, z_j = ‖x‖·‖w_j‖·cos θ_j + b_j",
    ),
    "mv_softmax-adaptive-am": (
        "softmax cross-entropy on unit weights; radius fixed at s = 16; target (cos θ − 0.35); negatives "
        "(cos θ_j + 0.25·(cos θ_j + 1)·I_j), I_j = 1 where cos θ_j exceeds the margined target",
        "−log(e^t / (e^t + Σ_{j≠y} e^{z_j})), t = 16·(cos θ − 0.35), z_j = 16·(cos θ_j + 0.25·(cos θ_j + 1)·I_j)",
    ),
    "focal_softmax-am-plain": (
        "softmax cross-entropy on unit weights; radius fixed at s = 8; target (cos θ − 0.35); focal weight (1 − p)^2, "
        "p without margin",
        "(1 − p°)^2·(−log(e^t / (e^t + Σ_{j≠y} e^{z_j}))), t = 8·(cos θ − 0.35), z_j = 8·cos θ_j, p° without margin",
    ),
    "normface-c_contrastive": (
        "softmax cross-entropy on unit weights; radius a learned s, starting at 20; 0.01 × C-contrastive with m = 1, "
        "sum over classes",
        "−log(e^t / (e^t + Σ_{j≠y} e^{z_j})) + 0.01·[‖x̂ − ŵ_y‖² + Σ_{j≠y} max(0, 1 − ‖x̂ − ŵ_j‖²)], t = s·cos θ, "
        "z_j = s·cos θ_j",
    ),
    "sphereface-annealing": (
        "softmax cross-entropy on unit weights; radius ‖x‖, the feature's own norm; target (λ cos θ + ψ_3(θ))/(1 + λ)",
        "−log(e^t / (e^t + Σ_{j≠y} e^{z_j})), t = ‖x‖·(λ cos θ + ψ_3(θ))/(1 + λ), z_j = ‖x‖·cos θ_j",
    ),
    "subcenter_cosface": (
        "softmax cross-entropy on unit weights; radius fixed at s = 16; target (cos θ − 0.35); 2 sub-centres per "
        "class, of which the nearest counts; 0.5 × sub-centres of a class drawn together with τ = 0.3",
        "−log(e^t / (e^t + Σ_{j≠y} e^{z_j})) + 0.5·0.3/(C·K(K − 1))·Σ_j Σ_{k<l} √(2 − 2 ŵ_jk·ŵ_jl), "
        "t = 16·(cos θ − 0.35), z_j = 16·cos θ_j, cos θ_j = max_k cos θ_jk, k = 1..2",
    ),
    "c_triplet-gated": (
        "C-triplet with m = 0.8, sum over classes, own-class term gated",
        "[Σ_{j≠y} max(0, 0.8 + ‖x̂ − ŵ_y‖² − ‖x̂ − ŵ_j‖²) + (‖x̂ − ŵ_y‖² for every hinge at zero)]",
    ),
    "c_triplet-additive-mean": (
        "C-triplet with m = 0.8, mean over classes, own-class term additive",
        "[1/(C − 1)·Σ_{j≠y} max(0, 0.8 + ‖x̂ − ŵ_y‖² − ‖x̂ − ŵ_j‖²) + ‖x̂ − ŵ_y‖²]",
    ),
    "c_triplet-hardest-additive": (
        "C-triplet with m = 0.8, hardest class alone, own-class term additive",
        "[max(0, 0.8 + ‖x̂ − ŵ_y‖² − min_{j≠y} ‖x̂ − ŵ_j‖²) + ‖x̂ − ŵ_y‖²]",
    ),
}


@pytest.mark.parametrize(("name", "words", "formula"), [(name, *texts) for name, texts in WRITTEN.items()])
def test_words_and_formulas_in_full(name: str, words: str, formula: str) -> None:
    assert str(CASES[name].objective) == words
    assert CASES[name].objective.formula() == formula


RECIPES: dict[str, tuple[dict[str, Any], Objective]] = {
    "a paper": ({"kind": "arcface", "s": 64, "m": 0.5}, L.arcface(64, 0.5)),
    "penalties next to it": (
        {"kind": "arcface", "s": 64, "m": 0.5, "feature_incay": {"lam": 0.01}, "iam": {"beta": 0.1, "weight": 2}},
        L.arcface(64, 0.5) + L.feature_incay(0.01) + 2 * L.iam(0.1),
    ),
    "a penalty that is null": ({"kind": "softmax", "iam": None}, L.softmax()),
    "pieces next to it": (
        {"kind": "arcface", "s": 64, "m": 0.5, "radius": {"kind": "contraction", "gamma": "auto"}, "weighting": None},
        L.arcface(64, 0.5).replace(radius=Contraction(gamma="auto")),
    ),
    "a margin of its own": (
        {"kind": "mv_softmax", "s": 32, "t": 0.3, "mode": "adaptive", "margin": {"kind": "additive_angle", "m": 0.5}},
        L.mv_softmax(32, AdditiveAngle(0.5), 0.3, "adaptive"),
    ),
    "no margin": (
        {"kind": "mv_softmax", "s": 32, "t": 0.3, "mode": "fixed", "margin": None},
        L.mv_softmax(32, None, 0.3, "fixed"),
    ),
    "annealing": (
        {"kind": "sphereface", "m": 4, "annealing": {"start": 500, "low": 2}},
        L.sphereface(4, annealing=Annealing(500, 2)),
    ),
    "a radius that is the alias's own": ({"kind": "ring_loss", "lam": 0.1, "radius": 3}, L.ring_loss(0.1, 3)),
    "an eps that is the alias's own": ({"kind": "normface", "eps": 1e-5}, L.normface(eps=1e-5)),
    "a center that is the alias's own": ({"kind": "c_triplet", "center": "gated"}, L.c_triplet(center="gated")),
    "a center next to it": ({"kind": "softmax", "center_loss": {"lam": 0.1}}, L.softmax() + L.center_loss(0.1)),
    "pieces": (
        {
            "radius": {"kind": "fixed", "s": 64},
            "margin": {"kind": "multiplicative", "m": 4, "annealing": {"low": 2}},
            "negatives": {"kind": "mv_adaptive", "t": 0.3},
            "ring_loss": {"lam": 0.1},
        },
        L.mv_softmax(64, Multiplicative(4, annealing=Annealing(low=2)), 0.3, "adaptive") + L.ring_loss(0.1),
    ),
    "pieces left out": ({"radius": {"kind": "identity"}}, L.weight_normalized()),
}


@pytest.mark.parametrize(("recipe", "objective"), RECIPES.values(), ids=RECIPES.keys())
def test_recipes(recipe: dict[str, Any], objective: Objective) -> None:
    before = json.dumps(recipe)
    assert from_recipe(recipe) == objective
    assert json.dumps(recipe) == before


def test_build_calls_the_alias() -> None:
    assert build("cosface", s=64, m=0.35) == L.cosface(64, 0.35)
    margin = {"kind": "combined", "multiplier": 1, "cosine": 0.1}
    assert build("cm_m_softmax", margin=margin).margin == losses.margins.Combined(cosine=0.1)
    assert build("focal_softmax", s=8, margin=AdditiveCosine(0.1)) == L.focal_softmax(8, margin=AdditiveCosine(0.1))
    assert {name: alias.__name__ for name, alias in ALIASES.items()} == {name: name for name in ALIASES}
    assert set(ALIASES) < set(losses.__all__)


def test_replace_changes_one_piece() -> None:
    base = L.arcface(64, 0.5) + 0.5 * L.ring_loss(0.1) + L.center_loss(0.2)
    changed = base.replace(radius=Identity(), weighting=Focal())
    assert (changed.radius, changed.weighting) == (Identity(), Focal())
    assert dataclasses.replace(changed, radius=base.radius, weighting=None) == base
    assert base.radius == Fixed(64)


@pytest.mark.parametrize("new", [L.iam(0.2), IAM(0.2), Term(1.0, IAM(0.2))], ids=["objective", "spec", "term"])
def test_replace_changes_a_penalty(new: Any) -> None:
    base = L.arcface(64, 0.5) + L.iam(0.1) + L.feature_incay(0.3)
    assert base.replace(iam=new) == L.arcface(64, 0.5) + L.iam(0.2) + L.feature_incay(0.3)
    assert base.replace(iam=None) == L.arcface(64, 0.5) + L.feature_incay(0.3)
    assert base.replace(iam=None).replace(iam=new) == base.replace(iam=new)


def test_replace_keeps_the_factor_of_a_scaled_objective() -> None:
    assert L.softmax().replace(ring_loss=0.5 * L.ring_loss(1)).penalties == (Term(0.5, Ring(1)),)


def test_replace_takes_a_center_as_an_objective_a_spec_or_none() -> None:
    base = L.softmax() + L.center_loss(0.1)
    assert base.replace(center_loss=L.center_loss(0.2)).center_loss == CenterLoss(0.2)
    assert base.replace(center_loss=CenterLoss(0.2)).center_loss == CenterLoss(0.2)
    assert base.replace(center_loss=None) == L.softmax()


def test_addition_is_the_same_in_any_order() -> None:
    parts = [L.arcface(64, 0.5), L.iam(0.1), L.feature_incay(0.2), L.center_loss(0.3)]
    wanted = parts[0] + parts[1] + parts[2] + parts[3]
    assert wanted.radius == Fixed(64) and wanted.margin == AdditiveAngle(0.5)
    assert wanted.penalties == (Term(1.0, FeatureIncay(0.2)), Term(1.0, IAM(0.1)))
    assert wanted.center_loss == CenterLoss(0.3)
    assert parts[3] + parts[2] + parts[1] + parts[0] == wanted
    assert (parts[2] + parts[3]) + (parts[1] + parts[0]) == wanted
    assert hash(parts[3] + parts[2] + parts[1] + parts[0]) == hash(wanted)


def test_addition_leaves_its_terms_as_they_were() -> None:
    base, penalty = L.softmax(), L.iam(0.1, 4)
    total = base + penalty
    assert (base, penalty) == (L.softmax(), L.iam(0.1, 4))
    assert total != base


def test_a_factor_scales_every_term() -> None:
    scaled = 0.5 * (L.arcface(64, 0.5) + 4 * L.iam(0.1) + L.center_loss(0.2))
    assert scaled.cross_entropy == 0.5
    assert scaled.penalties == (Term(2.0, IAM(0.1)),)
    assert scaled.center_loss == CenterLoss(0.1)
    assert scaled == (L.arcface(64, 0.5) + 4 * L.iam(0.1) + L.center_loss(0.2)) * 0.5
    assert 2 * (0.5 * L.softmax()) == L.softmax()
    assert 3 * L.c_triplet() + L.normface() == L.normface() + 3 * L.c_triplet()
    assert (3 * L.c_triplet()).cross_entropy == 1


@pytest.mark.parametrize("other", [1, "x", None, AdditiveCosine(0.1)], ids=str)
def test_only_objectives_and_penalties_are_added(other: Any) -> None:
    assert L.arcface() + IAM(0.1) == L.arcface() + L.iam(0.1)
    with pytest.raises(TypeError, match="unsupported operand"):
        L.softmax() + other


@pytest.mark.parametrize("factor", ["x", None, True, L.softmax()], ids=str)
def test_only_numbers_scale(factor: Any) -> None:
    with pytest.raises(TypeError, match=r"unsupported operand|can't multiply"):
        factor * L.softmax()


def test_what_keeps_state() -> None:
    stateful = {name for name, case in CASES.items() if case.objective.stateful}
    learned = {name for name, case in CASES.items() if {"s", "b", "R"} & set(case.learns)}
    seen = {name for name, case in CASES.items() if case.seen}
    centred = {name for name, case in CASES.items() if case.objective.feature_terms}
    unseen = {
        "cm_softmax-auto-unseen",
        "feature_incay-auto-unseen",
        "adaface",
        "curricularface",
        "adaface-without-norms",
    }
    assert stateful == learned | seen | centred | unseen | {"elasticface", "elasticface-cos-plus"}
    assert not Objective(radius=Fixed(2), negatives=Keep()).stateful
    assert L.mv_softmax(8, None, 0.1, "adaptive").remaps and not L.softmax().remaps
    assert L.mv_softmax(8, None, 0.1, "adaptive").negatives == MVAdaptive(0.1)
    assert L.hm_softmax(8).weighting == HardMining(0.9, "kept")


def test_losses_that_differ_have_formulas_that_differ() -> None:
    arc = [losses.arcface(64, 0.5, way, gradient) for way in ("linear", "plain", "easy") for gradient in GRADIENTS]
    cosface = losses.cosface(30, 0.35)
    others = [cosface + losses.iam(0.1, logits=logits) for logits in ("plain", "margin")]
    others += [
        cosface + losses.feature_incay(0.1, bound=bound, start_step=step) for bound in (None, 5.0) for step in (0, 9)
    ]
    others += [losses.normface(eps=eps) for eps in (0.0, 1e-3)]
    formulas = [objective.formula() for objective in arc + others]
    assert len(set(formulas)) == len(formulas)
    assert "e^{30·cos θ_j}" in others[0].formula()


def test_replace_center_takes_a_center_loss_alone() -> None:
    base = losses.arcface(64, 0.5)
    assert base.replace(center_loss=losses.center_loss(0.1)) == base + losses.center_loss(0.1)
    for wrong in (losses.iam(0.1), losses.normface() + losses.center_loss(0.1)):
        with pytest.raises(InputError, match="center_loss must be center_loss"):
            base.replace(center_loss=wrong)


def test_the_combined_margin_by_insightface_and_by_the_paper() -> None:
    """insightface: cos(m1 θ + m2) − m3. MV: cos(m1 θ + m3) − m2. Both by hand, at one θ."""
    theta, (m1, m2, m3) = 0.7, (1.1, 0.5, 0.2)
    point = torch.tensor(theta, dtype=torch.float64)
    insightface = L.combined_margin(64, multiplier=m1, angle=m2, cosine=m3).margin
    paper = L.combined_margin(64, multiplier=m1, angle=m3, cosine=m2).margin
    assert insightface is not None and paper is not None
    assert insightface(point, point).item() == pytest.approx(math.cos(m1 * theta + m2) - m3, rel=1e-12)
    assert paper(point, point).item() == pytest.approx(math.cos(m1 * theta + m3) - m2, rel=1e-12)
    assert insightface.formula() == "(cos(1.1θ + 0.5) − 0.2)"


@pytest.mark.parametrize(
    "typed", [lambda: L.combined_margin(64, 1.0, 0.5, 0.0), lambda: losses.margins.Combined(1.0, 0.5, 0.0)]
)
def test_the_three_margins_are_never_taken_by_place(typed: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="positional argument"):
        typed()


def test_a_recipe_with_the_papers_numbers_is_told_the_names() -> None:
    with pytest.raises(InputError, match=r"no parameter 'm1'.*it takes s, multiplier, angle, cosine, form"):
        from_recipe({"kind": "combined_margin", "s": 64, "m1": 1, "m2": 0.5, "m3": 0})


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (lambda: L.cosface(64, 28.6), "m = 28.6 is subtracted from the cosine"),
        (lambda: L.cosface(0.35, 64), "m = 64 is subtracted from the cosine"),
        (lambda: L.arcface(64, 3), "m = 3 is an angle in radians"),
        (lambda: L.combined_margin(64, angle=3), "angle = 3 is in radians"),
        (lambda: L.combined_margin(64, cosine=28.6), "cosine = 28.6 is subtracted"),
    ],
)
def test_a_margin_out_of_range_warns(made: Callable[[], object], named: str) -> None:
    with pytest.warns(UserWarning, match=f"{named}.*negative even at θ = 0; the papers use 0.5 radians"):
        made()


@pytest.mark.parametrize("made", [lambda: L.sphereface(64, 4), lambda: L.combined_margin(64, multiplier=28.6)])
def test_an_angle_taken_many_times_warns(made: Callable[[], object]) -> None:
    with pytest.warns(UserWarning, match="multiplies the angle; the papers use 3 and 4"):
        made()


@pytest.mark.parametrize("m", [0.0, 0.35, 0.5, 0.8, 1.0])
def test_usual_margins_do_not_warn(m: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        L.sphereface(4), L.l_softmax(2), L.combined_margin(multiplier=3)
        L.cosface(64, m), L.arcface(64, m), L.combined_margin(64, angle=m, cosine=0.1 * m)


DEFAULTS: dict[str, Objective] = {
    "softmax": Objective(radius=Identity(), weights="raw"),
    "weight_normalized": Objective(radius=Identity()),
    "feature_normalized": Objective(radius=Learned(20), weights="raw"),
    "l2_softmax": Objective(radius=Fixed(30), weights="raw"),
    "normface": Objective(radius=Learned(20)),
    "coco": Objective(radius=Coco()),
    "cosface": Objective(radius=Fixed(64), margin=AdditiveCosine(0.35)),
    "arcface": Objective(radius=Fixed(64), margin=AdditiveAngle(0.5)),
    "combined_margin": Objective(radius=Fixed(64), margin=losses.margins.Combined()),
    "sphereface": Objective(radius=Identity(), margin=Multiplicative(4)),
    "l_softmax": Objective(radius=Identity(), weights="raw", margin=Multiplicative(4)),
    "focal_softmax": Objective(radius=Fixed(32), weighting=Focal(2)),
    "hm_softmax": Objective(radius=Fixed(32), weighting=HardMining(0.9)),
    "mv_softmax": Objective(radius=Fixed(32), margin=AdditiveAngle(0.5), negatives=MVAdaptive(0.3)),
    "subcenter_arcface": Objective(radius=Fixed(64), margin=AdditiveAngle(0.5), subcenters=Nearest(3)),
    "subcenter_cosface": Objective(radius=Fixed(64), margin=AdditiveCosine(0.35), subcenters=Nearest(3)),
    "soft_triple": Objective(
        radius=Fixed(20),
        margin=AdditiveCosine(0.01),
        subcenters=Weighted(10, 0.1),
        penalties=(Term(1.0, losses.penalties.SubcenterSpread(0.2)),),
    ),
    "cm_softmax": Objective(radius=Contraction(0.9, 1.0)),
    "cm_m_softmax": Objective(radius=Contraction(0.9, 1.0), margin=AdditiveAngle(0.5)),
    "magface": Objective(
        radius=Fixed(64),
        margin=losses.margins.NormAngle(10, 110, 0.45, 0.8),
        penalties=(Term(1.0, losses.penalties.Magnitude(35, 10, 110)),),
    ),
    "adaface": Objective(radius=Fixed(64), margin=losses.margins.NormQuality(0.4, 0.333, "running", 0.01, 1e-3)),
    "curricularface": Objective(radius=Fixed(64), margin=AdditiveAngle(0.5), negatives=Curricular(0.01)),
    "elasticface": Objective(radius=Fixed(64), margin=losses.margins.Elastic("angle", 0.5, 0.05)),
    "adacos": Objective(radius=losses.radius.AdaCos("dynamic")),
    "dynamic_margin": Objective(radius=Fixed(64), margin=losses.margins.ClassAngle(0.05, 0.5, 0.25)),
    "weighted_softmax": Objective(radius=Fixed(32), weighting=losses.weighting.ClassWeights("balanced", "auto")),
    "sphereface2": Objective(
        radius=Fixed(40),
        margin=losses.margins.PowerCosine(0.4, 3.0),
        negatives=PowerCosine(0.4, 3.0),
        classifier=Sigmoid(0.7 / 40, (1 - 0.7) / 40, "balanced"),
    ),
    "uniface": Objective(radius=Fixed(64), margin=AdditiveCosine(0.4), classifier=Sigmoid(1, 1, "classes")),
    "siglip": Objective(radius=Learned(10), classifier=Sigmoid(1, 1, -10)),
    "label_smoothing": Objective(radius=Fixed(32), classifier=Softmax(0.1)),
    "circle": Objective(radius=Fixed(256), margin=losses.margins.CircleCosine(0.25), negatives=Circle(0.25)),
    "c_contrastive": Objective(penalties=(Term(1.0, losses.penalties.CContrastive(1.0)),)),
    "c_triplet": Objective(penalties=(Term(1.0, losses.penalties.CTriplet(0.8)),)),
    "proxy_anchor": Objective(penalties=(Term(1.0, losses.penalties.ProxyAnchor(32, 0.1)),)),
    "iam": Objective(penalties=(Term(1.0, IAM(0.1)),)),
    "feature_incay": Objective(penalties=(Term(1.0, FeatureIncay(0.1)),)),
    "ring_loss": Objective(penalties=(Term(1.0, Ring(0.01)),)),
    "subcenter_spread": Objective(penalties=(Term(1.0, losses.penalties.SubcenterSpread(0.2)),)),
    "center_loss": Objective(center_loss=CenterLoss(0.003, 0.5)),
    "cross_batch_memory": Objective(cross_batch_memory=CrossBatchMemory(8192, 0.5, 1.0, 0)),
}


def test_every_alias_has_the_defaults_of_its_paper() -> None:
    assert list(DEFAULTS) == angulus.list_losses() == list(ALIASES)
    for name, expected in DEFAULTS.items():
        assert ALIASES[name]() == build(name) == from_recipe({"kind": name}) == expected, name


@pytest.mark.parametrize(
    ("margin", "mode", "t"),
    [
        (AdditiveAngle(0.4), "fixed", 0.2),
        (AdditiveAngle(0.4), "adaptive", 0.3),
        (AdditiveCosine(0.3), "fixed", 0.25),
        (AdditiveCosine(0.3), "adaptive", 0.2),
    ],
)
def test_mv_takes_the_papers_t_for_its_margin(margin: Any, mode: Any, t: float) -> None:
    negatives: Any = L.mv_softmax(margin=margin, mode=mode).negatives
    assert negatives.t == t
    for other in (None, Multiplicative(3)):
        with pytest.raises(InputError, match=r"the paper gives no t for this margin .*; give t"):
            L.mv_softmax(margin=other, mode=mode)


@pytest.mark.parametrize("name", ["feature_incay", "ring_loss", "center_loss", "cross_batch_memory", "iam"])
def test_a_penalty_has_one_name(name: str) -> None:
    """In Python, as a kind, next to a kind, in the resolved mapping and in the state."""
    objective = L.arcface() + ALIASES[name]()
    mapping = to_mapping(objective)
    assert mapping[name]
    assert from_recipe({"kind": "arcface", name: mapping[name]}) == objective
    assert objective.replace(**{name: None}) == L.arcface()
    assert L.arcface().replace(**{name: ALIASES[name]()}) == objective


def test_a_plain_objective_has_nothing_but_the_class_weights() -> None:
    head = angulus.DenseHead(4, 3, L.arcface())
    weight = torch.eye(3, 4)
    head.load_state_dict({"weight": weight})
    assert torch.equal(head.weight, weight)
    head(torch.randn(2, 4), torch.tensor([0, 1]))
    assert list(head.state_dict()) == ["weight"]
    for name, case in CASES.items():
        bound = case.bind(12, 8) if case.least <= 12 else None
        assert bound is None or bool(bound.state_dict()) == case.objective.stateful or "incay" in name, name
