"""The pictures that face detection is timed and judged on, and the judging."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

import face_images
import faces
from angulus.core.checks import InputError
from angulus.data.faces.detector import Faces, Image
from faces import MARGIN, agreement, found_again


def test_pictures_are_the_group_photo_and_montages_always_the_same(data_folder: Path) -> None:
    first, again = (list(face_images.photos(data_folder, 3)) for _ in range(2))
    assert [image.shape for image, _ in first] == [(886, 1280, 3), (960, 1280, 3), (960, 1280, 3)]
    assert first[0][1] == 0
    assert all(1 <= count <= face_images.FACES[1] for _, count in first[1:])
    for (image, count), (other, same) in zip(first, again, strict=True):
        assert count == same
        np.testing.assert_array_equal(image, other)
    assert len(list(face_images.photos(data_folder, 1))) == 1


def test_crops_have_landmarks_near_the_template(data_folder: Path) -> None:
    crops = face_images.crops(data_folder, 20, 0)
    template = face_images.template_points("five_points", 112, 112)
    for crop in crops:
        assert crop.pixels.shape == (112, 112, 3)
        assert 0 < np.linalg.norm(crop.landmarks - template, axis=1).mean() < 12
    with pytest.raises(InputError, match="crops must be at most 6,139"):
        face_images.crops(data_folder, 6_140, 0)


def test_folders_without_the_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must hold celebrity-faces/aligned_112.zip"):
        face_images.crops(tmp_path, 1, 0)
    with pytest.raises(InputError, match=r"must hold photos/t1.jpg"):
        list(face_images.photos(tmp_path, 1))
    for bad in ({"images": 0}, {"rounds": 0}, {"workers": 1}):
        with pytest.raises(InputError, match=f"{next(iter(bad))} must be a whole number >= "):
            faces.time_crops(tmp_path, **bad)


class Known:
    """Finds a face at a fixed distance from where it is in the crops, and another one far away."""

    def __init__(self, crops: Sequence[face_images.Crop], shift: float) -> None:
        self.landmarks = {crop.pixels.tobytes(): crop.landmarks for crop in crops}
        self.shift = shift

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        found = []
        for image in images:
            points = self.landmarks[np.ascontiguousarray(image[MARGIN:-MARGIN, MARGIN:-MARGIN]).tobytes()] + MARGIN
            both = np.stack([points + 60, points + np.array([self.shift, 0])]).astype(np.float32)
            found.append(Faces(np.zeros((2, 4), np.float32), both, np.ones(2, np.float32)))
        found[0] = Faces(*(np.zeros((0, *shape), np.float32) for shape in ((4,), (5, 2), ())))
        return found


def test_distances_are_to_the_face_in_the_middle(data_folder: Path) -> None:
    crops = face_images.crops(data_folder, 6, 3)
    found = found_again(data_folder, Known(crops, 2.5), 6, 3)
    assert (found.crops, found.missed) == (6, 1)
    assert found.median_px == pytest.approx(2.5, abs=1e-4)
    assert found.p90_px == pytest.approx(2.5, abs=1e-4)


class Shifted:
    """What the peer finds, moved by a share of each box's width, and one face that it does not find."""

    def __init__(self, share: float) -> None:
        self.peer, self.share = faces.Peer(), share

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        found = self.peer.detect(images[0])
        moved = found.boxes.copy()
        moved[:, ::2] += self.share * (found.boxes[:, 2:3] - found.boxes[:, :1])
        boxes = np.concatenate([moved, np.array([[0, 0, 5, 5]], np.float32)])
        return [Faces(boxes, np.zeros((len(boxes), 5, 2), np.float32), np.ones(len(boxes), np.float32))]


@pytest.mark.parametrize(("share", "same"), [(0.2, True), (0.6, False)])
def test_agreement_is_by_overlap(data_folder: Path, share: float, same: bool) -> None:
    try:
        ours = Shifted(share)
    except InputError as error:
        pytest.skip(str(error))
    found = agreement(data_folder, ours, 1)
    assert (found.images, found.planted, found.peer, found.ours) == (1, 0, 6, 7)
    assert found.both == (6 if same else 0)
    assert found.overlap == pytest.approx((1 - share) / (1 + share), abs=1e-3)
    crop = ours.peer.process(faces.Row("1", cv2.imencode(".png", np.zeros((50, 50, 3), np.uint8))[1].tobytes(), ""))
    assert crop is None
    assert math.isfinite(found.overlap)
