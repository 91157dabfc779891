"""Templates: pooling as slow loops, options, blocks, and what is refused."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.ijb import Comparisons, TemplateImages
from angulus.evaluation.protocols import templates
from angulus.evaluation.protocols.templates import Pooling, Templates, link, pool

RANDOM = np.random.default_rng(0)
COUNT = 60
IMAGES = TemplateImages(
    np.array([f"img/{number}.jpg" for number in [*RANDOM.permutation(COUNT).tolist(), 3, 3]]),
    np.append(RANDOM.integers(10, 22, COUNT), [10, 10]),
    np.append(RANDOM.integers(0, 4, COUNT), [1, 1]),
    None,
    "metadata.csv",
)
VECTORS = RANDOM.normal(size=(COUNT, 5)) * RANDOM.gamma(3.0, 2.0, (COUNT, 1))
EMBEDDINGS = Embeddings(
    VECTORS,
    np.array([f"img/{number}" for number in range(COUNT)]),
    detector_scores=RANDOM.random(COUNT),
    flipped=RANDOM.normal(size=(COUNT, 5)),
)


def slow_pool(embeddings: Embeddings, images: TemplateImages, how: Pooling) -> dict[int, tuple[np.ndarray, float]]:
    """{template: (unit vector, norm)}, one image at a time."""
    members: dict[int, dict[int, list[tuple[np.ndarray, np.ndarray]]]] = {}
    for number, name in enumerate(images.ids.tolist()):
        row = embeddings.ids.tolist().index(name.removesuffix(".jpg"))
        x = embeddings.vectors[row]
        if how.flip == "sum":
            x = x + embeddings.flipped[row]  # type: ignore[index]
        if how.flip == "concat":
            x = np.array([*x, *embeddings.flipped[row]])  # type: ignore[index]
        length = math.sqrt(sum(value**2 for value in x))
        unit = x / length
        long = unit * (length if embeddings.norms is None else embeddings.norms[row])
        weight = embeddings.detector_scores[row] if how.detector else 1.0  # type: ignore[index]
        medium = images.media[number] if how.pool == "media" else 0  # type: ignore[index]
        of_template = members.setdefault(int(images.templates[number]), {})
        of_template.setdefault(int(medium), []).append(((long if how.norm else unit) * weight, long))
    pooled = {}
    for template, media in members.items():
        vector, long = (
            np.mean([np.mean([pair[which] for pair in medium], axis=0) for medium in media.values()], axis=0)
            for which in (0, 1)
        )
        pooled[template] = vector / np.linalg.norm(vector), float(np.linalg.norm(long))
    return pooled


@pytest.mark.parametrize(
    "how",
    [
        Pooling(*options)
        for options in itertools.product(["media", "flat"], [True, False], [True, False], [None, "sum", "concat"])
    ],
    ids=lambda how: f"{how.pool}-{how.mode}-{how.flip}",
)
@pytest.mark.parametrize("norms", [None, np.linspace(0.5, 30, COUNT)], ids=["own lengths", "given norms"])
@pytest.mark.parametrize("rows", [3, 16_384])
def test_pooling_is_the_slow_loop(
    how: Pooling, norms: np.ndarray | None, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "_ROWS", rows)
    embeddings = replace(EMBEDDINGS, norms=norms)
    if norms is not None and how.flip:
        with pytest.raises(InputError, match="norms must be the lengths of the vectors if mirror images are joined"):
            pool(embeddings, IMAGES, how)
        return
    pooled = pool(embeddings, IMAGES, how)
    slow = slow_pool(embeddings, IMAGES, how)
    assert pooled.choices()["norms"] == embeddings.norm_source(how.flip)
    assert pooled.numbers.tolist() == sorted(slow)
    assert pooled.images == COUNT + 2
    for row, number in enumerate(pooled.numbers.tolist()):
        unit, norm = slow[number]
        assert pooled.units[row] == pytest.approx(unit, abs=1e-12)
        assert pooled.norms[row] == pytest.approx(norm, rel=1e-12)


def test_a_video_of_a_hundred_frames_is_one_medium() -> None:
    vectors = np.array([[1.0, 0.0]] * 100 + [[0.0, 1.0]])
    embeddings = Embeddings(vectors, np.array([str(number) for number in range(101)]))
    images = TemplateImages(embeddings.ids, np.ones(101, dtype=int), np.array([7] * 100 + [8]), None, "a list")
    assert pool(embeddings, images, Pooling("media")).units[0] == pytest.approx([math.sqrt(0.5)] * 2)
    assert pool(embeddings, images, Pooling("flat")).units[0] == pytest.approx(
        [100 / math.hypot(100, 1), 0.01], abs=1e-4
    )


def test_units_keep_the_precision_of_the_embeddings() -> None:
    for dtype, expected in ((np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64)):
        embeddings = Embeddings(VECTORS.astype(dtype), EMBEDDINGS.ids)
        pooled = pool(embeddings, IMAGES, Pooling())
        assert pooled.units.dtype == expected
        assert np.linalg.norm(pooled.units.astype(np.float64), axis=1) == pytest.approx(1, abs=1e-6)


def test_modes_and_choices() -> None:
    assert Pooling().mode == "N1D0F0"
    how = Pooling("flat", norm=False, detector=True, flip="concat")
    choices = pool(
        replace(EMBEDDINGS, detector_scores=np.ones(len(EMBEDDINGS)), flipped=VECTORS), IMAGES, how
    ).choices()
    assert choices["mode"] == "N0D1F1"
    assert str(choices["pool"]).startswith("flat")
    assert choices["flip fusion"] == "concatenated with the mirrored image's"


def test_rows_of_templates() -> None:
    pooled = pool(EMBEDDINGS, IMAGES, Pooling())
    asked = pooled.numbers[[3, 0, 3]]
    assert pooled.rows(asked, "x").tolist() == [3, 0, 3]
    with pytest.raises(InputError, match=r"2 templates of pairs.txt are not among the \d+ pooled ones: 1, 99; give"):
        pooled.rows([99, 10, 1, 1], "pairs.txt")


@pytest.mark.parametrize(
    ("embeddings", "images", "how", "sentence"),
    [
        (EMBEDDINGS, replace(IMAGES, media=None), Pooling(), 'does not say which medium .* use pool="flat"'),
        (replace(EMBEDDINGS, detector_scores=None), IMAGES, Pooling(detector=True), "needs 'detector_scores'"),
        (
            replace(EMBEDDINGS, detector_scores=np.full(COUNT, np.nan)),
            IMAGES,
            Pooling(detector=True),
            "needs one of each image; these embeddings lacks .* of the templates'; leave the option off, or add them",
        ),
        (
            replace(EMBEDDINGS, detector_scores=np.linspace(-1, 1, COUNT)),
            IMAGES,
            Pooling(detector=True),
            "detector_scores that weight must be >= 0; got -1",
        ),
        (replace(EMBEDDINGS, flipped=None), IMAGES, Pooling(flip="sum"), "needs the embeddings of mirrored images"),
        (EMBEDDINGS, replace(IMAGES, ids=np.char.add(IMAGES.ids, "x")), Pooling(), "have no embedding"),
    ],
)
def test_what_is_refused(embeddings: Embeddings, images: TemplateImages, how: Pooling, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        pool(embeddings, images, how)


def test_a_template_whose_images_cancel_is_refused() -> None:
    embeddings = Embeddings(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array(["a", "b"]))
    images = TemplateImages(embeddings.ids, np.array([5, 5]), np.array([1, 2]), None, "a list")
    with pytest.raises(InputError, match="a list: the images of template 5 cancel to a vector of zeros"):
        pool(embeddings, images, Pooling())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pool": "mean"}, "pool must be one of 'media', 'flat'; got 'mean'"),
        ({"norm": 1}, "norm must be true or false; got 1"),
        ({"detector": "yes"}, "detector must be true or false; got 'yes'"),
        ({"flip": "mean"}, "flip must be one of 'sum', 'concat'; got 'mean'"),
    ],
)
def test_options_that_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Pooling(**options)  # type: ignore[arg-type]


def test_genuine_comparisons_link_the_templates_of_a_subject() -> None:
    numbers = np.array([3, 5, 8, 9, 12, 20])
    units = np.eye(6)
    pooled = Templates(numbers, units, np.ones(6), None, Pooling(), 6, "a list")
    chain = Comparisons(np.array([3, 5, 9, 12]), np.array([8, 8, 12, 5]), np.array([True, True, True, False]))
    found = link(pooled, [chain, Comparisons(numbers[:1], numbers[-1:], np.array([False]))])
    assert found.linked and found.subjects is not None
    together = {frozenset(numbers[found.subjects == each].tolist()) for each in found.subjects.tolist()}
    assert together == {frozenset({3, 5, 8}), frozenset({9, 12}), frozenset({20})}
    with pytest.raises(InputError, match=r"1 templates of the comparisons are not among the 6 pooled ones: 4"):
        link(pooled, [Comparisons(numbers[:1], np.array([4]), np.array([True]))])
