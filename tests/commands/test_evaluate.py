"""`angulus evaluate`, `calibrate`, `compare-results`: each once on a small set, saved, drawn, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import typer
from typer.testing import CliRunner, Result

from angulus.checks import InputError
from angulus.commands import evaluate as commands
from angulus.embeddings import Embeddings
from angulus.protocols import result as results
from angulus.protocols.calibration import Calibration

app = typer.Typer()
app.add_typer(commands.evaluate_app, name="evaluate")
app.command("calibrate")(commands.calibrate)
app.command("compare-results")(commands.compare_results)

PEOPLE, IMAGES = 12, 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Embeddings of 12 people with four images each, `Pnn/Pnn_0001`, and lists of their pairs in two folds."""
    for name, noise in (("model", 0.6), ("softmax", 1.0)):
        embeddings_of(noise).write(tmp_path / f"{name}.npz")
    plain, lfw = ["2\t18"], ["2\t18"]
    for fold in range(2):
        people = range(6 * fold, 6 * fold + 6)
        genuine = [(p, i, p, j) for p in people for i, j in ((1, 2), (2, 3), (3, 4))]
        impostor = [(p, i, 6 * fold + (p + 1) % 6, i) for p in people for i in (1, 2, 3)]
        plain += [f"{image(p, i)}\t{image(q, j)}\t{int(p == q)}" for p, i, q, j in genuine + impostor]
        lfw += [f"P{p:02d}\t{i}\t{j}" for p, i, _, j in genuine]
        lfw += [f"P{p:02d}\t{i}\tP{q:02d}\t{j}" for p, i, q, j in impostor]
    (tmp_path / "plain.txt").write_text("\n".join(plain))
    (tmp_path / "lfw.txt").write_text("\n".join(lfw))
    return tmp_path


def image(person: int, number: int) -> str:
    return f"P{person:02d}/P{person:02d}_{number:04d}"


def embeddings_of(noise: float) -> Embeddings:
    random = np.random.default_rng(0)
    centres = random.normal(size=(PEOPLE, 8))
    people = np.repeat(np.arange(PEOPLE), IMAGES)
    vectors = centres[people] + noise * np.random.default_rng(1).normal(size=(len(people), 8))
    return Embeddings(
        vectors * random.gamma(4, 2, (len(people), 1)),
        np.array([image(person, number % IMAGES + 1) for number, person in enumerate(people.tolist())]),
        labels=np.char.add("P", people.astype(np.str_)),
        groups=np.where(people % 2 == 0, "even", "odd"),
        detector_scores=random.random(len(people)),
        flipped=vectors + 0.1,
    )


def run(*arguments: object, fails: bool = False) -> Result:
    found = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if not fails and found.exception is not None:
        raise found.exception
    return found


def saved(*arguments: object, to: Path) -> results.Result:
    """The result that a command saves; what it prints has every figure to nine digits."""
    printed = run(*arguments, "--json", to, "--digits", 9).output
    found = results.Result.read(to)
    for number in found.numbers:
        assert number.name in printed
        if np.isfinite(number.value) and number.value != 0:
            assert f"{number.value:#.9g}".rstrip(".") in printed
    assert f"The result is saved as {to}" in printed
    return found


def lfw(folder: Path) -> list[object]:
    return ["lfw", folder / "model.npz", "--pairs", folder / "lfw.txt", "--draws", 20]


def pairs(folder: Path) -> list[object]:
    return [
        "pairs",
        folder / "model.npz",
        "--pairs",
        folder / "plain.txt",
        "--flip",
        "sum",
        "--far",
        0.1,
        "--draws",
        20,
    ]


def cfp(folder: Path) -> list[object]:
    root = folder / "Protocol"
    ids = {"F": [f"{p:03d}/frontal/{i:02d}.jpg" for p in range(4) for i in (1, 2)]}
    ids["P"] = [f"{p:03d}/profile/{i:02d}.jpg" for p in range(4) for i in (1, 2)]
    root.mkdir()
    for side, names in ids.items():
        lines = [f"{number} ../Data/Images/{name}" for number, name in enumerate(names, 1)]
        (root / f"Pair_list_{side}.txt").write_text("\n".join(lines))
    for kind in ("FF", "FP"):
        for fold in (1, 2):
            place = root / "Split" / kind / f"{fold:02d}"
            place.mkdir(parents=True)
            first = 4 * (fold - 1)
            (place / "same.txt").write_text(f"{first + 1},{first + 2}\n{first + 3},{first + 4}")
            (place / "diff.txt").write_text(f"{first + 1},{first + 3}\n{first + 2},{first + 4}")
    every = np.array(ids["F"] + ids["P"])
    Embeddings(np.random.default_rng(0).normal(size=(16, 4)), every).write(folder / "cfp.npz")
    return ["cfp", folder / "cfp.npz", "--lists", root, "--part", "ff", "--draws", 0]


