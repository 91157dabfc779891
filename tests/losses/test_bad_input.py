"""Whatever breaks a rule is refused in a sentence that names the argument, the rule, the value and the way out."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from angulus import DenseHead, InputError, class_loss, losses
from angulus.losses import BoundObjective, Objective, margins, negatives, penalties, radius, weighting
from angulus.losses.center import CenterLoss
from angulus.losses.classifiers import Sigmoid, Softmax
from angulus.losses.serialize import from_mapping
from losses.aliases import CASES
from losses.oracles import Case

L = losses
NAN, INF = math.nan, math.inf
FEATURES = torch.tensor([[0.9, 0.1, -0.4], [-0.3, 1.3, 0.2], [0.5, -0.8, 1.0], [0.7, 0.6, -1.1]])
WEIGHT = FEATURES.flip(0)
LABELS = torch.tensor([0, 1, 2, 3])

PARAMETERS: dict[str, tuple[Callable[[], Any], str]] = {
    # radius
    "fixed s = 0": (lambda: radius.Fixed(0), "s must be a finite number > 0; got 0"),
    "fixed s < 0": (lambda: L.arcface(-64, 0.5), "s must be a finite number > 0; got -64"),
    "fixed s nan": (lambda: L.cosface(NAN, 0.5), "s must be a finite number > 0; got nan"),
    "fixed s inf": (lambda: L.cosface(INF, 0.5), "s must be a finite number > 0; got inf"),
    "fixed s text": (lambda: L.cosface("64", 0.5), "s must be a number > 0; got '64'"),
    "fixed s bool": (lambda: L.cosface(True, 0.5), "s must be a number > 0; got True"),
    "learned s = 0": (lambda: L.normface(0), "s must be a finite number > 0; got 0"),
    "learn": (lambda: L.normface(20, learn=1), "learn must be true or false; got 1"),
    "alpha": (lambda: L.l2_softmax(0), "alpha must be a finite number > 0; got 0"),
    "coco alpha": (lambda: L.coco(-1), "alpha must be a finite number > 0; got -1"),
    "eps < 0": (lambda: L.normface(eps=-1e-8), "eps must be a finite number >= 0; got -1e-08"),
    "p = 0": (lambda: L.cm_softmax(p=0), "p must be a finite number in (0, 1); got 0"),
    "p = 1": (lambda: L.cm_softmax(p=1), "p must be a finite number in (0, 1); got 1"),
    "gamma = 0": (lambda: L.cm_softmax(gamma=0), "gamma must be a finite number > 0; got 0; or 'auto', from the mean"),
    "gamma text": (lambda: L.cm_softmax(gamma="Auto"), "gamma must be a number > 0; got 'Auto'; or 'auto'"),
    "lower = 0": (lambda: L.cm_softmax(lower=0), "lower must be a finite number > 0; got 0"),
    "upper < lower": (lambda: L.cm_softmax(lower=5, upper=4), "upper must be a finite number >= 5; got 4"),
    "upper = 0": (lambda: L.cm_softmax(upper=0), "upper must be a finite number > 0; got 0"),
    "upper_factor = 1": (lambda: L.cm_softmax(upper_factor=1), "upper_factor must be a finite number > 1; got 1"),
    "bound": (lambda: L.cm_softmax(bound="exakt"), "bound must be one of 'ideal', 'exact'; got 'exakt'; did you mean"),
    "detach_norm": (lambda: L.cm_softmax(detach_norm=0), "detach_norm must be true or false; got 0"),
    # margins
    "cosface m < 0": (lambda: L.cosface(64, -0.35), "m must be a finite number >= 0; got -0.35"),
    "arcface m = pi": (lambda: L.arcface(64, math.pi), "m must be a finite number in [0, 3.14159); got 3.14159265"),
    "arcface m in degrees": (lambda: L.arcface(64, 28.6), "got 28.6; m is in radians"),
    "arcface m < 0": (lambda: L.arcface(64, -0.1), "m must be a finite number in [0, 3.14159); got -0.1"),
    "beyond_pi": (lambda: L.arcface(64, 0.5, "eazy"), "beyond_pi must be one of 'linear', 'plain', 'easy'; got 'eazy'"),
    "gradient": (lambda: L.arcface(64, 0.5, gradient="ste"), "gradient must be one of 'exact', 'straight_through'"),
    "magface l_a >= u_a": (
        lambda: L.magface(l_a=110, u_a=110),
        "u_a must be a finite number > 110; got 110; it is",
    ),
    "magface l_a = 0": (lambda: L.magface(l_a=0), "l_a must be a finite number > 0; got 0"),
    "magface l_m > u_m": (lambda: L.magface(l_m=0.9), "u_m must be a finite number in [0.9, 3.14159); got 0.8"),
    "magface lam": (lambda: L.magface(lam=-1), "lam must be a finite number >= 0; got -1"),
    "adaface m": (lambda: L.adaface(m=28.6), "m must be a finite number in [0, 1.5708); got 28.6; m is in radians"),
    "adaface h": (lambda: L.adaface(h=-1), "h must be a finite number >= 0; got -1"),
    "adaface rate": (lambda: L.adaface(rate=0), "rate must be a finite number in (0, 1]; got 0"),
    "adaface statistics": (lambda: L.adaface(statistics="bach"), "one of 'running', 'batch'; got 'bach'; did you mean"),
    "curricular rate": (lambda: L.curricularface(rate=2), "rate must be a finite number in [0, 1]; got 2"),
    "elastic form": (lambda: L.elasticface("arcface"), "form must be one of 'arc', 'cos'; got 'arcface'"),
    "elastic m": (lambda: L.elasticface(m=28.6), "m must be a finite number in [0, 3.14159); got 28.6"),
    "elastic sigma": (lambda: L.elasticface(sigma=-0.1), "sigma must be a finite number >= 0; got -0.1"),
    "elastic order": (lambda: L.elasticface(order="sort"), "order must be one of 'rank', 'argsort'; got 'sort'"),
    "elastic seed": (lambda: L.elasticface(seed=-1), "seed must be a whole number >= 0; got -1"),
    "adacos mode": (lambda: L.adacos("static"), "mode must be one of 'dynamic', 'fixed'; got 'static'"),
    "adacos C = 2": (lambda: L.adacos("fixed").bind(3, 2), "num_classes must be a whole number >= 3; got 2; AdaCos's"),
    "no images": (
        lambda: L.dynamic_margin(counts=[5, 0]),
        "counts[1] must be a whole number in [1, 9.0072e+15]; got 0; a class without training images",
    ),
    "equal counts": (lambda: L.dynamic_margin(counts=[5, 5, 5]), "all 3 have 5, for which a and b are undefined"),
    "equal powers": (
        lambda: L.dynamic_margin(counts=[9, 10], power=1e3),
        "all 2 have 9 to 10 (the same at power 1000)",
    ),
    "no counts": (lambda: L.dynamic_margin().bind(3, 4), "class_angle needs the number of training images of each"),
    "counts of C": (lambda: L.dynamic_margin(counts=[1, 2]).bind(3, 4), "class_angle has 2 numbers for 4 classes"),
    "counts text": (
        lambda: L.dynamic_margin(counts="all"),
        "counts must be one of 'auto'; got 'all'; or the number",
    ),
    "counts a number": (lambda: L.dynamic_margin(counts=7), "counts must be a list of numbers, one per class; got 7"),
    "range": (
        lambda: L.dynamic_margin(low=0.5),
        "low must be < high, the range of the margins; got low = 0.5 and high = 0.5",
    ),
    "range reversed": (
        lambda: L.dynamic_margin(low=0.6),
        "low must be < high, the range of the margins; got low = 0.6 and high = 0.5",
    ),
    "class weight 0": (
        lambda: L.weighted_softmax(weights=[1, 0]),
        "weights[1] must be a finite number > 0; got 0; to leave a class out, give its rows the label -100",
    ),
    "class weights text": (lambda: L.weighted_softmax(weights="even"), "weights must be one of 'balanced'; got 'even'"),
    "class weights of C": (lambda: L.weighted_softmax(weights=[1, 2]).bind(3, 3), "class_weights has 2 numbers for 3"),
    "weights and counts": (lambda: L.weighted_softmax(weights=[1, 2], counts=[3, 4]), "counts are read only with weig"),
    "class weights divide": (
        lambda: L.weighted_softmax(divide="sum"),
        "divide must be one of 'rows', 'weights'; got 'sum'",
    ),
    "sphereface m < 1": (lambda: L.sphereface(0), "m must be a whole number >= 1; got 0"),
    "sphereface m fraction": (lambda: L.sphereface(1.5), "m must be a whole number >= 1; got 1.5; form='raw' takes a"),
    "sphereface raw m < 1": (lambda: L.sphereface(0.9, form="raw"), "m must be a finite number >= 1; got 0.9"),
    "sphereface form": (lambda: L.sphereface(4, form="cos"), "form must be one of 'psi', 'raw'; got 'cos'"),
    "annealing < 0": (lambda: L.sphereface(4, annealing=-1), "annealing must be a finite number >= 0; got -1"),
    "annealing text": (lambda: L.l_softmax(4, "slow"), "annealing must be a number >= 0; got 'slow'; or an Annealing"),
    "annealing start": (lambda: margins.Annealing(start=-1), "annealing.start must be a finite number >= 0; got -1"),
    "annealing low": (lambda: margins.Annealing(low=-1), "annealing.low must be a finite number >= 0; got -1"),
    "annealing power": (
        lambda: margins.Annealing(power=-1),
        "annealing.power must be a finite number >= 0; got -1",
    ),
    "annealing rate": (lambda: margins.Annealing(rate=-1), "annealing.rate must be a finite number >= 0; got -1"),
    "combined multiplier < 1": (
        lambda: L.combined_margin(64, multiplier=0.9),
        "multiplier must be a finite number >= 1; got 0.9",
    ),
    "combined cosine < 0": (
        lambda: L.combined_margin(64, cosine=-0.1),
        "cosine must be a finite number >= 0; got -0.1",
    ),
    "combined angle >= pi": (lambda: L.combined_margin(64, angle=4), "got 4; angle is in radians"),
    "combined form": (lambda: L.combined_margin(64, form="PSI"), "form must be one of 'raw', 'psi'; got 'PSI'"),
    "combined gradient": (
        lambda: margins.Combined(gradient="x"),
        "gradient must be one of 'exact', 'straight_through'",
    ),
    "multiplicative gradient": (lambda: margins.Multiplicative(2, gradient="x"), "gradient must be one of 'exact'"),
    # weighting and negatives
    "focal gamma < 0": (lambda: L.focal_softmax(64, -1), "gamma must be a finite number >= 0; got -1"),
    "focal probability": (lambda: L.focal_softmax(64, probability="p"), "probability must be one of 'margin', 'plain'"),
    "keep = 0": (lambda: L.hm_softmax(64, 0), "keep must be a finite number in (0, 1]; got 0"),
    "keep > 1": (lambda: L.hm_softmax(64, 90), "keep must be a finite number in (0, 1]; got 90"),
    "divide": (lambda: L.hm_softmax(64, divide="n"), "divide must be one of 'kept', 'all'; got 'n'"),
    "fixed t < 0": (lambda: L.mv_softmax(32, None, -0.1, "fixed"), "t must be a finite number >= 0; got -0.1"),
    "adaptive t < 0": (lambda: L.mv_softmax(32, None, -0.1, "adaptive"), "t must be a finite number >= 0; got -0.1"),
    "mv mode": (
        lambda: L.mv_softmax(32, None, 0.1, "adaptiv"),
        "mode must be one of 'fixed', 'adaptive'; got 'adaptiv'; did you mean 'adaptive'?",
    ),
    # penalties
    "iam beta < 0": (lambda: L.iam(-0.1), "beta must be a finite number >= 0; got -0.1"),
    "iam s": (lambda: L.iam(0.1, 0), "s must be a finite number > 0; got 0"),
    "iam logits": (lambda: L.iam(0.1, logits="plane"), "logits must be one of 'plain', 'margin'; got 'plane'; did you"),
    "incay lam": (lambda: L.feature_incay(-1), "lam must be a finite number >= 0; got -1"),
    "incay form": (lambda: L.feature_incay(1, "inverse"), "form must be one of 'reciprocal', 'log', 'linear'"),
    "incay eps": (lambda: L.feature_incay(1, eps=-1), "eps must be a finite number >= 0; got -1"),
    "incay bound": (lambda: L.feature_incay(1, bound=0), "bound must be a finite number > 0; got 0; or 'auto'"),
    "incay bound text": (
        lambda: L.feature_incay(1, bound="mean"),
        "bound must be one of 'auto'; got 'mean'; or a norm",
    ),
    "incay start_step": (lambda: L.feature_incay(1, start_step=-1), "start_step must be a whole number >= 0; got -1"),
    "incay start_step fraction": (lambda: L.feature_incay(1, start_step=0.5), "start_step must be a whole number"),
    "incay reference": (lambda: L.feature_incay(1, bound="auto", reference_norm=0), "reference_norm must be a finite"),
    "incay reference unread": (
        lambda: L.feature_incay(1, bound=3.0, reference_norm=2),
        "reference_norm is read only with bound='auto'; got bound=3.0",
    ),
    "ring lam": (lambda: L.ring_loss(-1), "lam must be a finite number >= 0; got -1"),
    "ring radius": (lambda: L.ring_loss(1, 0), "radius must be a finite number > 0; got 0"),
    "c_contrastive m": (lambda: L.c_contrastive(0), "m must be a finite number in (0, 4]; got 0"),
    "c_contrastive m > 4": (lambda: L.c_contrastive(4.1), "m must be a finite number in (0, 4]; got 4.1"),
    "c_contrastive classes": (lambda: L.c_contrastive(1, "max"), "classes must be one of 'sum', 'mean'; got 'max'"),
    "c_triplet m": (lambda: L.c_triplet(-1), "m must be a finite number in (0, 4]; got -1"),
    "c_triplet classes": (lambda: L.c_triplet(1, "max"), "classes must be one of 'sum', 'mean', 'hardest'; got 'max'"),
    "c_triplet center": (lambda: L.c_triplet(center="both"), "center must be one of 'additive', 'gated'; got 'both'"),
    "sphereface2 form": (lambda: L.sphereface2("c"), "form must be one of 'C', 'A', 'M'; got 'c'"),
    "sphereface2 r": (lambda: L.sphereface2(r=0), "r must be a finite number > 0; got 0"),
    "sphereface2 lam": (lambda: L.sphereface2(lam=1), "lam must be a finite number in (0, 1); got 1"),
    "sphereface2 t": (lambda: L.sphereface2(t=0.5), "t must be a finite number >= 1; got 0.5"),
    "sphereface2 m": (lambda: L.sphereface2(m=-0.1), "m must be a finite number >= 0; got -0.1"),
    "sphereface2-A m": (lambda: L.sphereface2("A", m=4), "m must be a finite number in [0, 3.14159); got 4"),
    "sphereface2-M m": (lambda: L.sphereface2("M", m=0.9), "m must be a finite number >= 1; got 0.9"),
    "sphereface2 gradient": (lambda: L.sphereface2(gradient="ste"), "gradient must be one of 'exact'"),
    "uniface lam": (lambda: L.uniface(lam=0), "negative must be a finite number > 0; got 0"),
    "siglip b": (lambda: L.siglip(b=NAN), "b must be a finite number; got nan"),
    "sigmoid start": (lambda: Sigmoid(start="even"), "start must be a number; got 'even'; or 'balanced' or 'classes'"),
    "sigmoid learn": (lambda: Sigmoid(learn=1), "learn must be true or false; got 1"),
    "smoothing": (lambda: L.label_smoothing(smoothing=1), "smoothing must be a finite number in [0, 1); got 1"),
    "circle m": (lambda: L.circle(1.0), "m must be a finite number in [0, 1); got 1.0"),
    "circle detach": (lambda: L.circle(detach=1), "detach must be true or false; got 1"),
    "proxy_anchor alpha": (lambda: L.proxy_anchor(0), "alpha must be a finite number > 0; got 0"),
    "proxy_anchor delta": (lambda: L.proxy_anchor(delta=1.1), "delta must be a finite number in [0, 1]; got 1.1"),
    "proxy_anchor with eps": (lambda: L.normface(eps=0.1) + L.proxy_anchor(), "Proxy-Anchor need exact unit vectors"),
    "no classifier": (lambda: L.softmax().replace(classifier=None), "classifier must be a classifier piece; got None"),
    "a classifier without logits": (
        lambda: L.c_triplet().replace(classifier=Softmax(0.1)),
        "a softmax classifier needs logits; give the objective a radius",
    ),
    "circle negatives of raw weights": (
        lambda: L.softmax().replace(negatives=negatives.Circle()),
        "circle negatives change cosines, so weights must be 'unit' and bias false; got weights = 'raw'",
    ),
    "sigmoids of one class": (
        lambda: L.siglip().bind(3, 1),
        "the sigmoid classifier needs another class: num_classes must be >= 2; got 1",
    ),
    "proxy_anchor without positives": (
        lambda: class_loss(FEATURES, WEIGHT, torch.full((4,), -100), L.proxy_anchor()),
        "every label is -100 (ignored); a batch needs one row that counts",
    ),
    "center lam": (lambda: L.center_loss(-1), "lam must be a finite number >= 0; got -1"),
    "center alpha": (lambda: L.center_loss(1, 1.5), "alpha must be a finite number in [0, 1]; got 1.5"),
    "center normalize": (lambda: L.center_loss(1, normalize="no"), "normalize must be true or false; got 'no'"),
    "memory size": (lambda: L.cross_batch_memory(0), "size must be a whole number >= 1; got 0"),
    "memory margin": (lambda: L.cross_batch_memory(margin=1), "margin must be a finite number in [-1, 1); got 1"),
    "memory weight": (lambda: L.cross_batch_memory(weight=-1), "weight must be a finite number >= 0; got -1"),
    "memory start": (lambda: L.cross_batch_memory(start_step=-1), "start_step must be a whole number >= 0; got -1"),
    # pieces together
    "weights": (lambda: Objective(weights="units"), "weights must be one of 'unit', 'raw'; got 'units'; did you mean"),
    "bias": (lambda: L.softmax(bias=1), "bias must be true or false; got 1"),
    "cross_entropy": (lambda: Objective(cross_entropy=-1), "cross_entropy must be a finite number >= 0; got -1"),
    "a factor < 0": (lambda: -1 * L.iam(0.1), "the factor before an objective must be a finite number >= 0; got -1"),
    "radius is no piece": (lambda: Objective(radius=64), "radius must be a radius piece or None; got 64"),
    "a margin as radius": (lambda: L.softmax().replace(radius=margins.AdditiveCosine(0.1)), "AdditiveCosine lacks"),
    "margin is no piece": (lambda: L.mv_softmax(32, "arc", 0.1, "fixed"), "margin must be a margin piece or None"),
    "negatives is None": (lambda: L.softmax().replace(negatives=None), "negatives must be a negatives piece; got None"),
    "weighting is no piece": (
        lambda: L.softmax().replace(weighting=2.0),
        "weighting must be a weighting piece or None",
    ),
    "center is no piece": (
        lambda: L.softmax().replace(center_loss=0.1),
        "center_loss must be a CenterLoss or None; got 0.1",
    ),
    "memory is no piece": (
        lambda: L.softmax().replace(cross_batch_memory=8192),
        "cross_batch_memory must be a CrossBatchMemory or None; got 8192",
    ),
    "margin with eps": (
        lambda: L.normface(eps=1e-8).replace(margin=margins.AdditiveCosine(0.35)),
        "a margin acts on the exact angle, which has no eps; got eps = 1e-08; use 0",
    ),
    "mv over raw weights": (
        lambda: L.softmax().replace(negatives=negatives.MVFixed(0.2)),
        "weights must be 'unit' and bias false; got weights = 'raw', bias = False",
    ),
    "mv over a bias": (
        lambda: L.weight_normalized().replace(bias=True, negatives=negatives.MVAdaptive(0.2)),
        "weights must be 'unit' and bias false; got weights = 'unit', bias = True",
    ),
    "two radii": (lambda: L.softmax() + L.arcface(64, 0.5), "two cross-entropies, each with a radius, cannot be one"),
    "two of a penalty": (
        lambda: L.softmax() + L.iam(0.1, 2) + L.iam(0.2, 2),
        "iam is given twice; use replace(iam=...)",
    ),
    "two centres": (lambda: L.center_loss(1) + L.center_loss(2), "center_loss is given twice; use replace("),
    "two memories": (
        lambda: L.cross_batch_memory() + L.cross_batch_memory(9),
        "cross_batch_memory is given twice; use replace(",
    ),
    "iam on the norm": (lambda: L.softmax() + L.iam(0.1), "but the base has radius ‖x‖; give iam(..., s=...)"),
    "iam on a contraction": (lambda: L.cm_softmax() + L.iam(0.1), "but the base has radius f(‖x‖); give iam(..., s="),
    "iam without a margin": (
        lambda: L.normface() + L.iam(0.1, logits="margin"),
        "takes the base's margined cosine (logits='margin'), but the base",
    ),
    "margin without radius": (lambda: L.c_triplet().replace(margin=margins.AdditiveAngle(0.1)), "give it a radius"),
    "weighting without radius": (lambda: L.c_triplet().replace(weighting=weighting.Focal()), "give it a radius"),
    "negatives without radius": (lambda: L.c_triplet().replace(negatives=negatives.MVFixed(0.1)), "give it a radius"),
    "bias without radius": (lambda: L.c_triplet().replace(bias=True), "give it a radius"),
    "unknown piece": (
        lambda: L.softmax().replace(maring=None),
        "an objective has no piece 'maring'; did you mean 'margin'",
    ),
    "wrong penalty": (
        lambda: L.softmax().replace(ring_loss=L.iam(0.1, 2)),
        "ring_loss must be a ring_loss penalty or None; got",
    ),
    "no penalty": (lambda: L.softmax().replace(iam=0.1), "iam must be a iam penalty or None; got 0.1"),
    # by name and by recipe
    "unknown alias": (lambda: L.build("arcfase"), "got 'arcfase'; did you mean 'arcface'?"),
    "unknown parameter": (
        lambda: L.build("arcface", s=1, m=0.1, mm=2),
        "arcface has no parameter 'mm'; did you mean 'm'?",
    ),
    "missing parameter": (
        lambda: from_mapping({"margin": {"kind": "additive_angle"}}),
        "margin additive_angle needs m",
    ),
    "unknown kind": (
        lambda: L.from_recipe({"kind": "arc_face"}),
        "got 'arc_face'; did you mean 'arcface'?; a loss of your own is known only with --plugin FILE.py",
    ),
    "unknown kind of piece": (lambda: from_mapping({"radius": {"kind": "mine"}}), "got 'mine'; a loss of your own is"),
    "unknown name": (lambda: L.from_recipe("arc_face"), "got 'arc_face'; did you mean 'arcface'?"),
    "no mapping": (lambda: L.from_recipe(3), "an objective must be a mapping or the name of a loss; got 3"),
    "margin as a number": (
        lambda: L.from_recipe({"kind": "arcface", "margin": 0.3}),
        "m: 0.3}; got 0.3; for the margin of arcface, set objective.m=0.3",
    ),
    "margin of a loss without one": (
        lambda: L.from_recipe({"kind": "normface", "margin": 0.3}),
        "got 0.3; normface has no margin of its own",
    ),
    "margin of a loss that takes a piece": (
        lambda: L.from_recipe({"kind": "mv_softmax", "margin": 0.3}),
        "margin must be a mapping with a kind, such as {kind: ",
    ),
    "margin kind": (
        lambda: L.build("cm_m_softmax", margin={"kind": "angle"}),
        "margin.kind must be one of 'additive_c",
    ),
    "margin without kind": (lambda: L.build("cm_m_softmax", margin={"m": 0.5}), "margin.kind must be one of"),
    "margin parameter": (
        lambda: L.build("cm_m_softmax", margin={"kind": "additive_angle", "n": 0.5}),
        "margin additive_angle has no parameter 'n'",
    ),
    "margin as text": (lambda: L.build("cm_m_softmax", margin="arc"), "margin must be a mapping with a kind, such as"),
    "annealing parameter": (
        lambda: L.build("sphereface", m=4, annealing={"begin": 1}),
        "annealing has no parameter 'begin'; it takes start, low, rate",
    ),
    "annealing of a piece": (
        lambda: from_mapping({"margin": {"kind": "multiplicative", "m": 4, "annealing": {"lo": 1}}}),
        "margin.annealing has no parameter 'lo'; did you mean 'low'?; it takes start, low, rate",
    ),
    "unknown piece of a mapping": (
        lambda: from_mapping({"radios": {}}),
        "no piece 'radios'; did you mean 'radius'?; a loss of",
    ),
    "unknown piece next to a kind": (
        lambda: L.from_recipe({"kind": "softmax", "marginn": 1}),
        "no parameter 'marginn'",
    ),
    "null negatives": (lambda: L.from_recipe({"kind": "softmax", "negatives": None}), "negatives must be a negatives"),
    "penalty as a number": (lambda: from_mapping({"iam": 0.1}), "iam must be a mapping of its parameters, or null"),
    "penalty parameter": (
        lambda: from_mapping({"iam": {"bet": 0.1}}),
        "iam has no parameter 'bet'; did you mean 'beta'?",
    ),
    "penalty weight": (
        lambda: from_mapping({"iam": {"beta": 0.1, "weight": -1}}),
        "iam.weight must be a finite number",
    ),
    "center as a number": (
        lambda: from_mapping({"center_loss": 0.1}),
        "center_loss must be a mapping of its parameters, or null",
    ),
    "center parameter": (lambda: from_mapping({"center_loss": {"alpha": 0.5}}), "center_loss needs lam"),
    # binding
    "C = 0": (lambda: L.softmax().bind(3, 0), "num_classes must be a whole number >= 1; got 0"),
    "d = 0": (lambda: L.softmax().bind(0, 3), "embedding_size must be a whole number >= 1; got 0"),
    "d fraction": (lambda: L.softmax().bind(2.5, 3), "embedding_size must be a whole number"),
    "coco, C = 1": (lambda: L.coco().bind(3, 1), "num_classes must be a whole number >= 2; got 1"),
    "iam, C = 1": (
        lambda: (L.softmax() + L.iam(0.1, 2)).bind(3, 1),
        "iam needs another class: num_classes must be >= 2; got 1",
    ),
    "c_contrastive, C = 1": (
        lambda: L.c_contrastive().bind(3, 1),
        "c_contrastive needs another class: num_classes must be >= 2",
    ),
    "c_triplet, C = 1": (lambda: L.c_triplet().bind(3, 1), "c_triplet needs another class: num_classes must be >= 2"),
    "ideal bound, C = 2": (lambda: L.cm_softmax().bind(3, 2), "needs C >= 3 classes; got C = 2; give lower and upper"),
    "ideal bound, p small": (
        lambda: L.cm_softmax(p=0.25).bind(3, 5),
        "p must exceed 1 / (C - 1) = 0.25 for a positive lower bound with C = 5 classes; got 0.25; raise p",
    ),
    "exact bound, p small": (lambda: L.cm_softmax(p=0.2, bound="exact").bind(3, 5), "p must exceed 1 / C = 0.2, which"),
    "upper below the ideal": (
        lambda: L.cm_softmax(upper=4).bind(8, 10),
        "upper must be >= lower = 4.27667; got 4; give",
    ),
    "nothing trains": (lambda: L.iam(0.1, 4).bind(2, 3), "nothing here trains the class weights"),
    "nothing trains but a memory": (
        lambda: L.cross_batch_memory().bind(2, 3),
        "add a base loss such as softmax()",
    ),
    "nothing trains but centres": (lambda: L.center_loss(0.1).bind(2, 3), "add a base loss such as softmax()"),
    "iam alone": (lambda: (L.c_triplet() + L.iam(0.1)).bind(2, 3), "from a base with one s, but here is no base loss"),
    "a head of a bound objective": (
        lambda: DenseHead(3, 4, L.softmax().bind(3, 4)),
        "must be an unbound angulus.losses",
    ),
    "a head of a name": (lambda: DenseHead(3, 4, "softmax"), "objective must be an unbound angulus.losses.Objective"),
    "a head's kernel": (
        lambda: DenseHead(3, 4, L.softmax(), impl="refrence"),
        "impl must be one of 'auto', 'reference'",
    ),
}


@pytest.mark.parametrize(("make", "fragment"), PARAMETERS.values(), ids=PARAMETERS.keys())
def test_parameters_are_refused(make: Callable[[], Any], fragment: str) -> None:
    with pytest.raises(InputError, match=re.escape(fragment)):
        make()


def change(values: Tensor, row: int, number: float) -> Tensor:
    return values.index_put((torch.tensor([row]), torch.tensor([1])), torch.tensor(number))


CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "nan": ({"features": change(FEATURES, 2, NAN)}, "features must be finite; got NaN or Inf at row 2"),
    "inf": ({"features": change(FEATURES, 3, -INF)}, "features must be finite; got NaN or Inf at row 3"),
    "label too large": (
        {"labels": torch.tensor([0, 1, 4, 9])},
        "labels must be in [0, 4) or -100 (ignored); got 4 at row 2",
    ),
    "label below 0": (
        {"labels": torch.tensor([0, -1, 4, 1])},
        "labels must be in [0, 4) or -100 (ignored); got -1 at row 1",
    ),
    "all ignored": (
        {"labels": torch.full((4,), -100)},
        "every label is -100 (ignored); a batch needs one row that counts",
    ),
    "empty": (
        {"features": FEATURES[:0], "labels": LABELS[:0]},
        "features must hold at least one row; got an empty batch",
    ),
    "features of one dimension": (
        {"features": FEATURES[0]},
        "features must have shape [batch, embedding_size]; got [3]",
    ),
    "weight of one dimension": ({"weight": WEIGHT[0]}, "weight must have shape [num_classes, embedding_size]; got [3]"),
    "other embedding size": ({"weight": WEIGHT[:, :2]}, "must agree on embedding_size; got 3 and 2"),
    "whole features": ({"features": FEATURES.long()}, "must be floating point; got torch.int64 and torch.float32"),
    "whole weight": ({"weight": WEIGHT.int()}, "must be floating point; got torch.float32 and torch.int32"),
    "other device": ({"labels": LABELS.to("meta")}, "must be on one device; got cpu, cpu and meta"),
    "too few labels": ({"labels": LABELS[:3]}, "labels must have shape [4], one per row of features; got [3]"),
    "one-hot labels": (
        {"labels": torch.eye(4).long()},
        "labels must have shape [4], one per row of features; got [4, 4]",
    ),
    "float labels": ({"labels": LABELS.float()}, "labels must be integers; got torch.float32"),
    "bool labels": ({"labels": LABELS > 0}, "labels must be integers; got torch.bool"),
    "reduction": ({"reduction": "avg"}, "reduction must be one of 'mean', 'sum', 'none'; got 'avg'"),
    "impl": ({"impl": "fast"}, "impl must be one of 'auto', 'reference'"),
    "bias that it lacks": ({"bias": torch.zeros(4)}, "this objective has no bias; got bias = [4]"),
    "bias that it needs": (
        {"objective": L.softmax(bias=True)},
        "this objective needs bias [num_classes]; got bias = None",
    ),
    "bias of another size": (
        {"objective": L.softmax(True), "bias": torch.zeros(3)},
        "bias must have shape [4]; got [3]",
    ),
    "no objective": (
        {"objective": "arcface"},
        "objective must be an angulus.losses.Objective, bound or not, such as losses.arcface(); got 'arcface'",
    ),
    "unbound": ({"objective": L.normface()}, "bind it once, `bound = objective.bind(embedding_size, num_classes)`"),
    "bound to another C": (
        {"objective": L.softmax().bind(3, 5)},
        "is bound to 5 classes of size 3; weight has shape [4, 3]",
    ),
    "bound to another d": (
        {"objective": L.softmax().bind(2, 4)},
        "is bound to 4 classes of size 2; weight has shape [4, 3]",
    ),
    "nothing trains": ({"objective": L.feature_incay(0.1)}, "nothing here trains the class weights (feature incay"),
}


@pytest.mark.parametrize(("changes", "fragment"), CALLS.values(), ids=CALLS.keys())
def test_calls_are_refused(changes: dict[str, Any], fragment: str) -> None:
    call = {"features": FEATURES, "weight": WEIGHT, "labels": LABELS, "objective": L.arcface(16, 0.5)} | changes
    with pytest.raises(InputError, match=re.escape(fragment)):
        class_loss(**call)


def test_the_call_that_the_others_change_is_good() -> None:
    assert class_loss(FEATURES, WEIGHT, LABELS, L.arcface(16, 0.5)).isfinite()


@pytest.mark.parametrize("form", ["reciprocal", "log"])
@pytest.mark.parametrize("base", [L.softmax(), L.normface(8, False, eps=1e-3)], ids=["softmax", "eps"])
def test_incay_without_eps_names_the_zero_feature(form: str, base: Objective) -> None:
    objective = base + L.feature_incay(0.1, form, eps=0)
    assert class_loss(FEATURES, WEIGHT, LABELS, objective).isfinite()
    zeroed = FEATURES * torch.tensor([[1.0], [1.0], [0.0], [0.0]])
    with pytest.raises(InputError, match=rf"{form} form is infinite at a zero feature when eps = 0; row 2 is zero"):
        class_loss(zeroed, WEIGHT, LABELS, objective)
    linear = base + L.feature_incay(0.1, "linear", eps=0)
    assert class_loss(zeroed, WEIGHT, LABELS, linear).isfinite()


@pytest.mark.parametrize("beta", [1, 1.5])
def test_iam_warns_beyond_the_papers_range(beta: float) -> None:
    with pytest.warns(UserWarning, match=rf"beta should be in \[0, 1\); got {beta:g}"):
        penalties.IAM(beta)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        penalties.IAM(0.99)


def test_contraction_warns_where_its_premise_fails_and_only_there() -> None:
    with pytest.warns(UserWarning, match=r"C <= 2 d classes can lie 90° apart.*C = 10 and d = 2.*4\.277; give lower"):
        L.cm_softmax().bind(2, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        L.cm_softmax().bind(5, 10)
        L.cm_softmax(lower=4, upper=12).bind(2, 10)


def test_a_spec_is_bound_and_warned_of_once() -> None:
    features, weight = torch.randn(4, 2), torch.randn(7, 2)
    objective = L.cm_softmax(p=0.87)
    with pytest.warns(UserWarning, match="contraction bounds assume") as caught:
        for _ in range(3):
            class_loss(features, weight, LABELS, objective)
    assert len(caught) == 1


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_class_loss_changes_nothing_that_it_is_given(case: Case) -> None:
    bound = case.bind(4, 3, torch.float32)
    before = {name: value.clone() for name, value in bound.state_dict().items()}
    bias = torch.full((4,), 0.25) if case.objective.bias else None
    originals = (FEATURES, case.widen(WEIGHT), LABELS)
    arguments = [each.clone().requires_grad_(each.is_floating_point()) for each in originals]
    for reduction in ("mean", "none"):
        class_loss(*arguments, bound, bias=bias, reduction=reduction).sum().backward()
    after = bound.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    for argument, original in zip(arguments, originals, strict=True):
        assert torch.equal(argument, original)


def test_specs_are_frozen() -> None:
    for spec in (L.softmax(), radius.Fixed(1), margins.AdditiveAngle(0.1), weighting.Focal(), CenterLoss(0.1)):
        with pytest.raises(AttributeError, match="cannot assign"):
            setattr(spec, next(iter(vars(spec)), "radius"), 2)
    assert isinstance(L.softmax().bind(2, 3), BoundObjective)
