"""Pairs that are listed several times: what they count for, and contradictions that are refused."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.protocols import error_discard, groups, pairs, quality, scored, videos
from angulus.evaluation.protocols.calibrate import calibrate
from angulus.evaluation.protocols.result import Result
from people import crowd, crowd_pairs

FEW = crowd(4, 2, noise=0.4)  # 4 genuine and 24 impostor pairs of images


def listed(left: list[str], right: list[str], same: list[bool], **columns: object) -> PairList:
    return PairList(np.array(left), np.array(right), np.array(same), source="my-pairs.txt", **columns)  # type: ignore[arg-type]


def every_pair(times: int = 1, impostors: int = 6) -> PairList:
    """All genuine pairs of FEW and some impostor pairs, each so many times, every second time the other way round."""
    assert FEW.labels is not None
    rows = list(itertools.combinations(range(8), 2))
    kinds = [[row for row in rows if (FEW.labels[row[0]] == FEW.labels[row[1]]) == same] for same in (True, False)]
    chosen = [*kinds[0], *kinds[1][:impostors]]
    turned = [pair if turn % 2 == 0 else pair[::-1] for turn in range(times) for pair in chosen]
    left, right = np.array(turned).T
    return replace(
        listed(["a"], ["b"], [True]),
        left=FEW.ids[left],
        right=FEW.ids[right],
        same=FEW.labels[left] == FEW.labels[right],
    )


def test_six_impostor_pairs_a_hundred_times_are_six() -> None:
    with pytest.raises(InputError, match=r"FMR 0\.01 needs at least 100 distinct impostor pairs; got 6"):
        calibrate(FEW, every_pair(100), target_fmr=0.01)
    with pytest.raises(InputError, match=r"FAR 0\.01 needs at least 100 distinct impostor pairs; got 6"):
        pairs.evaluate(FEW, every_pair(100), fars=[0.01])
    with pytest.raises(InputError, match=r"FMR 0\.01 needs at least 100 distinct impostor pairs; got 6"):
        error_discard.evaluate(FEW, every_pair(100), fmr=0.01)
    assert [n.name for n in pairs.evaluate(FEW, every_pair(100), draws=0).numbers if "FAR" in n.name] == []


def test_calibrating_on_repeats_is_calibrating_on_each_pair_once() -> None:
    """Counted by hand: a Python set of unordered pairs."""
    many = every_pair(5, 20)
    once = {tuple(sorted(pair)) for pair in zip(many.left.tolist(), many.right.tolist(), strict=True)}
    calibration, result = calibrate(FEW, many, target_fmr=0.1, draws=50)
    expected, plain = calibrate(FEW, every_pair(1, 20), target_fmr=0.1, draws=50)
    assert (calibration.genuine, calibration.impostors) == (4, len(once) - 4) == (4, 20)
    assert (calibration.slope, calibration.intercept) == pytest.approx((expected.slope, expected.intercept))
    same = {"about": {}, "slope": 1.0, "intercept": 0.0}
    assert replace(calibration, **same) == replace(expected, **same)  # type: ignore[arg-type]
    assert [n.value for n in result.numbers] == [n.value for n in plain.numbers]
    assert result.counts["repeated pairs"] == len(many) - len(once) == 96
    assert result.counts["pairs"] == 120
    note = next(note for note in result.notes if "repeat another" in note)
    assert note.startswith("96 of the 120 pairs repeat another, pair 25 (p0/1 p0/0 1) the first")
    assert "repeated pairs" not in plain.counts and not any("repeat" in note for note in plain.notes)


def test_groups_go_with_their_pairs() -> None:
    many = every_pair(3, 20)
    grouped = replace(many, groups=np.array([f"g{int(a[1]) % 2}" for a in np.sort([many.left, many.right], axis=0)[0]]))
    once = replace(every_pair(1, 20), groups=grouped.groups[:24])  # type: ignore[index]
    calibration, _ = calibrate(FEW, grouped, target_fmr=0.1, draws=0)
    assert calibration.by_group == calibrate(FEW, once, target_fmr=0.1, draws=0)[0].by_group
    assert calibration.by_group is not None
    assert sum(cell.false_match.trials for cell in calibration.by_group.cells if cell.false_match) == 20


def test_without_identities_each_pair_is_resampled_once() -> None:
    unknown = replace(FEW, labels=None)
    for given, units in ((every_pair(1, 20), 24), (every_pair(4, 20), 24)):
        result = pairs.evaluate(unknown, given, draws=0)
        assert scored.units_of(result.samples).count == units
    saved = quality.judge_result(pairs.evaluate(unknown, every_pair(4, 20), draws=0))
    assert scored.units_of(saved.samples).count == 24


def test_a_published_list_that_repeats_pairs_is_measured_as_it_is(data_folder: Path) -> None:
    """CFP's frontal-frontal list names 130 pairs again; accuracy over its folds counts every line."""
    from angulus.evaluation.lists.cfp import read_cfp

    given = read_cfp(data_folder / "protocols" / "cfp_protocol.tar.gz").ff
    rng = np.random.default_rng(0)
    names, people = np.unique([name.partition("/")[0] for name in given.ids.tolist()], return_inverse=True)
    vectors = rng.normal(size=(len(names), 32))[people] + 0.8 * rng.normal(size=(len(people), 32))
    result = pairs.evaluate(Embeddings(vectors, given.ids), given, draws=0)
    assert (result.counts["pairs"], result.counts["repeated pairs"]) == (7000, 130)
    assert any("130 of the 7,000 pairs repeat another" in note for note in result.notes)


