"""The command line: what it prints, and that every wrong input ends in one sentence, exit code 2 and no trace."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny
from angulus import __version__, data
from angulus.cli import main as cli
from angulus.cli import reproduce as commands_reproduce
from angulus.cli.examples import EXAMPLES
from angulus.core.embeddings import Embeddings
from angulus.data import Splits
from angulus.data.sets import digits
from angulus.experiments import build, recipe
from angulus.experiments.run_files import choose_folder
from angulus.training.loop import Interrupted


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working folder, a home without a cache, no data, and no warnings shown before."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ANGULUS_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(cli, "_shown", set())
    with warnings.catch_warnings():  # main() shows them in its own way
        yield


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "splits", lambda recipe: tiny.splits())


Run = Callable[..., tuple[int, str, str]]


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# what it prints


def test_version(angulus: Run) -> None:
    assert angulus("--version") == (0, f"angulus {__version__}\n", "")


def test_without_arguments_it_shows_what_there_is(angulus: Run) -> None:
    code, out, err = angulus()
    assert code in (0, 2)  # as typer's version has it
    for command in ("demo", "compare", "train", "data"):
        assert command in out + err


def test_compare_demo_writes_table_numbers_and_pictures(angulus: Run) -> None:
    code, out, err = angulus("compare", "demo", "training.epochs=1", "compare.seeds=[0]", "--out", "small")
    assert code == 0
    losses = ("Softmax", "NormFace", "CM-Softmax", "ArcFace", "CM-M-Softmax")
    for name in losses:
        assert name in out
    assert "Table, numbers, plots and report.html are in small/" in out
    assert err == ""
    assert "Best here: " in out and "With one seed it is unknown" in out
    assert "Traceback" not in err
    written = json.loads(Path("small/comparison.json").read_text())
    assert [row["variant"] for row in written["rows"]] == list(losses)
    assert all(row["counts"] == {"good": 479, "low": 120, "entire": 599} for row in written["rows"])
    assert "<h1>Five losses on scikit-learn&#39;s" in Path("small/report.html").read_text()
    assert Path("small/table.md").read_text().startswith("# Five losses")
    for name in ("features", "norms", "best-and-worst"):
        with Image.open(f"small/plots/{name}.png") as picture:
            picture.load()
            assert picture.format == "PNG"
    assert angulus("compare", "demo", "training.epochs=1", "compare.seeds=[0]", "--out", "small")[0] == 0


def test_demo_is_the_recipe_of_that_name_in_a_folder_of_its_own(angulus: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Path, list[str]]] = []
    monkeypatch.setattr(commands_reproduce, "_compare", lambda *arguments: asked.append(arguments))
    code, out, _ = angulus("demo")
    assert code == 0
    assert "angulus-demo/" in out
    assert angulus("demo", "--out", "there")[0] == 0
    assert asked == [("demo", Path("angulus-demo"), []), ("demo", Path("there"), [])]


def test_report_writes_a_page_into_the_run_or_where_it_is_told(angulus: Run, few_digits: None) -> None:
    assert angulus("train", tiny.write(Path(), "training.epochs=1"))[0] == 0
    run = Path("runs/tiny-seed-0")
    code, out, err = angulus("report", run, "--draws", "0")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"runs/tiny-seed-0/report\.html: [4-6]\.\d MiB; open it in a browser\n", out)
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    assert angulus("report", run, run, "--draws", "0", "--out", "pages/both.html")[0] == 0
    assert Path("pages/both.html").stat().st_size > 4_000_000


def test_report_warns_of_what_it_leaves_out(angulus: Run, few_digits: None) -> None:
    for name in ("a", "b"):
        assert angulus("train", tiny.write(Path(), "training.epochs=1"), "--out", name)[0] == 0
    Path("b/results.json").unlink()
    code, out, err = angulus("report", "a", "b", "nowhere", "--draws", "0")
    assert (code, out.partition(":")[0]) == (0, "report.html")
    first, second = err.splitlines()
    assert re.fullmatch(r"warning: not in the report: b: .* resume it by `angulus train .* --out b --resume`", first)
    assert re.fullmatch(r"warning: not in the report: .*nowhere does not exist", second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], r"a report is made from run folders .*nowhere does not exist"),
        (["."], r"a report is made from run folders .*is none of them"),
        (["text.json"], r"text.json is not a saved result .*; give the .json that angulus evaluate --json wrote"),
        ([".", "--out", "page.pdf"], r"--out must name a file that ends in .html; got page.pdf"),
        ([".", "--out", "text.json/page.html"], r"--out must be in a folder; .*text.json is a file"),
        (["run", "--draws", "-1"], r"draws must be a whole number in \[0, 100000\]; got -1"),
    ],
)
def test_report_refuses_in_a_sentence(angulus: Run, arguments: list[str], message: str, few_digits: None) -> None:
    Path("text.json").write_text("no json")
    angulus("train", tiny.write(Path(), "training.epochs=1"), "--out", "run")
    before = everything(Path())
    code, out, err = angulus("report", *arguments)
    assert (code, out) == (2, "")
    assert re.search(message, err.replace("\n", " ")), err
    assert everything(Path()) == before


def test_train_prints_the_accuracy_by_quality_and_where_the_run_lies(angulus: Run, few_digits: None) -> None:
    code, out, err = angulus("train", tiny.write(Path(), "training.epochs=1"))
    assert (code, err) == (0, "")
    folder = Path("runs/tiny-seed-0")
    results = json.loads((folder / "results.json").read_text())
    first, *lines = out.splitlines()
    assert first == f"Training tiny in {folder}/"
    assert lines[0] == f"test accuracy {100 * results['accuracy']:.2f} %"
    for line, (name, group) in zip(lines[1:4], results["own_split"].items(), strict=True):
        assert line.split()[0] == name
        assert f"{group['count']} images, accuracy {100 * group['accuracy']:.2f} %" in line
        assert f"mean norm {group['mean_norm']:.2f}" in line
    assert lines[4] == f"The run is in {folder}/, its model in {folder}/model/; for a report: angulus report {folder}"
    assert [group["count"] for group in results["own_split"].values()] == [48, 12, 60]
    assert results["environment"]["command"][:2] == ["angulus", "train"]
    assert recipe.load(str(folder / "recipe.yaml")).training.epochs == 1


def test_train_resumes_a_finished_run_by_reading_it(angulus: Run, few_digits: None) -> None:
    path = tiny.write(Path(), "training.epochs=1")
    code, out, err = angulus("train", path, "--out", "run")
    stamp = Path("run/checkpoint.pt").stat().st_mtime_ns
    ended = out.removeprefix("Training tiny in run/\n")
    assert ended != out
    code, out, err = angulus("train", path, "--out", "run", "--resume")
    first, _, rest = out.partition("\n")
    assert (code, rest, err) == (0, ended, "")
    assert first.startswith("The run in run/ is complete, so nothing was trained. These are its results")
    assert Path("run/checkpoint.pt").stat().st_mtime_ns == stamp


def test_auto_resume_starts_a_run_and_then_reads_or_refuses_it(angulus: Run, few_digits: None) -> None:
    path = tiny.write(Path(), "training.epochs=1")
    code, _, err = angulus("train", path, "--auto-resume")
    assert (code, "--auto-resume needs --out" in err, Path("runs").exists()) == (2, True, False)
    command = ("train", path, "--out", "run", "--auto-resume")
    for start in ("Training tiny in run/\n", "The run in run/ is complete, so nothing was trained."):
        code, out, err = angulus(*command)
        assert (code, err, out.startswith(start)) == (0, "", True)
    code, _, err = angulus(*command, "training.seed=3")
    assert (code, "training.seed" in err) == (2, True)


def test_every_set_of_overrides_has_a_folder_of_its_own_that_resume_finds(angulus: Run, few_digits: None) -> None:
    path = tiny.write(Path(), "training.epochs=1")
    plain, margin, seed = [], ["objective={kind: arcface, s: 16, m: 0.3}"], ["training.seed=3"]
    for overrides in (plain, margin, seed, [*margin, *seed]):
        code, _, err = angulus("train", path, *overrides)
        assert (code, err) == (0, "")
    runs = sorted(each.name for each in Path("runs").iterdir())
    tag = runs[0].split("-")[1]
    assert runs == [f"tiny-{tag}-seed-0", f"tiny-{tag}-seed-3", "tiny-seed-0", "tiny-seed-3"]
    code, out, _ = angulus("train", path, *margin, "--resume", "training.log_every=5")
    assert (code, f"The run is in runs/tiny-{tag}-seed-0/" in out) == (0, True)
    code, _, err = angulus("train", path, "training.epochs=2", "--resume")
    assert code == 2
    assert "holds no run to resume; start one without --resume, or give as --out the run that you mean, such as" in err


def test_a_second_run_gets_the_next_folder_and_resume_takes_the_newest(angulus: Run, few_digits: None) -> None:
    path = tiny.write(Path(), "training.epochs=1")
    for name in ("tiny-seed-0", "tiny-seed-0-2", "tiny-seed-0-3"):
        code, out, err = angulus("train", path)
        assert (code, err) == (0, "")
        assert out.startswith(f"Training tiny in runs/{name}/\n")
    stamps = {file: file.stat().st_mtime_ns for file in Path("runs").glob("*/checkpoint.pt")}
    code, out, _ = angulus("train", path, "--resume")
    assert (code, "The run is in runs/tiny-seed-0-3/" in out) == (0, True)
    assert stamps == {file: file.stat().st_mtime_ns for file in Path("runs").glob("*/checkpoint.pt")}
    shutil.rmtree("runs/tiny-seed-0-2")  # a number is not given twice, so that the highest is the newest
    assert angulus("train", path)[1].startswith("Training tiny in runs/tiny-seed-0-4/\n")
    code, _, err = angulus("train", path, "--out", "runs/tiny-seed-0")
    assert (code, "holds a run already; continue it with --resume, or choose another --out" in err) == (2, True)


def test_the_next_folder_counts_only_runs(tmp_path: Path) -> None:
    default = tmp_path / "runs" / "a[b]-seed-1"
    assert choose_folder(default, resume=False) == choose_folder(default, resume=True) == default
    for name in ("a[b]-seed-1-7", "a[b]-seed-1-old", "a[b]-seed-1-1", "a[b]-seed-10", "ab-seed-1-9"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "recipe.yaml").write_text("")
    (tmp_path / "runs" / "a[b]-seed-1-8").mkdir()  # holds no run
    assert choose_folder(default, resume=False).name == "a[b]-seed-1-8"
    assert choose_folder(default, resume=True).name == "a[b]-seed-1-7"


def test_train_prints_what_the_benchmarks_measured(angulus: Run, few_digits: None) -> None:
    columns = "{top %: accuracy, norm: 'mean norm, entire'}"
    benchmark = f"evaluation.benchmarks=[{{name: digits, protocol: classification, columns: {columns}}}]"
    code, out, _ = angulus("train", tiny.write(Path(), "training.epochs=1"), benchmark, "--out", "run")
    numbers = json.loads(Path("run/results.json").read_text())["benchmarks"]["digits"]["numbers"]
    low, high = numbers["accuracy"]["interval"]
    value, norm = numbers["accuracy"]["value"], numbers["mean norm, entire"]["value"]
    assert code == 0
    assert f"digits: top % {100 * value:.2f} (95 % interval {100 * low:.2f} to {100 * high:.2f})\n" in out
    assert f"digits: norm {norm:.2f}" in out


def test_a_run_that_diverged_says_so(angulus: Run, few_digits: None) -> None:
    path = tiny.write(Path(), "objective={kind: softmax}", "training.clip_norm=1", "training.optimizer.lr=1000")
    code, out, _ = angulus("train", path, "--out", "run")
    said = json.loads(Path("run/results.json").read_text())["diverged"]
    assert code == 0
    assert said in out.splitlines()
    assert "lower training.optimizer.lr (it was 1000)" in said
    code, _, err = angulus("report", "run", "--draws", "0")
    assert (code, err) == (0, "")
    assert said in Path("run/report.html").read_text()


def test_no_secret_of_the_command_line_is_written_or_printed(
    angulus: Run, few_digits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, user = "s3cr3t-value", "me:pa55word"
    overrides = [f"needs={{a: 'https://{user}@host/x?token={secret}'}}", f"chosen_by_us.api_token={secret}"]
    path = tiny.write(Path(), "training.epochs=1")
    assert angulus("train", path, *overrides, "--out", "run")[0] == 0
    assert angulus("report", "run", "--draws", "0")[0] == 0
    assert angulus("train", path, *overrides, "--out", "run", "--resume")[0] == 0
    for wrong in (f"training.password={secret}", f"data.token={secret}", f"title.secret=[{secret}"):
        code, out, err = angulus("train", path, wrong, "--out", "other")
        assert (code, out) == (2, "")
        assert secret not in err
    for file in Path().rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert secret.encode() not in content and user.encode() not in content, file


def test_a_reader_that_stopped_reading_gets_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "angulus", "--version"]
    process = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert (process.returncode, process.stderr) == (1, "")


def test_data_says_where_mnist_lies_and_how_much_it_is(angulus: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    found = tiny.splits()  # before `load` is another

    def load(name: str, **options: object) -> Splits:
        asked.append({"name": name, **options})
        return found

    monkeypatch.setattr(data, "load", load)
    code, out, err = angulus("data", "mnist", "--download", "--to", "here")
    assert (code, err) == (0, "")
    assert out.startswith("72 training and 60 test images: the first 72 and 60 digits\nchecked: the four files' ")
    assert asked == [{"name": "mnist", "root": Path("here"), "download": True}]


def test_data_lists_the_sets(angulus: Run) -> None:
    out = angulus("data", "--help")[1]
    for name in data.list_datasets():
        assert name in out


@pytest.mark.parametrize("words", [["predict"], ["search", "add"], ["evaluate", "pairs"], ["verify"]])
def test_a_command_without_its_arguments_shows_its_help_with_an_example(angulus: Run, words: list[str]) -> None:
    code, out, err = angulus(*words)
    shown = out + err
    assert code == 2
    assert "Missing" not in shown and f"Example: angulus {EXAMPLES[' '.join(words)]}" in " ".join(shown.split())
    if words == ["predict"]:
        assert re.search(r"MODEL +.*A model folder", shown) and re.search(r"SOURCE +.*Images, or what", shown)


def test_a_command_that_needs_no_argument_still_runs_without(angulus: Run) -> None:
    assert angulus("evaluate", "--list")[0] == 0
    assert not any(cli.load_command(name).no_args_is_help for name in ("demo", "reproduce"))


def test_a_console_without_greek_letters_gets_question_marks() -> None:
    code = "import sys; sys.argv = ['angulus', 'list', 'losses', 'arcface']; from angulus.cli.main import main; main()"
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "target s cos(? + m)" in found.stdout


# what ends it


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (OSError(errno.EIO, "Input/output error", "disk"), 2, "angulus: cannot write disk: Input/output error\n"),
        (KeyboardInterrupt(), 130, ""),
        (Interrupted("stopped at step 3 of 9"), 130, "angulus: stopped at step 3 of 9; its checkpoint is saved: run"),
    ],
)
def test_what_ends_a_command_sets_the_exit_code_and_leaves_no_traceback(
    error: BaseException, code: int, sentence: str, angulus: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(recipe: object) -> None:
        raise error

    monkeypatch.setattr(build, "splits", fail)
    got, out, err = angulus("train", "demo")
    assert (got, out) == (code, "")
    assert err.startswith(sentence)
    assert "Traceback" not in err


# what is wrong


def idx(folder: Path, images: bytes, labels: bytes) -> None:
    """MNIST's four files, of these contents."""
    folder.mkdir(parents=True)
    for name in digits.MD5:
        (folder / f"{name}.gz").write_bytes(gzip.compress(images if "images" in name else labels))