def bin_set(folder: Path) -> list[object]:
    import pickle

    images = [b"\xff\xd8" + bytes([number]) for number in range(16)]
    (folder / "small.bin").write_bytes(pickle.dumps((images, [True, False] * 4)))
    vectors = np.random.default_rng(0).normal(size=(16, 4))
    Embeddings(vectors, np.arange(16).astype(np.str_)).write(folder / "bin.npz")
    return ["bin", folder / "bin.npz", "--bin", folder / "small.bin", "--folds", 2, "--draws", 0]


def rfw(folder: Path) -> list[object]:
    lines = (folder / "plain.txt").read_text().splitlines()[1:]
    for name, of_group in (("a", lambda p: p % 6 < 3), ("b", lambda p: p % 6 >= 3)):
        kept = [line for line in lines if of_group(int(line[1:3])) and of_group(int(line.split("\t")[1][1:3]))]
        halves = [[line for line in kept if (int(line[1:3]) < 6) == first] for first in (True, False)]
        folds = [[line for line in half if line[-1] == flag][:6] for half in halves for flag in "10"]
        (folder / f"{name}.txt").write_text("\n".join(["2\t6", *(line for fold in folds for line in fold)]))
    lists = [item for name in "ab" for item in ("--pairs", f"{name}={folder / name}.txt")]
    return ["rfw", folder / "softmax.npz", *lists, "--draws", 0]


def blufr(folder: Path) -> list[object]:
    def cells(*rows: list[int]) -> np.ndarray:
        found = np.empty((len(rows), 1), dtype=object)
        found[:, 0] = [np.array(row, dtype=float)[:, None] + 1 for row in rows]
        return found

    names = [f"{image(p, i).partition('/')[2]}.jpg" for p in range(PEOPLE) for i in range(1, IMAGES + 1)]
    listed = np.empty((len(names), 1), dtype=object)
    listed[:, 0] = names
    tested = list(range(16, 48))
    gallery = [16, 20, 24, 28]
    probes = [row for row in tested if row not in gallery]
    content = {
        "imageList": listed,
        "labels": np.repeat(np.arange(PEOPLE), IMAGES)[:, None] + 1.0,
        "trainIndex": cells(list(range(16)), list(range(16))),
        "testIndex": cells(tested, tested),
        "galIndex": cells(gallery, [row + 1 for row in gallery]),
        "probIndex": cells(probes, [row for row in tested if row not in [row + 1 for row in gallery]]),
    }
    scipy.io.savemat(folder / "blufr.mat", content)
    return ["blufr", folder / "model.npz", "--config", folder / "blufr.mat", "--far", 0.1, "--open-set-far", 0.1]


def ytf(folder: Path) -> list[object]:
    lines = []
    for split in (1, 2):
        for number, person in enumerate(range(6 * split - 6, 6 * split)):
            other = 6 * split - 6 + (person + 1) % 6
            lines.append(f"{split}, {2 * number + 1}, P{person:02d}/0, P{person:02d}/1, 1")
            lines.append(f"{split}, {2 * number + 2}, P{person:02d}/0, P{other:02d}/1, 0")
    (folder / "splits.txt").write_text("\n".join(lines))
    found = embeddings_of(0.6)
    frames = np.array([f"P{p:02d}/{i // 2}/{i}.jpg" for p in range(PEOPLE) for i in range(IMAGES)])
    Embeddings(found.vectors, frames).write(folder / "frames.npz")
    return ["ytf", folder / "frames.npz", "--pairs", folder / "splits.txt", "--score", "histogram", "--draws", 0]