def refused(given: PairList, sentence: str) -> None:
    for measure in (
        lambda: pairs.evaluate(FEW, given),
        lambda: calibrate(FEW, given, target_fmr=0.5),
        lambda: error_discard.evaluate(FEW, given, fmr=0.5),
        lambda: quality.judge_pairs(FEW, given),
        lambda: groups.evaluate(FEW, replace(given, folds=np.array([0] * (len(given) - 1) + [1]))),
    ):
        with pytest.raises(InputError, match=sentence):
            measure()


def test_contradictions_are_refused_with_both_places() -> None:
    given = listed(
        ["p0/0", "p1/0", "p0/1", "p1/1"], ["p0/1", "p2/0", "p0/0", "p1/0"], [True, False, False, True]
    )  # fmt: skip
    refused(
        given, r"my-pairs.txt must list .*; pair 1 \(p0/0 p0/1 1\) and pair 3 \(p0/1 p0/0 0\) contradict each other"
    )


def test_an_image_against_itself_is_refused() -> None:
    given = listed(["p0/0", "p1/0"], ["p0/1", "p1/0"], [True, False])
    refused(given, r"my-pairs.txt must compare each with another; pair 2 \(p1/0 p1/0 0\) compares one with itself")


def test_videos_too() -> None:
    rng = np.random.default_rng(0)
    frames = Embeddings(
        rng.normal(size=(12, 8)),
        np.array([f"p{video // 2}/{video % 2}/{frame}" for video in range(4) for frame in range(3)]),
    )
    given = listed(
        ["p0/0", "p0/0", "p1/0", "p0/1", "p0/1"], ["p0/1", "p1/0", "p1/1", "p1/0", "p0/0"],
        [True, False, True, False, True], folds=np.array([0, 0, 1, 1, 1]),
    )  # fmt: skip
    result: Result = videos.evaluate(frames, given, draws=0)
    assert result.counts["repeated pairs"] == 1
    with pytest.raises(InputError, match=r"FAR 0\.4 needs at least 3 distinct impostor pairs; got 2"):
        videos.evaluate(frames, given, fars=[0.4])
    bad = replace(given, same=np.array([True, False, True, False, False]))
    with pytest.raises(InputError, match=r"pair 1 \(p0/0 p0/1 1\) and pair 5 \(p0/1 p0/0 0\) contradict"):
        videos.evaluate(frames, bad)


def test_folds_keep_every_line() -> None:
    people = crowd(12, 4)
    given = crowd_pairs(people)
    twice = replace(
        given,
        **{
            name: np.concatenate([getattr(given, name)] * 2)
            for name in ("left", "right", "same", "folds", "left_identity", "right_identity")
        },
    )
    once, again = (pairs.evaluate(people, each, draws=0) for each in (given, twice))
    assert again["accuracy"] == pytest.approx(once["accuracy"])
    assert again["AUC"] == pytest.approx(once["AUC"])
    assert [n.name for n in again.numbers] == [n.name for n in once.numbers]  # as many FARs are supported
