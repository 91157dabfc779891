"""CT volumes in the scanner's coordinates: MetaImage and NIfTI files, and folders of DICOM slices.

Coordinates are ITK's, DICOM's and LUNA16's: LPS, x to the patient's left, y to the back, z to the head, in
millimetres. SimpleITK reads the voxels. What it would pass over silently (a file cut short, a slice that is missing or
damaged, several series in a folder, a NIfTI file without orientation) is refused here.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import extras, limits
from angulus.core.checks import InputError, one_line, shown, why_unread
from angulus.core.wording import plural
from angulus.data.dicom_series import series_of
from angulus.data.volume_headers import check_metaimage, check_nifti

AIR_HU = -1000  # beyond a scan
FORMATS = {".mhd": "MetaImageIO", ".mha": "MetaImageIO", ".nii": "NiftiImageIO", ".nii.gz": "NiftiImageIO"}

_UNEVEN = 0.1  # of the distance between slices: how far one may lie from its place; rounding of positions is far less
_SHOWN = 5  # series that an error names


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan in Hounsfield units, with its position in the scanner's coordinates."""

    voxels: NDArray[Any]  # [depth, height, width]
    origin: NDArray[np.float64]  # [3] x, y, z in millimetres of the centre of the first voxel
    spacing: NDArray[np.float64]  # [3] x, y, z in millimetres between voxels
    direction: NDArray[np.float64]  # [3, 3]; column k is the direction of the volume's axis k (x, y, z)

    def to_voxels(self, world: ArrayLike) -> NDArray[np.float64]:
        """Continuous indices x, y, z [..., 3] of points x, y, z [..., 3] in millimetres.

        index = spacing⁻¹ · direction⁻¹ · (point − origin); whole numbers are centres of voxels.
        """
        moved = np.asarray(world, dtype=np.float64) - self.origin
        return np.asarray(np.linalg.solve(self.direction, moved[..., None])[..., 0] / self.spacing)

    def holds(self, world: ArrayLike) -> NDArray[np.bool_]:
        """Whether points [..., 3] lie in the volume, up to half a voxel beyond the outermost centres."""
        index = self.to_voxels(world)
        inside = (index >= -0.5) & (index <= np.array(self.voxels.shape[::-1]) - 0.5)
        return np.asarray(inside.all(axis=-1))

    def patch(
        self, centre: ArrayLike, size: tuple[int, int, int], spacing: tuple[float, float, float]
    ) -> NDArray[np.float32]:
        """The values around a point, by linear interpolation on a grid along the volume's own axes; air beyond it.

        Args:
            centre: x, y, z in millimetres of the middle of the patch.
            size: depth, height, width in voxels of the patch.
            spacing: depth, height, width in millimetres between them.
        """
        middle = self.to_voxels(centre)[::-1]
        steps = zip(middle, size, spacing, self.spacing[::-1], strict=True)
        axes = [place + (np.arange(count) - (count - 1) / 2) * step / own for place, count, step, own in steps]
        grid, outside = np.stack(np.meshgrid(*axes, indexing="ij")), {"mode": "constant", "cval": AIR_HU}
        from scipy.ndimage import map_coordinates  # slow to import

        return np.asarray(map_coordinates(self.voxels, grid, output=np.float32, order=1, **outside))


def find_volumes(folder: Path) -> dict[str, Path]:
    """The files of a folder that `read_volume` reads, by their names without the suffix.

    Raises:
        InputError: two files of one name.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (suffix := _suffix(path)) and path.is_file():
            name = path.name[: -len(suffix)]
            if name in found:
                raise InputError(f"{folder} must hold a scan once; it has {found[name].name} and {path.name}")
            found[name] = path
    return found


def list_series(folder: Path) -> dict[str, list[Path]]:
    """The DICOM files of a folder by series, by their SeriesInstanceUIDs.

    Raises:
        InputError: a DICOM file that is damaged.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        try:
            with path.open("rb") as file:
                if file.read(132)[128:] != b"DICM":
                    continue
                series = series_of(file, path.stat().st_size)
        except OSError as error:
            raise InputError(f"{path} must be a file that can be read; {why_unread(error)}") from error
        if series is None:
            raise InputError(f"{path} must be a whole DICOM file; it is damaged, cut short or deflated")
        if series:  # DICOMDIR has none
            found.setdefault(series, []).append(path)
    return dict(sorted(found.items()))


