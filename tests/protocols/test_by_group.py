"""Error rates by group: every protocol against plain loops, intervals of resamples written out, and small groups."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.core.id_rule import IdRule
from angulus.evaluation.lists.groups_csv import read_groups, with_groups
from angulus.evaluation.lists.ijb import TemplateImages
from angulus.evaluation.metrics.differentials import fdr, garbe, gini, max_over_geometric_mean, max_over_min
from angulus.evaluation.metrics.intervals import Interval
from angulus.evaluation.protocols import by_group, distractors, groups, open_set, pairs, videos
from angulus.evaluation.protocols.calibrate import calibrate
from angulus.evaluation.protocols.figures import Resampling
from angulus.evaluation.protocols.group_rates import ByGroup, Cell, GroupRate, conclusions
from angulus.evaluation.protocols.result import Result
from angulus.evaluation.protocols.template_identification import identify
from angulus.evaluation.protocols.template_verification import verify
from angulus.evaluation.protocols.templates import Pooling, pool
from angulus.evaluation.protocols.trillion_pairs import evaluate as trillion_pairs
from angulus.models.model_card import by_group_lines
from angulus.report.charts import group_heat_map
from angulus.report.render_plotly import render_plotly
from angulus.report.render_png import draw
from angulus.report.saved_results import group_tables
from people import crowd, crowd_pairs, written_out
from protocols import (
    test_distractors,
    test_open_set,
    test_template_identification,
    test_template_verification,
    test_videos,
)

CROWD = crowd(24)
PAIRS = crowd_pairs(CROWD, per=80)
ROUNDED = 1e-9  # between the scores of plain loops and ours
Trial = tuple[str, str, bool, bool]  # the groups of both sides, whether genuine, whether accepted


def slow_cells(trials: Iterable[Trial]) -> dict[tuple[tuple[str, ...], bool], tuple[int, int]]:
    """(errors, trials) of each cell and kind, one trial after the other."""
    found: dict[tuple[tuple[str, ...], bool], tuple[int, int]] = {}
    for left, right, genuine, accepted in trials:
        if left and right:
            key = tuple(sorted({left, right})), genuine
            errors, count = found.get(key, (0, 0))
            found[key] = errors + (accepted != genuine), count + 1
    return found


def check(point: ByGroup, trials: Iterable[Trial], rate: float) -> None:
    """The point's cells are those of the trials, and its differentials those of the groups with both rates."""
    expected = slow_cells(trials)
    assert {cell.groups for cell in point.cells} >= {groups for groups, _ in expected}
    for cell in point.cells:
        for genuine, found in ((False, cell.false_match), (True, cell.false_non_match)):
            errors, count = expected.get((cell.groups, genuine), (0, 0))
            if found is None:
                assert count == 0
                continue
            assert (found.errors, found.trials) == (errors, count)
            enough = count > 0 and (genuine or rate == 0 or 1 / count <= rate)
            assert found.value == pytest.approx(errors / count if enough else math.nan, nan_ok=True)
            assert enough or found.note.startswith("undefined: ")
    own = [cell for cell in point.cells if len(cell.groups) == 1]
    given = {number.name: number for number in point.differentials}
    for which, name in point.rates.items():
        rates = [getattr(cell, which).value for cell in own if getattr(cell, which) is not None]
        rates = [value for value in rates if not math.isnan(value)]
        figures = {"max/min": max_over_min, "max/geometric mean": max_over_geometric_mean, "Gini": gini}
        for what, figure in figures.items():
            if f"{name} {what}" in given:
                value = figure(rates) if len(rates) > 1 else math.nan
                number = given[f"{name} {what}"]
                assert number.value == pytest.approx(value, nan_ok=True)
                assert math.isfinite(value) or number.no_interval
    if "FDR" in given:
        both = [(c.false_match.value, c.false_non_match.value) for c in own]  # type: ignore[union-attr]
        both = [rates for rates in both if not any(map(math.isnan, rates))]
        for name, joint in (("FDR", fdr), ("GARBE", garbe)):
            value = joint(*zip(*both, strict=True)) if len(both) > 1 else math.nan
            assert given[name].value == pytest.approx(value, nan_ok=True)


