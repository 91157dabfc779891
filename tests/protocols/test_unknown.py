"""Images of unknown people: every protocol gives what it gives without them, and counts them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.sample_pairs import draw_folds
from angulus.evaluation.protocols import pairs
from angulus.evaluation.protocols.calibrate import calibrate, pairs_of_images
from angulus.evaluation.protocols.distractors import megaface
from angulus.evaluation.protocols.result import Result
from angulus.evaluation.protocols.trillion_pairs import evaluate as trillion_pairs
from people import crowd, crowd_pairs

CROWD = crowd(12, noise=0.9)
LOST = np.arange(len(CROWD)) % 5 == 3
NAMES = [None, float("nan"), "", "None", "nan", "NaN", "null", "<NA>", "  "]


def only(embeddings: Embeddings, chosen: np.ndarray, **changes: Any) -> Embeddings:
    columns = ("vectors", "ids", "labels", "groups", "flipped")
    return replace(embeddings, **{name: getattr(embeddings, name)[chosen] for name in columns}, **changes)


def with_unknown(embeddings: Embeddings, lost: np.ndarray = LOST) -> Embeddings:
    """The embeddings with each of the names that stand for nobody in turn."""
    assert embeddings.labels is not None
    labels = embeddings.labels.astype(object)
    labels[lost] = [NAMES[place % len(NAMES)] for place in range(int(lost.sum()))]
    return replace(embeddings, labels=labels)  # type: ignore[arg-type]


def figures(result: Result) -> dict[str, Any]:
    return {number.name: (number.value, number.interval, number.threshold) for number in result.numbers}


def test_whoever_is_unknown_is_nobody() -> None:
    labels = np.array([*NAMES, "Nan", "none", "Null", "0"], dtype=object)
    found = Embeddings(np.eye(len(labels)), np.arange(len(labels)).astype(str), labels=labels)
    assert found.labelled.tolist() == [False] * len(NAMES) + [True] * 4
    assert found.labels is not None and found.labels.tolist() == [""] * len(NAMES) + ["Nan", "none", "Null", "0"]
    assert not Embeddings(np.eye(2), np.array(["a", "b"])).labelled.any()


def calibrated(embeddings: Embeddings) -> Result:
    return calibrate(embeddings, pairs_of_images(embeddings), target_fmr=0.1, draws=20)[1]


def searched(embeddings: Embeddings) -> Result:
    second = np.array([name.endswith(("2", "3")) for name in embeddings.ids.tolist()])
    return trillion_pairs(only(embeddings, ~second), only(embeddings, second), fars=[0.1], search_fars=[0.1], draws=20)


def among_distractors(embeddings: Embeddings) -> Result:
    others = crowd(20, seed=4)
    others = replace(others, ids=np.array([f"d{place}" for place in range(len(others))]), labels=None)
    return megaface(embeddings, others, fars=[0.1], draws=20)


@pytest.mark.parametrize("run", [calibrated, searched, among_distractors])
def test_figures_are_those_without_the_unknown(run: Callable[[Embeddings], Result]) -> None:
    with_some, without = run(with_unknown(CROWD)), run(only(CROWD, ~LOST))
    assert figures(with_some) == figures(without)
    left_out = {name: count for name, count in with_some.counts.items() if "of unknown people left out" in name}
    assert sum(left_out.values()) == LOST.sum()
    assert {name: count for name, count in with_some.counts.items() if name not in left_out} == without.counts


def test_nine_images_with_three_unknown_have_three_genuine_pairs() -> None:
    """Of A twice, B twice, C twice, and three that nobody knows: one person "" would add three more."""
    vectors = np.random.default_rng(0).normal(size=(9, 4))
    few = Embeddings(vectors, np.arange(9).astype(str), labels=np.array([*"AABBCC", "", "", ""]))
    pairs_found = pairs_of_images(few)
    assert (int(pairs_found.same.sum()), int((~pairs_found.same).sum()), pairs_found.unknown) == (3, 12, 3)


@pytest.mark.parametrize("run", [calibrated, searched, among_distractors])
def test_labels_that_name_nobody_are_refused(run: Callable[[Embeddings], Result]) -> None:
    with pytest.raises(InputError, match=r"must show two people|its labels name nobody"):
        run(with_unknown(CROWD, np.ones(len(CROWD), dtype=bool)))


def test_a_list_whose_images_are_not_all_known_resamples_pairs() -> None:
    listed = crowd_pairs(CROWD, named=False)
    used = np.isin(CROWD.ids, listed.ids)
    found = pairs.evaluate(with_unknown(CROWD), listed, draws=10)
    assert "people" not in found.counts
    assert any(f"do not say who {int((LOST & used).sum())} of the images show" in note for note in found.notes)
    assert found["AUC"] == pairs.evaluate(CROWD, listed, draws=0)["AUC"]


def test_a_list_is_drawn_of_known_people() -> None:
    assert CROWD.labels is not None
    labels = np.where(LOST, "", CROWD.labels)
    drawn = draw_folds(CROWD.ids, labels, folds=2, per=5)
    assert drawn.unknown == LOST.sum()
    assert not set(drawn.ids.tolist()) & set(CROWD.ids[LOST].tolist())
    assert drawn.ids.tolist() == draw_folds(CROWD.ids[~LOST], labels[~LOST], folds=2, per=5).ids.tolist()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".parquet"])
def test_unknown_people_in_files(tmp_path: Path, suffix: str) -> None:
    """Each format as other tools write it: null in Parquet and JSON, NaN in a column of numbers."""
    vectors, ids = np.eye(3, dtype=np.float32), ["a", "b", "c"]
    path = tmp_path / f"e{suffix}"
    if suffix == ".npz":
        np.savez(path, embeddings=vectors, ids=ids, labels=[7.0, np.nan, 8.0])
    elif suffix == ".safetensors":
        save = pytest.importorskip("safetensors.numpy").save_file
        save({"embeddings": vectors}, path, metadata={"ids": json.dumps(ids), "labels": '["7", null, "8"]'})
    else:
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        lists = arrow.array(vectors.tolist(), arrow.list_(arrow.float32()))
        parquet.write_table(arrow.table({"ids": ids, "embeddings": lists, "labels": [7, None, 8]}), path)
    found = Embeddings.read(path)
    assert found.labels is not None and found.labels.tolist() == ["7", "", "8"]
    found.write(path)
    assert Embeddings.read(path).labelled.tolist() == [True, False, True]


@pytest.mark.parametrize("labels", [["A", None], [b"A", None], [1.0, float("nan")]])
def test_parquet_identities_of_other_types(tmp_path: Path, labels: list[Any]) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"ids": [b"x", b"y"], "embeddings": [[1.0], [2.0]], "labels": labels, "detector_scores": [0.5, None]}
    parquet.write_table(arrow.table(columns), tmp_path / "e.parquet")
    found = Embeddings.read(tmp_path / "e.parquet")
    assert found.ids.tolist() == ["x", "y"]
    assert found.labels is not None and found.labels.tolist() == ["1" if labels[0] == 1.0 else "A", ""]
    assert found.detector_scores is not None and np.isnan(found.detector_scores).tolist() == [False, True]
