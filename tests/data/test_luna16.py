"""LUNA16: volumes written by SimpleITK, and what it makes of them itself, next to the patches that are cut out."""

from __future__ import annotations

import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from angulus import InputError, data
from angulus.data.sets import luna16, luna16_prepare
from angulus.data.sets.luna16 import VARIANTS, PatchPixels
from angulus.data.sets.luna16_prepare import to_bytes
from angulus.data.volumes import AIR_HU, read_volume
from angulus.evaluation.lists.luna16_csv import read_findings

SHAPE = (30, 44, 40)  # depth, height, width
SPACING = (0.7, 0.8, 1.5)  # x, y, z in millimetres
TURN = np.deg2rad(20)
OBLIQUE = (np.cos(TURN), -np.sin(TURN), 0, np.sin(TURN), np.cos(TURN), 0, 0, 0, 1)
FLIPPED = (-1, 0, 0, 0, -1, 0, 0, 0, 1)  # as some of LUNA16's scans are
STRAIGHT = (1, 0, 0, 0, 1, 0, 0, 0, 1)


def scan(seed: int, direction: tuple[float, ...] = STRAIGHT) -> sitk.Image:
    """Smooth noise in Hounsfield units."""
    noise = np.random.default_rng(seed).normal(-300, 600, SHAPE)
    image = sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(noise), 1.0)
    image = sitk.Cast(image * 3 + 400, sitk.sitkInt16)
    image.SetSpacing(SPACING)
    image.SetOrigin((-120.5, 33.0, -250.25))
    image.SetDirection(direction)
    return image


@pytest.mark.parametrize("direction", [STRAIGHT, FLIPPED, OBLIQUE], ids=["straight", "flipped", "oblique"])
def test_places_become_the_voxels_that_simpleitk_says(tmp_path: Path, direction: tuple[float, ...]) -> None:
    image = scan(0, direction)
    sitk.WriteImage(image, str(tmp_path / "scan.mhd"))
    volume = read_volume(tmp_path / "scan.mhd")
    np.testing.assert_array_equal(volume.voxels, sitk.GetArrayFromImage(image))
    places = np.random.default_rng(1).uniform(-200, 200, (50, 3))
    expected = [image.TransformPhysicalPointToContinuousIndex(place.tolist()) for place in places]
    np.testing.assert_allclose(volume.to_voxels(places), expected, atol=1e-6)
    corner = image.TransformContinuousIndexToPhysicalPoint((39.4, 0, 0))
    assert volume.holds([corner, image.GetOrigin()]).all()
    assert not volume.holds(image.TransformContinuousIndexToPhysicalPoint((39.6, 0, 0)))


@pytest.mark.parametrize("direction", [STRAIGHT, FLIPPED, OBLIQUE], ids=["straight", "flipped", "oblique"])
@pytest.mark.parametrize("index", [(20.3, 21.7, 14.2), (2.0, 40.0, 28.5)], ids=["middle", "border"])
def test_a_patch_is_what_simpleitk_resamples(
    tmp_path: Path, direction: tuple[float, ...], index: tuple[float, float, float]
) -> None:
    image = scan(2, direction)
    sitk.WriteImage(image, str(tmp_path / "scan.mhd"))
    centre = np.array(image.TransformContinuousIndexToPhysicalPoint(index))
    size, spacing = (6, 10, 8), (1.25, 0.6, 0.5)
    axes = np.array(direction).reshape(3, 3)
    grid = sitk.Image([*size[::-1]], sitk.sitkFloat32)
    grid.SetSpacing(spacing[::-1])
    grid.SetDirection(direction)
    grid.SetOrigin((centre - axes @ ((np.array(size[::-1]) - 1) / 2 * np.array(spacing[::-1]))).tolist())
    resampled = sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, AIR_HU, sitk.sitkFloat32)
    expected = sitk.GetArrayFromImage(resampled)
    # within half a voxel of the border SimpleITK repeats the border's values, and here there is air already
    places = np.stack(np.meshgrid(*(np.arange(side) for side in size[::-1]), indexing="ij"), -1).reshape(-1, 3)
    found = read_volume(tmp_path / "scan.mhd")
    world = np.array([grid.TransformIndexToPhysicalPoint(place.tolist()) for place in places])
    voxels = found.to_voxels(world)
    most = np.array(SHAPE[::-1]) - 1
    inside = ((voxels >= 0) & (voxels <= most)).all(1)
    beyond = ((voxels < -0.5) | (voxels > most + 0.5)).any(1)
    got = found.patch(centre, size, spacing).transpose(2, 1, 0).reshape(-1)
    expected = expected.transpose(2, 1, 0).reshape(-1)
    np.testing.assert_allclose(got[inside], expected[inside], atol=0.05)
    assert (got[beyond] == AIR_HU).all() and (expected[beyond] == AIR_HU).all()
    assert inside.any() and (index[0] > 10 or beyond.any())