def trials_of(result: Result, left: Iterable[str], right: Iterable[str], threshold: float | None) -> list[Trial]:
    assert threshold is not None
    scores, same = result.samples["scores"].tolist(), result.samples["same"].tolist()
    return [(a, b, s, score >= threshold) for a, b, s, score in zip(left, right, same, scores, strict=True)]


def test_pairs() -> None:
    three = replace(CROWD, groups=np.array(["a", "b", "", "c"])[np.asarray(CROWD.labels).astype(int) % 4])
    of = dict(zip(three.ids.tolist(), three.groups.tolist(), strict=True))  # type: ignore[union-attr]
    result = pairs.evaluate(three, PAIRS, fars=(0.2, 0.05, 0), draws=0)
    assert [point.at for point in result.by_group] == ["FAR=2e-1", "FAR=5e-2", "FAR=0"]
    for point, far in zip(result.by_group, (0.2, 0.05, 0), strict=True):
        assert point.threshold == result.number(f"TAR@{point.at}").threshold
        trials = trials_of(result, map(of.get, PAIRS.left), map(of.get, PAIRS.right), point.threshold)  # type: ignore[arg-type]
        check(point, trials, far)
        matrix = point.matrix("false_match")
        assert point.groups == ("a", "b", "c") and np.array_equal(matrix, matrix.T, equal_nan=True)
    unknown = sum(not (of[a] and of[b]) and not s for a, b, s in zip(PAIRS.left, PAIRS.right, PAIRS.same, strict=True))
    assert f"{unknown} impostor trials with an image of unknown group are in no rate by group" in result.notes


def test_repeated_pairs_count_once() -> None:
    twice = replace(PAIRS.select(np.arange(len(PAIRS)).repeat(2)), folds=None)
    first = pairs.evaluate(CROWD, replace(PAIRS, folds=None), fars=(0.1,), draws=0).by_group[0]
    assert pairs.evaluate(CROWD, twice, fars=(0.1,), draws=0).by_group[0].cells == first.cells


def test_intervals_are_those_of_the_resamples_written_out() -> None:
    """Each person drawn is copied as often as drawn, and the rates are counted again."""
    result = pairs.evaluate(CROWD, PAIRS, fars=(0.2,), draws=40, seed=3)
    (point,) = result.by_group
    of = dict(zip(CROWD.ids.tolist(), CROWD.groups.tolist(), strict=True))  # type: ignore[union-attr]
    trials = trials_of(result, map(of.get, PAIRS.left), map(of.get, PAIRS.right), point.threshold)  # type: ignore[arg-type]
    people = np.unique(np.concatenate([PAIRS.left_identity, PAIRS.right_identity])).tolist()  # type: ignore[list-item]
    rng = np.random.default_rng(3)
    found: list[dict[tuple[str, ...], float]] = []
    for _ in range(40):
        drawn = rng.multinomial(len(people), np.full(len(people), 1 / len(people)))
        rows = written_out(PAIRS.left_identity, PAIRS.right_identity, dict(zip(people, drawn.tolist(), strict=True)))  # type: ignore[arg-type]
        cells = slow_cells(trials[row] for row in rows)
        found.append({groups: cells[groups, False][0] / cells[groups, False][1] for groups, kind in cells if not kind})
    for cell in point.cells:
        assert cell.false_match is not None and cell.false_match.interval is not None
        ends = np.percentile([rates[cell.groups] for rates in found], [2.5, 97.5])
        assert (cell.false_match.interval.low, cell.false_match.interval.high) == pytest.approx(tuple(ends))
    ends = np.percentile([gini([rates["even",], rates["odd",]]) for rates in found], [2.5, 97.5])
    interval = next(number.interval for number in point.differentials if number.name == "FMR Gini")
    assert interval is not None and (interval.low, interval.high) == pytest.approx(tuple(ends))


