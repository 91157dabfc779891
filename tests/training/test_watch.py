"""The watch: what it says of features, losses and class weights that are made for it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import betaincinv
from torch import Tensor

import angulus
import tiny
from angulus import losses
from angulus.experiments.run import run
from angulus.losses.theory import margin_room
from angulus.report.sections import write_report
from angulus.training import loop
from angulus.training.watch import Finding, Watch, closest, collapsed_loss

MV = losses.mv_softmax(32.0, losses.margins.AdditiveAngle(0.3), 0.2)
NAMES = tuple("abcdefgh")
LABELS = torch.arange(64) % 8
HEALTHY = {"loss": 1.0, "target_cos": 0.6, "radius": 32.0}


def watch(objective: losses.Objective = MV, size: int = 4, steps: int = 100) -> Watch:
    torch.manual_seed(0)
    return Watch(angulus.DenseHead(size, len(NAMES), objective), steps, 10, NAMES)


def spread(rows: int = 64) -> Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(3))


def gathered() -> Tensor:
    return torch.tensor([1.0, 0, 0, 0]) + 0.1 * spread()


def test_a_healthy_training_is_not_reported() -> None:
    seen = watch()
    assert not [finding for step in range(10, 101, 10) for finding in seen.look(step, HEALTHY, spread(), LABELS)]


def test_gathered_features_are_reported_at_the_fifth_look_in_a_row_and_once() -> None:
    seen, collapsing = watch(), HEALTHY | {"target_cos": -0.3}
    signs = [collapsing] * 4 + [HEALTHY] + [collapsing] * 9
    found = [
        finding for number, values in enumerate(signs) for finding in seen.look(10 * number, values, gathered(), LABELS)
    ]
    (finding,) = found
    assert (finding.step, finding.sign) == (90, "collapse")
    assert "mean cosine -0.30" in finding.sentence
    assert "'objective.ramp={negatives: [0, 0.3]}'" in finding.sentence


@pytest.mark.parametrize("values", [{"target_cos": 0.1}, {"target_cos": -0.3, "spread": 1.0}])
def test_one_sign_alone_is_not_a_collapse(values: dict[str, float]) -> None:
    seen = watch()
    features = spread() if "spread" in values else gathered()
    assert not [
        finding for step in range(10, 101, 10) for finding in seen.look(step, HEALTHY | values, features, LABELS)
    ]


@pytest.mark.parametrize(
    ("objective", "way"),
    [
        (losses.arcface(32, 0.5), r"objective.ramp=\{margin: \[0, 0.3\]\}"),
        (losses.arcface(32, 0.5).replace(ramp=losses.Ramp(margin=(0, 0.3), steps=9)), "let objective.ramp end later"),
        (losses.normface(32, learn=False), "learning rate is probably too high"),
    ],
)
def test_the_way_out_depends_on_the_loss(objective: losses.Objective, way: str) -> None:
    seen, collapsing = watch(objective), HEALTHY | {"target_cos": -0.3}
    (finding,) = [each for step in range(0, 50, 10) for each in seen.look(step, collapsing, gathered(), LABELS)]
    assert re.search(way, finding.sentence)


@pytest.mark.parametrize("cos", [-1.0, 0.0, 0.5])
@pytest.mark.parametrize("objective", [MV, losses.arcface(32, 0.3), losses.cosface(16, 0.2)], ids=str)
def test_the_collapsed_loss_is_that_of_such_features(objective: losses.Objective, cos: float) -> None:
    classes = 7
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    weight = torch.tensor([[cos, math.sqrt(1 - cos * cos)]], dtype=torch.float64).repeat(classes, 1)
    expected = angulus.class_loss(x, weight, torch.tensor([2]), objective).item()
    radius = float(objective.radius.scale)  # type: ignore[union-attr]
    found = collapsed_loss(objective.bind(2, classes), classes, radius, cos)
    assert found == pytest.approx(expected, rel=1e-9)


def test_the_collapsed_loss_of_the_case_that_was_found() -> None:
    assert collapsed_loss(MV.bind(8, 191), 191, 32.0, -1.0) == pytest.approx(8.08, abs=0.01)
    plain = losses.mv_softmax(32.0, losses.margins.AdditiveAngle(0.3, beyond_pi="plain"), 0.2)
    assert collapsed_loss(plain.bind(8, 191), 191, 32.0, -1.0) == pytest.approx(3.84, abs=0.01)
    assert collapsed_loss(losses.softmax().bind(8, 191), 191, 32.0, -1.0) is None


def test_a_loss_that_stays_at_a_collapsed_value_is_reported() -> None:
    loss = collapsed_loss(MV.bind(4, len(NAMES)), len(NAMES), 32.0, -1.0)
    assert loss is not None
    for value, falls, reported in ((loss, False, True), (1.3 * loss, False, False), (loss, True, False)):
        seen = watch(steps=400)
        found = [
            finding.sign
            for step in range(10, 401, 10)
            for finding in seen.look(
                step, HEALTHY | {"loss": value * (0.97 ** (step / 10) if falls else 1)}, spread(), LABELS
            )
        ]
        assert found == ["stuck"] * reported


def test_a_training_that_recovers_is_reported_too() -> None:
    loss = collapsed_loss(MV.bind(4, len(NAMES)), len(NAMES), 32.0, -1.0)
    assert loss is not None

    def looked(until: float, target_cos: float) -> list[Finding]:
        seen, found = watch(steps=400), []
        for step in range(10, 401, 10):
            value = loss if step <= 250 else max(until, 1 - (step - 250) / 100) * loss
            found += seen.look(step, {"loss": value, "target_cos": target_cos, "radius": 32.0}, spread(), LABELS)
            seen = Watch(seen.head, 400, 10, NAMES, json.loads(json.dumps(seen.state())))  # as after an interruption
        return found

    stuck, recovered = looked(0.3, 0.2)
    assert (stuck.sign, recovered.sign) == ("stuck", "recovered")
    # the mean of ten looks is below 0.9 of the loss of the report for the second time: 0.9, 0.8, 0.7, 0.6, 0.5, 0.4 ...
    means = {
        step: np.mean([1 if s <= 250 else max(0.3, 1 - (s - 250) / 100) for s in range(step - 90, step + 1, 10)])
        for step in range(260, 401, 10)
    }
    assert recovered.step == min(step for step, mean in means.items() if mean <= 0.9) + 10
    assert f"fallen from {loss:.3g} to" in recovered.sentence and f"step {stuck.step}" in recovered.sentence
    assert [finding.sign for finding in looked(0.95, 0.2)] == ["stuck"]
    assert [finding.sign for finding in looked(0.3, -0.5)] == ["stuck"]  # the features still point away


def test_a_recovery_is_told_by_a_known_report_and_a_loss_that_falls() -> None:
    def looked(losses: list[float], state: Mapping[str, Any]) -> list[Finding]:
        seen = Watch(watch().head, 1000, 10, NAMES, state)
        values = [{"loss": loss, "target_cos": 0.5, "radius": 32.0} for loss in losses]
        return [found for n, each in enumerate(values) for found in seen.look(600 + 10 * n, each, spread(), LABELS)]

    assert not looked([1.0] * 10 + [0.1] * 20, {"reported": ["stuck"]})  # of a checkpoint without step and loss
    assert not looked([-0.9] * 20, {"reported": ["stuck"], "failed": [500, -1.0]})  # with a penalty below zero
    assert [found.sign for found in looked([-1.3] * 2, {"reported": ["stuck"], "failed": [500, -1.0]})] == ["recovered"]


def locked(
    objective: losses.Objective,
    degrees: float,
    moved: float | None = None,
    *,
    told_apart: bool = False,
    steps: int = 1000,
) -> list[Finding]:
    """Findings on a head in 2-D whose classes b and c are so far apart, and later `moved`."""
    seen = watch(objective, size=2, steps=steps)
    found = []
    for step in range(10, steps + 1, 10):
        angles = torch.arange(8.0) * 45
        angles[2] = angles[1] + (degrees if moved is None or step < 400 else moved)
        seen.head.weight.data = torch.stack([torch.cos(angles.deg2rad()), torch.sin(angles.deg2rad())], 1)
        features = 10 * seen.head.weight.detach()[LABELS] if told_apart else torch.randn(64, 2)
        found += seen.look(step, HEALTHY, features, LABELS)
    return found


@pytest.mark.filterwarnings("ignore:no feature can meet")
def test_class_weights_that_stay_together_are_reported_in_time() -> None:
    (finding,) = locked(losses.arcface(10, 0.5), 3.0)
    assert (finding.step, finding.sign) == (
        500,
        "locked",
    )  # close from a quarter of the training on, for a quarter of it
    assert "the weights of 'b' and 'c' are 3.0° apart, where 45° would be possible" in finding.sentence
    assert "'objective.ramp={margin: [0.3, 0.7]}'" in finding.sentence
    assert not locked(losses.arcface(10, 0.5), 3.0, steps=90)  # too short to tell
    assert not locked(losses.arcface(10, 0.5), 30.0)
    assert not locked(losses.arcface(10, 0.5), 3.0, told_apart=True)  # close, and yet no image of one is of the other
    assert not locked(losses.arcface(10, 0.5), 3.0, moved=30.0)
    (later,) = locked(losses.normface(10, learn=False), 3.0)
    assert later.step == 750  # without a margin, classes separate later
    ramp = losses.Ramp(margin=(0.5, 1.0), steps=1000)
    assert not locked(losses.arcface(10, 0.5).replace(ramp=ramp), 3.0)  # the whole margin never applies here


def test_the_closest_class_weights_are_those_of_all_pairs() -> None:
    weight = torch.randn(1500, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    unit = (weight / weight.norm(dim=1, keepdim=True)).numpy()
    angles = np.arccos(np.clip(unit @ unit.T, -1, 1))
    np.fill_diagonal(angles, np.pi)
    angle, first, second = closest(weight)
    assert angle == pytest.approx(angles.min(), rel=1e-3)
    assert {first, second} == set(np.unravel_index(angles.argmin(), angles.shape))


def test_the_room_is_that_of_known_arrangements() -> None:
    assert margin_room(10, 2) == pytest.approx(2 * math.pi / 10)
    assert margin_room(2, 5) == pytest.approx(math.pi)
    assert margin_room(4, 3) == pytest.approx(math.acos(-1 / 3))
    assert margin_room(6, 3) == pytest.approx(math.pi / 2)
    # no more than a bound, and near the best known of 12 points (63.43°) and of 24 points (43.69°) on the sphere
    assert math.radians(63.43) < margin_room(12, 3) < math.radians(68)
    assert math.radians(43.69) < margin_room(24, 3) < math.radians(48)
    assert margin_room(3, 1) == 0
    for classes, size in ((7, 2), (50, 3), (10**6, 3), (300, 16), (10**4, 64), (10**7, 512), (10**4, 4096)):
        half = math.asin(math.sqrt(float(betaincinv((size - 1) / 2, 0.5, 2 / classes))))
        assert margin_room(classes, size) == pytest.approx(min(math.pi / 2, 2 * half), rel=1e-9)


def test_a_margin_beyond_the_room_is_warned_of_when_it_is_bound() -> None:
    with pytest.warns(
        UserWarning, match=r"no feature can meet the margin \(cos θ − 0\.4\): .* is 0\.60, .* at least 0\.81"
    ):
        losses.cosface(10, 0.4).bind(2, 10)
    losses.cosface(10, 0.15).bind(2, 10)
    losses.arcface(10, 0.5).bind(2, 10)
    losses.cosface(64, 0.35).bind(512, 1_000_000)


def test_what_it_sees_is_in_the_results_the_terminal_and_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = Finding(1, "collapse", "step 1: the features gather in one direction")
    monkeypatch.setattr(loop.Watch, "look", lambda self, step, *_: [finding] if step == 1 else [])
    with pytest.warns(UserWarning, match="step 1: the features gather"):
        run(tiny.validated("training.epochs=1", "training.log_every=1"), tmp_path / "run", splits=tiny.splits())
    assert json.loads((tmp_path / "run" / "results.json").read_text())["findings"] == [finding._asdict()]
    write_report([tmp_path / "run"], tmp_path / "page.html")
    assert finding.sentence in (tmp_path / "page.html").read_text()


def test_subcenters_of_one_class_may_be_close() -> None:
    unit = torch.nn.functional.normalize(torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(2)), dim=2)
    unit[1, 2] = unit[1, 0]
    angles = {
        (i, j): min(float(torch.acos((a @ b).clamp(-1, 1))) for a in unit[i] for b in unit[j])
        for i in range(5)
        for j in range(i + 1, 5)
    }
    angle, first, second = closest(unit)
    assert angle == pytest.approx(min(angles.values()), rel=1e-3)
    assert angles[min(first, second), max(first, second)] == min(angles.values())


@pytest.mark.parametrize("kind", [name for name in losses.list_losses() if name != "subcenter_spread"])
@pytest.mark.filterwarnings("ignore")
def test_every_loss_is_watched(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Watch, "_stride", lambda *_: 1)
    objective = losses.build(kind)
    alone = objective.radius is not None or any(term.penalty.trains_classes for term in objective.penalties)
    added = f"objective={{kind: {kind}}}" if alone else f"objective={{kind: normface, {kind}: {{}}}}"
    given = {
        "iam": "{beta: 0.1}",
        "feature_incay": "{lam: 0.1}",
        "ring_loss": "{lam: 0.1}",
        "center_loss": "{lam: 0.1}",
    }
    recipe = tiny.validated(added.replace("{}", given.get(kind, "{}")), "training.optimizer.lr=0.001")
    run(recipe, tmp_path / "run", splits=tiny.splits())


def test_after_an_interruption_it_goes_on_and_reports_nothing_twice() -> None:
    collapsing = HEALTHY | {"target_cos": -0.3}
    whole, first = watch(), watch()
    expected = [each for step in range(0, 200, 10) for each in whole.look(step, collapsing, gathered(), LABELS)]
    found = [each for step in range(0, 30, 10) for each in first.look(step, collapsing, gathered(), LABELS)]
    for start in range(30, 200, 30):
        stored = json.loads(json.dumps(first.state()))
        first = Watch(first.head, first.steps, first.log_every, NAMES, stored)
        steps = range(start, min(start + 30, 200), 10)
        found += [each for step in steps for each in first.look(step, collapsing, gathered(), LABELS)]
    assert found == expected
    assert len(found) == 1


def test_looks_at_every_step_take_as_many_steps() -> None:
    seen, collapsing = watch(), HEALTHY | {"target_cos": -0.01}
    assert not [each for step in range(40) for each in seen.look(step, collapsing, gathered(), LABELS)]
    assert len(seen.look(40, collapsing, gathered(), LABELS)) == 1


def test_what_it_advises_is_accepted() -> None:
    for objective in (losses.circle(), losses.sphereface2(), MV, losses.arcface()):
        seen, collapsing = watch(objective), HEALTHY | {"target_cos": -0.3}
        (finding,) = [each for step in range(0, 60, 10) for each in seen.look(step, collapsing, gathered(), LABELS)]
        offered = re.search(r"objective\.ramp=\{(\w+): \[0, 0\.3\]\}", finding.sentence)
        if offered:
            objective.replace(ramp=losses.Ramp(**{offered[1]: (0, 0.3)}))
