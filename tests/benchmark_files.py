"""Small files of every form that `angulus evaluate` reads, named as the docs name them.

Each function writes what one protocol needs into a folder where `people` has been, and gives the command's arguments.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import scipy.io

from angulus.core.embeddings import Embeddings

PEOPLE, IMAGES = 12, 4


def image(person: int, number: int) -> str:
    return f"P{person:02d}/P{person:02d}_{number:04d}"


def embeddings_of(noise: float) -> Embeddings:
    random = np.random.default_rng(0)
    centres = random.normal(size=(PEOPLE, 8))
    people = np.repeat(np.arange(PEOPLE), IMAGES)
    vectors = centres[people] + noise * np.random.default_rng(1).normal(size=(len(people), 8))
    return Embeddings(
        vectors * random.gamma(4, 2, (len(people), 1)),
        np.array([image(person, number % IMAGES + 1) for number, person in enumerate(people.tolist())]),
        labels=np.char.add("P", people.astype(np.str_)),
        groups=np.where(people % 2 == 0, "even", "odd"),
        detector_scores=random.random(len(people)),
        flipped=vectors + 0.1,
    )


def people(folder: Path) -> None:
    """Embeddings of 12 people with four images each, `Pnn/Pnn_0001`, and lists of their pairs in two folds."""
    for name, noise in (("model", 0.6), ("softmax", 1.0)):
        embeddings_of(noise).write(folder / f"{name}.npz")
    named = [f"{image(p, i)},{'woman' if p % 2 else 'man'}" for p in range(PEOPLE) for i in range(1, IMAGES + 1)]
    (folder / "groups.csv").write_text("\n".join(["id,group", *named]))
    plain, lfw = ["2\t18"], ["2\t18"]
    for fold in range(2):
        here = range(6 * fold, 6 * fold + 6)
        genuine = [(p, i, p, j) for p in here for i, j in ((1, 2), (2, 3), (3, 4))]
        impostor = [(p, i, 6 * fold + (p + 1) % 6, i) for p in here for i in (1, 2, 3)]
        plain += [f"{image(p, i)}\t{image(q, j)}\t{int(p == q)}" for p, i, q, j in genuine + impostor]
        lfw += [f"P{p:02d}\t{i}\t{j}" for p, i, _, j in genuine]
        lfw += [f"P{p:02d}\t{i}\tP{q:02d}\t{j}" for p, i, q, j in impostor]
    (folder / "my-pairs.txt").write_text("\n".join(plain))
    (folder / "pairs.txt").write_text("\n".join(lfw))


def lfw(folder: Path) -> list[object]:
    return ["lfw", folder / "model.npz", "--pairs", folder / "pairs.txt", "--draws", 20]


def pairs(folder: Path) -> list[object]:
    return [
        "pairs",
        folder / "model.npz",
        "--pairs",
        folder / "my-pairs.txt",
        "--flip",
        "sum",
        "--far",
        0.1,
        "--draws",
        20,
    ]


def cfp(folder: Path) -> list[object]:
    root = folder / "Protocol"
    ids = {"F": [f"{p:03d}/frontal/{i:02d}.jpg" for p in range(4) for i in (1, 2)]}
    ids["P"] = [f"{p:03d}/profile/{i:02d}.jpg" for p in range(4) for i in (1, 2)]
    root.mkdir()
    for side, names in ids.items():
        lines = [f"{number} ../Data/Images/{name}" for number, name in enumerate(names, 1)]
        (root / f"Pair_list_{side}.txt").write_text("\n".join(lines))
    for kind in ("FF", "FP"):
        for fold in (1, 2):
            place = root / "Split" / kind / f"{fold:02d}"
            place.mkdir(parents=True)
            first = 4 * (fold - 1)
            (place / "same.txt").write_text(f"{first + 1},{first + 2}\n{first + 3},{first + 4}")
            (place / "diff.txt").write_text(f"{first + 1},{first + 3}\n{first + 2},{first + 4}")
    every = np.array(ids["F"] + ids["P"])
    Embeddings(np.random.default_rng(0).normal(size=(16, 4)), every).write(folder / "cfp.npz")
    return ["cfp", folder / "cfp.npz", "--lists", root, "--part", "ff", "--draws", 0]


def bin_set(folder: Path) -> list[object]:
    images = [b"\xff\xd8" + bytes([number]) for number in range(40)]
    (folder / "agedb_30.bin").write_bytes(pickle.dumps((images, [True, False] * 10)))
    vectors = np.random.default_rng(0).normal(size=(40, 4))
    Embeddings(vectors, np.arange(40).astype(np.str_)).write(folder / "agedb.npz")
    return ["bin", folder / "agedb.npz", "--bin", folder / "agedb_30.bin", "--folds", 2, "--draws", 0]


def rfw(folder: Path) -> list[object]:
    lines = (folder / "my-pairs.txt").read_text().splitlines()[1:]
    for name, of_group in (("African", lambda p: p % 6 < 3), ("Asian", lambda p: p % 6 >= 3)):
        kept = [line for line in lines if of_group(int(line[1:3])) and of_group(int(line.split("\t")[1][1:3]))]
        halves = [[line for line in kept if (int(line[1:3]) < 6) == first] for first in (True, False)]
        folds = [[line for line in half if line[-1] == flag][:6] for half in halves for flag in "10"]
        (folder / f"{name}.txt").write_text("\n".join(["2\t6", *(line for fold in folds for line in fold)]))
    lists = [item for name in ("African", "Asian") for item in ("--pairs", f"{name}={folder / name}.txt")]
    embeddings_of(1.0).write(folder / "rfw.npz")
    return ["rfw", folder / "rfw.npz", *lists, "--draws", 0]


def blufr(folder: Path) -> list[object]:
    def cells(*rows: list[int]) -> np.ndarray:
        found = np.empty((len(rows), 1), dtype=object)
        found[:, 0] = [np.array(row, dtype=float)[:, None] + 1 for row in rows]
        return found

    names = [f"{image(p, i).partition('/')[2]}.jpg" for p in range(PEOPLE) for i in range(1, IMAGES + 1)]
    listed = np.empty((len(names), 1), dtype=object)
    listed[:, 0] = names
    tested = list(range(16, 48))
    gallery = [16, 20, 24, 28]
    probes = [row for row in tested if row not in gallery]
    content = {
        "imageList": listed,
        "labels": np.repeat(np.arange(PEOPLE), IMAGES)[:, None] + 1.0,
        "trainIndex": cells(list(range(16)), list(range(16))),
        "testIndex": cells(tested, tested),
        "galIndex": cells(gallery, [row + 1 for row in gallery]),
        "probIndex": cells(probes, [row for row in tested if row not in [row + 1 for row in gallery]]),
    }
    scipy.io.savemat(folder / "blufr_lfw_config.mat", content)
    return [
        "blufr",
        folder / "model.npz",
        "--config",
        folder / "blufr_lfw_config.mat",
        "--far",
        0.1,
        "--open-set-far",
        0.1,
    ]


def ytf(folder: Path) -> list[object]:
    lines = []
    for split in (1, 2):
        for number, person in enumerate(range(6 * split - 6, 6 * split)):
            other = 6 * split - 6 + (person + 1) % 6
            lines.append(f"{split}, {2 * number + 1}, P{person:02d}/0, P{person:02d}/1, 1")
            lines.append(f"{split}, {2 * number + 2}, P{person:02d}/0, P{other:02d}/1, 0")
    (folder / "splits.txt").write_text("\n".join(lines))
    found = embeddings_of(0.6)
    frames = np.array([f"P{p:02d}/{i // 2}/{i}.jpg" for p in range(PEOPLE) for i in range(IMAGES)])
    Embeddings(found.vectors, frames).write(folder / "frames.npz")
    return ["ytf", folder / "frames.npz", "--pairs", folder / "splits.txt", "--score", "histogram", "--draws", 0]


def templates(folder: Path) -> None:
    embeddings_of(1.0).write(folder / "ijb.npz")
    heading = "TEMPLATE_ID,SUBJECT_ID,FILE,MEDIA_ID"
    parts: dict[str, list[str]] = {"gallery_1": [], "gallery_2": [], "probes": []}
    for person in range(PEOPLE):
        rows = [f"{person},{image(person, i)},{i}" for i in range(1, IMAGES + 1)]
        parts["gallery_1" if person % 2 else "gallery_2"].append(f"{100 + person},{rows[0]}")
        parts["probes"] += [f"{200 + person},{rows[1]}", f"{200 + person},{rows[2]}", f"{300 + person},{rows[3]}"]
    for name, rows in parts.items():
        (folder / f"{name}.csv").write_text("\n".join([heading, *rows]))
    every = [(100 + a, 200 + b) for a in range(PEOPLE) for b in range(PEOPLE)]
    images = [row.split(",") for rows in parts.values() for row in rows]
    lines = [f"{file} {template} {medium}" for template, _, file, medium in images]
    (folder / "face_tid_mid.txt").write_text("\n".join(lines))
    (folder / "template_pair_label.txt").write_text("\n".join(f"{a} {b} {int(a + 100 == b)}" for a, b in every))


def ijb_verify(folder: Path) -> list[object]:
    templates(folder)
    lists = [item for name in ("gallery_1", "gallery_2", "probes") for item in ("--templates", folder / f"{name}.csv")]
    options = [
        "--comparisons",
        folder / "template_pair_label.txt",
        "--no-norm",
        "--detector",
        "--flip",
        "sum",
        "--folds",
        3,
    ]
    return ["ijb-verify", folder / "ijb.npz", *lists, *options, "--draws", 20]


def ijb_identify(folder: Path) -> list[object]:
    templates(folder)
    lists = [
        "--gallery",
        folder / "gallery_1.csv",
        "--gallery",
        folder / "gallery_2.csv",
        "--probes",
        folder / "probes.csv",
    ]
    return ["ijb-identify", folder / "ijb.npz", *lists, "--pool", "flat", "--rank", 1, "--fpir", 0.1, "--draws", 20]


def distractors(folder: Path) -> Path:
    vectors = np.random.default_rng(5).normal(size=(120, 8))
    names = np.array([f"d/{number}.jpg" for number in range(120)])
    Embeddings(vectors, names, labels=names).write(folder / "megaface.npz")
    return folder / "megaface.npz"


def megaface(folder: Path) -> list[object]:
    there = distractors(folder)
    probes = [image(p, i) for p in range(PEOPLE) for i in range(1, IMAGES + 1)]
    listed = {"path": probes, "id": [name[:3] for name in probes]}
    (folder / "facescrub_features_list.json").write_text(json.dumps(listed))
    (folder / "megaface_features_list.json").write_text(
        json.dumps({"path": [f"d/{number}.jpg" for number in range(120)]})
    )
    (folder / "megaface_noises.txt").write_text("d/7.jpg\nd/8.jpg")
    (folder / "facescrub_noises.txt").write_text(f"{probes[0]}\n")
    lists = [
        "--probe-list",
        folder / "facescrub_features_list.json",
        "--distractor-list",
        folder / "megaface_features_list.json",
    ]
    options = ["--distractor-noises", folder / "megaface_noises.txt", "--rank", 1, "--far", 1e-3, "--draws", 20]
    return ["megaface", folder / "model.npz", there, *lists, *options]


def trillion_pairs(folder: Path) -> list[object]:
    found, others = embeddings_of(0.6), Embeddings.read(distractors(folder))
    gallery = np.arange(len(found)) % IMAGES == 0
    first = np.concatenate([found.vectors[gallery][:8], others.vectors])
    labels = np.concatenate([found.labels[gallery][:8], others.labels])  # type: ignore[index]
    Embeddings(first, np.concatenate([found.ids[gallery][:8], others.ids]), labels=labels).write(folder / "gallery.npz")
    Embeddings(found.vectors[~gallery], found.ids[~gallery], labels=found.labels[~gallery]).write(  # type: ignore[index]
        folder / "probes.npz"
    )
    options = ["--far", 1e-2, "--search-far", 0.1, "--draws", 20]
    return ["trillion-pairs", folder / "probes.npz", folder / "gallery.npz", *options]


def froc(folder: Path) -> list[object]:
    """Photographs of skin in pixels: three of four lesions are found, one is to be ignored, `d` shows none."""
    files = {
        "finds.csv": "image,x,y,confidence\na,105,98,0.95\na,300,40,0.5\nb,61,59,0.9\nb,200,200,0.7\nc,12,14,0.35\n"
        "c,88,91,0.3\nd,50,50,0.4\n",
        "lesions.csv": "image,x,y,diameter_px,ignore\na,100,100,30,0\nb,60,60,24,0\nb,205,195,40,1\nc,10,10,16,0\n"
        "c,150,20,20,0\n",
        "images.csv": "image,patient\na,p1\nb,p2\nc,p2\nd,p3\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    lists = ["--lesions", folder / "lesions.csv", "--cases", folder / "images.csv"]
    return ["froc", folder / "finds.csv", *lists, "--rate", 0.5, "--rate", 1, "--draws", 20]


def retrieval(folder: Path) -> list[object]:
    embeddings_of(0.6).write(folder / "queries.npz")
    return ["retrieval", folder / "queries.npz", "--k", 1, "--draws", 20]


def reid(folder: Path) -> list[object]:
    found = embeddings_of(0.6)
    cameras = np.array(["c1", "c2"])[np.arange(len(found)) % 2]
    for name, rows in (("query", slice(0, None, 3)), ("bounding_box_test", slice(1, None, 3))):
        part = found.vectors[rows], found.ids[rows]
        Embeddings(*part, labels=found.labels[rows], cameras=cameras[rows]).write(folder / f"{name}.npz")  # type: ignore[index]
    return ["reid", folder / "query.npz", folder / "bounding_box_test.npz", "--single-shot", 2, "--draws", 20]


def luna16(folder: Path) -> list[object]:
    files = {
        "marks.csv": "seriesuid,coordX,coordY,coordZ,probability\na,0,0,0,0.9\na,50,0,0,0.5\nb,90,0,0,0.4",
        "annotations.csv": "seriesuid,coordX,coordY,coordZ,diameter_mm\na,1,0,0,8\nb,0,0,0,8",
        "annotations_excluded.csv": "seriesuid,coordX,coordY,coordZ,diameter_mm\nb,91,0,0,-1",
        "seriesuids.csv": "a\nb\nc",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    options = ["--annotations", folder / "annotations.csv", "--excluded", folder / "annotations_excluded.csv"]
    return ["luna16", folder / "marks.csv", *options, "--scans", folder / "seriesuids.csv", "--draws", 20]


def luna16_candidates(folder: Path) -> list[object]:
    np.savez(folder / "candidates.npz", labels=[1, 0, 1, 0], probabilities=[0.9, 0.5, 0.4, 0.1], scans=list("aabb"))
    return ["luna16-candidates", folder / "candidates.npz", "--draws", 20]


def classification(folder: Path) -> list[object]:
    random = np.random.default_rng(0)
    labels = np.arange(60) % 6
    for name in ("predictions", "softmax-predictions"):
        logits = 2.0 * np.eye(6)[labels] + random.normal(size=(60, 6))
        np.savez(folder / f"{name}.npz", labels=labels, logits=logits, norms=random.gamma(4, 2, 60))
    return [
        "classification",
        folder / "predictions.npz",
        "--reference",
        folder / "softmax-predictions.npz",
        "--draws",
        20,
    ]


def degraded(folder: Path) -> list[object]:
    np.savez(folder / "degraded.npz", norms=[5.0, 4.0, 3.0, 2.0], strengths=[0, 1, 0, 1], images=["a", "a", "b", "b"])
    return ["quality", folder / "degraded.npz", "--measure", "degradation", "--draws", 0]


def quality(folder: Path) -> list[object]:
    options = ["--pairs", folder / "my-pairs.txt", "--reference", folder / "softmax.npz"]
    return ["quality", folder / "model.npz", *options, "--draws", 20]