def test_a_group_too_small_is_named_and_left_out() -> None:
    few = replace(CROWD, groups=np.where(np.asarray(CROWD.labels).astype(int) < 3, "few", CROWD.groups))  # type: ignore[arg-type]
    result = pairs.evaluate(few, PAIRS, fars=(0.1, 0.05), draws=0)
    count = next(cell.false_match.trials for cell in result.by_group[0].cells if cell.groups == ("few",))  # type: ignore[union-attr]
    assert 0 < count < 10
    assert (
        f"group few is too small for the FMR at FAR=1e-1, FAR=5e-2: {count} impostor trials; it is left out of what "
        "compares the groups there" in result.notes
    )


def test_all_rates_zero_and_one_rate_zero() -> None:
    """Perfect scores: ratios of zero to zero are undefined, Gini is 0; an infinite ratio has no interval, and why."""
    sides = np.array(["a"] * 40 + ["b"] * 40), np.array(["a"] * 40 + ["b"] * 40)
    same = np.tile([True, False], 40)
    samples = {"same": same, "scores": same.astype(float)}
    for wrong, value, why in ((0, math.nan, "all rates are zero"), (1, math.inf, "infinite: a group has no error")):
        samples["scores"][1] = wrong
        found = by_group.of_pairs(sides, samples, {0.1: 0.5}, Resampling("pairs", 20, 0))
        numbers = {number.name: number for number in found.points[0].differentials}
        assert numbers["FMR max/min"].value == pytest.approx(value, nan_ok=True)
        assert why in numbers["FMR max/min"].no_interval and numbers["FMR max/min"].interval is None
        assert numbers["FMR Gini"].value == wrong
        rate = found.points[0].cells[1].false_match
        assert rate is not None and rate.note == "no error among 20: the rate may be as high as 0.15 (rule of 3)"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (np.full(len(CROWD), "one"), "at least two groups are needed; got one"),
        (np.full(len(CROWD), ""), "at least two groups are needed; got none"),
        (CROWD.ids, "at most 30 groups are compared; got 96, such as p0/0, p0/1, p0/2"),
    ],
)
def test_what_cannot_be_compared_is_said(names: np.ndarray, said: str) -> None:
    listed = crowd_pairs(CROWD, per=80)
    result = pairs.evaluate(replace(CROWD, groups=names), listed, draws=0)
    assert not result.by_group and f"no error rates by group: {said}" in result.notes
    assert not pairs.evaluate(replace(CROWD, groups=None), listed, draws=0).by_group


def test_rfw_has_one_common_threshold() -> None:
    result = groups.evaluate(CROWD, PAIRS, draws=0)
    of = dict(zip(CROWD.ids.tolist(), CROWD.groups.tolist(), strict=True))  # type: ignore[union-attr]
    left, right = ([of[name] for name in side.tolist()] for side in (PAIRS.left, PAIRS.right))
    whole = pairs.evaluate(CROWD, PAIRS, fars=(0.1, 0.01), draws=0)
    for point, far in zip(result.by_group, (0.1, 0.01), strict=True):
        assert point.threshold == whole.number(f"TAR@{point.at}").threshold
        check(point, trials_of(whole, left, right, point.threshold), far)


@pytest.mark.parametrize("times", [1, 2])
def test_calibrate(times: int) -> None:
    listed = replace(PAIRS.select(np.arange(len(PAIRS)).repeat(times)), folds=None)
    calibration, result = calibrate(CROWD, listed, target_fmr=0.1, draws=0)
    assert calibration.by_group == result.by_group[0]
    for cell in result.by_group[0].cells[:2]:
        for name, rate in (("FMR", cell.false_match), ("FNMR", cell.false_non_match)):
            assert rate is not None and result[f"{name}, group {cell.groups[0]}"] == pytest.approx(rate.value)


def test_videos_have_the_group_of_all_their_frames() -> None:
    frames, listed = test_videos.video_set()
    of_person = np.array([int(name[1:3]) % 2 for name in frames.ids])
    named = np.where(of_person == 0, "even", "odd")
    odd_one = next(row for row, name in enumerate(frames.ids) if name.startswith("P00/0"))
    named[odd_one] = "odd"
    several = sum(name.startswith("P00/0") for name in frames.ids) > 1
    result = videos.evaluate(replace(frames, groups=named), listed, fars=(0.2,), draws=0)

    def of(video: str) -> str:
        if video == "P00/0":
            return "" if several else "odd"
        return "even" if int(video[1:3]) % 2 == 0 else "odd"

    (point,) = result.by_group
    check(point, trials_of(result, map(of, listed.left), map(of, listed.right), point.threshold), 0.2)


