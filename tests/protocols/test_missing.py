"""Images without embedding as failures to enrol: figures with and without them, by hand from the rates of the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.blufr import Blufr, BlufrTrial
from angulus.evaluation.lists.groups_csv import with_groups
from angulus.evaluation.lists.ijb import Comparisons, TemplateImages
from angulus.evaluation.lists.megaface import FeatureList
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.metrics.verification import kfold_accuracy
from angulus.evaluation.protocols import groups, open_set, pairs, template_identification, template_verification, videos
from angulus.evaluation.protocols.differences import compare_results
from angulus.evaluation.protocols.distractors import megaface
from angulus.evaluation.protocols.result import Result
from angulus.evaluation.protocols.templates import Pooling, Templates, pool
from angulus.report.sections import write_report
from angulus.report.thumbnails import Captioned, wrong_result_pairs
from people import crowd, crowd_pairs

CROWD = crowd()
PAIRS = crowd_pairs(CROWD)
ABSENT = CROWD.ids[[1, 6, 17]]


def without(embeddings: Embeddings, ids: np.ndarray = ABSENT) -> Embeddings:
    kept = ~np.isin(embeddings.ids, ids)
    return replace(
        embeddings, vectors=embeddings.vectors[kept], ids=embeddings.ids[kept], labels=None, groups=None, flipped=None
    )


FAILED = np.isin(PAIRS.left, ABSENT) | np.isin(PAIRS.right, ABSENT)
RESULT = pairs.evaluate(without(CROWD), PAIRS, missing="fail", draws=0)
ENROLLED = pairs.evaluate(CROWD, PAIRS.select(~FAILED), draws=0)
SUFFIX = ", without failures"


def test_figures_without_failures_are_those_of_the_other_pairs() -> None:
    own = {name.removesuffix(SUFFIX): RESULT.number(name) for name in _names() if SUFFIX in name}
    assert set(own) == {number.name for number in ENROLLED.numbers} >= {"accuracy", "AUC", "EER", "TAR@FAR=1e-1"}
    for name, number in own.items():
        expected = ENROLLED.number(name)
        assert (number.value, number.spread, number.threshold) == (expected.value, expected.spread, expected.threshold)


def _names() -> list[str]:
    return [number.name for number in RESULT.numbers]


def test_figures_with_failures_count_them_as_rejections() -> None:
    """ISO/IEC 19795-1: a genuine pair that fails is an error, an impostor pair that fails is rejected."""
    genuine, impostors = (ENROLLED.samples["scores"][ENROLLED.samples["same"] == kind] for kind in (True, False))
    lost = [int((FAILED & (PAIRS.same == kind)).sum()) for kind in (True, False)]
    assert min(lost) > 0
    tar = 0.0
    for threshold in np.concatenate([genuine, impostors]):
        if sum(impostors >= threshold) / (len(impostors) + lost[1]) <= 0.1:
            tar = max(tar, sum(genuine >= threshold) / (len(genuine) + lost[0]))
    assert RESULT["TAR@FAR=1e-1"] == pytest.approx(tar)
    assert RESULT["TAR@FAR=1e-1"] < RESULT[f"TAR@FAR=1e-1{SUFFIX}"]
    assert PAIRS.folds is not None
    kept = PAIRS.folds[~FAILED]
    chosen = kfold_accuracy(ENROLLED.samples["scores"], PAIRS.same[~FAILED], kept)
    accuracies = []
    for fold, accuracy in enumerate(chosen.accuracies):
        rejected = (FAILED & ~PAIRS.same & (PAIRS.folds == fold)).sum()
        accuracies.append((accuracy * (kept == fold).sum() + rejected) / (PAIRS.folds == fold).sum())
    assert RESULT["accuracy"] == pytest.approx(np.mean(accuracies))
    counted = {"pairs": 72, "images without embedding": 3, "pairs of them": int(FAILED.sum())}
    assert {name: RESULT.counts[name] for name in counted} == counted
    assert RESULT.choices["images without embedding"].startswith("failures to enrol")
    assert "norms" not in RESULT.samples and any("have no norm" in note for note in RESULT.notes)


@pytest.mark.parametrize("folds", [None, np.arange(40) % 2])
def test_no_threshold_accepts_a_failure_even_where_accepting_all_is_most_accurate(folds: np.ndarray | None) -> None:
    """34 genuine pairs and 6 impostors of a useless model: a threshold is chosen on pairs with two embeddings."""
    ids, vectors = np.array([f"{row}.jpg" for row in range(80)]), np.random.default_rng(0).normal(size=(80, 8))
    there, listed = ~np.isin(np.arange(80), (0, 2, 4)), PairList(ids[::2], ids[1::2], np.arange(40) < 34, folds)
    result = pairs.evaluate(Embeddings(vectors[there], ids[there]), listed, missing="fail", draws=0)
    kept = there[::2]  # the three others are genuine
    scores = result.samples["scores"][kept]
    if folds is None:
        right = max(((scores >= at) == listed.same[kept]).sum() for at in scores)
        assert result[pairs.BEST] == pytest.approx(right / 40) and right < 34
    else:
        rest = kfold_accuracy(scores, listed.same[kept], folds[kept]).accuracies
        assert result["accuracy"] == pytest.approx(np.mean(rest * np.bincount(folds[kept]) / 20))


def test_curves_are_of_all_pairs_and_have_a_report(tmp_path: Path) -> None:
    """A failure is accepted nowhere: the ROC ends at the shares of pairs that have two embeddings."""
    roc, det = RESULT.curves
    same = PAIRS.same
    assert (roc.x[-1], roc.y[-1]) == pytest.approx([(~FAILED[same == kind]).mean() for kind in (False, True)])
    assert det.y.tolist() == (1 - roc.y).tolist()
    assert roc.y[roc.x <= 0.1].max() == pytest.approx(RESULT["TAR@FAR=1e-1"])
    RESULT.save(tmp_path / "failures.json")
    write_report([tmp_path / "failures.json"], tmp_path / "page.html")
    shown = {name for one in wrong_result_pairs(RESULT, {}).values() for wrong in one for name in _ids(wrong)}
    assert shown and not shown & set(ABSENT.tolist())


def _ids(wrong: Captioned) -> list[str]:
    return [thumbnail.alt for thumbnail in wrong.images]


def test_intervals_and_comparisons_go_over_both_kinds() -> None:
    noisy = replace(CROWD, vectors=CROWD.vectors + 0.5)
    first = pairs.evaluate(without(CROWD), PAIRS, missing="fail", draws=50)
    number = first.number(f"AUC{SUFFIX}")
    assert number.interval is not None and number.interval.low < number.value < number.interval.high
    second = pairs.evaluate(without(noisy, ABSENT[:1]), PAIRS, missing="fail", draws=0)
    found = compare_results(first, second, draws=20)
    assert found["AUC"] == second["AUC"] - first["AUC"] and f"AUC{SUFFIX}" in {n.name for n in found.numbers}
    whole = pairs.evaluate(CROWD, PAIRS, missing="fail", draws=0)
    assert _names()[:4] == [number.name for number in whole.numbers]
    assert compare_results(first, whole, draws=20)["AUC"] == whole["AUC"] - first["AUC"]


def test_folds_fitted_projections_and_lists_without_people() -> None:
    projected = pairs.evaluate(without(CROWD), PAIRS, pca=4, missing="fail", draws=0)
    rest = pairs.evaluate(CROWD, PAIRS.select(~FAILED), pca=4, draws=0)
    assert projected[f"accuracy{SUFFIX}"] == rest["accuracy"]
    unnamed = pairs.evaluate(without(CROWD), crowd_pairs(CROWD, named=False), missing="fail", draws=0)
    assert any("intervals resample the pairs" in note for note in unnamed.notes)


def test_groups_with_failures() -> None:
    listed = crowd_pairs(CROWD, grouped=True)
    even = np.isin(listed.left_identity, [str(n) for n in range(0, 12, 2)])
    of_group = replace(listed, groups=np.where(even, "even", "odd"))
    absent = listed.left[:1]
    failed = np.isin(listed.left, absent) | np.isin(listed.right, absent)
    found = groups.evaluate(without(CROWD, absent), of_group, missing="fail", draws=0)
    rest = groups.evaluate(CROWD, of_group.select(~failed), draws=0)
    assert failed.any()
    for number in rest.numbers:
        assert found[f"{number.name}{SUFFIX}"] == number.value
    assert found["mean accuracy"] != rest["mean accuracy"]
    absent = np.random.default_rng(64).permutation(CROWD.ids)[:20]
    enrolled = ~of_group.same & ~np.isin(of_group.left, absent) & ~np.isin(of_group.right, absent)
    assert enrolled.sum() < 10 <= (~of_group.same).sum()  # pairs that failed do not support a FAR of 0.1
    assert not groups.evaluate(without(CROWD, absent), of_group, missing="fail", draws=0).by_group
    grouped = replace(without(CROWD, absent), groups=CROWD.groups[~np.isin(CROWD.ids, absent)])
    with pytest.raises(InputError, match="have no group in crowd; give one list per group, or"):
        groups.evaluate(grouped, listed, missing="fail")


def test_what_cannot_fail_is_refused() -> None:
    with pytest.raises(InputError, match=r"3 of the 48 ids .* with --missing fail"):
        pairs.evaluate(without(CROWD), PAIRS)
    with pytest.raises(InputError, match="missing must be one of 'refuse', 'fail'; got 'skip'"):
        pairs.evaluate(CROWD, PAIRS, missing="skip")
    lone = without(CROWD, CROWD.ids[1:])
    with pytest.raises(InputError, match="must hold a pair of two images with embeddings; it holds none"):
        pairs.evaluate(lone, PAIRS, missing="fail")
    with pytest.raises(InputError, match=r"FAR 0.028 needs at least 36 impostor pairs; got 3"):
        pairs.evaluate(without(CROWD), PAIRS, missing="fail", fars=[0.028])


# other protocols: an image without embedding counts as one whose score with every image is below all other scores


def lifted(embeddings: Embeddings, absent: np.ndarray, spread: float = 1) -> Embeddings:
    """Vectors whose cosines are all positive, but for those of the absent images, which point away from all."""
    vectors = np.hstack([spread * embeddings.vectors, np.full((len(embeddings), 1), 12.0)])
    vectors[np.isin(embeddings.ids, absent)] = [0.0] * embeddings.vectors.shape[1] + [-1.0]
    return replace(embeddings, vectors=vectors, flipped=None)


def enrolled(embeddings: Embeddings, absent: np.ndarray, tmp_path: Path) -> Embeddings:
    """Those with embeddings; a file names the groups of all."""
    kept = ~np.isin(embeddings.ids, absent)
    columns = {name: None if (v := getattr(embeddings, name)) is None else v[kept] for name in ("labels", "norms")}
    few = replace(embeddings, vectors=embeddings.vectors[kept], ids=embeddings.ids[kept], groups=None, **columns)  # type: ignore[arg-type]
    if embeddings.groups is None:
        return few
    rows = zip(embeddings.ids.tolist(), embeddings.groups.tolist(), strict=True)
    (tmp_path / "groups.csv").write_text("\n".join(["id,group", *(f"{name},{group}" for name, group in rows)]))
    return with_groups(few, tmp_path / "groups.csv")


def same(found: Result, below: Result, rest: Result | None = None) -> None:
    """`found` has the figures of `below` with failures, and of `rest` without; the rates by group are with failures."""
    assert {n.name for n in found.numbers if SUFFIX not in n.name} == {number.name for number in below.numbers}
    for number in below.numbers:
        if number.name != "AUC":  # failures tie, and those that point away need not
            assert found[number.name] == pytest.approx(number.value, abs=1e-12), number.name
    assert [point.cells for point in found.by_group] == [point.cells for point in below.by_group]
    assert found.choices["images without embedding"].startswith("failures to enrol")
    if rest is not None:
        own = {n.name.removesuffix(SUFFIX): n.value for n in found.numbers if n.name.endswith(SUFFIX)}
        assert own == pytest.approx({number.name: number.value for number in rest.numbers}, abs=1e-12)


def test_blufr_with_failures(tmp_path: Path) -> None:
    people = crowd(40, 5, 8, noise=0.9)
    labels = np.arange(40).repeat(5)
    trials = []
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(40)
        test, gallery = np.flatnonzero(np.isin(labels, order[10:])), 5 * order[10:20]
        probes = np.setdiff1d(test, gallery)
        known = np.isin(labels[probes], labels[gallery])
        trials.append(
            BlufrTrial(np.flatnonzero(np.isin(labels, order[:10])), test, gallery, probes[known], probes[~known])
        )
    held, probe = trials[0].gallery[0], trials[0].genuine[-1]
    for row in (held, probe, trials[0].impostor[0]):
        absent, whole = people.ids[[row]], lifted(people, people.ids[[row]])
        rest = tuple(_without_row(trial, row, labels) for trial in trials)
        options = {"fars": [0.01], "open_set_fars": [0.1]}
        below = open_set.evaluate(whole, Blufr(people.ids, labels, tuple(trials), "trials"), **options)  # type: ignore[arg-type]
        few = enrolled(whole, absent, tmp_path)
        without = open_set.evaluate(whole, Blufr(people.ids, labels, rest, "trials"), **options)  # type: ignore[arg-type]
        listed = Blufr(people.ids, labels, tuple(trials), "trials")
        found = open_set.evaluate(few, listed, missing="fail", **options)  # type: ignore[arg-type]
        same(found, below, without)
        assert found.counts["images without embedding"] == 1
        with pytest.raises(InputError, match="with --missing fail"):
            open_set.evaluate(few, listed, missing="refuse")


def _without_row(trial: BlufrTrial, row: int, labels: np.ndarray) -> BlufrTrial:
    mates = labels[row] if row in trial.gallery else -1
    parts = {name: (rows := getattr(trial, name))[rows != row] for name in ("train", "test", "gallery", "impostor")}
    return BlufrTrial(**parts, genuine=trial.genuine[(trial.genuine != row) & (labels[trial.genuine] != mates)])


def test_megaface_with_failures(tmp_path: Path) -> None:
    probes = crowd(9, 4, 8, noise=0.6)
    vectors = np.random.default_rng(5).normal(size=(130, 8))
    distractors = Embeddings(vectors, np.array([f"d{place}" for place in range(130)]), source="distractors")
    lists = FeatureList(probes.ids, probes.labels, "probes"), FeatureList(distractors.ids, None, "distractors")
    for absent in (probes.ids[:1], distractors.ids[3:4]):
        # a mate of a failed probe, which points away from all, is farther from it than every distractor
        sides = lifted(probes, absent), lifted(distractors, absent, spread=4)
        below = megaface(*sides, lists=lists, draws=0, fars=[0.01])
        few = enrolled(sides[0], absent, tmp_path), enrolled(sides[1], absent, tmp_path)
        found = megaface(*few, lists=lists, draws=0, fars=[0.01], missing="fail")
        if absent[0] in probes.ids:
            same(found, below, megaface(*few, draws=0, fars=[0.01]))
            assert found["rank-10, 130 distractors"] < found[f"rank-10, 130 distractors{SUFFIX}"]
        else:  # galleries hold the distractors that have embeddings
            assert found["rank-1, 10 distractors"] <= below["rank-1, 10 distractors"]
            assert found["TAR@FAR=1e-2"] == below["TAR@FAR=1e-2"]
        assert found.counts["images without embedding"] == 1
        with pytest.raises(InputError, match="with --missing fail"):
            megaface(*few, lists=lists, missing="refuse")


@pytest.mark.parametrize("score", ["mean", "histogram"])
def test_videos_with_failures(score: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    ids = np.array([f"P{p:02d}/{v}/{f}.jpg" for p in range(12) for v in range(2) for f in range(2)])
    vectors = random.normal(size=(12, 6)).repeat(4, axis=0) + random.normal(size=(48, 6))
    parity = np.array([("even", "odd")[int(name[1:3]) % 2] for name in ids])
    frames = lifted(Embeddings(vectors, ids, groups=parity, source="frames"), ids[:2])
    rows = [(f"P{p:02d}/0", f"P{q:02d}/1", p == q, p % 2) for p in range(12) for q in (p, (p + 2) % 12)]
    left, right, kind, folds = (np.array(column) for column in zip(*rows, strict=True))
    listed = PairList(left, right, kind, folds, np.char.partition(left, "/")[:, 0], np.char.partition(right, "/")[:, 0])
    failed = left == "P00/0"
    few = enrolled(frames, ids[:2], tmp_path)
    found = videos.evaluate(few, listed, score=score, missing="fail", draws=0)
    rest = videos.evaluate(few, listed.select(~failed), score=score, draws=0)
    if score == "mean":
        same(found, videos.evaluate(frames, listed, draws=0), rest)
    else:
        own = rest.samples["scores"] >= 0
        correct = np.array([*(own == rest.samples["same"]), *~kind[failed]])
        of_fold = np.array([*folds[~failed], *folds[failed]])
        assert found["accuracy"] == pytest.approx(np.mean([correct[of_fold == fold].mean() for fold in (0, 1)]))
        assert found[f"accuracy{SUFFIX}"] == rest["accuracy"]
    counted = {"videos": 24, "videos without a frame": 1, "pairs of them": 2}
    assert {name: found.counts[name] for name in counted} == counted
    with pytest.raises(InputError, match="with --missing fail"):
        videos.evaluate(few, listed)


TEMPLATES = TemplateImages(
    CROWD.ids, np.arange(48), np.zeros(48, dtype=int), np.arange(12).repeat(4), "templates of one image"
)


def pooled(embeddings: Embeddings, images: TemplateImages, missing: str = "refuse") -> Templates:
    return pool(embeddings, images, Pooling(pool="flat", norm=False), missing)


def test_comparisons_of_templates_with_failures(tmp_path: Path) -> None:
    first, second = np.triu_indices(48, 1)
    listed = Comparisons(first, second, first // 4 == second // 4)
    absent = CROWD.ids[[5]]
    whole = lifted(CROWD, absent)
    few = enrolled(whole, absent, tmp_path)
    found, below, rest = (
        template_verification.verify(pooled(embeddings, TEMPLATES, missing), [of], folds=3, draws=0)
        for embeddings, missing, of in (
            (few, "fail", listed),
            (whole, "refuse", listed),
            (
                whole,
                "refuse",
                Comparisons(*((column[(first != 5) & (second != 5)]) for column in vars(listed).values())),
            ),
        )
    )
    same(found, below, rest)
    counted = {"images without embedding": 1, "templates of such only": 1}
    assert {name: found.counts[name] for name in counted} == counted
    again = replace(few, vectors=few.vectors + 0.1)
    other = template_verification.verify(pooled(again, TEMPLATES, "fail"), [listed], folds=3, draws=0)
    assert f"accuracy{SUFFIX}" in {number.name for number in compare_results(found, other, draws=5).numbers}
    with pytest.raises(InputError, match="with --missing fail"):
        pooled(few, TEMPLATES)


def test_templates_are_pooled_of_the_images_that_have_embeddings() -> None:
    images = replace(TEMPLATES, templates=np.arange(48) // 2)
    few = without(CROWD, CROWD.ids[[0]])
    some, both = pooled(few, images, "fail"), pooled(CROWD, images)
    np.testing.assert_array_equal(some.units[1:], both.units[1:])
    np.testing.assert_allclose(some.units[0], CROWD.unit([1])[0], atol=1e-12)
    assert (some.failed, some.absent) == (None, 1)


def test_searches_of_templates_with_failures(tmp_path: Path) -> None:
    held, asked = np.arange(0, 32, 4), np.setdiff1d(np.arange(48), np.arange(0, 48, 4))
    gallery, probes = (TEMPLATES.select(np.isin(np.arange(48), rows)) for rows in (held, asked))
    for row in (0, 5, 45):  # of the gallery, with mate, without
        absent = CROWD.ids[[row]]
        whole = lifted(CROWD, absent)
        if row == 5:
            whole.vectors[5] = -whole.vectors[4]  # away from its mate more than from all others
        few = enrolled(whole, absent, tmp_path)
        below = template_identification.identify([pooled(whole, gallery)], pooled(whole, probes), ranks=[1, 3], draws=0)
        sides = (pooled(few, gallery, "fail"), pooled(few, probes, "fail"))
        found = template_identification.identify([sides[0]], sides[1], ranks=[1, 3], draws=0)
        rest = None
        if row:
            kept = probes.select(probes.templates != row)
            rest = template_identification.identify(
                [pooled(whole, gallery)], pooled(whole, kept), ranks=[1, 3], draws=0
            )
        same(found, below, rest)
        assert found.counts["images without embedding"] == found.counts["templates of such only"] == 1
        closed, drawn = found.curves
        strangers = int((~found.samples["mated"]).sum())
        assert closed.x[-1] <= len(held) and drawn.x[-1] == (1 if row < 45 else 1 - 1 / strangers)
