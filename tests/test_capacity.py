"""`angulus capacity`: its formulas against a hand's sums and stored measurements, and the tables of its page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from angulus.cli.capacity import shown
from angulus.cli.main import app
from angulus.core.capacity import Plan, capacity
from angulus.core.checks import InputError

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "capacity.md").read_text(encoding="utf-8")
RATES = {"images_per_s": 2000.0, "teraflops": 100.0, "network_gb_per_s": 10.0, "embed_images_per_s": 5000.0}
RATES |= {"core_images_per_s": 7000.0}


def figures(**plan: Any) -> dict[tuple[str, str], float]:
    return {(line.what, line.unit): line.value for line in capacity(Plan(**plan))}


def measured() -> list[dict[str, Any]]:
    """The last stored row of each measurement."""
    stored = [json.loads(line) for line in (ROOT / "benchmarks" / "results" / "capacity.jsonl").open()]
    return list({(row["what"], row["plan"].get("update_in_backward")): row for row in stored}.values())


def test_the_figures_are_those_of_a_hand() -> None:
    found = figures(
        classes=1000, images=10_000, dimensions=10, gpus=3, batch_size=7, epochs=2, price_per_gpu_hour=3, **RATES
    )
    shard = 334 * 10 * 4  # the largest of three
    assert found["memory of the head, per GPU", "bytes"] == 4 * shard + 2 * 3 * 7 * 10 * 4 + 24 * 1024 * 1024
    assert found["checkpoint: class weights and momentum", "bytes"] == 1000 * 10 * 8
    assert found["copy for training.checkpoint_async, CPU memory per GPU", "bytes"] == 2 * shard
    assert found["records", "bytes"] == 10_000 * 5108
    assert found["gallery", "bytes"] == 2 * 10_000 * 73
    assert found["steps", ""] == 2 * 477  # 476.19 steps of 21 rows
    step = 7 / 2000 + 8 * 7 * 1000 * 10 / 1e14 + found["sent per GPU and step", "bytes"] / 1e10
    assert found["training", "s"] == pytest.approx(954 * step)
    gpu_hours = 3 * 954 * step / 3600 + 10_000 / 5000 / 3600
    assert found["cost", ""] == pytest.approx(3 * gpu_hours)
    assert found["images read and decoded to keep all GPUs busy", "images/s"] == pytest.approx(21 / step)
    assert found["cores for that", ""] == pytest.approx(21 / step / 7000)


def test_a_block_of_many_rows_is_larger() -> None:
    blocks = [
        figures(classes=1000, images=1, gpus=gpus)["a block of classes, per GPU", "bytes"] for gpus in (1, 64, 128)
    ]
    assert blocks == [24 * 2**20, 24 * 2**20, 48 * 2**20]


def test_an_update_in_backward_spares_two_of_four_copies() -> None:
    plan = {"classes": 5000, "images": 1, "gpus": 1}
    name = "memory of the head, per GPU", "bytes"
    assert figures(**plan)[name] - figures(**plan, update_in_backward=True)[name] == 2 * 5000 * 512 * 4 - 24 * 2**20


def test_the_formulas_are_within_15_percent_of_what_was_measured() -> None:
    assert len(measured()) == 10
    for row in measured():
        assert figures(**row["plan"])[row["what"], row["unit"]] == pytest.approx(row["measured"], rel=0.15), row["what"]


def test_a_tenth_of_a_million_classes_tells_the_seconds_of_a_million() -> None:
    stored = [json.loads(line) for line in (ROOT / "benchmarks" / "results" / "head.jsonl").open()]
    for name, date in {(row["environment"]["device"], row["environment"]["date"]) for row in stored}:
        taken = {
            row["classes"]: row["median_ms"]
            for row in stored
            if row["what"] == "chunked ArcFace"
            and (row["environment"]["device"], row["environment"]["date"]) == (name, date)
            and (row["batch"], row["size"]) == (256, 512)
        }
        if 1_000_000 in taken:
            assert 10 * taken[100_000] == pytest.approx(taken[1_000_000], rel=0.15)


def test_the_copy_in_the_background_takes_what_the_formula_says() -> None:
    stored = [json.loads(line) for line in (ROOT / "benchmarks" / "results" / "checkpoint.jsonl").open()]
    for row in stored:
        if row["what"] == "copy for checkpoint_async":
            plan = {"classes": row["classes"], "dimensions": row["size"], "images": 1, "gpus": 1}
            name = "copy for training.checkpoint_async, CPU memory per GPU", "bytes"
            assert figures(**plan)[name] == pytest.approx(row["extra_mib"] * 2**20, rel=0.15)
        if "bytes_on_disk" in row:
            assert 8 * row["classes"] * row["size"] == pytest.approx(row["bytes_on_disk"], rel=0.15)


def test_the_tables_of_the_page_are_the_formulas() -> None:
    def cell(name: str, **plan: Any) -> str:
        (text,) = (shown(line.value, line.unit) for line in capacity(Plan(**plan)) if line.what == name)
        return text

    for classes, gpus in ((10**6, 8), (10**7, 8), (10**7, 64), (10**8, 64), (10**8, 512)):
        plan = {"classes": classes, "images": 1, "gpus": gpus}
        cells = [
            cell("memory of the head, per GPU", **plan),
            cell("memory of the head, per GPU", **plan, update_in_backward=True),
            cell("checkpoint: class weights and momentum", **plan),
            cell("copy for training.checkpoint_async, CPU memory per GPU", **plan),
            cell("sent per GPU and step", **plan),
        ]
        assert f"| {classes:,} | {gpus} | {' | '.join(cells)} |" in PAGE
    for images in (10**8, 10**9):
        names = ("records", "embeddings file", "gallery", "steps")
        cells = [cell(name, classes=10**7, images=images, gpus=64) for name in names]
        assert f"| {images:,} | {' | '.join(cells)} |" in PAGE


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        ({"classes": 4}, r"--gpus must be at most --classes, 4; got 8"),
        ({"images": 0}, r"--images must be a whole number in .*; got 0"),
        ({"classes": 10**300}, "--classes must be a whole number in .*; got 1000"),
        ({"teraflops": 0}, r"--teraflops must be a finite number > 0; got 0"),
        ({"price_per_gpu_hour": math.nan}, "--price-per-gpu-hour must be a finite number > 0; got nan"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(plan: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Plan(**{"classes": 100, "images": 100} | plan)


def test_a_rate_that_is_missing_is_named_and_small_figures_are_not_0() -> None:
    rates = ["--images-per-s", "2000", "--teraflops", "100", "--embed-images-per-s", "5000", "--gpus", "2"]
    size = ["--classes", "1000", "--images", "10000", "--price-per-gpu-hour", "2"]
    said = " ".join(CliRunner().invoke(app, ["capacity", *size, *rates]).output.split())
    assert said.endswith("for hours and cost of the training, give --network-gb-per-s")
    assert "of embedding, give" not in said
    assert (shown(0.375, "GPU h"), shown(99.5, ""), shown(100.5, "")) == ("0.38 GPU h", "99.50", "100")


def test_the_command_takes_counts_by_suffix_and_saves_what_it_shows(tmp_path: Path) -> None:
    saved = tmp_path / "capacity.json"
    done = CliRunner().invoke(app, ["capacity", "--classes", "10M", "--images", "1.5B", "--json", str(saved)])
    said = " ".join(done.output.split())
    assert done.exit_code == 0 and "give --images-per-s and --teraflops and --network-gb-per-s" in said
    assert "of embedding, give --embed-images-per-s" in said
    given = ["--gpus", "1", "--images-per-s", "2000", "--price-per-gpu-hour", "2"]
    done = CliRunner().invoke(app, ["capacity", "--classes", "10M", "--images", "1B", *given])
    assert "of the training, give --teraflops for" in " ".join(done.output.split())
    content = json.loads(saved.read_text())
    assert (content["plan"]["classes"], content["plan"]["images"]) == (10_000_000, 1_500_000_000)
    assert {line["what"]: line["value"] for line in content["figures"]}["embeddings file"] == 4 * 512 * 1_500_000_000
    for text in ("10X", "1e400", "nan", "1.5", ""):
        refused = CliRunner().invoke(app, ["capacity", "--classes", text, "--images", "1B"])
        assert refused.exit_code == 2 and "is no whole number" in " ".join(refused.output.replace("│", " ").split())
