"""Marks of nodules in generated scans: the patches of training, the run's probabilities, and LUNA16's evaluation."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import angulus
import tiny
import volume_files
from angulus import InputError, data
from angulus.cli.main import app
from angulus.data.sets import luna16, luna16_prepare
from angulus.evaluation.lists.luna16_csv import read_marks, read_positions
from angulus.experiments.run import run
from angulus.models import nodules

sitk = pytest.importorskip("SimpleITK")

UIDS = [f"1.3.6.{number}" for number in range(10)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten scans in ten subsets, each with four candidates, two of them bright nodules; and a run on nine of them."""
    root = tmp_path_factory.mktemp("nodules")
    candidates, nodules = ["seriesuid,coordX,coordY,coordZ,class"], ["seriesuid,coordX,coordY,coordZ,diameter_mm"]
    for number, uid in enumerate(UIDS):
        voxels = np.random.default_rng(number).normal(-800, 60, (40, 60, 60))
        places = (((15, 15, 10), 1), ((45, 15, 10), 0), ((15, 45, 30), 0), ((45, 45, 30), 1))
        for (x, y, z), label in places:
            if label:
                voxels[z - 2 : z + 3, y - 4 : y + 5, x - 4 : x + 5] = 100
        image = sitk.GetImageFromArray(voxels.astype(np.int16))
        image.SetSpacing((0.7, 0.7, 1.25))
        image.SetOrigin((-100.5, 20.0, -50.25))
        (root / f"subset{number}").mkdir()
        sitk.WriteImage(image, str(root / f"subset{number}" / f"{uid}.mhd"))
        for index, label in places:
            x, y, z = image.TransformContinuousIndexToPhysicalPoint(index)
            candidates.append(f"{uid},{x:.6f},{y:.6f},{z:.6f},{label}")
            if label:
                nodules.append(f"{uid},{x:.3f},{y:.3f},{z:.3f},6.5")
    (root / luna16.CANDIDATES).write_text("\n".join(candidates) + "\n")
    (root / luna16.ANNOTATIONS).write_text("\n".join(nodules) + "\n")
    (root / "excluded.csv").write_text(f"{nodules[0]}\n{UIDS[0]},500,500,500,-1\n")
    (root / "seriesuids.csv").write_text("\n".join(UIDS) + "\n")
    luna16_prepare.prepare(root)
    splits = data.load("luna16", root=root, fold=3, size=[6, 20, 20])
    overrides = (
        *("backbone.name=luna_archi1", "backbone.embedding_size=8", "objective={kind: softmax}"),
        *("input={mean: 0, scale: 255}", "training.epochs=1"),
    )
    run(tiny.validated(*overrides), root / "run", splits=splits)
    return root


def invoke(*arguments: object) -> str:
    found = CliRunner().invoke(app, [*map(str, arguments)])
    assert found.exit_code == 0, (found.output, found.exception)
    return found.output


def refused(*arguments: object) -> str:
    found = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    assert isinstance(found.exception, InputError), (found.output, found.exception)
    return str(found.exception)