def test_ijb_verify() -> None:
    templates, whole = test_template_verification.template_set()
    of_subject = {subject: "abc"[subject % 3] for subject in templates.subjects.tolist()}  # type: ignore[union-attr]
    named = np.array([of_subject[subject] for subject in templates.subjects.tolist()])  # type: ignore[union-attr]
    grouped = replace(templates, groups=named)
    result = verify(grouped, [whole], fars=(0.1, 0.02), draws=15)
    scores = test_template_verification.slow_scores(templates, whole)
    of = dict(zip(templates.numbers.tolist(), named.tolist(), strict=True))
    for point, far in zip(result.by_group, (0.1, 0.02), strict=True):
        assert point.threshold is not None
        trials = zip(map(of.get, whole.left), map(of.get, whole.right), whole.same, scores, strict=True)
        check(point, [(a, b, bool(s), score >= point.threshold - ROUNDED) for a, b, s, score in trials], far)  # type: ignore[misc]
        assert any(cell.false_match and cell.false_match.interval for cell in point.cells)
    unknown = verify(replace(grouped, subjects=None), [whole], fars=(0.1,), draws=0)
    assert not unknown.by_group and any("does not say who is shown" in note for note in unknown.notes)


def test_templates_have_the_group_of_all_their_images() -> None:
    images = TemplateImages(CROWD.ids[:6], np.array([1, 1, 2, 2, 3, 3]), None, None, "list.csv")
    named = replace(CROWD, groups=np.array(["a", "a", "a", "b", "", ""] + ["c"] * (len(CROWD) - 6)))
    assert pool(named, images, Pooling(pool="flat")).groups.tolist() == ["a", "", ""]  # type: ignore[union-attr]