def truncated_mnist(tmp_path: Path) -> list[str]:
    idx(tmp_path / "data" / "mnist", struct.pack(">4B3I", 0, 0, 8, 3, 60_000, 28, 28) + bytes(100), b"")
    return ["train", "cm-t2", "--out", "run"]


def cut_gzip(tmp_path: Path) -> list[str]:
    truncated_mnist(tmp_path)
    for file in (tmp_path / "data" / "mnist").iterdir():
        file.write_bytes(file.read_bytes()[:-9])
    return ["train", "cm-t2", "--out", "run"]


def taken(tmp_path: Path) -> list[str]:
    Path("run").write_text("a file")
    return ["train", "demo", "--out", "run"]


def taken_above(tmp_path: Path) -> list[str]:
    taken(tmp_path)
    return ["compare", "demo", "compare.variants={A: {}}", "compare.quality_split=A", "--out", "run/below"]


def no_yaml(tmp_path: Path) -> list[str]:
    Path("bad.yaml").write_text("name: [unclosed\n")
    return ["train", "bad.yaml"]


def finished(tmp_path: Path) -> list[str]:
    shutil.copytree(tmp_path / "finished", "run")
    return ["train", str(tmp_path / "tiny.yaml"), "--out", "run"]


def another(tmp_path: Path) -> list[str]:
    return [*finished(tmp_path), "training.batch_size=9", "--resume"]


