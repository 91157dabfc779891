"""The learning rate's factor: values by hand at the start, the end and the corners, and the plateau's drops."""

from __future__ import annotations

import math

import pytest

import tiny
from angulus.core.checks import InputError
from angulus.training.schedule import PlateauState, factor
from angulus.training.settings import Constant, Cosine, OneCycle, Plateau, Polynomial, Schedule, Steps


def curve(settings: Schedule, steps: int, steps_per_epoch: int) -> list[float]:
    return [factor(settings, step, steps, steps_per_epoch) for step in range(steps)]


def test_constant_is_one_throughout() -> None:
    assert curve(Constant(), 6, 3) == [1.0] * 6


def test_steps_drop_at_their_epochs_and_not_before() -> None:
    settings = Steps(milestones=[1, 2.5], factor=0.1)
    assert curve(settings, 16, 4) == pytest.approx([1.0] * 4 + [0.1] * 6 + [0.01] * 6)


def test_cosine_starts_at_one_and_ends_just_above_final() -> None:
    values = curve(Cosine(final=0.2), 8, 4)
    assert values[0] == 1.0
    assert values[4] == pytest.approx(0.6)  # halfway: the mean of 1 and final
    assert values[7] == pytest.approx(0.2 + 0.8 * (1 + math.cos(7 / 8 * math.pi)) / 2)
    assert values == sorted(values, reverse=True)
    assert curve(Cosine(), 1000, 10)[-1] < 1e-5  # final 0 by default


def test_polynomial() -> None:
    assert curve(Polynomial(), 4, 2) == pytest.approx([1, 0.75, 0.5, 0.25])
    assert curve(Polynomial(power=2.0), 4, 2) == pytest.approx([1, 0.5625, 0.25, 0.0625])


def test_one_cycle_rises_from_a_twenty_fifth_over_three_tenths_then_falls_to_final() -> None:
    values = curve(OneCycle(final=0.1), 10, 5)
    assert values[0] == pytest.approx(1 / 25)
    assert values[3] == pytest.approx(1.0)
    assert values[:4] == sorted(values[:4])
    assert values[3:] == sorted(values[3:], reverse=True)
    assert values[1] == pytest.approx(1 + (1 / 25 - 1) * (1 + math.cos(math.pi / 3)) / 2)
    assert values[9] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 6 / 7)) / 2)


WARM = {"warmup_epochs": 1.25}


@pytest.mark.parametrize(
    "settings",
    [Constant(**WARM), Steps(milestones=[9], **WARM), Cosine(**WARM), Polynomial(**WARM), Plateau(**WARM)],
    ids=lambda settings: settings.kind,
)
def test_warm_up_rises_from_one_step_to_the_full_rate(settings: Schedule) -> None:
    values = curve(settings, 40, 4)
    assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])  # the first step is low, not zero
    assert values[5] == 1.0  # what follows starts after the warm-up


def test_cosine_after_a_warm_up_spans_what_is_left() -> None:
    values = curve(Cosine(warmup_epochs=1.0), 12, 4)
    assert values[8] == pytest.approx(0.5)  # halfway between step 4 and step 12


def test_warm_up_shorter_than_a_step_does_nothing() -> None:
    assert curve(Constant(warmup_epochs=0.1), 4, 4) == [1.0] * 4


@pytest.mark.parametrize(
    "settings",
    [Constant(), Steps(milestones=[1, 2]), Cosine(), OneCycle(), Polynomial(), Plateau()],
    ids=lambda settings: settings.kind,
)
def test_every_factor_is_above_zero_and_at_most_one(settings: Schedule) -> None:
    values = curve(settings, 30, 10)
    assert all(0 < value <= 1 for value in values)


def plateau(**settings: object) -> PlateauState:
    return PlateauState(Plateau(**settings))  # type: ignore[arg-type]


def test_plateau_drops_after_patience_epochs_without_a_lower_error() -> None:
    state = plateau(patience=2, factor=0.5)
    factors = []
    for error in (0.5, 0.4, 0.4, 0.41, 0.39, 0.39, 0.39):
        state.end_epoch(error)
        factors.append(state.factor)
    # an equal error is no progress; the fourth epoch is the second without any
    assert factors == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]


def test_plateau_waits_again_after_a_drop_and_after_progress() -> None:
    state = plateau(patience=2)
    for error in (0.5, 0.6, 0.4, 0.6):  # one wait, progress, one wait
        state.end_epoch(error)
    assert state.factor == 1.0
    state.end_epoch(0.6)
    assert state.factor == pytest.approx(0.1)
    state.end_epoch(0.6)
    assert state.factor == pytest.approx(0.1)


def test_plateau_drops_no_more_often_than_asked() -> None:
    state = plateau(patience=1, drops=2, factor=0.1)
    for _ in range(9):
        state.end_epoch(0.3)
    assert state.factor == pytest.approx(0.01)


def test_plateau_goes_on_from_its_state() -> None:
    errors = (0.5, 0.4, 0.4, 0.4, 0.4, 0.3, 0.3, 0.3)
    whole, first, second = (plateau(patience=2) for _ in range(3))
    for error in errors:
        whole.end_epoch(error)
    for error in errors[:3]:
        first.end_epoch(error)
    second.load_state_dict(first.state_dict())
    for error in errors[3:]:
        second.end_epoch(error)
    assert second.state_dict() == whole.state_dict()
    assert whole.dropped == 2


def test_plateau_leaves_the_step_factor_alone() -> None:
    assert curve(Plateau(), 4, 2) == [1.0] * 4


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("{warmup_epochs: -1}", "warmup_epochs must be at least 0; got -1"),
        ("{kind: plateau, factor: 1.0}", "factor must be below 1; got 1.0"),
        ("{kind: plateau, factor: .nan}", "factor must be below 1; got nan"),
        ("{kind: polynomial, power: 0}", "power must be above 0; got 0"),
        ("{final: 1}", "final must be below 1; got 1"),
        ("{kind: plateau, patience: 0}", "patience must be at least 1; got 0"),
        ("{kind: plateau, drops: 0}", "drops must be at least 1; got 0"),
        ("{kind: steps, milestones: [2, 1]}", "milestones must be rising epochs; got [2.0, 1.0]"),
        ("{kind: steps, milestones: [0]}", "milestones.0 must be above 0; got 0"),
        ("{kind: steps, milestones: []}", "milestones must have at least 1 item, not 0; got []"),
        (
            "{kind: one_cycle, warmup_epochs: 1}",
            "warmup_epochs applies only to kind constant or steps or cosine or polynomial or plateau, but kind is "
            "one_cycle. Remove it.",
        ),
    ],
)
def test_settings_are_refused(settings: str, sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        tiny.validated(f"training.schedule={settings}")
    assert str(raised.value) == f"training.schedule.{sentence}"


def test_a_schedule_of_steps_needs_milestones() -> None:
    with pytest.raises(InputError, match=r"^the recipe needs training.schedule.milestones$"):
        tiny.validated("training.schedule={kind: steps}")
