"""`angulus evaluate`, `calibrate`, `compare-results`: each once on a small set, saved, drawn, and what is refused."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

import benchmark_files as files
from angulus.cli import calibrate
from angulus.cli import evaluate as commands
from angulus.cli.main import SHARED
from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.distributed import launch
from angulus.distributed.runtime import Ranks
from angulus.evaluation.protocols import result as results
from angulus.evaluation.protocols.calibration import Calibration
from angulus.evaluation.registry import COMMANDS
from angulus.report.sections import write_report
from benchmark_files import PEOPLE, image

app = typer.Typer()
app.add_typer(commands.evaluate_app, name="evaluate")
app.command("calibrate")(calibrate.calibrate)
app.command("compare-results")(calibrate.compare_results)

LUNA = ["--annotations", "a", "--excluded", "e", "--scans", "s"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files.people(tmp_path)
    return tmp_path


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


EACH: dict[str, tuple[Callable[[Path], list[object]], str, set[str]]] = {  # the first number, and kinds of curves
    "lfw": (files.lfw, "accuracy", {"roc", "det"}),
    "pairs": (files.pairs, "accuracy", {"roc", "det"}),
    "cfp": (files.cfp, "accuracy", {"roc", "det"}),
    "bin": (files.bin_set, "accuracy", {"roc", "det"}),
    "rfw": (files.rfw, "accuracy African", {"roc", "det"}),
    "blufr": (files.blufr, "VR@FAR=1e-1", {"roc", "cmc"}),
    "ytf": (files.ytf, "accuracy", {"roc", "det"}),
    "ijb-verify": (files.ijb_verify, "TAR@FAR=1e-1", {"roc", "det"}),
    "ijb-identify": (files.ijb_identify, "rank-1", {"roc", "cmc"}),
    "megaface": (files.megaface, "rank-1, 10 distractors", {"cmc"}),
    "trillion-pairs": (files.trillion_pairs, "TAR@FAR=1e-2", {"roc"}),
    "froc": (files.froc, "CPM", {"froc"}),
    "retrieval": (files.retrieval, "Recall@1", {"cmc"}),
    "reid": (files.reid, "rank-1", {"cmc"}),
    "luna16": (files.luna16, "CPM", {"froc"}),
    "luna16-candidates": (files.luna16_candidates, "CPM", {"froc"}),
    "classification": (files.classification, "accuracy", set()),
    "quality": (files.quality, "accuracy, entire", set()),
}


# the embeddings of `benchmark_files.people` have two groups
BY_GROUP = {"lfw", "pairs", "rfw", "blufr", "ijb-verify", "ijb-identify", "megaface"}


@pytest.mark.parametrize("name", EACH)
def test_each_protocol_prints_saves_and_draws(name: str, folder: Path) -> None:
    prepare, first, kinds = EACH[name]
    options = ["--plot", folder / "plots", "--report", folder / "pages" / "page.html"]
    found = saved("evaluate", *prepare(folder), *options, to=folder / "out" / "result.json")
    assert found.numbers[0].name == first
    assert {curve.kind for curve in found.curves} == kinds
    drawn = {path.stem.removeprefix("result-") for path in (folder / "plots").glob("*.png")}
    between = [point.at.replace("=", "-") for point in found.by_group if len(point.cells) > 2]
    assert drawn == kinds | {f"groups-{at}" for at in between}
    assert bool(found.by_group) == (name in BY_GROUP), found.notes
    assert found.samples
    assert "these" not in " ".join(str(found.about.get(name)) for name in ("embeddings", "probes", "pairs"))
    page = (folder / "pages" / "page.html").read_text()
    assert found.about["files"] and {"angulus", "torch", "command", "date"} <= set(found.about)
    for path, digest in found.about["files"].items():
        if Path(path).is_file():
            assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == digest
        assert digest in page
    for choice in found.choices:
        assert f'<th scope="row">{choice}</th>' in page
    again = folder / "again.html"
    write_report([folder / "out" / "result.json"], again)
    assert again.read_text() == page  # the saved result has the same page


def test_a_result_keeps_the_hash_of_the_csv_of_groups(folder: Path) -> None:
    named = folder / "groups.csv"
    found = saved("evaluate", *files.pairs(folder), "--groups", named, "--draws", 0, to=folder / "result.json")
    assert found.about["files"][str(named)] == hashlib.sha256(named.read_bytes()).hexdigest()


def test_torchrun_starts_what_shares_its_work() -> None:
    shared = {f"evaluate {name}" for name, protocol in COMMANDS.items() if protocol.shared}
    assert {name for name in SHARED if name.startswith("evaluate")} == shared


def test_the_list_names_every_command() -> None:
    listed = run("evaluate", "--list").output
    registered = [command.name for command in commands.evaluate_app.registered_commands]
    assert registered == list(COMMANDS) and set(registered) == set(EACH)
    for name, protocol in COMMANDS.items():
        line = next(line for line in listed.splitlines() if f"│ {name} " in line)
        assert protocol.measures in line and protocol.reads in line


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


@pytest.mark.parametrize(
    ("name", "said"), [("page.htm", "--report must name a file that ends in .html"), ("pages.html", "is a folder")]
)
def test_pages_that_cannot_be_written_are_refused_at_once(name: str, said: str, folder: Path) -> None:
    (folder / "pages.html").mkdir()
    found = run("evaluate", *files.pairs(folder), "--report", folder / name, fails=True)
    assert isinstance(found.exception, InputError) and said in str(found.exception)
    assert "accuracy" not in found.output


def test_a_page_alone_leaves_no_other_file(folder: Path) -> None:
    before = set(folder.iterdir())
    run("evaluate", *files.pairs(folder), "--report", folder / "page.html")
    assert set(folder.iterdir()) - before == {folder / "page.html"}
    assert "FNMR at fixed FMR" in (folder / "page.html").read_text()


def test_luna16_by_hand(folder: Path) -> None:
    """Three scans, two nodules, one found at 0.9; a false positive at 0.5; a mark on an excluded finding."""
    found = saved("evaluate", *files.luna16(folder), to=folder / "l.json")
    assert found["CPM"] == found["sensitivity of all marks"] == 0.5
    assert found.counts["false positives"] == found.counts["ignored on excluded findings"] == 1


def test_marks_of_unknown_scans_are_refused(folder: Path) -> None:
    _, marks, *options = files.luna16(folder)
    heading, *rows = Path(str(marks)).read_text().splitlines()
    Path(str(marks)).write_text("\n".join([heading, *(f"other-{row}" for row in rows)]) + "\n")
    found = run("evaluate", "luna16", marks, *options, "--json", folder / "l.json", fails=True)
    assert isinstance(found.exception, InputError)
    assert "the marks must lie in the listed scans" in str(found.exception)
    assert not (folder / "l.json").exists()


def test_a_list_that_repeats_or_contradicts_itself(folder: Path) -> None:
    lines = (folder / "my-pairs.txt").read_text().splitlines()[1:]  # without the folds
    listed = folder / "again.txt"
    listed.write_text("\n".join([*lines, *lines]) + "\n")
    calibrated = run("calibrate", folder / "model.npz", "--pairs", listed, "--fmr", 0.2, "--out", folder / "c.json")
    assert f"{len(lines)} of the {2 * len(lines)} pairs repeat another" in calibrated.output
    read = Calibration.read(folder / "c.json")
    assert read.genuine + read.impostors == len(lines)
    a, b, flag = lines[0].split()
    listed.write_text("\n".join([*lines, f"{b} {a} {1 - int(flag)}"]).replace("\t", " ") + "\n")
    for command in (["evaluate", "pairs"], ["calibrate"]):
        out = ["--out", folder / "d.json"] if command == ["calibrate"] else []
        found = run(*command, folder / "model.npz", "--pairs", listed, *out, fails=True)
        assert isinstance(found.exception, InputError)
        said = f"pair 1 ({a} {b} {flag}) and pair {len(lines) + 1} ({b} {a} {1 - int(flag)}) contradict each other"
        assert said in str(found.exception)
    assert not (folder / "d.json").exists()


def test_a_model_that_tells_nobody_apart_is_warned_of(folder: Path) -> None:
    """In the terminal first, in the result, and in the calibration."""
    found = Embeddings.read(folder / "model.npz")
    blind = np.random.default_rng(3).normal(size=found.vectors.shape)
    genuine = np.array([name[:3] for name in found.ids.tolist()])
    centres = np.random.default_rng(4).normal(size=(len(np.unique(genuine)), blind.shape[1]))
    weak = blind + 0.3 * centres[np.unique(genuine, return_inverse=True)[1]]
    Embeddings(weak, found.ids, labels=genuine).write(folder / "weak.npz")
    for command, options in (
        (["evaluate", "pairs"], []),
        (["calibrate"], ["--fmr", 0.2, "--out", folder / "c.json"]),
    ):
        lists = ["--pairs", folder / "my-pairs.txt"]
        output = run(*command, folder / "weak.npz", *lists, *options, "--json", folder / "r.json").output
        form, warned = output.splitlines()[:2]
        assert "is read as plain" in form
        assert warned.startswith("warning: ") and "chance is 0.5" in warned
        assert results.Result.read(folder / "r.json").notes[0] == warned
    saved = json.loads((folder / "c.json").read_text())
    assert set(saved["auc"]) == {"value", "interval"}
    assert "chance is 0.5" in Calibration.read(folder / "c.json").warning


def test_processes_share_the_pairs_and_one_prints(folder: Path) -> None:
    """As a user would, by torchrun; the result is that of one process."""
    arguments = [str(each) for each in files.trillion_pairs(folder)]
    sides = [Embeddings.read(folder / f"{name}.npz") for name in ("probes", "gallery")]
    rows = [f"{name},{'ab'[place // 3 % 2]}" for side in sides for place, name in enumerate(side.ids.tolist())]
    (folder / "groups.csv").write_text("\n".join(["id,group", *rows]))
    arguments += ["--groups", str(folder / "groups.csv")]
    alone = saved("evaluate", *arguments, to=folder / "alone.json")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "angulus"]
    call = [*launch, "evaluate", *arguments, "--json", str(folder / "both.json")]
    done = subprocess.run(call, capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.count("The result is saved as") == 1
    both = results.Result.read(folder / "both.json")
    assert (both.numbers, both.counts, both.by_group) == (alone.numbers, alone.counts, alone.by_group)
    assert len(alone.by_group[0].cells) == 3
    for name in ("hits", "trials"):
        assert np.array_equal(both.samples[name], alone.samples[name])


def test_pictures_of_two_models_or_lists_have_two_names(folder: Path) -> None:
    for model in ("model", "softmax"):
        for name, listed in (("pairs", "my-pairs"), ("lfw", "pairs")):
            options = ["--pairs", folder / f"{listed}.txt", "--draws", 0, "--plot", folder / "plots"]
            run("evaluate", name, folder / f"{model}.npz", *options)
    drawn = {path.name for path in (folder / "plots").iterdir()}
    each = [f"pairs-{model}-{listed}" for model in ("model", "softmax") for listed in ("my-pairs", "pairs")]
    assert drawn == {f"{name}-{kind}.png" for name in each for kind in ("roc", "det", "groups-FAR-1e-1")}
    saved("evaluate", *files.luna16(folder), "--plot", folder / "plots", to=folder / "mine.json")
    assert (folder / "plots" / "mine-froc.png").exists()


def test_lfw_is_the_same_list_as_plain(folder: Path) -> None:
    of_lfw = saved("evaluate", *files.lfw(folder), to=folder / "a.json")
    options = ["--pairs", folder / "my-pairs.txt", "--draws", 20]
    plain = saved("evaluate", "pairs", folder / "model.npz", *options, to=folder / "b.json")
    assert of_lfw.numbers == plain.numbers
    with_format = ["--pairs", folder / "pairs.txt", "--format", "lfw", "--draws", 20]
    assert saved("evaluate", "pairs", folder / "model.npz", *with_format, to=folder / "c.json").numbers == plain.numbers


def test_templates_in_the_other_published_form_have_intervals_too(folder: Path) -> None:
    by_csv = saved("evaluate", *files.ijb_verify(folder), to=folder / "a.json")
    arguments = files.ijb_verify(folder)
    first, last = arguments.index("--templates"), arguments.index("--comparisons")
    arguments[first:last] = ["--templates", folder / "face_tid_mid.txt"]
    found = saved("evaluate", *arguments, to=folder / "b.json")
    assert found["TAR@FAR=1e-1"] == by_csv["TAR@FAR=1e-1"]
    assert found.number("TAR@FAR=1e-1").interval is not None
    assert found.counts["subjects"] == by_csv.counts["subjects"] == PEOPLE
    assert found.choices["subjects"] == "templates that genuine comparisons link"


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
    files.classification(folder)
    options = [folder / "predictions.npz", folder / "softmax-predictions.npz", "--no-per-class"]
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
    found = saved("evaluate", *files.quality(folder), *options, to=folder / "q.json")
    assert found.numbers[0].name.startswith(first)


def test_quality_of_predictions_videos_and_degraded_images(folder: Path) -> None:
    files.classification(folder)
    options = [folder / "predictions.npz", "--reference", folder / "softmax-predictions.npz", "--draws", 0]
    found = saved("evaluate", "quality", *options, to=folder / "p.json")
    reference = saved("evaluate", *files.classification(folder), to=folder / "c.json")
    assert found["accuracy, low"] == reference["accuracy, low"]
    saved("evaluate", *files.ytf(folder), to=folder / "ytf.json")
    assert saved("evaluate", "quality", folder / "ytf.json", "--draws", 0, to=folder / "v.json").counts["entire"] == 24
    assert saved("evaluate", *files.degraded(folder), to=folder / "r.json")["Spearman ρ"] < 0


def test_calibrate_writes_what_verifies(folder: Path) -> None:
    options = ["--pairs", folder / "my-pairs.txt", "--fmr", 0.1, "--draws", 20]
    printed = run("calibrate", folder / "model.npz", *options, "--out", folder / "new" / "calibration.json").output
    calibration = Calibration.read(folder / "new" / "calibration.json")
    assert calibration.fmr.value <= 0.1 and calibration.impostors == 36
    assert "threshold for FMR=1e-1" in printed and "FNMR, group even" in printed
    run("calibrate", folder / "model.npz", "--fmr", 0.1, "--impostors", 50, "--draws", 0, "--out", folder / "i.json")
    assert Calibration.read(folder / "i.json").impostors == 50


def test_compare_results_of_two_models(folder: Path) -> None:
    options = ["--pairs", folder / "my-pairs.txt", "--draws", 20]
    for name in ("softmax", "model"):
        run("evaluate", "pairs", folder / f"{name}.npz", *options, "--json", folder / f"{name}.json")
    first, second = (results.Result.read(folder / f"{name}.json") for name in ("softmax", "model"))
    arguments = ["compare-results", folder / "softmax.json", folder / "model.json", "--draws", 30]
    found = saved(*arguments, to=folder / "d.json")
    assert found["AUC"] == second["AUC"] - first["AUC"]
    assert found.number("AUC").interval is not None
    (folder / "wrong.json").write_text((folder / "softmax.json").read_text().replace('"pairs"', '"luna16"', 1))
    mixed = run("compare-results", folder / "wrong.json", folder / "wrong.json", fails=True)
    assert "the first result's samples must be those of luna16; they are not ('lesion')" in str(mixed.exception)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evaluate", "lfw", "{}/model.npz", "--pairs", "{}/none.txt"], "none.txt must be a file that can be read"),
        (["evaluate", "pairs", "{}/none.npz", "--pairs", "{}/my-pairs.txt"], "there is no file"),
        (
            ["evaluate", "pairs", "{}/model.npz", "--pairs", "{}/my-pairs.txt", "--json", "a.txt"],
            "--json must name a file",
        ),
        (
            ["evaluate", "pairs", "{}/model.npz", "--pairs", "{}/my-pairs.txt", "--far", "1e-6"],
            "needs at least 1,000,000",
        ),
        (
            ["evaluate", "pairs", "{}/model.npz", "--pairs", "{}/my-pairs.txt", "--format", "csv"],
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
        (["evaluate", "megaface", "a", "b", "--probe-noises", "c"], "noises need lists; give --probe-list"),
        (["evaluate", "quality", "{}/model.npz", "--measure", "best"], "--measure must be one of 'split', 'bins'"),
        (
            ["evaluate", "quality", "{}/model.npz", "--measure", "discard"],
            "needs embeddings with --pairs",
        ),
        (
            ["evaluate", "quality", "{}/model.npz", "--pairs", "{}/my-pairs.txt", "--measure", "changed"],
            "needs a model before: give --reference",
        ),
        (["evaluate", "retrieval", "{}/model.npz", "--k", "1,5"], "got '1,5'; repeat it for several: --k 1 --k 5"),
        (["evaluate", "froc", "a", "--rate=0.5, 1"], "--rate must be one number; got '0.5, 1'; repeat it"),
        (["evaluate", "retrieval", "{}/model.npz", "--recall", "1"], "no option --recall; did you mean --k: k of Rec"),
        (["evaluate", "quality", "{}/model.npz"], "got embeddings, which need --pairs"),
        (["evaluate", "classification", "{}/model.npz"], "must hold predictions or logits; got embeddings"),
        (["calibrate", "{}/model.npz", "--out", "c.txt"], "--out must name a file that ends in .json; got c.txt"),
        (
            ["calibrate", "{}/model.npz", "--out", "c.json", "--pairs", "{}/my-pairs.txt", "--impostors", "5"],
            "--impostors draws pairs of labelled images",
        ),
        (["compare-results", "{}/a.json", "{}/b.json"], "a.json is not a saved result"),
        (["evaluate", "luna16", "m", *LUNA, "--json", "{}/folder.json"], "--json must name a file; "),
        (["evaluate", "luna16", "m", *LUNA, "--json", "{}/model.npz/r.json"], "--json must be in a folder; "),
        (["evaluate", "luna16", "m", *LUNA, "--plot", "{}/model.npz"], "--plot must be in a folder; "),
        (["evaluate", "luna16", "m", *LUNA, "--plot", "{}/model.npz/plots/here"], "model.npz is a file"),
        (["calibrate", "{}/model.npz", "--out", "{}/folder.json"], "--out must name a file; "),
        (
            ["calibrate", "{}/model.npz", "--out", "{}/c.json", "--json", "{}/c.json"],
            "--out is the calibration and --json what was measured; both are ",
        ),
        (
            ["calibrate", "{}/model.npz", "--out", "{}/c.json", "--seed", "-1"],
            "seed must be a whole number >= 0; got -1",
        ),
        (
            ["evaluate", "pairs", "{}/model.npz", "--pairs", "{}/my-pairs.txt", "--seed", "-1", "--draws", "0"],
            "seed must be a whole number >= 0; got -1",
        ),
    ],
)
def test_what_is_refused(arguments: list[str], sentence: str, folder: Path) -> None:
    (folder / "folder.json").mkdir()
    before = sorted(folder.rglob("*"))
    found = run(*(argument.replace("{}", str(folder)) for argument in arguments), fails=True)
    assert isinstance(found.exception, InputError)
    assert sentence in str(found.exception)
    assert sorted(folder.rglob("*")) == before


def test_saving_a_result_spares_the_embeddings_beside_it(folder: Path) -> None:
    before = (folder / "model.npz").read_bytes()
    saved("evaluate", *files.lfw(folder), to=folder / "model.json")
    assert (folder / "model.npz").read_bytes() == before


def test_quality_of_a_saved_result_is_that_of_its_pairs(folder: Path) -> None:
    saved("evaluate", *files.lfw(folder), to=folder / "a.json")
    reference = ["quality", folder / "model.npz", "--pairs", folder / "pairs.txt", "--format", "lfw", "--draws", 20]
    for measure in ("split", "bins"):
        of_result = saved(
            *("evaluate", "quality", folder / "a.json", "--measure", measure, "--draws", 20), to=folder / "b.json"
        )
        assert of_result.numbers == saved("evaluate", *reference, "--measure", measure, to=folder / "c.json").numbers
    turned = saved("evaluate", *files.lfw(folder), "--pca", 3, to=folder / "p.json")
    of_turned = saved("evaluate", "quality", folder / "p.json", "--draws", 0, to=folder / "q.json")
    assert of_turned["accuracy, entire"] == pytest.approx(turned["accuracy"])  # folds of one size


def test_other_saved_results_have_no_pairs_to_judge(folder: Path) -> None:
    saved("evaluate", *files.luna16(folder), to=folder / "a.json")
    found = run("evaluate", "quality", folder / "a.json", fails=True)
    assert "a result to judge pairs by must be one of pairs or ytf; got luna16" in str(found.exception)


def test_rfw_lists_without_folds_are_refused(folder: Path) -> None:
    (folder / "n.txt").write_text("P00/P00_0001 P01/P01_0001 0\nP00/P00_0001 P00/P00_0002 1")
    options = ["--pairs", f"a={folder}/my-pairs.txt", "--pairs", f"b={folder}/n.txt"]
    found = run("evaluate", "rfw", folder / "model.npz", *options, fails=True)
    assert "n.txt has no folds, over which the accuracy of a group is taken" in str(found.exception)


def test_digits_are_those_asked_for(folder: Path) -> None:
    value = saved("evaluate", *files.lfw(folder), to=folder / "a.json")["AUC"]
    assert f"{value:#.3g} " in run("evaluate", *files.lfw(folder), "--digits", 3).output
    assert f"{value:#.17g} " in run("evaluate", *files.lfw(folder), "--digits", 17).output
    assert run("evaluate", *files.lfw(folder), "--digits", 18, fails=True).exit_code == 2


@pytest.mark.parametrize("name", ["megaface", "trillion-pairs"])
def test_processes_do_not_wait_for_a_lost_one_for_ever(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[tuple[float, str]] = []

    def group(timeout_s: float, way: str) -> contextlib.AbstractContextManager[Ranks]:
        waited.append((timeout_s, way))
        return contextlib.nullcontext(Ranks())

    monkeypatch.setattr(launch, "process_group", group)
    for options, expected in (([], 3600.0), (["--timeout-s", 5], 5.0)):
        saved("evaluate", *EACH[name][0](folder), *options, to=folder / "r.json")
        assert waited.pop() == (expected, "run the same command again")


def test_the_form_of_a_list_is_printed(folder: Path) -> None:
    found = run("evaluate", "pairs", folder / "model.npz", "--pairs", folder / "my-pairs.txt", "--draws", "0")
    assert "my-pairs.txt is read as plain (`a b 0|1` a line): " in found.output
    assert (
        "is read as"
        not in run(
            "evaluate",
            "pairs",
            folder / "model.npz",
            "--pairs",
            folder / "my-pairs.txt",
            "--draws",
            "0",
            "--format",
            "plain",
        ).output
    )


def test_a_sorted_bin_set_names_the_ways_out(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "e.npz", embeddings=rng.normal(size=(40, 4)), ids=np.arange(40))
    (tmp_path / "s.bin").write_bytes(pickle.dumps(([b"x"] * 40, [True] * 10 + [False] * 10)))
    command = ["evaluate", "bin", tmp_path / "e.npz", "--bin", tmp_path / "s.bin", "--draws", "0"]
    found = run(*command, "--folds", "5", fails=True)
    assert "draw the folds with --fold-seed 0, or use none with --folds 1" in str(found.exception)
    assert "accuracy " in run(*command, "--folds", "5", "--fold-seed", "0").output
    assert "best accuracy" in run(*command, "--folds", "1").output