UIDS = [f"1.3.6.{number}" for number in range(10)]


@pytest.fixture(scope="module")
def luna(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten scans in ten subsets, each with one nodule, three candidates, one of them the nodule's; all prepared."""
    root = tmp_path_factory.mktemp("luna16")
    lines, nodules = ["seriesuid,coordX,coordY,coordZ,class"], ["seriesuid,coordX,coordY,coordZ,diameter_mm"]
    for number, uid in enumerate(UIDS):
        image = scan(number, FLIPPED if number % 2 else STRAIGHT)
        (root / f"subset{number}").mkdir()
        sitk.WriteImage(image, str(root / f"subset{number}" / f"{uid}.mhd"))
        for index, label in (((20, 22, 15), 0), ((3, 40, 2), 1), ((30.5, 10, 20), 0)):
            x, y, z = image.TransformContinuousIndexToPhysicalPoint(index)
            lines.append(f"{uid},{x:.6f},{y:.6f},{z:.6f},{label}")
            if label:
                nodules.append(f"{uid},{x + 1:.3f},{y:.3f},{z:.3f},6.5")
    chance = np.random.default_rng(0)
    body = chance.permutation(np.array(lines[1:])).tolist()  # a scan's candidates need not stand together
    (root / luna16.CANDIDATES).write_text("\n".join([lines[0], *body]) + "\n")
    (root / luna16.ANNOTATIONS).write_text("\n".join(nodules) + "\n")
    luna16_prepare.prepare(root)
    return root


def whole(root: Path, uid: str, centre: tuple[float, ...]) -> np.ndarray:
    """The patch with a wide margin, cut again."""
    fold = UIDS.index(uid)
    volume = read_volume(root / f"subset{fold}" / f"{uid}.mhd")
    return to_bytes(volume.patch(centre, (32, 46, 46), luna16_prepare.SPACING_MM))


def rows_of(root: Path) -> list[tuple[str, tuple[float, ...], int]]:
    lines = (root / luna16.CANDIDATES).read_text().splitlines()[1:]
    cells = [line.split(",") for line in lines]
    return [(cell[0], tuple(map(float, cell[1:4])), int(cell[4])) for cell in cells]


def test_a_fold_is_tested_on_and_nine_are_trained_on(luna: Path) -> None:
    splits = data.load("luna16", root=luna, fold=3)
    assert set(splits.test.columns["scans"]) == {UIDS[3]}
    assert set(splits.train.columns["scans"]) == set(UIDS) - {UIDS[3]}
    listed = [row for row in rows_of(luna) if row[0] == UIDS[3]]
    assert splits.test.labels.tolist() == [label for _, _, label in listed]
    for place, (uid, centre, _) in enumerate(listed):
        expected = whole(luna, uid, centre)[3:-3, 3:-3, 3:-3]
        assert np.array_equal(splits.test.pixels[place : place + 1][0, 0].numpy(), expected)
    assert splits.train.pixels.shape[1:] == (1, 26, 40, 40) and not splits.generated


def test_nodules_are_trained_on_shifted_and_turned(luna: Path) -> None:
    splits = data.load("luna16", root=luna, fold=0, size=[10, 30, 30])
    listed = [row for row in rows_of(luna) if row[0] != UIDS[0]]
    assert len(splits.train) == sum(28 if label else 1 for _, _, label in listed)
    assert torch.bincount(splits.train.labels).tolist() == [18, 9 * 28]
    row, offsets = 0, {(0, 0, 0)}
    offsets |= {tuple(step * (axis == k) for k in range(3)) for axis in range(3) for step in (-1, 1)}
    for uid, centre, label in listed:
        count = 28 if label else 1
        got = [image[0].tobytes() for image in splits.train.pixels[row : row + count].numpy()]
        around = whole(luna, uid, centre)
        copies = [
            np.rot90(around[11 + dz : 21 + dz, 8 + dy : 38 + dy, 8 + dx : 38 + dx], turns, (1, 2)).tobytes()
            for (dz, dy, dx), turns in itertools.product(offsets if label else [(0, 0, 0)], range(4 if label else 1))
        ]
        assert sorted(got) == sorted(copies) and len(set(got)) == count
        assert got[0] == around[11:21, 8:38, 8:38].tobytes()
        row += count
    assert len(VARIANTS) == 28
    plain = data.load("luna16", root=luna, fold=0, augment=False)
    assert torch.bincount(plain.train.labels).tolist() == [18, 9]


def test_the_border_is_padded_with_air(luna: Path) -> None:
    splits = data.load("luna16", root=luna, fold=0)
    nodule = splits.test.pixels[int(splits.test.labels.argmax()) :][0, 0]
    assert (nodule[:, :, 0] == 0).all() or (nodule[:, :, -1] == 0).all()  # it lies 3 voxels from the scan's side


def test_few_files_are_open_at_a_time(luna: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = data.load("luna16", root=luna, augment=False).train.pixels[:]
    monkeypatch.setattr("angulus.data.sets.luna16._OPEN_FILES", 2)
    pixels = data.load("luna16", root=luna, augment=False).train.pixels
    assert isinstance(pixels, PatchPixels)
    assert torch.equal(pixels[:], expected) and len(pixels._maps) == 2


def test_rows_come_in_the_order_asked_and_in_other_processes(luna: Path) -> None:
    pixels = data.load("luna16", root=luna).train.pixels
    rows = torch.tensor([40, 3, 40])
    again = pickle.loads(pickle.dumps(pixels))
    assert torch.equal(again[rows], torch.cat([pixels[40:41], pixels[3:4], pixels[40:41]]))


def test_candidates_know_their_nodule(luna: Path) -> None:
    test = data.load("luna16", root=luna, fold=4).test
    nodules = read_findings(luna / luna16.ANNOTATIONS)
    for label, nodule in zip(test.labels.tolist(), test.columns["nodules"].tolist(), strict=True):
        assert nodules.cases[nodule] == UIDS[4] if label else nodule == -1


def copy_of(luna: Path, folder: Path) -> Path:
    """The lists and scans by links, without the patches."""
    folder.mkdir()
    for path in luna.iterdir():
        if path.name != luna16.PATCHES:
            (folder / path.name).symlink_to(path)
    return folder


def test_preparing_goes_on_where_it_stopped(luna: Path, tmp_path: Path) -> None:
    root = copy_of(luna, tmp_path / "copy")

    def stop(scan: str, number: int, scans: int) -> None:
        assert (scan, scans) == (UIDS[number - 1], 10)
        if number == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        luna16_prepare.prepare(root, on_scan=stop)
    with pytest.raises(
        InputError, match=rf"must hold the patches of 10 scans; it lacks 6, {UIDS[4]}.npy first; resume with"
    ):
        data.load("luna16", root=root)
    kept = {path: path.stat().st_mtime_ns for path in (root / "patches").glob("*.npy")}
    assert len(kept) == 4
    luna16_prepare.prepare(root)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
    for path in (luna / "patches").glob("*.npy"):
        assert path.read_bytes() == (root / "patches" / path.name).read_bytes()
    with pytest.raises(InputError, match="must hold patches of the same candidates, scans and settings"):
        luna16_prepare.prepare(root, spacing_mm=(1.0, 1.0, 1.0))


def rewritten(root: Path, name: str, text: str) -> None:
    (root / name).unlink()
    (root / name).write_text(text)


def test_what_does_not_fit_together_is_refused(luna: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs patches/; looked in .*nowhere.*run `angulus data luna16 --prepare`"):
        data.load("luna16", root=tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"needs candidates_V2.csv next to subset0/ to subset9/; looked in .*nowhere"):
        luna16_prepare.prepare(tmp_path / "nowhere")
    root = copy_of(luna, tmp_path / "copy")
    heading, *lines = (luna / luna16.CANDIDATES).read_text().splitlines()
    rewritten(root, luna16.CANDIDATES, f"{heading}\n{lines[0]}\n2.9.9,0,0,0,1\n")
    with pytest.raises(InputError, match=r"must hold the 2 scans of .*; 1 are missing, 2.9.9 first"):
        luna16_prepare.prepare(root)
    assert not (root / "patches").exists()
    rewritten(root, luna16.CANDIDATES, f"{heading}\n{UIDS[0]},900,0,0,0\n")
    with pytest.raises(InputError, match=rf"{UIDS[0]}.mhd must hold its candidates; 1 lie outside, \[900.0, 0.0, "):
        luna16_prepare.prepare(root)
    assert not list((root / "patches").glob("*.npy"))
    rewritten(root, luna16.CANDIDATES, f"{heading}\n{UIDS[0]},900,0,0,2\n")
    with pytest.raises(InputError, match="line 2 must be a candidate of class 0 or 1; got 2"):
        luna16_prepare.prepare(root)


def test_patches_of_another_list_are_refused(luna: Path, tmp_path: Path) -> None:
    root = copy_of(luna, tmp_path / "copy")
    (root / "patches").symlink_to(luna / "patches")
    rewritten(root, luna16.CANDIDATES, (luna / luna16.CANDIDATES).read_text() + f"{UIDS[0]},0,0,0,0\n")
    with pytest.raises(InputError, match=r"must be the list that .*patches was cut by"):
        data.load("luna16", root=root)
    rewritten(root, luna16.CANDIDATES, (luna / luna16.CANDIDATES).read_text())
    rewritten(root, luna16.ANNOTATIONS, f"seriesuid,coordX,coordY,coordZ,diameter_mm\n{UIDS[0]},0,0,0,5\n")
    with pytest.raises(InputError, match=r"annotations.csv must have the nodules of candidates_V2.csv; it has none in"):
        data.load("luna16", root=root)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fold": 10}, r"fold must be a whole number in \[0, 9\]; got 10"),
        ({"size": [26, 40]}, r"size must be depth, height and width in voxels; got \[26, 40\]"),
        ({"size": [26, 41, 41]}, r"size must be \[26, 40, 40\] or smaller by even numbers"),
        ({"size": [25, 40, 40]}, r"size must be \[26, 40, 40\] or smaller by even numbers"),
        ({"size": [26, 40, 30]}, r"size must have height = width for quarter turns"),
        ({"augment": 1}, r"augment must be true or false; got 1"),
        ({"foldd": 1}, r"has no option 'foldd'; did you mean 'fold'\?; known: fold, size, augment"),
    ],
)
def test_options_are_checked(luna: Path, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        data.load("luna16", root=luna, **options)


def test_damaged_patches_are_refused(luna: Path, tmp_path: Path) -> None:
    root = copy_of(luna, tmp_path / "copy")
    (root / "patches").mkdir()
    for path in (luna / "patches").iterdir():
        (root / "patches" / path.name).write_bytes(path.read_bytes()[: 1000 if path.name == f"{UIDS[1]}.npy" else None])
    with pytest.raises(InputError, match=rf"{UIDS[1]}.npy must be a whole file of patches; got .*; delete it"):
        data.load("luna16", root=root, fold=1).test.pixels[:]
    for wrong in (np.zeros((1, 28, 42, 42), np.uint8), np.zeros((3, 28, 42, 42)), np.zeros((3, 8, 42, 42), np.uint8)):
        np.save(root / "patches" / f"{UIDS[1]}.npy", wrong)
        with pytest.raises(InputError, match=rf"{UIDS[1]}.npy must be a whole file of patches; got .*; delete it"):
            data.load("luna16", root=root, fold=1).test.pixels[:]
    about = root / "patches" / "about.json"
    for text in ("{", "[]", "[" * 100_000, json.dumps({"format": "x"})):
        about.write_text(text)
        with pytest.raises(InputError, match=r"about.json must describe patches \(.*; remove .*patches to prepare"):
            data.load("luna16", root=root)


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("ElementDataFile = ../../secret.raw\n", r"must name one file next to it as ElementDataFile; got \['../../sec"),
        ("ElementDataFile = /etc/passwd\n", r"must name one file next to it as ElementDataFile; got \['/etc/pas"),
        ("NDims = 3\n", r"must name one file next to it as ElementDataFile; got \[\]"),
        (
            "ObjectType = Image\nNDims = 3\nDimSize = 100000 100000 100000\nCompressedData = True\n"
            "ElementType = MET_SHORT\nElementDataFile = scan.raw\n",
            r", by its header, must unpack to at most",
        ),
        ("ElementDataFile = gone.raw\n", r"needs .*gone.raw, which it names; it is not there"),
        ("ObjectType = Image\nNDims = 3\nElementDataFile = scan.raw\n", r"must be a whole volume; reading it gave: "),
    ],
)
def test_bad_headers_are_refused(tmp_path: Path, header: str, sentence: str) -> None:
    (tmp_path / "scan.raw").write_bytes(b"too short")
    (tmp_path / "scan.mhd").write_text(header)
    with pytest.raises(InputError, match=rf"scan.mhd ?{sentence}"):
        read_volume(tmp_path / "scan.mhd")