def longer(tmp_path: Path) -> list[str]:
    return [*finished(tmp_path), "training.epochs=9"]


def no_seed_of_that_sort(tmp_path: Path) -> list[str]:
    return ["compare", "demo", "compare.seeds=[a]", "--out", "run"]


WRONG: dict[str, tuple[list[str] | Callable[[Path], list[str]], str]] = {
    "unknown recipe": (["train", "demmo"], "there is no recipe 'demmo'; did you mean 'demo'?"),
    "unknown recipe to compare": (["compare", "cm-t9"], "there is no recipe 'cm-t9'; did you mean"),
    "a folder for a recipe": (
        ["train", "."],
        "a recipe must be a YAML file; '.' is a folder",
    ),
    "no recipe": (["train", "data.path=photos"], "the recipe comes before its changes; got 'data.path=photos' first"),
    "no YAML": (no_yaml, "recipe bad.yaml is not YAML"),
    "no time to wait": (["train", "demo", "--timeout-s", "0"], "--timeout-s must be a finite number in (0, 604800]"),
    "unknown key": (["train", "demo", "training.epoch=1"], "no key 'training.epoch'; did you mean 'epochs'?"),
    "wrong type": (["train", "demo", "training.epochs=one"], "training.epochs must be a valid integer"),
    "wrong type in a grid": (no_seed_of_that_sort, "compare.seeds.0 must be a valid integer; got 'a'"),
    "no override": (["train", "demo", "training.epochs"], "an override must read key.path=value"),
    "unknown loss": (["train", "demo", "objective.kind=arcfce"], "objective.kind must be one of"),
    "unknown net": (["train", "demo", "backbone.name=lenet"], "backbone.name must be one of"),
    "too small for the net": (["train", "demo", "backbone.name=lenet5"], "image_size must be a whole number >= 12"),
    "unknown data": (["train", "demo", "data.name=digitz"], "data.name must be one of"),
    "data that has no files": (["train", "demo", "data.root=here"], "root must be left out for 'digits'"),
    "no such device": (["train", "demo", "training.device=cuda:77"], "training.device 'cuda:77' cannot be used here"),
    "an empty group": (["train", "demo", "evaluation.low_fraction=1e-9"], "leaves low empty"),
    "no grid": (["compare", "demo", "compare=null"], "recipe demo has no compare section"),
    "missing MNIST": (["train", "cm-t2"], "MNIST needs four files together in one folder; looked in"),
    "missing MNIST for a grid": (["compare", "cm-t1a"], "or fetch the files with `angulus data mnist --download`"),
    "missing MNIST itself": (["data", "mnist"], "set ANGULUS_DATA to a folder that holds mnist/"),
    "where to get it": (["data", "celeba"], "to get it: https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"),
    "what is checked": (["data", "luna16"], "what is checked: that every scan of the candidates is there, complete"),
    "scans to prepare": (["data", "luna16", "--prepare", "--to", "here"], "needs candidates_V2.csv next to subset0/"),
    "truncated IDX": (truncated_mnist, "must hold exactly 47040000 bytes after its header"),
    "truncated gzip": (cut_gzip, "must be a whole gzip file"),
    "nothing to resume": (
        ["train", "demo", "--out", "run", "--resume"],
        "run holds no run to resume; start one without",
    ),
    "a run is there": (finished, "run holds a run already; continue it with --resume, or choose another --out"),
    "another run is there": (another, "run holds a run of another recipe (training.batch_size is 16 there and 9 here)"),
    "a shorter run is there": (longer, "run holds a run already; continue it to 9 epochs (it has 1) with --resume, or"),
    "a file for a folder": (taken, "cannot write run: File exists; a file is where a folder is needed"),
    "a file above the folder": (taken_above, "cannot write run/below: Not a directory; a file is where a folder"),
}


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from angulus.experiments.run import run

    folder = tmp_path_factory.mktemp("finished")
    path = tiny.write(folder, "training.epochs=1")
    run(recipe.load(path), folder / "finished", splits=tiny.splits())
    return folder


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_in_one_sentence_and_nothing_is_written(
    case: str, angulus: Run, tmp_path: Path, finished_run: Path
) -> None:
    arguments, sentence = WRONG[case]
    if case.endswith("run is there"):
        shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    if callable(arguments):
        arguments = arguments(tmp_path)
    before = everything(tmp_path)
    code, out, err = angulus(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("angulus: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert everything(tmp_path) == before
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "arguments", [["fly"], ["train"], ["train", "demo", "--seed", "1"], ["data"], ["data", "cats"]]
)
def test_what_is_no_command_line_exits_with_2(arguments: list[str], angulus: Run, tmp_path: Path) -> None:
    code, out, err = angulus(*arguments)
    assert code == 2
    assert "Usage" in out + err
    assert "Traceback" not in err
    assert everything(tmp_path) == {}


def test_wrong_input_leaves_no_traceback_in_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "angulus", "train", "cm-t2", "--out", "run"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, env=dict(os.environ))
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.startswith("angulus: MNIST needs four files together in one folder")
    assert process.stderr.count("\n") == 1
    assert os.listdir() == []