@pytest.mark.parametrize("within", [None, 1])
def test_ijb_identify(within: int | None) -> None:
    galleries, probes = test_template_identification.search_set()
    named = np.array(["even" if subject // 2 % 2 == 0 else "odd" for subject in probes.subjects])  # type: ignore[union-attr]
    result = identify(galleries, replace(probes, groups=named), fpirs=(0.1,), within=within, draws=10)
    trials: list[Trial] = []
    for gallery in galleries:
        with_mate, without = test_template_identification.slow_search(gallery, probes)
        mated = np.isin(probes.subjects, gallery.subjects)  # type: ignore[arg-type]
        at = sorted(without, reverse=True)[math.floor(0.1 * len(without))] + ROUNDED  # above the first refused
        found = zip(named[mated], with_mate, strict=True)
        trials += [(g, g, True, score >= at and rank <= (within or 99)) for g, (score, rank) in found]
        trials += [(g, g, False, best >= at) for g, best in zip(named[~mated], without, strict=True)]
    (point,) = result.by_group
    assert (point.at, point.kind, point.threshold) == ("FPIR=1e-1", "identification", None)
    check(point, trials, 0.1)


def test_blufr() -> None:
    crowd_, blufr = test_open_set.CROWD, test_open_set.BLUFR
    named = np.asarray(crowd_.groups)
    result = open_set.evaluate(crowd_, blufr, fars=(1e-2,), open_set_fars=(0.05,))
    scores, people = test_open_set.cosine(crowd_.vectors), test_open_set.PEOPLE
    verified: list[Trial] = []
    searched: list[Trial] = []
    for one in blufr.trials:
        couples = list(itertools.combinations(one.test.tolist(), 2))
        impostors = sorted((scores[a, b] for a, b in couples if people[a] != people[b]), reverse=True)
        at = impostors[math.floor(1e-2 * len(impostors))] + ROUNDED  # above the first that is refused
        verified += [(named[a], named[b], bool(people[a] == people[b]), scores[a, b] >= at) for a, b in couples]
        best = {probe: max(scores[probe, row] for row in one.gallery) for probe in one.impostor}
        at = sorted(best.values(), reverse=True)[math.floor(0.05 * len(best))] + ROUNDED
        searched += [(named[probe], named[probe], False, score >= at) for probe, score in best.items()]
        for probe in one.genuine:
            mate = next(scores[probe, row] for row in one.gallery if people[row] == people[probe])
            first = all(scores[probe, row] < mate for row in one.gallery if people[row] != people[probe])
            searched.append((named[probe], named[probe], True, first and mate >= at))
    verification, identification = result.by_group
    assert (verification.at, identification.at) == ("FAR=1e-2", "open set FAR=5e-2, rank 1")
    check(verification, verified, 1e-2)
    check(identification, searched, 0.05)


def of_people(embeddings: Embeddings, names: str) -> Embeddings:
    """The same embeddings, with each person's group in turn."""
    return replace(embeddings, groups=np.array([names[int(name) % len(names)] for name in embeddings.labels]))  # type: ignore[union-attr]


@pytest.mark.parametrize("grouped", [True, False], ids=["distractors with groups", "without"])
def test_megaface(grouped: bool) -> None:
    probes, others = of_people(test_distractors.PROBES, "ab"), test_distractors.DISTRACTORS
    far_groups = np.array(["a", "b", "c", ""])[np.arange(len(others)) % 4]
    given = replace(others, groups=far_groups) if grouped else others
    result = distractors.megaface(probes, given, fars=(0.02,), ranks=(1,), draws=10)
    own = test_distractors.cosine(probes.vectors, probes.vectors)
    far = test_distractors.cosine(probes.vectors, others.vectors)
    verification, identification = result.by_group
    at, named = verification.threshold, probes.groups.tolist()  # type: ignore[union-attr]
    assert at is not None
    at += ROUNDED
    couples = [(a, b) for a, b in itertools.combinations(range(len(probes)), 2) if probes.labels[a] == probes.labels[b]]  # type: ignore[index]
    trials = [(named[a], named[b], True, own[a, b] >= at) for a, b in couples]
    for a, d in itertools.product(range(len(probes)), range(len(others))):
        trials.append((named[a], str(far_groups[d]) if grouped else named[a], False, far[a, d] >= at))
    check(verification, trials, 0.02)
    searches = [pair for a, b in couples for pair in ((a, b), (b, a))]
    hits = [(named[p], named[p], True, bool((far[p] < own[p, m]).all())) for p, m in searches]
    assert identification.at == "rank-1, 130 distractors"
    check(identification, hits, 0)
    assert identification.differentials[0].name == "FNIR max/min"


def test_trillion_pairs() -> None:
    whole = of_people(crowd(12, 5, 8, noise=0.7), "abc")
    person, place = np.arange(60) // 5, np.arange(60) % 5
    probes = test_distractors.only(whole, np.flatnonzero(place < 2), groups=np.asarray(whole.groups)[place < 2])
    held = np.flatnonzero((place >= 2) & (person < 9))
    gallery = test_distractors.only(whole, held)
    result = trillion_pairs(probes, gallery, fars=(0.05,), search_fars=(0.2,), draws=10)
    scores = test_distractors.cosine(probes.vectors, gallery.vectors)
    verification, identification = result.by_group
    named = [side.groups.tolist() for side in (probes, gallery)]  # type: ignore[union-attr]
    who = [side.labels.tolist() for side in (probes, gallery)]  # type: ignore[union-attr]
    every = list(itertools.product(range(len(probes)), range(len(gallery))))
    at, lowest = verification.threshold, identification.threshold
    assert at is not None and lowest is not None
    at, lowest = at + ROUNDED, lowest - ROUNDED  # the first is just above a score that is refused
    check(
        verification, [(named[0][a], named[1][b], who[0][a] == who[1][b], scores[a, b] >= at) for a, b in every], 0.05
    )
    searched: list[Trial] = []
    for a, group in enumerate(named[0]):
        own = max((scores[a, b] for b in range(len(gallery)) if who[0][a] == who[1][b]), default=None)
        best = max(scores[a, b] for b in range(len(gallery)) if who[0][a] != who[1][b])
        searched.append(
            (group, group, own is not None, best >= lowest if own is None else own > best and own >= lowest)
        )
    check(identification, searched, 0.2)


@pytest.mark.parametrize("grouped", [True, False], ids=["distractors with groups", "without"])
def test_trillion_pairs_among_distractors_only(grouped: bool) -> None:
    """Genuine pairs and searches are of two probes; impostors are each probe with each distractor, and each probe."""
    probes, others = of_people(test_distractors.PROBES, "ab"), test_distractors.DISTRACTORS
    far_groups = np.array(["a", "b", "c", ""])[np.arange(len(others)) % 4] if grouped else None
    given = replace(others, groups=far_groups)
    result = trillion_pairs(probes, given, fars=(0.02,), search_fars=(0.2,), draws=10)
    own = test_distractors.cosine(probes.vectors, probes.vectors)
    far = test_distractors.cosine(probes.vectors, others.vectors)
    verification, identification = result.by_group
    at, lowest, named = verification.threshold, identification.threshold, probes.groups.tolist()  # type: ignore[union-attr]
    assert at is not None and lowest is not None
    at, lowest = at + ROUNDED, lowest - ROUNDED  # the first is just above a score that is refused
    couples = [(a, b) for a, b in itertools.combinations(range(len(probes)), 2) if probes.labels[a] == probes.labels[b]]  # type: ignore[index]
    trials = [(named[a], named[b], True, own[a, b] >= at) for a, b in couples]
    for a, d in itertools.product(range(len(probes)), range(len(others))):
        trials.append((named[a], named[a] if far_groups is None else str(far_groups[d]), False, far[a, d] >= at))
    check(verification, trials, 0.02)
    searched: list[Trial] = [(g, g, False, bool(far[a].max() >= lowest)) for a, g in enumerate(named)]
    for p, m in [pair for a, b in couples for pair in ((a, b), (b, a))]:
        searched.append((named[p], named[p], True, bool(own[p, m] > far[p].max() and own[p, m] >= lowest)))
    check(identification, searched, 0.2)


@pytest.mark.parametrize(
    ("rule", "ids"),
    [
        (IdRule(strip=("_x.bin",), parts=2), "/data/p0/0.jpg_x.bin"),  # as the embeddings' own were before the rule
        (IdRule(strip=("_x.bin",), parts=2), "other/p0/0.jpg"),
        (IdRule(strip=("/data/", ".jpg_x.bin")), "/data/p0/0.jpg_x.bin"),
        (IdRule(strip=("/data/", "_x.bin")), "p0/0"),  # without the suffix that the embeddings keep
        (IdRule(strip=("/data/", ".jpg_x.bin")), "p0/0.png"),
    ],
)
def test_a_csv_names_ids_as_the_list_or_the_embeddings_do(rule: IdRule, ids: str, tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text(f'id,group\n"{ids}",x\n')
    given = replace(CROWD, ids=np.array([f"/data/{name}.jpg_x.bin" for name in CROWD.ids]))
    named = with_groups(given.match_by(rule), tmp_path / "groups.csv")
    assert named.groups is not None and named.groups.tolist() == ["x"] + [""] * (len(CROWD) - 1)


def test_a_csv_names_the_groups(tmp_path: Path) -> None:
    """Other columns are ignored; images that it does not name, and empty or unknown groups, are of no group."""
    path = tmp_path / "groups.csv"
    path.write_text("sex;ID;group\nm;p0/0;x\nf;p0/1;\nf;p1/0;nan\nm;p1/1; y \nm;of another set;z\n")
    assert read_groups(path) == {"p0/0": "x", "p0/1": "", "p1/0": "", "p1/1": "y", "of another set": "z"}
    named = with_groups(CROWD, path)
    assert dict(zip(named.ids[:6], named.groups[:6], strict=True)) == {  # type: ignore[index]
        "p0/0": "x", "p0/1": "", "p0/2": "", "p0/3": "", "p1/0": "", "p1/1": "y",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,group\na,b\n", "must name a column 'id' once in its first line, as in id,group; got 'name,group'"),
        ("id,groups\na,b\n", "column 'group' once .* did you mean 'groups'"),
        ("id,group\na,b\nc\n", "line 3 must be 2 cells, as the first line has; got 1"),
        ('id,group\n"a,b\n', "line 2 must be cells whose quotes are closed"),
        ("id,group\n,b\n", "line 2 must be a row with an id; got ''"),
        ("id,group\na,b\n\na,c\n", "line 4 must be one group for each id; 'a' has 'b' above; got 'c'"),
        ("id,group\na,b\n", "must name images of crowd; none of its 1 ids is among them"),
        ("id,group\n/data/p0/1,b\n", "like '/data/p0/1', .*; --id-parts 2 would match all 1"),
        ("id,group\n", "must hold lines after its heading"),
    ],
)
def test_a_csv_that_names_no_groups_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(InputError, match=sentence):
        with_groups(CROWD, tmp_path / "groups.csv")
    if "none of its" in sentence:
        assert with_groups(CROWD, tmp_path / "groups.csv", needed=False) is CROWD


def test_the_heat_map_and_the_tables_show_every_cell() -> None:
    result = pairs.evaluate(CROWD, PAIRS, fars=(0.1, 0.01), draws=0)
    point, small = result.by_group
    chart = group_heat_map(point)
    (series,) = chart.series
    rates = {cell.groups: cell.false_match.value for cell in point.cells if cell.false_match}
    expected = [[rates["even",], rates["even", "odd"]], [rates["even", "odd"], rates["odd",]]]
    assert series.z is not None and series.z.tolist() == expected and series.top == max(rates.values())
    assert series.texts == [f"{value:.2g}" for row in expected for value in row]
    drawn = draw(chart).axes[0]
    assert [text.get_text() for text in drawn.texts] == series.texts
    trace = render_plotly(chart)["traces"][0]
    assert trace["type"] == "heatmap" and trace["text"] == np.reshape(series.texts, (2, 2)).tolist()
    texts = group_heat_map(small).series[0].texts
    assert texts[0] == texts[3] == "–"  # no group has 100 impostor pairs
    tables = group_tables({"mine": result})
    assert [row[0] for row in tables[0].rows] == ["even", "odd", "even × odd"]
    assert [row[0] for row in tables[3].rows] == ["FNMR max/min", "FNMR max/geometric mean", "FNMR Gini"]
    assert list(tables[2].notes) == [
        "FNMR at FAR=1e-2: even fares worst (0.7639), odd best (0.6528); the difference is not decided: even and odd "
        "have no interval.",
        "FMR is undefined for even (51 trials), odd (45 trials): a rate of 1e-2 needs 100.",
        "FMR max/min, FMR max/geometric mean, FMR Gini, FDR, GARBE are undefined: fewer than two groups have the "
        "rates.",
    ]
    alone = replace(small, cells=small.cells[:2])
    (rates_only, unequal) = group_tables({"mine": replace(result, by_group=(alone,))})
    assert rates_only.head == ["group", "FNMR", "errors / trials"] and unequal.rows == tables[3].rows
    card = "\n".join(by_group_lines(point))
    assert f"| `even` × `odd` | {rates['even', 'odd']:#.2g} |" in card


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ((0.2, 0.4), (0.5, 0.7), ("a best (0.300)", "decided: the intervals are apart")),
        ((0.2, 0.6), (0.5, 0.7), ("a best (0.400)", "not decided: the intervals overlap")),
        (None, (0.5, 0.7), ("a best (0.00)", "not decided: a has no interval")),
        ((0.5, 0.7), (0.5, 0.7), None),
    ],
)
def test_a_sentence_says_which_group_fares_worst(
    a: tuple[float, float] | None, b: tuple[float, float], verdict: tuple[str, str] | None
) -> None:
    cells = []
    for name, ends in (("a", a), ("b", b)):
        low, high = ends or (0.0, 0.0)
        interval = Interval(low, high, 0.95) if ends else None
        cells.append(Cell((name,), None, GroupRate(10, round(5 * (low + high)), (low + high) / 2, interval)))
    said = "all groups have 0.600."
    if verdict:
        said = f"b fares worst (0.600), {verdict[0]}; the difference is {verdict[1]}."
    assert conclusions(ByGroup("FAR=1e-2", "verification", 0.5, tuple(cells), ()), 3) == [f"FNMR at FAR=1e-2: {said}"]
