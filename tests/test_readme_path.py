"""A new user's path: the lines of README.md and of the task pages, run as they stand in an empty folder."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from collections import defaultdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from angulus.cli import main as cli
from angulus.core.embeddings import Embeddings

ROOT = Path(__file__).parents[1]
PATH = "## From photos to a search"
TASKS = ("calibrate", "embed", "export", "model", "search")  # pages that run after the README's lines
# a server; processes; an index, which takes 256 faces: test_search.py and test_embedding.py have them
ELSEWHERE = ("http://HOST", "torchrun", "search index", "--approximate")
# files and people of the reader's own, and enough strangers: test_search_life.py has such lines
ELSEWHERE += ("guests.npz", "Ann Example", "new.npz", "search threshold")
PEOPLE, OTHERS, EACH, VISITS = 8, 10, 11, 2

# Runs lines in one process, as commands_in_base.py does, with less training: what the lines do is tested, not what is
# learnt in twenty epochs. It lists each host that is called; at its end it calls one, which shows that it would.
SHORT = """
import json, shlex, socket, sys

called = []


def watch(event, arguments):
    host = arguments[1] if event == "socket.connect" else arguments if event == "socket.getaddrinfo" else None
    if isinstance(host, tuple) and str(host[0]) not in ("127.0.0.1", "::1", "localhost", "None"):
        called.append(f"{sys.argv} {event} {host}")


if __name__ == "__main__":  # workers that are spawned import this file
    sys.addaudithook(watch)
    sys.path.insert(0, sys.argv[1])
    from commands_in_base import run
    from angulus.cli import reproduce

    compare = reproduce._compare
    reproduce._compare = lambda recipe, out, _: compare(recipe, out, ["training.epochs=1", "compare.seeds=[0]"])
    quick = ["training.epochs=2", "training.batch_size=16", "training.precision=float32"]
    found = {}
    for line in json.load(sys.stdin):
        words = shlex.split(line, comments=True)[1:]
        found[line] = run(words + quick * (words[0] == "train"))
        if found[line]["code"]:
            break
    before, _ = list(called), socket.getaddrinfo("192.0.2.1", 80)
    json.dump({"found": found, "called": before, "watched": len(called) - len(before)}, sys.stdout)
"""


def lines(page: Path, heading: str = "# ") -> list[str]:
    """The commands of a page's `sh` blocks, of the section that a heading begins, without comments and installation."""
    text = page.read_text(encoding="utf-8")
    section = text[text.index(heading) :]
    end = re.search(r"\n## ", section[1:]) if heading.startswith("## ") else None
    blocks = re.findall(r"```sh\n(.*?)```", section[: end.start() + 1 if end else None], flags=re.S)
    found = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in found if line and not line.startswith(("pip install", "make "))]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder."""
    return tmp_path_factory.mktemp("home")


def run(home: Path, lines: list[str]) -> dict[str, str]:
    """What each line printed, run one after the other in the folder; none of them calls a host."""
    script = home.with_name("short.py")
    script.write_text(SHORT)
    done = subprocess.run(
        [sys.executable, str(script), str(ROOT / "tests")],
        input=json.dumps(lines),
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    for line, each in answer["found"].items():
        assert each["code"] == 0, f"{line}\n{each['out']}\n{each['err']}"
    assert answer["called"] == [] and answer["watched"] == 1
    return {line: each["out"] for line, each in answer["found"].items()}


def test_two_lines_give_pictures_and_a_model(home: Path) -> None:
    first = re.findall(r"^\$ (angulus .*)", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.M)
    assert [shlex.split(line)[:2] for line in first] == [["angulus", "demo"], ["angulus", "train"]]
    said = list(run(home, first).values())
    assert "Softmax" in said[0] and "test accuracy" in said[1]
    assert (home / "angulus-demo" / "plots" / "features.png").stat().st_size > 10_000
    (model,) = (home / "runs").glob("*/model/model.safetensors")
    assert model.stat().st_size > 1000


@pytest.fixture(scope="module")
def photos(home: Path, data_folder: Path) -> Path:
    """The folders that the README speaks of: photos/NAME, others/NAME, visits/NAME, and two photos of one person."""
    faces = data_folder / "celebrity-faces"
    if not (faces / "images.csv.gz").exists():
        pytest.skip(f"needs photos of people: there is no {faces / 'images.csv.gz'}")
    for package in ("cv2", "onnxruntime", "lancedb"):
        pytest.importorskip(package)
    of: dict[str, dict[str, list[str]]] = {"train": defaultdict(list), "test": defaultdict(list)}
    with gzip.open(faces / "images.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            of[row["split"]][row["identity"]].append(row["path"])
    with zipfile.ZipFile(next(faces.glob("*.zip"))) as archive:
        for folder, split, count in (("photos", "train", PEOPLE), ("others", "test", OTHERS)):
            people = [name for name, paths in sorted(of[split].items()) if len(paths) >= EACH + VISITS][:count]
            for name in people:
                for place, path in enumerate(of[split][name][: EACH + VISITS]):
                    kept = home / (folder if place < EACH else "visits") / name / Path(path).name
                    if place < EACH or folder == "others":
                        kept.parent.mkdir(parents=True, exist_ok=True)
                        kept.write_bytes(archive.read(path))
    one, other = sorted(next((home / "others").iterdir()).iterdir())[:2]
    (home / "one.jpg").write_bytes(one.read_bytes())
    (home / "other.jpg").write_bytes(other.read_bytes())
    return home


@pytest.fixture(scope="module")
def walked(photos: Path) -> dict[str, str]:
    """What each line of the README's path said."""
    return run(photos, lines(ROOT / "README.md", PATH))


