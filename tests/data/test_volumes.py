"""Volumes from MetaImage, NIfTI and DICOM: positions by hand arithmetic, Hounsfield units, and what is refused."""

from __future__ import annotations

import gzip
import io
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

import volume_files
from angulus.core import limits
from angulus.core.checks import InputError
from angulus.data.dicom_series import series_of
from angulus.data.volumes import Volume, find_volumes, list_series, read_volume

sitk = pytest.importorskip("SimpleITK")

SHAPE = (4, 5, 6)  # x, y, z
STORED = np.random.default_rng(0).integers(0, 4096, SHAPE)  # 12 bits
SPACING = np.array([0.7, 0.8, 2.5])
TURN = np.deg2rad(20)
OBLIQUE = np.array([[np.cos(TURN), -np.sin(TURN), 0], [np.sin(TURN), np.cos(TURN), 0], [0, 0, 1]])
# columns: the directions of x, y and z; of DICOM slices the last is the cross product of the others
DIRECTIONS = {"straight": np.eye(3), "flipped": np.diag([-1.0, -1.0, 1.0]), "down": np.diag([1.0, -1.0, -1.0])}
DIRECTIONS |= {"oblique": OBLIQUE, "sagittal": np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])}
MIRRORED = DIRECTIONS | {"mirrored": np.diag([-1.0, 1.0, 1.0])}
ORIGIN = np.array([-10.0, 20.0, -30.0])
RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine(direction: np.ndarray) -> np.ndarray:
    """From indices x, y, z to LPS millimetres, [4, 4]."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = direction * SPACING, ORIGIN
    return matrix


def check(volume: Volume, matrix: np.ndarray, values: np.ndarray) -> None:
    """Every voxel lies where the affine says, and has its value."""
    for index in np.ndindex(*values.shape):
        world = matrix[:3, :3] @ index + matrix[:3, 3]
        place = volume.to_voxels(world)
        np.testing.assert_allclose(place, index, atol=1e-4)
        assert volume.voxels[tuple(place[::-1].round().astype(int))] == values[index]
        assert volume.holds(world)
    np.testing.assert_allclose(volume.spacing, np.linalg.norm(matrix[:3, :3], axis=0), rtol=1e-6)
    assert not volume.holds(matrix[:3, :3] @ [-0.6, 0, 0] + matrix[:3, 3])


def dicom_folder(folder: Path, direction: np.ndarray = DIRECTIONS["straight"], **options: object) -> Path:
    """The slices along z, named and numbered in another order than they lie."""
    for z in range(SHAPE[2]):
        position = affine(direction)[:3, :3] @ [0, 0, z] + ORIGIN
        volume_files.dicom(
            folder / f"{(z * 5 + 3) % 7}.dcm",
            STORED[:, :, z].T,
            tuple(position),
            orientation=tuple(direction[:, :2].T.ravel()),
            number=(z * 5) % 7 + 1,
            **options,  # type: ignore[arg-type]
        )
    return folder


@pytest.mark.parametrize("name", MIRRORED)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".mhd"])
def test_every_voxel_of_a_file_lies_where_its_header_says(tmp_path: Path, name: str, suffix: str) -> None:
    path, matrix = tmp_path / f"scan{suffix}", affine(MIRRORED[name])
    if "nii" in suffix:
        volume_files.nifti(path, STORED, RAS @ matrix, intercept=-1024)
    else:
        lines = {
            "ObjectType": "Image",
            "NDims": 3,
            "BinaryData": True,
            "BinaryDataByteOrderMSB": False,
            "TransformMatrix": " ".join(map(str, MIRRORED[name].T.ravel())),
            "Offset": " ".join(map(str, ORIGIN)),
            "ElementSpacing": " ".join(map(str, SPACING)),
            "DimSize": " ".join(map(str, SHAPE)),
            "ElementType": "MET_SHORT",
            "ElementDataFile": "LOCAL" if suffix == ".mha" else "scan.raw",
        }
        header = "".join(f"{key} = {value}\n" for key, value in lines.items()).encode()
        data = (STORED - 1024).astype("<i2").tobytes(order="F")
        path.write_bytes(header + (data if suffix == ".mha" else b""))
        (tmp_path / "scan.raw").write_bytes(data)
    check(read_volume(path), matrix, STORED - 1024)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_every_voxel_of_a_series_lies_where_its_slices_say(tmp_path: Path, name: str) -> None:
    folder = dicom_folder(tmp_path / "scan", DIRECTIONS[name])
    (folder / "notes.txt").write_text("not a slice")
    check(read_volume(folder), affine(DIRECTIONS[name]), STORED - 1024)


def test_slopes_give_hounsfield_units(tmp_path: Path) -> None:
    half = read_volume(dicom_folder(tmp_path / "half", slope=0.5, intercept=-1000.5))
    np.testing.assert_allclose(half.voxels, (STORED * 0.5 - 1000.5).transpose(2, 1, 0))
    path = volume_files.nifti(tmp_path / "a.nii", STORED, RAS @ affine(np.eye(3)), slope=2, intercept=-1000)
    np.testing.assert_allclose(read_volume(path).voxels, (STORED * 2.0 - 1000).transpose(2, 1, 0))
    mixed = dicom_folder(tmp_path / "mixed", slope=2, intercept=-1000)
    volume_files.dicom(mixed / "3.dcm", STORED[:, :, 0].T, tuple(ORIGIN), slope=0.25, intercept=-9.5)
    voxels = read_volume(mixed).voxels
    np.testing.assert_allclose(voxels[0], STORED[:, :, 0].T * 0.25 - 9.5)
    np.testing.assert_allclose(voxels[5], STORED[:, :, 5].T * 2.0 - 1000)


def test_a_series_is_chosen_in_a_folder_of_several(tmp_path: Path) -> None:
    folder = dicom_folder(tmp_path / "scan")
    for number in range(3):
        place = (0.0, 0.0, 4.0 * number)
        volume_files.dicom(folder / f"b{number}.dcm", STORED[:, :, 0].T, place, series="1.9", number=number)
    assert {name: len(paths) for name, paths in list_series(folder).items()} == {"1.2.3.4": 6, "1.9": 3}
    sentence = r"must hold one series; it has 2: 1.2.3.4 \(6 files\), 1.9 \(3 files\); name the scan by its series"
    for series in (None, "1.8"):
        with pytest.raises(InputError, match=sentence):
            read_volume(folder, series)
    assert read_volume(folder, "1.9").voxels.shape == (3, 5, 4)
    assert read_volume(folder, "1.9").spacing.tolist() == [0.7, 0.8, 4.0]
    check(read_volume(folder, "1.2.3.4"), affine(np.eye(3)), STORED - 1024)


def test_files_are_found_by_their_names(tmp_path: Path) -> None:
    for name in ("a.mhd", "a.raw", "b.nii.gz", "c.NII", "d.mha", "e.txt"):
        (tmp_path / name).touch()
    (tmp_path / "f.mhd").mkdir()
    assert {name: path.name for name, path in find_volumes(tmp_path).items()} == {
        "a": "a.mhd",
        "b": "b.nii.gz",
        "c": "c.NII",
        "d": "d.mha",
    }
    assert not find_volumes(tmp_path / "nowhere")
    (tmp_path / "a.nii").touch()
    with pytest.raises(InputError, match=r"must hold a scan once; it has a.mhd and a.nii"):
        find_volumes(tmp_path)


def test_niftis_that_are_refused(tmp_path: Path) -> None:
    path, matrix = tmp_path / "a.nii", RAS @ affine(np.eye(3))
    sheared, zero, nan = matrix.copy(), matrix.copy(), matrix.copy()
    sheared[0, 1], zero[:, 2], nan[0, 3] = 0.4, 0, np.nan
    for bad in (sheared, zero, nan):
        with pytest.raises(InputError, match="must have axes at right angles"):
            read_volume(volume_files.nifti(path, STORED, bad))
    with pytest.raises(InputError, match="its qform_code and sform_code are 0"):
        read_volume(volume_files.nifti(path, STORED, matrix, code=0))
    with pytest.raises(InputError, match="volume of three axes with one number per voxel; got 4 axes"):
        read_volume(volume_files.nifti(path, STORED, matrix, dims=(4, 5, 3, 2)))
    assert read_volume(volume_files.nifti(path, STORED, matrix, dims=(4, 5, 6, 1))).voxels.shape == (6, 5, 4)
    with pytest.raises(InputError, match="by its header, must unpack to at most"):
        read_volume(volume_files.nifti(path, STORED, matrix, dims=(30000, 30000, 30000)))
    with pytest.raises(InputError, match="NIfTI header that describes a volume; got dim"):
        read_volume(volume_files.nifti(path, STORED, matrix, dims=(-4, 5, 6)))
    whole = volume_files.nifti(path, STORED, matrix).read_bytes()
    for data, sentence in {
        whole[:-2]: "must be a whole volume; it holds 590 of the 592 bytes",
        b"": "must be a NIfTI file of one piece",
        b"hello": "must be a NIfTI file of one piece",
        whole[:344] + b"ni1\0" + whole[348:]: "must be a NIfTI file of one piece",
    }.items():
        path.write_bytes(data)
        with pytest.raises(InputError, match=sentence):
            read_volume(path)
    packed = gzip.compress(whole)
    for data in (packed[:-9], packed[:80], packed[:-6] + b"\xff" + packed[-5:], b"hello" * 99):
        (tmp_path / "a.nii.gz").write_bytes(data)
        with pytest.raises(InputError, match=r"a.nii.gz must be a whole gzip file"):
            read_volume(tmp_path / "a.nii.gz")


def test_a_gzipped_volume_cannot_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(limits.VARIABLE, "100K")
    path = tmp_path / "a.nii.gz"
    volume_files.nifti(path, np.zeros(SHAPE), RAS @ affine(np.eye(3)))
    assert read_volume(path).voxels.shape == (6, 5, 4)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(10**6)))
    with pytest.raises(InputError, match="must unpack to at most 102,400 bytes"):
        read_volume(path)


def test_series_that_are_refused(tmp_path: Path) -> None:
    whole = dicom_folder(tmp_path / "whole")
    slices = sorted(whole.iterdir(), key=lambda path: (int(path.stem) - 3) * 3 % 7)  # as they lie

    def refused(sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            read_volume(tmp_path / "scan")
        shutil.rmtree(tmp_path / "scan")

    def copied() -> Path:
        return Path(shutil.copytree(whole, tmp_path / "scan"))

    for place in (0, 3, 5):
        (copied() / slices[place].name).write_bytes(slices[place].read_bytes()[:-10])
        refused(rf"{slices[place].name} must be a whole DICOM file; it is damaged, cut short or deflated")
    for place in (1, 2, 4):
        (copied() / slices[place].name).unlink()
        refused(r"must hold slices that lie evenly along their normal; .* mm from its place among 5 slices")
    (copied() / "again.dcm").write_bytes(slices[2].read_bytes())
    refused("a slice is missing or double, or the gantry was tilted")
    tilted = (1, 0, 0, 0, np.cos(0.2), np.sin(0.2))
    for number in range(4):
        volume_files.dicom(tmp_path / f"scan/{number}", STORED[:, :, 0].T, (0, 0, 2.0 * number), orientation=tilted)
    refused("the gantry was tilted")
    for number in range(3):
        volume_files.dicom(tmp_path / f"scan/{number}", STORED[:, :, 0].T, (0, 0, 0))
    refused("lie evenly along their normal")
    for changed, sentence in (
        ({"spacing": (0.9, 0.7)}, "x.dcm must have the orientation and pixel spacing of"),
        ({"orientation": (0, 1, 0, 1, 0, 0)}, "x.dcm must have the orientation and pixel spacing of"),
        ({"frames": 1, "pixels": np.zeros((6, 4))}, r"must have the size of .*, \(4, 5\) pixels; got \(4, 6\)"),
        (
            {"frames": 3, "pixels": np.zeros((3, 5, 4))},
            "must be one slice with one number per pixel; got 3 frames of 1",
        ),
    ):
        volume_files.dicom(copied() / "x.dcm", **{"pixels": STORED[:, :, 0].T, "position": (0, 0, 0)} | changed)  # type: ignore[arg-type]
        refused(sentence)
    volume_files.dicom(tmp_path / "scan/a", STORED[:, :, 0].T, (0, 0, 0))
    refused("must hold at least two slices of a series; got a alone")
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "a.txt").write_text("no image")
    refused("must hold the DICOM files of a series; it has none")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "a.dcm",
            r"a volume must be .mhd, .mha, .nii, .nii.gz or a folder of DICOM files; got .*give the folder of its",
        ),
        ("a.png", r"a volume must be .mhd, .mha, .nii, .nii.gz or a folder of DICOM files; got .*a.png$"),
        ("none.nii", "none.nii must be a file that can be read; there is no such file"),
        ("none.nii.gz", "none.nii.gz must be a file that can be read; there is no such file"),
        ("none.mha", "none.mha must be a file that can be read; there is no such file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_volume(tmp_path / name)


def test_metaimages_that_are_refused(tmp_path: Path) -> None:
    header = (
        "ObjectType = Image\nNDims = 3\nDimSize = 4 5 6\nElementType = MET_SHORT\nElementSpacing = 1 1 1\n"
        "ElementDataFile = "
    )
    for name, data, sentence in (
        ("cut.mha", b"LOCAL\n" + bytes(238), "must be a whole volume; reading it gave"),
        ("list.mhd", b"LIST\n/etc/passwd\n", r"must name one file next to it as ElementDataFile; got \['LIST'\]"),
        ("away.mha", b"../secret.raw\n", r"must name one file next to it as ElementDataFile; got \['../sec"),
    ):
        (tmp_path / "LIST").touch()
        (tmp_path / name).write_bytes(header.encode() + data)
        with pytest.raises(InputError, match=sentence):
            read_volume(tmp_path / name)
    flat = header.replace("1 1 1", "1 1 0") + "LOCAL\n"
    (tmp_path / "flat.mha").write_bytes(flat.encode() + bytes(240))
    with pytest.raises(InputError, match=r"flat.mha must "):
        read_volume(tmp_path / "flat.mha")


def test_damaged_lengths_never_reach_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = dicom_folder(tmp_path / "scan") / "3.dcm"
    data = whole.read_bytes()
    monkeypatch.setattr("angulus.data.volumes._inspect", lambda *arguments: pytest.fail("it was read"))
    start = data.index(b"\x20\x00\x0e\x00UI")  # the element with the series
    for damaged in (
        data[: start + 4] + b"OB\0\0\xfe\xff\xff\xff" + data[start + 8 :],  # 4 GB
        data[: start + 4] + b"U?" + data[start + 6 :],
        data[: start + 4] + b"SQ\0\0\xff\xff\xff\xff" + data[start + 8 :],  # without its end
        data[:138] + b"\xff\xff" + data[140:],
        data[: start + 5],
    ):
        whole.write_bytes(damaged)
        with pytest.raises(InputError, match=r"3.dcm must be a whole DICOM file; it is damaged, cut short or deflated"):
            read_volume(tmp_path / "scan")


def test_sequences_and_implicit_lengths_are_stepped_over() -> None:
    def implicit(group: int, element: int, value: bytes) -> bytes:
        return struct.pack("<HHI", group, element, len(value)) + value

    def found(dataset: bytes, syntax: str) -> str | None:
        data = bytes(128) + b"DICM" + volume_files._element(2, 0x10, "UI", syntax) + dataset
        return series_of(io.BytesIO(data), len(data))

    mark, item = implicit(0x20, 0xE, b"1.2\0"), struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    ends = struct.pack("<HHI", 0xFFFE, 0xE00D, 0), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    inner = item + implicit(0x20, 0xE, b"9.9\0") + ends[0]
    sequence = struct.pack("<HHI", 8, 0x1140, 0xFFFFFFFF) + inner + ends[1]
    assert found(sequence + mark, "1.2.840.10008.1.2") == "1.2"  # not that of the sequence
    assert found(sequence, "1.2.840.10008.1.2") == ""
    assert found(sequence[:-8] + mark, "1.2.840.10008.1.2") is None
    assert found(ends[0] + mark, "1.2.840.10008.1.2") is None
    deep = struct.pack("<HHI", 8, 0x1140, 0xFFFFFFFF) * 5000
    assert found(deep, "1.2.840.10008.1.2") is None
    unknown = struct.pack("<HH2sHI", 9, 1, b"UN", 0, 0xFFFFFFFF) + inner + ends[1]
    explicit = volume_files._element(0x20, 0xE, "UI", "1.2")
    assert found(unknown + explicit, volume_files.EXPLICIT_LITTLE_ENDIAN) == "1.2"
    assert found(mark, "1.2.840.10008.1.2.1.99") is None