def templates(folder: Path) -> None:
    heading = "TEMPLATE_ID,SUBJECT_ID,FILE,MEDIA_ID"
    parts: dict[str, list[str]] = {"g1": [], "g2": [], "probes": []}
    for person in range(PEOPLE):
        rows = [f"{person},{image(person, i)},{i}" for i in range(1, IMAGES + 1)]
        parts["g1" if person % 2 else "g2"].append(f"{100 + person},{rows[0]}")
        parts["probes"] += [f"{200 + person},{rows[1]}", f"{200 + person},{rows[2]}", f"{300 + person},{rows[3]}"]
    for name, rows in parts.items():
        (folder / f"{name}.csv").write_text("\n".join([heading, *rows]))
    every = [(100 + a, 200 + b) for a in range(PEOPLE) for b in range(PEOPLE)]
    (folder / "comparisons.txt").write_text("\n".join(f"{a} {b} {int(a + 100 == b)}" for a, b in every))


def ijb_verify(folder: Path) -> list[object]:
    templates(folder)
    lists = [item for name in ("g1", "g2", "probes") for item in ("--templates", folder / f"{name}.csv")]
    options = ["--comparisons", folder / "comparisons.txt", "--no-norm", "--detector", "--flip", "sum", "--folds", 3]
    return ["ijb-verify", folder / "softmax.npz", *lists, *options, "--draws", 20]


def ijb_identify(folder: Path) -> list[object]:
    templates(folder)
    lists = ["--gallery", folder / "g1.csv", "--gallery", folder / "g2.csv", "--probes", folder / "probes.csv"]
    return ["ijb-identify", folder / "softmax.npz", *lists, "--pool", "flat", "--rank", 1, "--fpir", 0.1, "--draws", 20]


def distractors(folder: Path) -> Path:
    vectors = np.random.default_rng(5).normal(size=(120, 8))
    names = np.array([f"d/{number}.jpg" for number in range(120)])
    Embeddings(vectors, names, labels=names).write(folder / "distractors.npz")
    return folder / "distractors.npz"


def megaface(folder: Path) -> list[object]:
    there = distractors(folder)
    probes = [image(p, i) for p in range(PEOPLE) for i in range(1, IMAGES + 1)]
    listed = {"path": probes, "id": [name[:3] for name in probes]}
    (folder / "probes.json").write_text(json.dumps(listed))
    (folder / "others.json").write_text(json.dumps({"path": [f"d/{number}.jpg" for number in range(120)]}))
    (folder / "noises.txt").write_text("d/7.jpg\nd/8.jpg")
    lists = ["--probe-list", folder / "probes.json", "--distractor-list", folder / "others.json"]
    options = ["--distractor-noises", folder / "noises.txt", "--rank", 1, "--far", 1e-3, "--draws", 20]
    return ["megaface", folder / "model.npz", there, *lists, *options]


def trillion_pairs(folder: Path) -> list[object]:
    found, others = embeddings_of(0.6), Embeddings.read(distractors(folder))
    gallery = np.arange(len(found)) % IMAGES == 0
    first = np.concatenate([found.vectors[gallery][:8], others.vectors])
    labels = np.concatenate([found.labels[gallery][:8], others.labels])  # type: ignore[index]
    Embeddings(first, np.concatenate([found.ids[gallery][:8], others.ids]), labels=labels).write(folder / "gallery.npz")
    Embeddings(found.vectors[~gallery], found.ids[~gallery], labels=found.labels[~gallery]).write(  # type: ignore[index]
        folder / "probes.npz"
    )
    options = ["--far", 1e-2, "--search-far", 0.1, "--draws", 20]
    return ["trillion-pairs", folder / "probes.npz", folder / "gallery.npz", *options]