def read_volume(path: Path, series: str | None = None) -> Volume:
    """Read a scan with its orientation; values are Hounsfield units, after the file's rescale slope and intercept.

    Args:
        path: .mhd (with its .raw file), .mha, .nii or .nii.gz; or a folder with the DICOM files of one series.
        series: of a folder with several, the SeriesInstanceUID of the one to read.

    Raises:
        InputError: another kind of file; one that is damaged, cut short, too large, or no volume of three axes; a
            header that names a file elsewhere; a NIfTI file without orientation, or with sheared axes; a folder without
            DICOM files, or with several series; slices that differ in size or orientation, or do not lie evenly along
            their normal (one is missing, two are at one place, or the gantry was tilted).
    """
    sitk = extras.load("SimpleITK", "nodules", "reading CT volumes")
    with _quiet(sitk):
        if path.is_dir():
            return _read_folder(sitk, path, series)
        suffix = _suffix(path)
        if not suffix:
            way = "; of a DICOM file, give the folder of its series" * (path.suffix.lower() in (".dcm", ".ima", ""))
            raise InputError(f"a volume must be {', '.join(FORMATS)} or a folder of DICOM files; got {path}{way}")
        packed = check_metaimage(path) if suffix in (".mhd", ".mha") else check_nifti(path)
        return _read_file(sitk, path, FORMATS[suffix], packed)


def _suffix(path: Path) -> str:
    return next((suffix for suffix in FORMATS if path.name.lower().endswith(suffix)), "")


@contextlib.contextmanager
def _quiet(sitk: Any) -> Iterator[None]:
    """Without the warnings that ITK writes to stderr: what matters is an error here."""
    before = sitk.ProcessObject_GetGlobalWarningDisplay()
    sitk.ProcessObject_SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject_SetGlobalWarningDisplay(before)


def _read_file(sitk: Any, path: Path, kind: str, packed: int) -> Volume:
    reader = _inspect(sitk, path, kind)
    if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
        rule = f"{path} must be a volume of three axes with one number per voxel"
        raise InputError(f"{rule}; got {reader.GetDimension()} axes and {reader.GetNumberOfComponents()} numbers")
    _check_size(sitk, path, reader, packed)
    if kind == "NiftiImageIO" and all(reader.GetMetaData(f"{form}form_code") in ("", "0") for form in "qs"):
        raise InputError(
            f"{path} must say where it lies in the scanner's coordinates; its qform_code and sform_code are 0: set "
            "one where the file was made"
        )
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise _unread(path, error) from error
    return _volume(path, sitk.GetArrayFromImage(image), image.GetOrigin(), image.GetSpacing(), image.GetDirection())