def said(walked: dict[str, str], start: str) -> str:
    (found,) = [text for line, text in walked.items() if line.startswith(f"angulus {start}")]
    return found


def test_photos_become_a_model_that_verifies_and_searches(walked: dict[str, str], photos: Path) -> None:
    assert "test accuracy" in said(walked, "train")
    assert "AUC" in said(walked, "evaluate pairs") and (photos / "results" / "pairs.json").exists()
    assert "calibration is written" in said(walked, "calibrate")
    assert re.match(r"(not the )?same person\n  score", said(walked, "verify")) and "FMR" in said(walked, "verify")
    assert "<html" in (photos / "report.html").read_text(encoding="utf-8")
    assert "largest relative error of a feature" in said(walked, "export")
    count = re.search(r"gallery: (\d+) in all", said(walked, "search add"))
    assert count and int(count[1]) > 0.8 * OTHERS * EACH  # faces that were found
    answers = said(walked, "search query")
    asked = re.search(r"of (\d+) queries match nobody in the gallery \(threshold", answers)
    assert asked and 0 < int(asked[1]) <= OTHERS * VISITS
    held, visits = (set(Embeddings.read(photos / f"{name}.npz").ids) for name in ("strangers", "visitors"))
    assert len(visits) == int(asked[1]) and not held & visits  # or each photo would find itself


@pytest.mark.parametrize("page", TASKS)
def test_the_lines_of_a_task_page_run_after_it(
    page: str, walked: dict[str, str], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert walked
    monkeypatch.chdir(photos)
    with zipfile.ZipFile(photos / "photos.zip", "w") as archive:  # aligned, as the page on embedding has them
        for path in sorted((photos / "others").rglob("*.jpg"))[:20]:
            archive.write(path, path.relative_to(photos / "others"))
    taken = str(Embeddings.read(photos / "strangers.npz").ids[0])
    for line in lines(ROOT / "docs" / f"{page}.md"):
        if any(word in line for word in ELSEWHERE):
            continue
        words = shlex.split(line.replace("NAME/PHOTO.jpg", taken), comments=True)
        found = CliRunner().invoke(cli.app, words[1:])  # in this process: one of its own takes 3 s more
        assert found.exception is None, f"{line}\n{found.output}\n{found.exception!r}"
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text("utf-8"), flags=re.S):
        if "import openvino" in block and importlib.util.find_spec("openvino") is None:
            continue  # test_export.py has it
        exec(compile(block, f"{page}.md", "exec", dont_inherit=True), {})
