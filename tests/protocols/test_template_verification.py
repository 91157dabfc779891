"""IJB 1:1: slow loops over all comparisons, streams and tails against whole lists, resamples, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.ijb import Comparisons, read_comparisons, read_templates
from angulus.evaluation.metrics.curves import error_curve
from angulus.evaluation.metrics.verification import kfold_accuracy, tar_at_far
from angulus.evaluation.protocols import template_stream, template_tail, template_verification
from angulus.evaluation.protocols.result import Result
from angulus.evaluation.protocols.template_verification import verify
from angulus.evaluation.protocols.templates import Pooling, Templates, link, pool


def template_set(seed: int = 0, count: int = 60, subjects: int = 15) -> tuple[Templates, Comparisons]:
    """Templates around their subjects' centres, and all comparisons of the first half with the second."""
    random = np.random.default_rng(seed)
    numbers = np.sort(random.permutation(10 * count)[:count])
    subjects_of = random.permutation(np.arange(count) % subjects) * 7 + 100
    centres = {subject: random.normal(size=8) for subject in np.unique(subjects_of).tolist()}
    vectors = np.array([centres[subject] for subject in subjects_of.tolist()]) + 0.9 * random.normal(size=(count, 8))
    norms = np.linalg.norm(vectors, axis=1)
    templates = Templates(numbers, vectors / norms[:, None], norms, subjects_of, Pooling(), 3 * count, "metadata.csv")
    left, right = (side.ravel() for side in np.meshgrid(np.arange(count // 2), np.arange(count // 2, count)))
    return templates, Comparisons(numbers[left], numbers[right], subjects_of[left] == subjects_of[right])


def blocks_of(whole: Comparisons, size: int) -> Iterator[Comparisons]:
    for start in range(0, len(whole), size):
        block = slice(start, start + size)
        yield Comparisons(whole.left[block], whole.right[block], whole.same[block])


def slow_scores(templates: Templates, whole: Comparisons) -> list[float]:
    row = {number: place for place, number in enumerate(templates.numbers.tolist())}
    return [
        float(sum(templates.units[row[a]] * templates.units[row[b]]))
        for a, b in zip(whole.left.tolist(), whole.right.tolist(), strict=True)
    ]


def slow_tar(scores: list[float], same: list[bool], far: float) -> float:
    best = 0.0
    for threshold in sorted(set(scores)):
        accepted = [kind for score, kind in zip(scores, same, strict=True) if score >= threshold]
        if accepted.count(False) <= far * same.count(False):
            best = max(best, accepted.count(True) / same.count(True))
    return best


def folds_of(templates: Templates, whole: Comparisons, folds: int) -> np.ndarray:
    """The subject of the first template, by its place among all subjects, dealt in turn."""
    order = sorted(set(templates.subjects.tolist()))  # type: ignore[union-attr]
    subject = dict(zip(templates.numbers.tolist(), templates.subjects.tolist(), strict=True))  # type: ignore[union-attr]
    return np.array([order.index(subject[number]) % folds for number in whole.left.tolist()])


def test_figures_are_those_of_slow_loops() -> None:
    templates, whole = template_set()
    scores, same = slow_scores(templates, whole), whole.same.tolist()
    result = verify(templates, [whole], folds=5, draws=0)
    assert [number.name for number in result.numbers] == [
        "TAR@FAR=1e-1",
        "TAR@FAR=1e-2",
        "balanced accuracy",
        "accuracy",
    ]
    for far in (1e-1, 1e-2):
        number = result.number(f"TAR@FAR={far:.0e}".replace("e-0", "e-"))
        assert number.value == pytest.approx(slow_tar(scores, same, far))
        accepted = np.array(scores) >= number.threshold - 1e-12
        assert accepted[whole.same].mean() == pytest.approx(number.value)
        assert accepted[~whole.same].mean() <= far
    flags, scored = np.array(same), np.array(scores)
    best = max(balanced_accuracy_score(flags, scored >= threshold) for threshold in scores)
    number = result.number("balanced accuracy")
    assert number.value == pytest.approx(best)
    assert balanced_accuracy_score(flags, scored >= number.threshold - 1e-12) == pytest.approx(best)
    folds = kfold_accuracy(scores, same, folds_of(templates, whole, 5))
    assert result["accuracy"] == pytest.approx(folds.mean)
    assert result.number("accuracy").spread == pytest.approx(folds.standard_error)
    genuine = sum(same)
    assert dict(result.counts) == {
        "comparisons": 900,
        "genuine": genuine,
        "impostors": 900 - genuine,
        "templates": 60,
        "images": 180,
        "subjects": 15,
        "folds": 5,
    }
    assert result.choices["mode"] == "N1D0F0"
    assert "1e-3 (1,000)" in result.notes[0]
    assert f"to accept nothing is {(900 - genuine) / 900:.6g} accurate" in result.notes[-1]


def test_a_balanced_accuracy_that_is_not_certain_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the highest impostors are kept only, a threshold below them might be better."""
    monkeypatch.setattr(template_stream, "LEAST", 0)
    monkeypatch.setattr(template_tail, "LEAST", 0)
    templates, whole = template_set(1, count=120, subjects=60)
    few = verify(templates, [whole], fars=[0.002], folds=3, draws=0)
    assert "balanced accuracy" not in [number.name for number in few.numbers]
    assert any(note.startswith("no balanced accuracy: ") for note in few.notes)
    every = verify(templates, [whole], fars=[0.5], folds=3, draws=0)
    scores, flags = np.array(slow_scores(templates, whole)), whole.same
    best = max(balanced_accuracy_score(flags, scores >= threshold) for threshold in scores)
    assert every["balanced accuracy"] == pytest.approx(best)


def test_repeated_comparisons_do_not_support_a_far() -> None:
    templates, whole = template_set()
    both = [whole, Comparisons(whole.right, whole.left, whole.same)]
    once, twice = verify(templates, [whole], folds=5, draws=0), verify(templates, both, folds=5, draws=0)
    assert [n.name for n in twice.numbers if "FAR" in n.name] == [n.name for n in once.numbers if "FAR" in n.name]
    assert twice.counts["repeated comparisons"] == 900 and "repeated comparisons" not in once.counts
    with pytest.raises(InputError, match=r"FAR 0\.001 needs at least 1,000 distinct impostor pairs; got 8"):
        verify(templates, both, fars=[1e-3], folds=5)
    mixed = Comparisons(whole.left[:2], whole.right[:2], ~whole.same[:2])
    with pytest.raises(
        InputError, match=r"genuine exactly where metadata\.csv shows one subject; got .*, comparison 901"
    ):
        verify(templates, [whole, mixed], folds=5)
    unnamed = replace(templates, subjects=None)
    with pytest.raises(InputError, match=r"genuine \(1\) or impostor \(0\); \d+ \d+ is both"):
        verify(unnamed, [whole, mixed], folds=5)
    alone = Comparisons(whole.left[:1], whole.left[:1], np.array([True]))
    with pytest.raises(InputError, match=r"comparisons need two templates; number 901 has \d+ alone"):
        verify(templates, [whole, alone], folds=5)


@pytest.mark.parametrize("size", [1, 7, 900])
@pytest.mark.parametrize("least", [0, 5, 10_000])
def test_blocks_and_what_is_kept_change_nothing(size: int, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_stream, "LEAST", least)
    monkeypatch.setattr(template_tail, "LEAST", least)
    templates, whole = template_set(1, count=120, subjects=60)
    expected = verify(templates, [whole], fars=[0.01, 0.002], folds=3, draws=0)
    result = verify(templates, blocks_of(whole, size), fars=[0.01, 0.002], folds=3, draws=0)
    assert result.numbers == expected.numbers
    genuine = int(whole.same.sum())
    kept = max(int(2 * 0.01 * (3600 - genuine)) + 1, 4 * genuine, least)
    assert len(result.samples["impostor_scores"]) == min(kept, 3600 - genuine)
    scores = slow_scores(templates, whole)
    assert result["TAR@FAR=1e-2"] == tar_at_far(error_curve(scores, whole.same), 0.01).tar
    assert result["TAR@FAR=2e-3"] == tar_at_far(error_curve(scores, whole.same), 0.002).tar
    assert result["accuracy"] == pytest.approx(
        kfold_accuracy(scores, whole.same, folds_of(templates, whole, 3)).mean, abs=1e-12
    )


@pytest.mark.parametrize("least", [0, 10_000])
def test_a_resample_counts_products_of_subjects(least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """n_i · n_j for an impostor comparison of i and j, n_i for a genuine one: by brute force over all comparisons."""
    monkeypatch.setattr(template_stream, "LEAST", least)
    monkeypatch.setattr(template_tail, "LEAST", least)
    templates, whole = template_set(2, count=120, subjects=40)
    result = verify(templates, [whole], fars=[0.02, 0.005], folds=3, draws=0)
    figures, units = template_verification.statistic(result.samples)
    subjects = templates.subjects
    assert subjects is not None and units.count == 40
    rows = {number: place for place, number in enumerate(templates.numbers.tolist())}
    first, second = (
        np.searchsorted(np.unique(subjects), subjects[[rows[number] for number in side.tolist()]])
        for side in (whole.left, whole.right)
    )
    scores = np.array(slow_scores(templates, whole))
    folds = folds_of(templates, whole, 3)
    random = np.random.default_rng(0)
    seen = 0
    for _ in range(10):
        drawn = random.multinomial(40, np.full(40, 1 / 40)).astype(float)
        weights = np.where(whole.same, drawn[first], drawn[first] * drawn[second])
        found = figures(units.weights(drawn))
        curve = error_curve(scores, whole.same, weights)
        for far in (0.02, 0.005):
            name = f"TAR@FAR={'2e-2' if far == 0.02 else '5e-3'}"
            if name in found:
                seen += 1
                assert found[name] == pytest.approx(tar_at_far(curve, far, zero_ok=True).tar)
        if "accuracy" in found:
            seen += 1
            kind = 2 * folds + whole.same
            sizes = np.bincount(kind) / np.bincount(kind, weights)
            assert found["accuracy"] == pytest.approx(
                kfold_accuracy(scores, whole.same, folds, weights * sizes[kind]).mean
            )
    assert seen >= 25  # of 30


def test_figures_that_the_kept_impostors_cannot_show_are_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_stream, "LEAST", 0)
    templates, whole = template_set(3, count=120, subjects=60)
    result = verify(templates, [whole], fars=[0.01], folds=3, draws=0)
    figures, units = template_verification.statistic(result.samples)
    heavy = np.bincount(result.samples["impostor_first"], minlength=60)
    seldom = np.ones(units.count)
    seldom[np.argsort(heavy)[:30]] = 100.0  # those who are rarely among the highest impostors
    assert "TAR@FAR=1e-2" not in figures(seldom)
    assert "TAR@FAR=1e-2" in figures(np.ones(60))


def test_order_does_not_matter() -> None:
    templates, whole = template_set(4)
    order = np.random.default_rng(0).permutation(len(whole))
    mixed = Comparisons(whole.left[order], whole.right[order], whole.same[order])
    first, other = (verify(templates, [each], folds=4, draws=40).numbers for each in (whole, mixed))
    assert [number.name for number in other] == [number.name for number in first]
    assert [number.value for number in other] == pytest.approx([number.value for number in first], abs=1e-12)
    bounds = [[(n.interval.low, n.interval.high) for n in each if n.interval] for each in (first, other)]
    assert np.allclose(*bounds, equal_nan=True)


def test_ties_move_together() -> None:
    """All scores equal: no threshold tells pairs apart, so no FAR below 1 accepts anybody."""
    templates, whole = template_set(5)
    equal = replace(templates, units=np.tile([1.0, 0.0], (60, 1)))
    result = verify(equal, [whole], folds=2, draws=0)
    assert result["TAR@FAR=1e-1"] == 0.0
    impostors = result.counts["impostors"] / 900
    assert result["accuracy"] == pytest.approx(impostors, abs=0.02)


def test_without_subjects_there_are_no_intervals_and_no_folds() -> None:
    templates, whole = template_set(6)
    known = verify(templates, [whole], folds=5, draws=30)
    unknown = verify(replace(templates, subjects=None), [whole], draws=30)
    assert [number.name for number in unknown.numbers] == ["TAR@FAR=1e-1", "TAR@FAR=1e-2", "balanced accuracy"]
    assert unknown["TAR@FAR=1e-2"] == known["TAR@FAR=1e-2"]
    assert all(number.interval is None for number in unknown.numbers)
    assert unknown.notes[-1].startswith("the list does not say who is shown: no intervals")
    linked = verify(link(replace(templates, subjects=None), [whole]), [whole], folds=5, draws=30)
    assert linked.choices["subjects"] == "templates that genuine comparisons link"
    assert known.choices["subjects"] == "as the list of images says"
    assert 15 == len(known.samples["subjects"]) < len(linked.samples["subjects"]) < 20  # all templates on one side
    for result in (known, linked):
        assert result["TAR@FAR=1e-1"] == known["TAR@FAR=1e-1"]
        interval = result.number("TAR@FAR=1e-1").interval
        assert interval is not None and interval.low < known["TAR@FAR=1e-1"] <= interval.high


def test_too_many_folds_leave_no_accuracy() -> None:
    templates, whole = template_set(7, count=20, subjects=10)
    result = verify(templates, [whole], folds=10, draws=0)
    assert "accuracy" not in [number.name for number in result.numbers]
    assert result.notes[-1] == "no accuracy: a fold lacks genuine or impostor comparisons; use fewer folds"


def test_a_saved_result_gives_its_figures_again(tmp_path: Path) -> None:
    templates, whole = template_set(8)
    result = verify(templates, [whole], folds=4, draws=0)
    result.save(tmp_path / "ijb.json")
    figures, units = template_verification.statistic(Result.read(tmp_path / "ijb.json").samples)
    assert figures(np.ones(units.count)) == {number.name: number.value for number in result.numbers}


def test_the_published_ijba_lists(data_folder: Path) -> None:
    """Images that all show their subject exactly: every figure is 1; noise brings them down."""
    folder = data_folder / "protocols"
    images = read_templates(folder / "ijba_verify_metadata_1.csv.gz", ids="file-subject")
    ids, first = np.unique(images.ids, return_index=True)
    assert images.subjects is not None
    people = images.subjects[first]
    random = np.random.default_rng(0)
    centres = {person: random.normal(size=32) for person in np.unique(people).tolist()}
    vectors = np.array([centres[person] for person in people.tolist()])
    for noise, perfect in ((0.0, True), (6.0, False)):
        embeddings = Embeddings((vectors + noise * random.normal(size=vectors.shape)).astype(np.float32), ids)
        templates = pool(embeddings, images, Pooling("media"))
        comparisons = read_comparisons(folder / "ijba_verify_comparisons_1.csv.gz", images)
        result = verify(templates, comparisons, draws=0)
        assert result.counts["comparisons"] == 11_787
        assert result.counts["subjects"] == 167
        assert (result["TAR@FAR=1e-3"] == result["accuracy"] == 1.0) == perfect
        assert math.isfinite(result["TAR@FAR=1e-3"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"folds": 1}, r"folds must be a whole number in \[2, 1000\]; got 1"),
        ({"fars": [1e-4]}, "FAR 0.0001 needs at least 10,000 impostor pairs"),
        ({"draws": -1}, r"draws must be a whole number in \[0, 100000\]"),
    ],
)
def test_options_that_are_refused(options: dict[str, object], sentence: str) -> None:
    templates, whole = template_set()
    with pytest.raises(InputError, match=sentence):
        verify(templates, [whole], **options)  # type: ignore[arg-type]


def test_lists_that_are_refused() -> None:
    templates, whole = template_set()
    with pytest.raises(InputError, match="1 templates of the comparisons are not among the 60 pooled ones: 5555"):
        verify(templates, [replace(whole, left=np.full(len(whole), 5555))])
    wrong = ~whole.same
    with pytest.raises(InputError, match=r"must be genuine exactly where metadata.csv shows one subject; got \d+ \d+ "):
        verify(templates, [replace(whole, same=wrong)])
    unknown = replace(templates, subjects=None)
    with pytest.raises(InputError, match="comparisons need at least one genuine one; got none"):
        verify(unknown, [replace(whole, same=np.zeros(900, dtype=bool))])
    with pytest.raises(InputError, match="comparisons need at least one impostor one; got none"):
        verify(unknown, [replace(whole, same=np.ones(900, dtype=bool))], fars=[])
    with pytest.raises(InputError, match="at least one genuine one"):
        verify(templates, [])
