"""Upgrading a gallery: maps against scipy, scores across models by hand, who may search what, and bad input."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from scipy.linalg import orthogonal_procrustes
from typer.testing import CliRunner

import angulus
from angulus.cli.main import app
from angulus.core.checks import InputError
from angulus.core.contract import Contract, comparable, describe_model, mapped_name
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.protocols import pairs as verification
from angulus.evaluation.protocols.calibrate import calibrate, calibrate_across, pairs_of_images
from angulus.evaluation.protocols.calibration import Calibration
from angulus.evaluation.protocols.two_models import across
from angulus.models import artifact, embed
from angulus.models.artifact import Config
from angulus.models.map_quality import MAPPED, NEW, OLD, fit_and_test, mapped_as_kept
from angulus.models.vector_map import VectorMap, fit
from angulus.models.verify import verify

OLD_NAME, NEW_NAME = "0123456789abcdef-none", "fedcba9876543210-none"
D, PEOPLE, IMAGES = 6, 20, 5


def made(seed: int, name: str | None, turn: np.ndarray | None = None, noise: float = 0.05) -> Embeddings:
    """People's vectors, turned, with noise of their own, and of any length."""
    centres = np.random.default_rng(0).normal(size=(PEOPLE, D))
    people, rng = np.repeat(np.arange(PEOPLE), IMAGES), np.random.default_rng(seed)
    vectors = centres[people] + 0.5 * np.random.default_rng(1).normal(size=(len(people), D))
    vectors = (vectors if turn is None else vectors @ turn) + noise * rng.normal(size=(len(people), D))
    ids = np.array([f"{person}/{number}.png" for number, person in enumerate(people.tolist())])
    models = None if name is None else np.full(len(people), name)
    return Embeddings(
        vectors * rng.gamma(4, 2, (len(people), 1)), ids, labels=people.astype(np.str_), models=models,
        source=f"{name}.npz",
    )  # fmt: skip


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def turn() -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(5).normal(size=(D, D)))[0]


def pick(embeddings: Embeddings, rows: np.ndarray) -> Embeddings:
    columns = {name: getattr(embeddings, name)[rows] for name in ("labels", "models")}
    return Embeddings(embeddings.vectors[rows], embeddings.ids[rows], **columns, source=embeddings.source)


# maps