def luna16(folder: Path) -> list[object]:
    files = {
        "marks.csv": "seriesuid,coordX,coordY,coordZ,probability\na,0,0,0,0.9\na,50,0,0,0.5\nb,90,0,0,0.4",
        "nodules.csv": "seriesuid,coordX,coordY,coordZ,diameter_mm\na,1,0,0,8\nb,0,0,0,8",
        "excluded.csv": "seriesuid,coordX,coordY,coordZ,diameter_mm\nb,91,0,0,-1",
        "scans.csv": "a\nb\nc",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    options = ["--annotations", folder / "nodules.csv", "--excluded", folder / "excluded.csv"]
    return ["luna16", folder / "marks.csv", *options, "--scans", folder / "scans.csv", "--draws", 20]


def luna16_candidates(folder: Path) -> list[object]:
    np.savez(folder / "c.npz", labels=[1, 0, 1, 0], probabilities=[0.9, 0.5, 0.4, 0.1], scans=list("aabb"))
    return ["luna16-candidates", folder / "c.npz", "--draws", 20]


def classification(folder: Path) -> list[object]:
    random = np.random.default_rng(0)
    labels = np.arange(60) % 6
    for name in ("one", "two"):
        logits = 2.0 * np.eye(6)[labels] + random.normal(size=(60, 6))
        np.savez(folder / f"{name}.npz", labels=labels, logits=logits, norms=random.gamma(4, 2, 60))
    return ["classification", folder / "one.npz", "--reference", folder / "two.npz", "--draws", 20]


def quality(folder: Path) -> list[object]:
    options = ["--pairs", folder / "plain.txt", "--reference", folder / "softmax.npz"]
    return ["quality", folder / "model.npz", *options, "--draws", 20]


EACH: dict[str, tuple[Callable[[Path], list[object]], str, set[str]]] = {  # the first number, and kinds of curves
    "lfw": (lfw, "accuracy", {"roc", "det"}),
    "pairs": (pairs, "accuracy", {"roc", "det"}),
    "cfp": (cfp, "accuracy", {"roc", "det"}),
    "bin": (bin_set, "accuracy", {"roc", "det"}),
    "rfw": (rfw, "accuracy a", {"roc", "det"}),
    "blufr": (blufr, "VR@FAR=1e-1", {"roc", "cmc"}),
    "ytf": (ytf, "accuracy", {"roc", "det"}),
    "ijb-verify": (ijb_verify, "TAR@FAR=1e-1", {"roc"}),
    "ijb-identify": (ijb_identify, "rank-1", {"roc", "cmc"}),
    "megaface": (megaface, "rank-1, 10 distractors", {"cmc"}),
    "trillion-pairs": (trillion_pairs, "TAR@FAR=1e-2", {"roc"}),
    "luna16": (luna16, "CPM", {"froc"}),
    "luna16-candidates": (luna16_candidates, "CPM", {"froc"}),
    "classification": (classification, "accuracy", set()),
    "quality": (quality, "accuracy, entire", set()),
}


@pytest.mark.parametrize("name", EACH)
def test_each_protocol_prints_saves_and_draws(name: str, folder: Path) -> None:
    prepare, first, kinds = EACH[name]
    found = saved("evaluate", *prepare(folder), "--plot", folder / "plots", to=folder / "out" / "result.json")
    assert found.numbers[0].name == first
    assert {curve.kind for curve in found.curves} == kinds
    drawn = {path.stem.rpartition("-")[2] for path in (folder / "plots").glob("*.png")}
    assert drawn == kinds
    assert found.samples
    assert "these" not in " ".join(str(found.about.get(name)) for name in ("embeddings", "probes", "pairs"))


def test_the_list_names_every_command() -> None:
    listed = run("evaluate", "--list").output
    registered = [command.name for command in commands.evaluate_app.registered_commands]
    assert registered == [name for name, *_ in commands.TABLE] and set(registered) == set(EACH)
    for name, _, measures, reads in commands.TABLE:
        line = next(line for line in listed.splitlines() if f"│ {name} " in line)
        assert measures in line and reads in line


@pytest.mark.parametrize("name", [[], *([name] for name in EACH)])
def test_help_is_readable(name: list[str]) -> None:
    found = run("evaluate", *name, "--help")
    assert found.exit_code == 0
    if name:
        assert all(option in found.output for option in ("--json", "--plot", "--digits"))
        assert ("--seed" in found.output) == ("--draws" in found.output) == (name != ["blufr"])


@pytest.mark.parametrize("name", ["calibrate", "compare-results"])
def test_help_of_the_others_is_readable(name: str) -> None:
    assert "--digits" in run(name, "--help").output


def test_luna16_by_hand(folder: Path) -> None:
    """Three scans, two nodules, one found at 0.9; a false positive at 0.5; a mark on an excluded finding."""
    found = saved("evaluate", *luna16(folder), to=folder / "l.json")
    assert found["CPM"] == found["sensitivity of all marks"] == 0.5
    assert found.counts["false positives"] == found.counts["ignored on excluded findings"] == 1


def test_lfw_is_the_same_list_as_plain(folder: Path) -> None:
    of_lfw = saved("evaluate", *lfw(folder), to=folder / "a.json")
    options = ["--pairs", folder / "plain.txt", "--draws", 20]
    plain = saved("evaluate", "pairs", folder / "model.npz", *options, to=folder / "b.json")
    assert of_lfw.numbers == plain.numbers
    with_format = ["--pairs", folder / "lfw.txt", "--format", "lfw", "--draws", 20]
    assert saved("evaluate", "pairs", folder / "model.npz", *with_format, to=folder / "c.json").numbers == plain.numbers


def test_one_list_takes_the_embeddings_groups(folder: Path) -> None:
    lines = []
    for fold in range(2):
        for flag in (1, 0):
            for person in range(6 * fold, 6 * fold + 6):
                other = person if flag else 6 * fold + (person + 2) % 6
                lines.append(f"{image(person, 1)}\t{image(other, 2)}\t{flag}")
    (folder / "even-odd.txt").write_text("\n".join(["2\t6", *lines]))
    options = ["--pairs", folder / "even-odd.txt", "--draws", 0]
    found = saved("evaluate", "rfw", folder / "model.npz", *options, to=folder / "g.json")
    assert {"accuracy even", "accuracy odd"} <= {number.name for number in found.numbers}


def test_several_predictions_are_runs_with_other_seeds(folder: Path) -> None:
    classification(folder)
    options = [folder / "one.npz", folder / "two.npz", "--no-per-class"]
    found = saved("evaluate", "classification", *options, to=folder / "s.json")
    assert found.counts["seeds"] == 2
    assert found.number("accuracy").spread is not None
    assert not any("class" in number.name for number in found.numbers)


@pytest.mark.parametrize(
    ("measure", "first"),
    [
        ("split", "accuracy, entire"),
        ("bins", "accuracy, bin 0"),
        ("changed", "share right before"),
        ("discard", "FNMR"),
    ],
)
def test_measures_of_quality(measure: str, first: str, folder: Path) -> None:
    options = ["--measure", measure, "--fmr", 0.1, "--bins", 3]
    found = saved("evaluate", *quality(folder), *options, to=folder / "q.json")
    assert found.numbers[0].name.startswith(first)


def test_quality_of_predictions_videos_and_degraded_images(folder: Path) -> None:
    classification(folder)
    options = [folder / "one.npz", "--reference", folder / "two.npz", "--draws", 0]
    found = saved("evaluate", "quality", *options, to=folder / "p.json")
    beside = saved("evaluate", *classification(folder), to=folder / "c.json")
    assert found["accuracy, low"] == beside["accuracy, low"]
    saved("evaluate", *ytf(folder), to=folder / "ytf.json")
    assert saved("evaluate", "quality", folder / "ytf.json", "--draws", 0, to=folder / "v.json").counts["entire"] == 24
    np.savez(folder / "d.npz", norms=[5.0, 4.0, 3.0, 2.0], strengths=[0, 1, 0, 1], images=["a", "a", "b", "b"])
    options = [folder / "d.npz", "--measure", "degradation", "--draws", 0]
    assert saved("evaluate", "quality", *options, to=folder / "r.json")["Spearman ρ"] < 0


def test_calibrate_writes_what_verifies(folder: Path) -> None:
    options = ["--pairs", folder / "plain.txt", "--fmr", 0.1, "--draws", 20]
    printed = run("calibrate", folder / "model.npz", *options, "--out", folder / "new" / "calibration.json").output
    calibration = Calibration.read(folder / "new" / "calibration.json")
    assert calibration.fmr.value <= 0.1 and calibration.impostors == 36
    assert "threshold for FMR=1e-1" in printed and "FNMR, group even" in printed
    run("calibrate", folder / "model.npz", "--fmr", 0.1, "--impostors", 50, "--draws", 0, "--out", folder / "i.json")
    assert Calibration.read(folder / "i.json").impostors == 50


def test_compare_results_of_two_models(folder: Path) -> None:
    options = ["--pairs", folder / "plain.txt", "--draws", 20]
    for name in ("softmax", "model"):
        run("evaluate", "pairs", folder / f"{name}.npz", *options, "--json", folder / f"{name}.json")
    first, second = (results.Result.read(folder / f"{name}.json") for name in ("softmax", "model"))
    arguments = ["compare-results", folder / "softmax.json", folder / "model.json", "--draws", 30]
    found = saved(*arguments, to=folder / "d.json")
    assert found["AUC"] == second["AUC"] - first["AUC"]
    assert found.number("AUC").interval is not None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evaluate", "lfw", "{}/model.npz", "--pairs", "{}/none.txt"], "none.txt must be a file that can be read"),
        (["evaluate", "pairs", "{}/none.npz", "--pairs", "{}/plain.txt"], "there is no file"),
        (
            ["evaluate", "pairs", "{}/model.npz", "--pairs", "{}/plain.txt", "--json", "a.txt"],
            "--json must name a file",
        ),
        (["evaluate", "pairs", "{}/model.npz", "--pairs", "{}/plain.txt", "--far", "1e-6"], "needs at least 1,000,000"),
        (
            ["evaluate", "pairs", "{}/model.npz", "--pairs", "{}/plain.txt", "--format", "csv"],
            "--format must be one of",
        ),
        (
            ["evaluate", "cfp", "{}/model.npz", "--lists", "{}", "--part", "x"],
            "--part must be one of 'fp', 'ff'; got 'x'",
        ),
        (
            ["evaluate", "rfw", "{}/model.npz", "--pairs", "a={}/a", "--pairs", "b"],
            "--pairs must be GROUP=FILE, each group",
        ),
        (["evaluate", "rfw", "{}/model.npz", "--pairs", "a=x", "--pairs", "a=y"], "each group once; got a=x a=y"),
        (["evaluate", "megaface", "a", "b", "--probe-list", "c"], "--probe-list and --distractor-list go together"),
        (["evaluate", "megaface", "a", "b", "--probe-noises", "c"], "noises are left out of lists; give --probe-list"),
        (["evaluate", "quality", "{}/model.npz", "--measure", "best"], "--measure must be one of 'split', 'bins'"),
        (
            ["evaluate", "quality", "{}/model.npz", "--measure", "discard"],
            "needs embeddings and their list: give --pairs",
        ),
        (
            ["evaluate", "quality", "{}/model.npz", "--pairs", "{}/plain.txt", "--measure", "changed"],
            "needs the model before: give --reference",
        ),
        (["evaluate", "quality", "{}/model.npz"], "got 'embeddings'"),
        (["evaluate", "classification", "{}/model.npz"], "got 'embeddings'"),
        (["calibrate", "{}/model.npz", "--out", "c.txt"], "--out must name a file that ends in .json; got c.txt"),
        (
            ["calibrate", "{}/model.npz", "--out", "c.json", "--pairs", "{}/plain.txt", "--impostors", "5"],
            "--impostors draws pairs of labelled images",
        ),
        (["compare-results", "{}/a.json", "{}/b.json"], "a.json is not a saved result"),
    ],
)
def test_what_is_refused(arguments: list[str], sentence: str, folder: Path) -> None:
    found = run(*(argument.replace("{}", str(folder)) for argument in arguments), fails=True)
    assert isinstance(found.exception, InputError)
    assert sentence in str(found.exception)


def test_a_saved_result_that_is_not_of_videos_has_no_norms(folder: Path) -> None:
    saved("evaluate", *lfw(folder), to=folder / "a.json")
    found = run("evaluate", "quality", folder / "a.json", fails=True)
    assert "must be a saved result of ytf; got pairs" in str(found.exception)


def test_rfw_lists_without_folds_are_refused(folder: Path) -> None:
    (folder / "n.txt").write_text("P00/P00_0001 P01/P01_0001 0\nP00/P00_0001 P00/P00_0002 1")
    options = ["--pairs", f"a={folder}/plain.txt", "--pairs", f"b={folder}/n.txt"]
    found = run("evaluate", "rfw", folder / "model.npz", *options, fails=True)
    assert "n.txt has no folds, over which the accuracy of a group is taken" in str(found.exception)


def test_digits_are_those_asked_for(folder: Path) -> None:
    value = saved("evaluate", *lfw(folder), to=folder / "a.json")["AUC"]
    assert f"{value:#.3g} " in run("evaluate", *lfw(folder), "--digits", 3).output
    assert f"{value:#.17g} " in run("evaluate", *lfw(folder), "--digits", 17).output
    assert run("evaluate", *lfw(folder), "--digits", 18, fails=True).exit_code == 2
