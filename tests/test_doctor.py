"""The doctor: faults planted in images of a model that was trained without them are named, and nothing else is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import typer
from torch import Tensor
from typer.testing import CliRunner

import angulus
from angulus import InputError
from angulus.cli.doctor import doctor as command
from angulus.core.contract import Contract
from angulus.core.templates import template_points
from angulus.data.records import Row, write_records
from angulus.doctor import Diagnosis, diagnose, separations
from angulus.doctor.changes import changes_for, combine, features, moved
from angulus.doctor.sample import PER_IDENTITY, choose
from angulus.models import artifact
from angulus.models.artifact import Config
from data.pictures import encoded

SIDE, CLASSES = 16, 10
CONFIG = Config(
    "small",
    in_channels=3,
    image_size=(SIDE, SIDE),
    embedding_size=16,
    contract=Contract(size=(SIDE, SIDE), colour="rgb"),
)


def pictures(each: int, seed: int) -> tuple[Tensor, np.ndarray]:
    """Noisy pictures of ten coloured patterns, and which of them each is."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(CLASSES):
        small = np.random.default_rng(1000 + number).integers(40, 216, (4, 4, 3), dtype=np.uint8)
        pattern = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).astype(float)
        for _ in range(each):
            noisy = pattern * rng.uniform(0.8, 1.2) + rng.normal(0, 12, pattern.shape)
            found.append(np.clip(noisy, 0, 255).astype(np.uint8))
    pixels = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()
    return pixels, np.arange(CLASSES).repeat(each)