def test_the_orthogonal_map_is_scipys_and_finds_a_planted_rotation() -> None:
    old, new = made(2, OLD_NAME), made(3, NEW_NAME, turn())
    shuffled = pick(new, np.random.default_rng(0).permutation(len(new)))
    mapping = fit(old, shuffled)
    expected, _ = orthogonal_procrustes(unit(old.vectors), unit(new.vectors))
    np.testing.assert_allclose(mapping.weights["rotation"].numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(mapping(old.vectors), unit(unit(old.vectors) @ expected), atol=1e-6)
    np.testing.assert_allclose(expected, turn(), atol=0.05)
    mapped = mapping.of(old)
    assert mapped.model == mapping.name and fit(old, pick(shuffled, np.arange(len(shuffled)))).name == mapping.name
    assert (
        fit(old, made(4, NEW_NAME)).name != mapping.name
        and comparable(NEW_NAME, mapping.name)
        and mapped.ids.tolist() == old.ids.tolist()
    )


def test_vectors_of_another_size_are_mapped_with_their_angles() -> None:
    old, new = made(2, OLD_NAME), made(3, NEW_NAME)
    wide = replace(new, vectors=np.hstack([new.vectors, np.random.default_rng(0).normal(size=(len(new), 3))]))
    mapping = fit(old, wide)
    assert mapping.sizes == (D, D + 3)
    mapped = mapping(old.vectors)
    np.testing.assert_allclose(mapped @ mapped.T, unit(old.vectors) @ unit(old.vectors).T, atol=1e-5)


def test_a_hidden_layer_maps_what_no_rotation_does() -> None:
    vectors, people = np.random.default_rng(0).normal(size=(1500, D)), np.repeat(np.arange(300), 5).astype(np.str_)
    ids = np.arange(1500).astype(np.str_)
    sides = ((vectors, OLD_NAME), (np.abs(unit(vectors) @ turn()) - 0.35, NEW_NAME))
    old, new = (Embeddings(each, ids, labels=people, models=np.full(1500, name)) for each, name in sides)
    fitted, tested = np.arange(1200), np.arange(1200, 1500)
    losses = {}
    for kind in ("orthogonal", "mlp"):
        mapping = fit(pick(old, fitted), pick(new, fitted), kind=kind)
        losses[kind] = 1 - float((mapping(vectors[tested]) * unit(new.vectors[tested])).sum(1).mean())
    assert losses["mlp"] < 0.7 * losses["orthogonal"]
    again = fit(pick(old, fitted), pick(new, fitted), kind="mlp")
    assert all(torch.equal(value, mapping.weights[name]) for name, value in again.weights.items())


@pytest.mark.parametrize("kind", ["orthogonal", "mlp"])
def test_a_map_comes_back_from_its_file(kind: str, tmp_path: Path) -> None:
    old = made(2, OLD_NAME)
    mapping = fit(old, made(3, NEW_NAME, turn()), kind=kind)
    mapping.write(tmp_path / "map.safetensors")
    read = VectorMap.read(tmp_path / "map.safetensors")
    assert (read.kind, read.old, read.new, read.name) == (kind, OLD_NAME, NEW_NAME, mapping.name)
    np.testing.assert_array_equal(read(old.vectors), mapping(old.vectors))


def test_what_is_no_map_is_refused(tmp_path: Path) -> None:
    mapping, path = fit(made(2, OLD_NAME), made(3, NEW_NAME)), tmp_path / "map.safetensors"
    meta = {"format": 1, "kind": "orthogonal", "old": OLD_NAME, "new": NEW_NAME}
    broken = mapping.weights["rotation"].clone()
    broken[0, 0] = torch.nan
    wrong = [
        ({"rotation": broken}, meta),
        ({"rotation": mapping.weights["rotation"][0]}, meta),
        ({"turn": mapping.weights["rotation"]}, meta),
        (mapping.weights, meta | {"kind": "mlp"}),
        (mapping.weights, meta | {"format": 2}),
        (mapping.weights, meta | {"old": 3}),
        (mapping.weights, {}),
    ]
    for weights, about in wrong:
        path.write_bytes(safetensors.torch.save(weights, {"angulus": json.dumps(about)}))
        with pytest.raises(InputError, match="is not a map of vectors"):
            VectorMap.read(path)
    path.write_bytes(b"rubbish")
    with pytest.raises(InputError, match="is not a map of vectors"):
        VectorMap.read(path)


def test_pairs_that_no_map_can_be_fitted_on_are_refused() -> None:
    old, new = made(2, OLD_NAME), made(3, NEW_NAME)
    few = np.arange(D - 1)
    for first, second, sentence in (
        (old, pick(new, np.arange(9, 100)), "9 are in 0123456789abcdef-none.npz alone, 0 in .* alone"),
        (pick(old, few), pick(new, few), "needs at least 6 images under both models.*; got 5; embed more images"),
        (old, made(3, None), "must say which model made it"),
        (old, replace(new, models=old.models), "old and new must be two models"),
    ):
        with pytest.raises(InputError, match=sentence):
            fit(first, second)
    with pytest.raises(InputError, match="must show four people or more, by its labels"):
        fit_and_test(replace(old, labels=None), replace(new, labels=None))
    with pytest.raises(InputError, match="kind must be one of"):
        fit(old, new, kind="linear")
    with pytest.raises(InputError, match=r"vectors to map must be \[N, 6\]; got \[2, 5\]"):
        fit(old, new)(np.ones((2, 5)))


def test_the_map_is_tested_on_people_that_it_was_not_fitted_on() -> None:
    old, new = made(2, OLD_NAME, noise=0.3), made(3, NEW_NAME, turn(), noise=0.3)
    mapping, quality = fit_and_test(old, new, draws=20, seed=4)
    assert (quality.people, quality.images, quality.fitted_on) == (6, 30, 70)
    people = np.asarray(old.labels)
    drawn = np.random.default_rng((4, 0x3A)).choice(np.unique(people), 6, replace=False)
    held = np.isin(people, drawn)
    np.testing.assert_array_equal(
        mapping.weights["rotation"],
        fit(pick(old, np.flatnonzero(~held)), pick(new, np.flatnonzero(~held))).weights["rotation"],
    )
    listed = pairs_of_images(pick(old, np.flatnonzero(held)), impostors=375, seed=4)
    sides = {
        OLD: (old.vectors, old.vectors),
        NEW: (new.vectors, new.vectors),
        MAPPED: (new.vectors, mapping(old.vectors)),
    }
    for name, (queries, stored) in sides.items():
        left, right = (unit(each)[old.rows(ids, "")] for each, ids in ((queries, listed.left), (stored, listed.right)))
        scores = (left * right).sum(1)
        better = scores[listed.same][:, None] - scores[~listed.same]
        assert quality.rows[name]["AUC"].value == pytest.approx(((better > 0) + 0.5 * (better == 0)).mean(), abs=1e-6)
        scores = unit(queries)[held] @ unit(stored)[held].T
        np.fill_diagonal(scores, -np.inf)
        right = people[held][scores.argmax(1)] == people[held]
        assert quality.rows[name]["Recall@1"].value == pytest.approx(right.mean(), abs=1e-6)
    first = quality.rows[f"{MAPPED} − {OLD}"]["Recall@1"]
    assert first.value == pytest.approx(quality.rows[MAPPED]["Recall@1"].value - quality.rows[OLD]["Recall@1"].value)
    gain = quality.rows[f"{MAPPED} − {OLD}"]["AUC"]
    assert gain.value == pytest.approx(quality.rows[MAPPED]["AUC"].value - quality.rows[OLD]["AUC"].value)
    assert gain.interval is not None and gain.interval.low < gain.value < gain.interval.high
    for value, low, high, words in (
        (-0.02, -0.03, -0.01, "are worse than the old ones (AUC -2.00 points, -3.00 to -1.00): try"),
        (0.02, 0.01, 0.03, "are better than the old ones (AUC +2.00 points, +1.00 to +3.00)"),
        (0.0, -0.01, 0.01, "is undecided (AUC +0.00 points, -1.00 to +1.00)"),
    ):
        number = replace(gain, value=value, interval=replace(gain.interval, low=low, high=high))
        told = replace(quality, rows={f"{MAPPED} − {OLD}": {"AUC": number}}).verdict
        assert len(told) == 1 and words in told[0]
    assert replace(quality, rows={}).verdict == ()


# scores across models


def test_across_compares_the_left_image_of_one_model_with_the_right_of_the_other() -> None:
    first, second = made(2, OLD_NAME), made(3, NEW_NAME, turn())
    listed = PairList(
        np.array(["0/0.png", "0/1.png", "1/5.png"]), np.array(["0/1", "2/10", "1/6"]), np.array([True, False, True])
    )
    joined, both = across(first, second, listed)
    found = verification.evaluate(joined, both, draws=0).samples["scores"]
    expected = (unit(first.vectors)[[0, 1, 5]] * unit(second.vectors)[[1, 10, 6]]).sum(1)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    plain = verification.evaluate(first, pairs_of_images(first, impostors=50), draws=0)
    same = verification.evaluate(*across(first, first, pairs_of_images(first, impostors=50)), draws=0)
    np.testing.assert_allclose(same.samples["scores"], plain.samples["scores"], atol=1e-12)
    assert same["AUC"] == plain["AUC"] and same.counts["people"] == plain.counts["people"] == PEOPLE
    with pytest.raises(InputError, match="vectors to compare must be of one size"):
        across(first, replace(second, vectors=second.vectors[:, :4]), listed)


def test_a_calibration_of_a_pair_names_both_and_needs_models_that_are_compatible() -> None:
    new, old = made(2, NEW_NAME), made(3, OLD_NAME)
    listed = pairs_of_images(new, impostors=200)
    found, _ = calibrate_across(new, old, listed, compatible_with=[OLD_NAME[:16]], target_fmr=0.05, draws=5)
    expected, _ = calibrate(*across(new, old, listed), target_fmr=0.05, draws=5)
    assert found == replace(expected, model=NEW_NAME, gallery=OLD_NAME) and found.stored == OLD_NAME
    mapped = replace(old, models=np.full(len(old), mapped_name(OLD_NAME, NEW_NAME, "89abcdef")))
    assert calibrate_across(new, mapped, listed, target_fmr=0.05, draws=5)[0].gallery == mapped.model
    for queries, stored, sentence in (
        (new, old, "which is not known to be compatible with"),
        (new, new, "a pair of models must be two"),
        (new, made(3, None), "must say which model made it"),
    ):
        with pytest.raises(InputError, match=sentence):
            calibrate_across(queries, stored, listed, target_fmr=0.05)


def test_which_vectors_are_comparable() -> None:
    flipped = OLD_NAME.replace("none", "sum")
    assert comparable(NEW_NAME, NEW_NAME) and comparable(None, None) and comparable("theirs", "theirs")
    assert comparable(NEW_NAME, OLD_NAME, [OLD_NAME[:16]])
    assert comparable(NEW_NAME, mapped_name(OLD_NAME, NEW_NAME, "89abcdef")) and comparable("theirs", "ours-to-theirs")
    for query, stored in ((NEW_NAME, flipped), (NEW_NAME, None), (None, OLD_NAME), ("theirs", OLD_NAME)):
        assert not comparable(query, stored, [OLD_NAME[:16]])
    assert not comparable(OLD_NAME, mapped_name(OLD_NAME, NEW_NAME, "89abcdef")) and not comparable(NEW_NAME, OLD_NAME)
    assert "mapped to the model with fingerprint fedcba" in describe_model(mapped_name(OLD_NAME, NEW_NAME, "89abcdef"))


# folders, galleries and the command line


CONFIG = Config("small", in_channels=3, image_size=(8, 8), embedding_size=D, contract=Contract(colour="rgb"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An old model, one that is compatible with it and one that is not; images, and their vectors by all."""
    folder = tmp_path_factory.mktemp("home")
    for person in range(8):
        for image in range(3):
            rng = np.random.default_rng(person)
            pixels = rng.integers(0, 256, (8, 8, 3)) + np.random.default_rng(100 + 3 * person + image).normal(
                0, 30, (8, 8, 3)
            )
            path = folder / "people" / str(person) / f"{image}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    torch.manual_seed(0)
    network = CONFIG.build()
    artifact.save(CONFIG, network, folder / "old")
    old = artifact.load(folder / "old")
    with torch.no_grad():
        next(network.parameters()).mul_(1.01)
    artifact.save(replace(CONFIG, compatible_with=(old.fingerprint,)), network, folder / "new")
    artifact.save(CONFIG, CONFIG.build(), folder / "free")
    for name in ("old", "new", "free"):
        embed.run(folder / name, folder / "people", folder / f"{name}.npz")
    yield folder


def run(home: Path, command: str) -> tuple[int, str]:
    words = [str(home / word[1:]) if word.startswith("@") else word for word in command.split()]
    found = CliRunner().invoke(app, words)
    text = str(found.exception) if isinstance(found.exception, InputError) else found.output
    return found.exit_code, text


def test_a_compatible_pair_is_searched_and_verified_by_its_own_calibration(home: Path) -> None:
    pytest.importorskip("lancedb")
    assert run(home, "search add @gallery @old.npz")[0] == 0
    assert (
        "trained to be compatible with it as --model, map the gallery with angulus upgrade"
        in run(home, "search query @gallery @new.npz")[1]
    )
    assert "map the gallery with angulus upgrade" in run(home, "search query @gallery @free.npz --model @free")[1]
    assert "must hold vectors of --model" in run(home, "search query @gallery @free.npz --model @new")[1]
    code, said = run(home, "search query @gallery @new.npz --model @new --exclude-self")
    assert code == 0 and "no threshold" in said

    assert "must be in a folder" not in run(home, "calibrate @new.npz --model @new --fmr 0.1 --draws 5")[1]
    own = run(home, "search query @gallery @new.npz --calibration @new")[1]
    assert "calibrate this pair with angulus calibrate --gallery --model" in own
    code, said = run(home, "calibrate @new.npz --gallery @old.npz --model @new --fmr 0.1 --draws 5")
    assert code == 0, said
    assert (
        "not known to be compatible" in run(home, "calibrate @free.npz --gallery @old.npz --model @free --fmr 0.1")[1]
    )
    model, old = angulus.load(home / "new"), angulus.load(home / "old")
    pair = model.calibration_of(old.name)
    assert pair is not None and model.calibration is not None and pair.gallery == old.name
    for given in ("@new", f"@new/calibration-{old.name}.json"):
        code, said = run(home, f"search query @gallery @new.npz --calibration {given}")
        assert code == 0 and f"threshold {pair.threshold.value:.4f}" in said
    code, said = run(home, "who @gallery @people/3/0.png --model @new")
    assert code == 0 and said.startswith("3\n") and f"threshold {pair.threshold.value:.4f}" in said
    assert "or one that is compatible with it" in run(home, "who @gallery @people/3/0.png --model @free")[1]

    first, second = home / "people/3/0.png", home / "people/3/1.png"
    decision = verify(model, first, second, stored_by=old)
    one, other = (each.embed(_pixels(path))[0].double() for each, path in ((model, first), (old, second)))
    assert decision.score == pytest.approx(float(torch.cosine_similarity(one, other, dim=0)), abs=1e-6)
    assert decision.threshold == pair.threshold.value and decision.fmr == pair.fmr
    assert verify(model, first, second).threshold == model.calibration.threshold.value
    assert run(home, "verify @new @people/3/0.png @people/3/1.png --stored-by @old")[0] == 0
    with pytest.raises(InputError, match="cannot be compared with"):
        verify(angulus.load(home / "free"), first, second, stored_by=old)
    with pytest.raises(InputError, match="they are not calibrated"):
        verify(replace_pairs(model), first, second, stored_by=old)


def _pixels(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None]


def replace_pairs(model: artifact.Model) -> artifact.Model:
    other = model.with_flip("none")
    other.pairs = {}
    return other


def test_a_calibration_of_a_pair_that_is_not_compatible_is_refused_in_a_folder(home: Path, tmp_path: Path) -> None:
    model = artifact.load(home / "free")
    read, old = (Embeddings.read(home / name) for name in ("new.npz", "old.npz"))
    new = replace(read, models=np.full(len(read), model.name))  # as if it were compatible
    pair, _ = calibrate_across(
        new,
        old,
        pairs_of_images(new),
        compatible_with=[artifact.load(home / "old").fingerprint],
        target_fmr=0.1,
        draws=2,
    )
    with pytest.raises(InputError, match="it is compatible with fingerprints none"):
        artifact.calibrate(home / "free", pair)
    pair.write(tmp_path / "pair.json")
    assert Calibration.read(tmp_path / "pair.json") == pair
    assert model.calibration_of(pair.gallery) is None


def test_a_gallery_is_mapped_and_answers_the_new_model_alone(home: Path) -> None:
    pytest.importorskip("lancedb")
    pytest.importorskip("lance")
    from angulus.search import open_gallery
    from angulus.search.who import as_gallery

    assert run(home, "search add @stored @old.npz")[0] == 0
    code, said = run(
        home, "upgrade @old @free --pairs @old.npz @free.npz --gallery @stored --out @mapped --draws 5 --json @q.json"
    )
    assert code == 0, said
    assert "24 mapped" in said and "new on mapped old − old on old" in said and "best accuracy" not in said
    report = json.loads((home / "q.json").read_text())
    assert report["rows"]["new on new"]["AUC"]["value"] <= 1 and report["people"] == 3
    old, free = angulus.load(home / "old"), angulus.load(home / "free")
    mapping = VectorMap.read(home / "free" / f"map-{old.name}.safetensors")
    gallery = open_gallery(home / "mapped")
    assert gallery.about().model == mapping.name and len(gallery) == 24
    read, queries = Embeddings.read(home / "old.npz"), Embeddings.read(home / "free.npz")
    answers = gallery.query(queries, top=1)
    cosines = unit(queries.vectors) @ mapping(read.vectors).T
    assert [answer.matches[0].score for answer in answers] == pytest.approx(cosines.max(1).tolist(), abs=1e-5)
    assert {match.identity for answer in answers for match in answer.matches} <= set(read.labels.tolist())  # type: ignore[union-attr]
    assert "holds vectors of" in run(home, "search query @mapped @new.npz")[1]
    # the calibration of the pair maps the old vectors as the gallery does
    assert "and --gallery" in run(home, "search query @mapped @free.npz --calibration @free")[1]
    kept = mapped_as_kept(home / "free", read, free.name)
    assert kept.model == mapping.name and kept.ids.tolist() == read.ids.tolist()
    np.testing.assert_array_equal(kept.vectors, mapping(read.vectors))
    assert (
        mapped_as_kept(home / "free", read, NEW_NAME) is read and mapped_as_kept(home / "new", read, old.name) is read
    )
    by_score = sorted(((float(cosines[a, b]), a, b) for a in range(24) for b in range(24) if a < b), reverse=True)
    lines = [f"{queries.ids[a]} {read.ids[b]} {int(place < 100)}" for place, (_, a, b) in enumerate(by_score)]
    (home / "pairs.txt").write_text("\n".join(lines))
    asked = "calibrate @free.npz --gallery @old.npz --model @free --fmr 0.1 --draws 0 --pairs @pairs.txt"
    code, said = run(home, asked)
    assert code == 0, said
    known = angulus.load(home / "free").calibration_of(kept.model)
    impostors = [score for score, *_ in by_score[100:]]
    assert known is not None and known.threshold.value == pytest.approx(impostors[16], abs=1e-5)  # 17 of 176 pass
    code, said = run(home, "search query @mapped @free.npz --calibration @free")
    assert code == 0 and f"threshold {known.threshold.value:.4f}" in said
    assert run(home, "who @mapped @people/3/0.png --model @free")[0] == 0
    again = "upgrade @old @free --pairs @old.npz @free.npz --draws 0 --gallery @stored --out"
    path = home / "free" / f"map-{old.name}.safetensors"
    before = path.read_bytes()
    for out, sentence in (
        ("@mapped --held-out 0.5", "by the map"),  # of other people: the scores of two maps need two thresholds
        ("@stored/../stored", "out must be another gallery"),
        ("@people", "is not a gallery, and not empty"),
    ):
        assert sentence in run(home, f"{again} {out}")[1] and path.read_bytes() == before
    assert "24 mapped" in run(home, f"{again} @mapped")[1]  # as after a stop
    chained = angulus.load(home / "new")  # compatible with the target of the map, which each query would refuse
    chained.config = replace(chained.config, compatible_with=(free.fingerprint,))
    with pytest.raises(InputError, match=r"mapped to the model .* give the model that made the gallery"):
        as_gallery(chained, gallery)


@pytest.mark.parametrize("name", ["../x", "a/b", "x" * 300, "a\0b"])
def test_the_name_of_stored_vectors_leads_to_no_other_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be part of a file's name"):
        artifact.pair_path(tmp_path, name)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("upgrade @old @old --images @people", "are the same model"),
        ("upgrade @old @free", "give either --pairs OLD.npz NEW.npz or --images; got neither"),
        ("upgrade @old @free --images @people --gallery @gallery", "give both, or neither"),
        ("upgrade @old @free --pairs @free.npz @old.npz", "must hold vectors of OLD"),
        ("upgrade @old @free --pairs @old.npz @new.npz", "must hold vectors of NEW"),
        ("upgrade @old @free --images @people --held-out 1", "--held-out must be"),
        ("upgrade @old @none --images @people", "is not a model folder"),
    ],
)
def test_bad_commands_end_in_a_sentence(home: Path, command: str, sentence: str) -> None:
    code, said = run(home, command)
    assert code != 0 and sentence in said
    assert not list(home.glob("*/map-none*"))


def test_the_page_shows_the_stored_figures() -> None:
    root = Path(__file__).parents[1]
    page = (root / "docs" / "upgrade.md").read_text(encoding="utf-8")
    lines = (root / "benchmarks" / "results" / "upgrade.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "what" in row]
    assert len(rows) >= 11
    for row in rows:
        cells = [
            f"{100 * row[name][end]:.2f}"
            for name in ("accuracy", "AUC", "Recall@1")
            for end in ("value", "low", "high")
        ]
        one, two, three = ("{} [{}, {}]".format(*cells[start : start + 3]) for start in (0, 3, 6))
        assert f"| {row['what']} | {one} | {two} | {three} |" in page, row["what"]