def test_marks_are_the_runs_probabilities_and_luna16_reads_them(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "marks.csv"
    said = invoke("predict", made / "run/model", made, "--candidates", made / luna16.CANDIDATES, "--out", out)
    assert "40 marks in 10 scans, each with its probability of 'nodule'" in said
    marks, listed = read_marks(out), read_positions(made / luna16.CANDIDATES)
    assert marks.cases.tolist() == listed.cases.tolist() and (marks.centres == listed.centres).all()
    with np.load(made / "run" / "test.npz") as test:  # of fold 3, in the order of the list
        np.testing.assert_allclose(marks.scores[marks.cases == UIDS[3]], test["probabilities"], atol=1e-6)
    lists = ("--annotations", made / luna16.ANNOTATIONS, "--excluded", made / "excluded.csv")
    shown = invoke("evaluate", "luna16", out, *lists, "--scans", made / "seriesuids.csv", "--draws", 0)
    assert "CPM" in shown


def test_positions_need_no_class_and_scans_may_lie_in_one_folder(made: Path, tmp_path: Path) -> None:
    rows = list(csv.reader((made / luna16.CANDIDATES).open(newline="")))
    kept = [row[:4] for row in rows if row[0] in ("seriesuid", UIDS[3])]
    (tmp_path / "c.csv").write_text("\n".join(map(",".join, kept)) + "\n")
    scans = made / "subset3"
    arguments = ("predict", made / "run/model", scans, "--candidates", tmp_path / "c.csv", "--out", tmp_path / "m.csv")
    assert "4 marks in 1 scan," in invoke(*arguments)
    one = read_marks(tmp_path / "m.csv").scores
    invoke(*arguments, "--class", "no nodule", "--batch", 3)
    np.testing.assert_allclose(one + read_marks(tmp_path / "m.csv").scores, 1, atol=1e-6)


def test_scans_may_be_niftis_and_dicom_series(made: Path, tmp_path: Path) -> None:
    """A scan's marks are the same from .mhd, .nii.gz, a folder of slices, and a folder of the slices of two scans."""
    rows = list(csv.reader((made / luna16.CANDIDATES).open(newline="")))
    kept = [row[:4] for row in rows if row[0] in ("seriesuid", UIDS[3])]
    (tmp_path / "c.csv").write_text("\n".join(map(",".join, kept)) + "\n")
    image = sitk.ReadImage(str(made / "subset3" / f"{UIDS[3]}.mhd"))
    places: dict[str, Path] = {"mhd": made, **{name: tmp_path / name for name in ("nii", "folder", "together")}}
    (tmp_path / "nii").mkdir()
    sitk.WriteImage(image, str(tmp_path / "nii" / f"{UIDS[3]}.nii.gz"))
    for number, pixels in enumerate(sitk.GetArrayFromImage(image) + 1024):
        position = image.TransformIndexToPhysicalPoint((0, 0, number))
        options = {"spacing": (0.7, 0.7), "number": number}
        for folder in (tmp_path / "folder" / UIDS[3], tmp_path / "together"):
            volume_files.dicom(folder / f"{number}.dcm", pixels, position, series=UIDS[3], **options)
        volume_files.dicom(tmp_path / "together" / f"other{number}", pixels, position, series="1.9", **options)
    centres, patches = read_positions(tmp_path / "c.csv").centres, {}
    for name, place in places.items():
        said = invoke(
            "predict", made / "run/model", place, "--candidates", tmp_path / "c.csv", "--out", tmp_path / "m.csv"
        )
        assert "4 marks in 1 scan," in said
        path = nodules._find_scans(place, [UIDS[3]], tmp_path / "c.csv")[UIDS[3]]
        patches[name] = luna16_prepare.cut_patches(path, centres, (6, 20, 20), series=UIDS[3]).astype(int)
    for name in places:
        assert np.abs(patches[name] - patches["mhd"]).max() <= 1  # of 255: a NIfTI's spacing has 24 bits
    assert np.ptp(patches["mhd"]) > 100


def test_what_cannot_be_marked_is_a_sentence(made: Path, tmp_path: Path) -> None:
    model, out = made / "run/model", ("--out", tmp_path / "m.csv")
    candidates = ("--candidates", made / luna16.CANDIDATES)
    assert "10 are missing, 1.3.6.0 first" in refused(model, tmp_path, *candidates, *out)
    assert "is not a folder" in refused(model, tmp_path / "none", *candidates, *out)
    assert "--class must be a class of this model (no nodule, nodule); got 'tumour'" in refused(
        model, made, *candidates, *out, "--class", "tumour"
    )
    assert "--candidates takes one folder of scans and --out" in refused(model, made, *candidates)
    (tmp_path / "c.csv").write_text(f"seriesuid,coordX,coordY,coordZ\n{UIDS[0]},900,0,0\n")
    assert "1 lie outside" in refused(model, made, "--candidates", tmp_path / "c.csv", *out)
    (tmp_path / "c.csv").write_text(f"seriesuid,coordX,coordY,coordZ\n{UIDS[0]},900,0\n")
    assert "a scan and three finite numbers" in refused(model, made, "--candidates", tmp_path / "c.csv", *out)
    (tmp_path / "c.csv").write_text(f"scan,x,y,z\n{UIDS[0]},900,0,0\n")
    assert "the heading seriesuid,coordX,coordY,coordZ" in refused(
        model, made, "--candidates", tmp_path / "c.csv", *out
    )
    assert "takes volumes of 6 x 20 x 20 voxels" in refused(model, made)
    run(tiny.validated("training.epochs=1"), tmp_path / "run", splits=tiny.splits())
    said = refused(tmp_path / "run/model", made, *candidates, *out, "--class", "3")
    assert "marks in CT scans need a model of volumes" in said
    assert not (tmp_path / "m.csv").exists()
    assert angulus.load(model).classes == luna16.CLASS_NAMES
