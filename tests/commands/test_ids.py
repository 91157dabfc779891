"""Commands whose embeddings name images in another way than the list: the proposal, the options, and failures."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

import benchmark_files as files
from angulus.cli import calibrate, evaluate
from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.evaluation.registry import COMMANDS, ID_RULE

app = typer.Typer()
app.add_typer(evaluate.evaluate_app, name="evaluate")
app.command("calibrate")(calibrate.calibrate)

RULE = ["--id-strip", "/my faces/", "--id-strip", "_arcface.bin"]
PREPARED = ("lfw", "pairs", "cfp", "bin_set", "rfw", "blufr", "ytf", "ijb_verify", "ijb_identify", "megaface")


def run(*arguments: object) -> Result:
    found = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if found.exception is not None:
        raise found.exception
    return found


def rename(path: Path) -> None:
    given = Embeddings.read(path)
    changed = replace(
        given, vectors=np.array(given.vectors), ids=np.array([f"/my faces/{i}_arcface.bin" for i in given.ids])
    )
    path.unlink()
    changed.write(path)


@pytest.mark.parametrize("name", PREPARED)
def test_every_protocol_with_lists_matches_ids_by_the_rule(name: str, tmp_path: Path) -> None:
    files.people(tmp_path)
    arguments = getattr(files, name)(tmp_path)
    plain = run("evaluate", *arguments).output
    for path in [path for path in map(Path, map(str, arguments)) if path.suffix == ".npz"]:
        rename(path)
    with pytest.raises(InputError):
        run("evaluate", *arguments)
    renamed = run("evaluate", *arguments, *RULE).output
    assert "makes ids such as '/my faces/" in renamed
    tables = [[line for line in output.splitlines() if "│" in line] for output in (plain, renamed)]
    assert tables[0] == tables[1] != []


def test_the_options_are_on_every_command_that_looks_ids_up() -> None:
    having = {name for name, protocol in COMMANDS.items() if set(ID_RULE) <= set(protocol.options)}
    assert having == {name.replace("_set", "").replace("_", "-") for name in PREPARED} | {"quality"}


def test_the_proposal_is_what_works_and_failures_are_counted(tmp_path: Path) -> None:
    files.people(tmp_path)
    rename(tmp_path / "model.npz")
    lfw = ["evaluate", *files.lfw(tmp_path)]
    with pytest.raises(InputError, match=r"--id-strip '/my faces/' --id-strip _arcface\.bin would match all 48$"):
        run(*lfw)
    listed = ["--pairs", tmp_path / "my-pairs.txt", "--fmr", 0.2, "--draws", 0, "--out", tmp_path / "c.json"]
    assert "The calibration is written" in run("calibrate", tmp_path / "model.npz", *listed, *RULE).output
    whole = Embeddings.read(tmp_path / "model.npz")
    Embeddings(whole.vectors[1:], whole.ids[1:]).write(tmp_path / "less.npz")
    lfw[2] = tmp_path / "less.npz"
    with pytest.raises(InputError, match=r"1 of the 48 ids of .* failures to enrol with --missing fail"):
        run(*lfw, "--id-parts", 2, "--id-strip", "_arcface.bin")
    said = run(*lfw, *RULE, "--missing", "fail").output
    assert "accuracy, without failures" in said and "1 image without embedding" in said


def test_megaface_reads_trees_of_features_as_it_reads_files(tmp_path: Path) -> None:
    files.people(tmp_path)
    arguments = files.megaface(tmp_path)
    known = Embeddings.read(tmp_path / "model.npz")
    Embeddings(known.vectors, known.ids, labels=known.labels).write(tmp_path / "model.npz")  # a tree has no groups
    plain = run("evaluate", *arguments).output
    for place in (1, 2):
        given = Embeddings.read(Path(str(arguments[place])))
        root = tmp_path / f"tree{place}"
        for name, vector in zip(given.ids.tolist(), given.vectors.astype("<f4"), strict=True):
            path = root / f"{name.removesuffix('.jpg')}.jpg_arcface_112x112.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(struct.pack("<4i", len(vector), 1, 4, 5) + vector.tobytes())
        arguments[place] = root
    tables = [
        [line for line in output.splitlines() if "│" in line] for output in (plain, run("evaluate", *arguments).output)
    ]
    assert tables[0] == tables[1] != []