@pytest.fixture(scope="module")
def backbone() -> torch.nn.Module:
    torch.manual_seed(0)
    pixels, classes = pictures(40, seed=0)
    inputs, labels = CONFIG.contract(pixels), torch.from_numpy(classes)
    network, last = CONFIG.build(), torch.nn.Linear(16, CLASSES)
    optimizer = torch.optim.Adam([*network.parameters(), *last.parameters()], lr=3e-3)
    for _ in range(60):
        some = torch.randint(0, len(pixels), (64,))
        loss = torch.nn.functional.cross_entropy(last(network(inputs[some])), labels[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def model(backbone: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doctor") / "model"
    artifact.save(CONFIG, backbone, folder)
    return folder


def records(path: Path, pixels: Tensor, names: list[str]) -> Path:
    images = [encoded(image.permute(1, 2, 0).numpy()) for image in pixels]
    write_records(
        path, [Row(f"{n}.png", image, name) for n, (image, name) in enumerate(zip(images, names, strict=True))]
    )
    return path


def names(classes: np.ndarray) -> list[str]:
    return [f"p{number}" for number in classes]


def looked_at(model: Path, path: Path, pixels: Tensor, people: list[str]) -> Diagnosis:
    return diagnose(model, records(path, pixels, people), draws=400)


def test_nothing_stands_out_where_nothing_is_wrong(model: Path, tmp_path: Path) -> None:
    pixels, classes = pictures(8, seed=7)
    for people in (names(classes), [""] * len(classes)):
        found = looked_at(model, tmp_path / f"records {people[0]}", pixels, people)
        assert found.likely == () and not any(each.better for each in found.outcomes)
        assert any(sentence.startswith("Nothing stands out") for sentence in found.sentences())
        assert len(found.outcomes) == len(changes_for(angulus.load(model)))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("fault", "family", "mend"),
    [
        (lambda pixels: pixels.flip(1), "colour", "red and blue swapped"),
        (lambda pixels: moved(pixels, degrees=90), "turn", "a turn of +270 degrees"),
        (lambda pixels: moved(pixels, right=2), "place", "px left"),
        (lambda pixels: moved(pixels, zoom=0.6), "size", "enlarged to 133%"),
    ],
)
def test_a_planted_fault_is_named(
    model: Path, tmp_path: Path, fault: object, family: str, mend: str, known: bool
) -> None:
    pixels, classes = pictures(8, seed=7)
    people = names(classes) if known else [""] * len(classes)
    found = looked_at(model, tmp_path / "records", fault(pixels), people)  # type: ignore[operator]
    first = found.likely[0]
    assert first.family == family and mend in first.name
    assert first.norm_ratio > 1
    if known:
        assert first.before == pytest.approx(found.separation)
        assert first.gain is not None and first.gain_interval is not None and first.gain_interval.low > 0
        assert first.gain_interval.low <= first.gain <= first.gain_interval.high
        assert first.separation == pytest.approx(first.before + first.gain)
    else:
        assert found.separation is None and first.gain is None and first.norm_interval.low > 1
        assert any("only norms were compared" in sentence for sentence in found.sentences())
    assert any(sentence.startswith("This is evidence") for sentence in found.sentences())


def test_it_says_how_many_changes_are_tried_of_how_many(model: Path, tmp_path: Path) -> None:
    pixels, classes = pictures(8, seed=7)
    told: list[tuple[int, int]] = []
    path = records(tmp_path / "records", pixels.flip(1), names(classes))
    found = diagnose(model, path, draws=400, on_trial=lambda *each: told.append(each))
    count = len(found.outcomes) + 1  # and the images as they are
    assert told[:count] == [(done, count) for done in range(count)]
    assert len(found.likely) == 1 and told[count:] == [
        (done, len(told))
        for done in range(count, len(told))  # those that were tried on top of the best
    ]


def test_two_faults_are_both_named_and_no_third(model: Path, tmp_path: Path) -> None:
    pixels, classes = pictures(8, seed=7)
    found = looked_at(model, tmp_path / "records", moved(pixels.flip(1), right=2), names(classes))
    first, second = found.likely
    assert (first.family, second.family) == ("colour", "place") and "left" in second.name
    assert second.before == pytest.approx(first.separation)
    said = "\n".join(found.sentences())
    assert "Also likely" in said and "as well, the separation goes from" in said


def test_a_contract_of_another_scale_is_named(backbone: torch.nn.Module, tmp_path: Path) -> None:
    pixels, classes = pictures(8, seed=7)
    wrong = dataclasses.replace(CONFIG, contract=dataclasses.replace(CONFIG.contract, mean=0.0, scale=255.0))
    artifact.save(wrong, backbone, tmp_path / "model")
    found = looked_at(tmp_path / "model", tmp_path / "records", pixels, names(classes))
    assert found.likely[0].family == "values"
    own = next(each for each in found.outcomes if each.name == "pixels as (x − 127.5) / 127.5")
    assert own.better and "pixels as x / 255, so 0 to 1" not in {each.name for each in found.outcomes}
    assert "norms" not in next(text for text in found.sentences() if text.startswith("Likely"))


def test_separations_are_those_of_slow_loops() -> None:
    rng = np.random.default_rng(3)
    unit = rng.normal(size=(9, 4))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    people = np.array(["a", "a", "a", "b", "b", "c", "", "", "a"])
    impostors = [
        float(unit[i] @ unit[j])
        for i in range(9)
        for j in range(9)
        if people[i] and people[j] and people[i] != people[j]
    ]
    found = separations(unit, people)
    for i in range(9):
        genuine = [float(unit[i] @ unit[j]) for j in range(9) if j != i and people[i] and people[j] == people[i]]
        others = [float(unit[i] @ unit[j]) for j in range(9) if people[j] and people[j] != people[i]]
        if not genuine:
            assert np.isnan(found[i])
        else:
            assert found[i] == pytest.approx((np.mean(genuine) - np.mean(others)) / np.std(impostors))
    flat = separations(np.ones((4, 1)), np.array(["a", "a", "b", "c"]))
    assert flat[:2].tolist() == [0, 0] and np.isnan(flat[2:]).all()


def test_moved_is_what_arrays_do() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 7, 7), dtype=np.uint8))
    for degrees, turns in ((90, -1), (180, 2), (270, 1)):  # rot90 turns the other way
        assert torch.equal(moved(pixels, degrees=degrees), torch.rot90(pixels, turns, (2, 3)))
    right = moved(pixels, right=2)
    assert torch.equal(right[..., 2:], pixels[..., :-2]) and torch.equal(right[..., 1], pixels[..., 0])
    up = moved(pixels, down=-3)
    assert torch.equal(up[:, :, :-3], pixels[:, :, 3:]) and torch.equal(up[:, :, -2], pixels[:, :, -1])
    assert torch.equal(moved(pixels), pixels)
    assert torch.equal(moved(pixels, zoom=3)[..., 3, 3], pixels[..., 3, 3])
    assert torch.equal(moved(pixels, zoom=3)[..., 0, 0], pixels[..., 2, 2])
    assert moved(pixels[..., :5], degrees=90).shape == (2, 3, 7, 5)


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Equal up to rounding: the layout of the pixels may choose other kernels, by the processor."""
    return torch.allclose(first, second, rtol=1e-5, atol=1e-5)


def test_features_without_a_trial_are_the_models_own(model: Path) -> None:
    loaded = angulus.load(model)
    pixels, _ = pictures(1, seed=2)
    assert same(features(loaded, pixels), loaded.embed(pixels))
    every = {each.name: each for each in changes_for(loaded)}
    swapped, raw = every["red and blue swapped"], every["pixels as x as it is, so 0 to 255"]
    assert same(features(loaded, pixels, swapped), loaded.embed(pixels.flip(1)))
    assert same(features(loaded, pixels, raw), loaded.backbone(pixels.float()).detach())
    both = combine(swapped, raw)
    assert same(features(loaded, pixels, both), loaded.backbone(pixels.flip(1).float()).detach())
    assert same(features(loaded, pixels, combine(raw, swapped)), features(loaded, pixels, both))
    imagenet = features(loaded, pixels, every["pixels by ImageNet's mean and deviation"])
    mean, deviation = np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255
    scaled = (pixels.numpy().transpose(0, 2, 3, 1) - mean) / deviation
    expected = loaded.backbone(torch.from_numpy(scaled).permute(0, 3, 1, 2).float()).detach()
    torch.testing.assert_close(imagenet, expected)


def test_identities_with_pairs_are_looked_at_first() -> None:
    people = np.array(["single"] + ["a"] * 20 + [""] * 5 + ["b"] * 2 + ["c"] * 3)
    some = people[choose(people, 13)]
    assert sorted(some.tolist()) == ["a"] * PER_IDENTITY + ["b"] * 2 + ["c"] * 3
    more = people[choose(people, 26)]
    assert (more == "a").sum() == 20 and (more == "single").sum() == 1 and (more == "").sum() == 0
    rows = choose(people, 100)
    assert rows.tolist() == list(range(len(people)))
    np.testing.assert_array_equal(choose(people, 13), choose(people, 13))


def test_facts_are_said_beside_the_statistics(model: Path, backbone: torch.nn.Module, tmp_path: Path) -> None:
    pixels, classes = pictures(2, seed=7)
    dark = looked_at(model, tmp_path / "dark", (pixels.float() / 255).round().to(torch.uint8), names(classes))
    assert any(fact.startswith("No pixel is above 1 of 255") for fact in dark.facts)
    grey = looked_at(model, tmp_path / "grey", pixels[:, :1].expand(-1, 3, -1, -1), names(classes))
    assert grey.facts == ("20 of 20 images are grey: they cannot show whether colours are swapped.",)
    large = looked_at(
        model, tmp_path / "large", torch.nn.functional.interpolate(pixels, scale_factor=2), names(classes)
    )
    assert "20 of 20 images are not 16x16" in large.facts[0] and "32x32" in large.facts[0]
    untrained = CONFIG.build()
    torch.nn.init.zeros_(untrained.layers[-1].weight)  # type: ignore[index, union-attr]
    artifact.save(CONFIG, untrained, tmp_path / "untrained")
    few = diagnose(tmp_path / "untrained", tmp_path / "dark", draws=100)
    assert few.facts[-1].startswith("The features hardly depend on the image (mean cosine of two images 1.0000)")
    assert few.separation == 0 and few.likely == ()


def test_landmarks_off_the_template_are_named(backbone: torch.nn.Module, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, contract=dataclasses.replace(CONFIG.contract, template="five_points"))
    artifact.save(config, backbone, tmp_path / "model")
    pixels, classes = pictures(2, seed=7)
    points = template_points("five_points", SIDE, SIDE)
    for shift, expected in ((0.0, 0), (3.0, 1)):
        rows = [
            Row(f"{n}.png", encoded(image.permute(1, 2, 0).numpy()), f"p{name}", (points + shift).astype(np.float32))
            for n, (image, name) in enumerate(zip(pixels, classes, strict=True))
        ]
        write_records(tmp_path / f"shift {shift}", rows)
        facts = diagnose(tmp_path / "model", tmp_path / f"shift {shift}", draws=100).facts
        assert len(facts) == expected
    assert "a median of 4.2 px from the template" in facts[0] and "-3.0 px right and -3.0 px down" in facts[0]


def test_the_command_prints_and_saves(model: Path, tmp_path: Path) -> None:
    pixels, classes = pictures(4, seed=7)
    images = tmp_path / "photos"
    for n, (image, number) in enumerate(zip(pixels.flip(1), classes, strict=True)):
        (images / f"p{number}").mkdir(parents=True, exist_ok=True)
        (images / f"p{number}" / f"{n}.png").write_bytes(encoded(image.permute(1, 2, 0).numpy()))
    (images / "p0" / "empty.png").write_bytes(b"")
    app = typer.Typer()
    app.command()(command)
    arguments = [str(model), str(images), "--draws", "200", "--json", str(tmp_path / "found.json")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "Likely swapped colours: with red and blue swapped, the separation goes from" in result.output
    assert "1 things were not looked at, such as p0/empty.png" in result.output
    saved = json.loads((tmp_path / "found.json").read_text())
    assert saved["likely"][0]["family"] == "colour" and saved["images"] == 40 and saved["identities"] == 10
    assert saved["sentences"][0] in result.output
    assert "reading images: 0 of 400" in result.output and "changes to the images tried: 0 of 24" in result.output
    wrong = CliRunner().invoke(app, [str(model), str(images), "--json", "found.txt"])
    assert "--json must name a file that ends in .json" in str(wrong.exception)


def test_what_cannot_be_diagnosed_is_refused(model: Path, backbone: torch.nn.Module, tmp_path: Path) -> None:
    pixels, _ = pictures(1, seed=1)
    images = records(tmp_path / "records", pixels, [""] * 10)
    for wrong in ({"limit": 1}, {"limit": 10**50}, {"draws": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            diagnose(model, images, **wrong)  # type: ignore[arg-type]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image to look at"):
        diagnose(model, tmp_path / "empty")
    (tmp_path / "texts" / "a").mkdir(parents=True)
    (tmp_path / "texts" / "a" / "b.png").write_text("no image")
    with pytest.raises(InputError, match=r"1 things in it were left out, such as .*b\.png: the file must be"):
        diagnose(model, tmp_path / "texts")
    with pytest.raises(InputError, match="there is no"):
        diagnose(model, tmp_path / "absent")
    with pytest.raises(InputError, match="is not a model folder"):
        diagnose(tmp_path / "empty", images)
    unit = dataclasses.replace(CONFIG, normalize=True)
    artifact.save(unit, unit.build(), tmp_path / "unit")
    with pytest.raises(InputError, match="images must have identities"):
        diagnose(tmp_path / "unit", images)
    broken = CONFIG.build()
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    artifact.save(CONFIG, broken, tmp_path / "broken")
    with pytest.raises(InputError, match=r"weights must be finite; .* holds NaN or Inf"):
        diagnose(tmp_path / "broken", images)