def test_a_warning_is_one_line_on_stderr_and_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        cli._show_warning(UserWarning("d < C / 2 [red]"), UserWarning)
    assert capsys.readouterr().err == "warning: d < C / 2 [red]\n"


QUERY = "search query g e.npz"
NAMED = {  # a command that is refused: how its sentence names the options
    f"{QUERY} --by template --exclude-self": "--exclude-self must be left out for",
    f"{QUERY} --best 2": "--best must be left out for matches by photo",
    f"{QUERY} --by person --best 0": "--best must be a whole number >= 1",
    "convert e.npz out --depth 1 --identity-pattern (.)": "--depth and --identity-pattern both",
    "convert e.npz out --hold-out 2 --held-out 2": "--hold-out takes all but .* --held-out",
    "convert e.npz out --where a=b": "--list, a CSV, and --where, .* got only --where",
    "convert e.npz out --depth 0": "--depth must be a whole number >= 1",
    "evaluate reid e.npz --single-shot 1001": "--single-shot must be a whole number in",
}


@pytest.mark.parametrize("words", NAMED)
def test_a_sentence_names_options_as_they_are_typed(words: str, angulus: Run) -> None:
    labels = np.array([*"xxyy"])
    Embeddings(np.eye(4, 8, dtype=np.float32), np.array([*"abcd"]), labels=labels).write("e.npz")
    if words.startswith(QUERY):
        pytest.importorskip("lancedb")
        assert angulus("search", "add", "g", "e.npz")[0] == 0
    code, _, err = angulus(*words.split())
    assert code == 2
    assert re.match(f"angulus: {NAMED[words]}", err)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("convert held_out out", "held_out must hold images;"),
        ("convert photos/a out --list l.csv --where split=heldout", ".* split holds held_out, train"),
    ],
)
def test_a_sentence_leaves_what_the_user_calls_like_an_option(words: str, sentence: str, angulus: Run) -> None:
    Path("held_out").mkdir()
    Path("photos/a").mkdir(parents=True)
    Path("l.csv").write_text("path,split\na.png,held_out\nb.png,train\n")
    code, _, err = angulus(*words.split())
    assert code == 2
    assert re.match(f"angulus: {sentence}", err)


def test_a_sentence_leaves_names_in_quotes() -> None:
    found = cli.as_typed("the user's list has 'no held_out part', as held_out must", {"held_out": "--held-out"}, ())
    assert found == "the user's list has 'no held_out part', as --held-out must"