def _inspect(sitk: Any, path: Path, kind: str) -> Any:
    """A reader that knows the header of a file, and not its voxels; it takes no other format than this kind."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO(kind)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unread(path, error) from error
    return reader


def _unread(path: Path, error: RuntimeError) -> InputError:
    message = one_line(error).rpartition("ITK ERROR: ")[2]
    if "orthonormal" in message:
        return InputError(f"{path} must have axes at right angles; its orientation is sheared or singular")
    return InputError(f"{path} must be a whole volume; reading it gave: {message[-200:]}")


def _check_size(sitk: Any, path: Path, reader: Any, packed: int, slices: int = 1) -> None:
    """Refuse, before its voxels are read, what is implausibly large for the size of its files."""
    one = sitk.GetArrayViewFromImage(sitk.Image([1, 1, 1], reader.GetPixelID()))
    limits.check_unpacked(math.prod(reader.GetSize()) * one.itemsize * slices, packed, f"{path}, by its header,")


def _volume(
    path: Path, voxels: NDArray[Any], origin: Sequence[float], spacing: Sequence[float], direction: Sequence[float]
) -> Volume:
    volume = Volume(voxels, np.array(origin), np.array(spacing), np.array(direction).reshape(3, 3))
    places = np.concatenate([volume.origin, volume.spacing, volume.direction.ravel()])
    straight = np.isfinite(places).all() and np.allclose(volume.direction.T @ volume.direction, np.eye(3), atol=1e-3)
    if not straight or (volume.spacing <= 0).any():
        raise InputError(
            f"{path} must have an origin, spacings > 0 and axes at right angles; got origin {shown(list(origin))}, "
            f"spacing {shown(list(spacing))}, direction {shown(list(direction))}"
        )
    return volume


def _read_folder(sitk: Any, folder: Path, series: str | None) -> Volume:
    """The slices of one series, in the order of their places along the normal."""
    paths = _files_of_series(folder, series)
    readers = [_inspect(sitk, path, "GDCMImageIO") for path in paths]
    first = readers[0]
    _check_slices(paths, readers)
    direction = np.array(first.GetDirection()).reshape(3, 3)
    origins = np.array([reader.GetOrigin() for reader in readers])
    order = np.argsort(origins @ direction[:, 2], kind="stable")
    origins, paths = origins[order], [paths[place] for place in order.tolist()]
    step = _step(folder, paths, origins, direction[:, 2])
    _check_size(sitk, folder, first, sum(path.stat().st_size for path in paths), len(paths))
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(path) for path in paths])
    if len({reader.GetPixelID() for reader in readers}) > 1:  # slopes differ: only some slices are whole numbers
        reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        voxels = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise _unread(folder, error) from error
    return _volume(folder, voxels, origins[0].tolist(), (*first.GetSpacing()[:2], step), first.GetDirection())


def _check_slices(paths: Sequence[Path], readers: Sequence[Any]) -> None:
    """Refuse files of several frames, and slices of other sizes, orientations or spacings than the first."""
    first = readers[0]
    for path, reader in zip(paths, readers, strict=True):
        if tuple(reader.GetSize()[2:]) != (1,) or reader.GetNumberOfComponents() != 1:
            frames, numbers = math.prod(reader.GetSize()[2:]), reader.GetNumberOfComponents()
            raise InputError(
                f"{path} must be one slice with one number per pixel; got {frames} {plural('frame', frames)} of "
                f"{numbers}; convert the series to NIfTI or MetaImage"
            )
        sizes = reader.GetSize()[:2], first.GetSize()[:2]
        if sizes[0] != sizes[1]:
            raise InputError(f"{path} must have the size of {paths[0].name}, {sizes[1]} pixels; got {sizes[0]}")
        if not np.allclose(_frame(reader), _frame(first), atol=1e-4):
            raise InputError(
                f"{path} must have the orientation and pixel spacing of {paths[0].name}; got {shown(_frame(reader))} "
                f"and there {shown(_frame(first))}"
            )


def _step(folder: Path, paths: Sequence[Path], origins: NDArray[np.float64], normal: NDArray[np.float64]) -> float:
    """The distance between slices, of which each must lie at its place along the normal of the first."""
    if len(paths) < 2:
        raise InputError(f"{folder} must hold at least two slices of a series; got {paths[0].name} alone")
    step = float((origins[-1] - origins[0]) @ normal) / (len(paths) - 1)
    away = np.linalg.norm(origins - (origins[0] + step * np.arange(len(paths))[:, None] * normal), axis=1)
    if step <= 0 or (away > _UNEVEN * step).any():
        row = int(away.argmax())
        raise InputError(
            f"{folder} must hold slices that lie evenly along their normal; {paths[row].name} is {away[row]:.3g} mm "
            f"from its place among {len(paths)} slices, one every {step:.3g} mm: a slice is missing or double, or the "
            "gantry was tilted"
        )
    return step


def _frame(reader: Any) -> tuple[float, ...]:
    return (*reader.GetDirection(), *reader.GetSpacing()[:2])


def _files_of_series(folder: Path, series: str | None) -> list[Path]:
    """The files of the series, or of the only one there is."""
    there = list_series(folder)
    if not there:
        kinds = ", ".join(FORMATS)
        raise InputError(f"{folder} must hold the DICOM files of a series; it has none; give a file {kinds} otherwise")
    if series is not None and series in there:
        return there[series]
    if len(there) > 1:
        named = [f"{name} ({len(paths)} {plural('file', len(paths))})" for name, paths in there.items()]
        more = f" and {len(there) - _SHOWN} more" * (len(there) > _SHOWN)
        raise InputError(
            f"{folder} must hold one series; it has {len(there)}: {', '.join(named[:_SHOWN])}{more}; name the scan by "
            "its series, or give each a folder of its own"
        )
    return next(iter(there.values()))