def test_opening_a_file_does_not_look_through_all_rows(tmp_path: Path) -> None:
    """Of a million rows in a thousand files that would take longer than the reading."""

    class Once(np.ndarray):  # type: ignore[type-arg]
        def __eq__(self, other: object) -> Any:
            raise AssertionError("all owners were compared")

    paths = [tmp_path / f"{number}.npy" for number in range(3)]
    for number, path in enumerate(paths):
        np.save(path, np.full((2, 4, 5, 6), number, dtype=np.uint8))
    owners = np.array([0, 2, 1, 2]).view(Once)
    pixels = PatchPixels(paths, owners, np.array([0, 1, 1, 0]), np.zeros(4, dtype=np.int64), (2, 3, 4))
    assert pixels[:].flatten(1)[:, 0].tolist() == [0, 2, 1, 2]
    short = PatchPixels(paths, owners, np.array([0, 1, 1, 2]), np.zeros(4, dtype=np.int64), (2, 3, 4))
    assert short[torch.tensor([0, 2])].shape == (2, 1, 2, 3, 4)
    with pytest.raises(InputError, match=r"2.npy must be a whole file of patches; got 2 patches"):
        short[torch.tensor([1])]


def test_a_volume_cut_short_or_of_other_axes_is_refused(tmp_path: Path) -> None:
    sitk.WriteImage(scan(0), str(tmp_path / "scan.mhd"))
    data_file = tmp_path / "scan.raw"
    data_file.write_bytes(data_file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"scan.mhd must be a whole volume; reading it gave"):
        read_volume(tmp_path / "scan.mhd")
    sitk.WriteImage(sitk.Image([8, 8], sitk.sitkInt16), str(tmp_path / "flat.mhd"))
    with pytest.raises(InputError, match="must be a volume of three axes with one number per voxel; got 2 axes"):
        read_volume(tmp_path / "flat.mhd")
    with pytest.raises(InputError, match=r"none.mhd must be a file that can be read; there is no such file"):
        read_volume(tmp_path / "none.mhd")


def test_without_simpleitk_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "SimpleITK", None)
    with pytest.raises(InputError, match=r"needs `pip install 'angulus\[nodules\]'`"):
        read_volume(tmp_path / "scan.mhd")


def test_the_spacing_holds_as_many_nodules_as_the_paper_says(data_folder: Path) -> None:
    path = data_folder / "luna16" / "annotations.csv"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    diameters = read_findings(path).diameters
    depth_mm, height_mm, _ = luna16_prepare.SPACING_MM
    # Dou et al.: 20x20x6 holds 58 % of the nodules, 30x30x10 85 %, 40x40x26 99 %
    for (side, depth), share in (((20, 6), 0.58), ((30, 10), 0.85), ((40, 26), 0.99)):
        held = (diameters <= min(side * height_mm, depth * depth_mm)).mean()
        assert held == pytest.approx(share, abs=0.035)
