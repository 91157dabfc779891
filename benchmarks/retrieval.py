"""Time and memory of exact retrieval next to the bare products of the same blocks; and how peers' figures differ.

    python benchmarks/retrieval.py cost --queries 100000 --gallery 100000 [--likeness 0.5] [--rounds 1] [--save]
    python benchmarks/retrieval.py memory --queries 1000000 --gallery 100000 [--save]
    python benchmarks/retrieval.py pixels --images cifar10/test [--save]
    python benchmarks/retrieval.py file --images faces.npz --says "what made them" [--save]
    python benchmarks/retrieval.py peers [--save]

`cost`: the ranks of all matches and every figure of `angulus evaluate retrieval`, with ten gallery images per identity.
`--likeness` is the mean cosine of two images of one identity: at 0.5 nearly every match is ahead of all others, at 0.2
about ten non-matches are ahead, at 0 the vectors are noise. The floor is the float32 products of the same tiles, with
rows converted beforehand. Times are CPU seconds of this process. Memory is the peak over what was there before.
`memory`: the same without the bare products, which take a third of the time.
`pixels`: 2,000 real images, 200 of each class, by the 64 principal components of their pixels: a smoke test.
`file`: the embeddings of a file with labels. Both compare mAP with a sort of all scores.
`peers`: figures of pytorch-metric-learning and torchmetrics on the same vectors, without ties and with copies.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from angulus.core.embeddings import Embeddings
from angulus.evaluation.protocols import retrieval
from exact_scores import bare_products
from harness import Row, options, peak_mib, ratio_text, run, show, spread, store

SAME = 10  # gallery images of an identity


def embeddings(rows: int, identities: int, size: int, likeness: float, seed: int) -> Embeddings:
    """Rows in float32, of identities in turn, whose mean cosine within an identity is `likeness`."""
    centres = torch.nn.functional.normalize(torch.randn(identities, size, generator=torch.Generator().manual_seed(0)))
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % identities
    vectors = torch.empty(rows, size)
    for start in range(0, rows, 2**14):
        part = vectors[start : start + 2**14]
        torch.randn(part.shape, generator=random, out=part).mul_((1 - likeness) ** 0.5 / size**0.5)
        part += centres[labels[start : start + 2**14]] * likeness**0.5
    return Embeddings(
        vectors.numpy(), np.char.add(f"{seed}-", np.arange(rows).astype(str)), labels=labels.numpy().astype(str)
    )


def cpu_seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call on all threads, and what it returns."""
    started = time.process_time()
    result = call()
    return time.process_time() - started, result


def cost(asked: Any) -> None:
    identities = max(1, asked.gallery // SAME)
    queries, gallery = (
        embeddings(rows, identities, asked.size, asked.likeness, seed)
        for rows, seed in ((asked.queries, 1), (asked.gallery, 2))
    )
    bare = bare_products(torch.from_numpy(queries.vectors), torch.from_numpy(gallery.vectors), torch.float32)
    bare_s, whole_s, peaks = [], [], []
    only_memory = asked.what == "memory"

    def whole() -> Any:
        return peak_mib(lambda: retrieval.evaluate(queries, gallery, draws=0))

    for _ in range(asked.rounds):
        bare_s.append(math.nan if only_memory else cpu_seconds(bare)[0])
        seconds, (mib, result) = cpu_seconds(whole)
        whole_s.append(seconds)
        peaks.append(mib)
    row: Row = {name: value for name, value in vars(asked).items() if name not in ("save", "images", "says")}
    row |= {"threads": torch.get_num_threads(), "retrieval_cpu_s": min(whole_s)}
    if not only_memory:
        row |= {"products_cpu_s": min(bare_s)} | spread([w / b for w, b in zip(whole_s, bare_s, strict=True)])
    row |= {
        "extra_mib": peaks[0],
        "mAP": result["mAP"],
        "Recall@1": result["Recall@1"],
    }
    ratio = "" if only_memory else ratio_text(row)
    show("retrieval", [{"what": "retrieval", "cpu s": f"{min(whole_s):.1f}", "ratio": ratio}])
    print(row)
    if asked.save:
        store("retrieval", [row])


def pixels(asked: Any) -> None:
    """Images by their class's folder, 200 of each."""
    from PIL import Image

    paths = [path for folder in sorted(Path(asked.images).iterdir()) for path in sorted(folder.iterdir())[:200]]
    flat = np.stack([np.asarray(Image.open(path).convert("RGB"), dtype=np.float64).ravel() for path in paths])
    flat -= flat.mean(axis=0)
    axes = np.linalg.eigh(flat.T @ flat)[1][:, :-65:-1]
    labels = np.array([path.parent.name for path in paths])
    measure(asked, Embeddings(flat @ axes, np.array([f"{p.parent.name}/{p.name}" for p in paths]), labels=labels))


def measure(asked: Any, given: Embeddings) -> None:
    """The figures of embeddings that search each other, and mAP by a sort of each query's scores."""
    result = retrieval.evaluate(given, draws=1000)
    unit = given.unit(dtype=np.float64)
    labels = given.labels
    assert labels is not None
    precisions = []
    for query, scores in enumerate(unit @ unit.T):
        order = np.argsort(-np.delete(scores, query), kind="stable")
        match = np.delete(labels == labels[query], query)[order]
        if match.any():
            precisions.append(float((np.cumsum(match) / np.arange(1, len(match) + 1))[match].mean()))
    row: Row = {"what": asked.what, "says": asked.says, "images": len(given), "classes": len(np.unique(labels))}
    for number in result.numbers:
        interval = number.interval
        row[number.name] = [number.value] + ([] if interval is None else [interval.low, interval.high])
    row["mAP by a sort"] = float(np.mean(precisions))
    print(row)
    if asked.save:
        store("retrieval", [row])


def peers(asked: Any) -> None:
    """Figures of each package next to ours; the largest difference without ties must be rounding."""
    import torchmetrics.retrieval as torchmetrics
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    rows: list[Row] = []
    for ties in (False, True):
        random = np.random.default_rng(0)
        labels = random.integers(30, size=400)
        vectors = random.standard_normal((30, 16))[labels] + random.standard_normal((400, 16))
        if ties:
            vectors = np.round(random.standard_normal((30, 3))[labels] + 0.3 * random.standard_normal((400, 3)))
            vectors[~vectors.any(axis=1)] = 1
        given = Embeddings(vectors, np.arange(400).astype(str), labels=labels.astype(str))
        unit = torch.from_numpy(given.unit())
        low, ours, high = (
            retrieval.evaluate(given, draws=0, reported=retrieval.Figures(ks=(1, 5), at=5, ties=kind))
            for kind in ("pessimistic", "expected", "optimistic")
        )
        pml = AccuracyCalculator(
            include=("precision_at_1", "r_precision", "mean_average_precision_at_r"),
            k="max_bin_count",
            knn_func=CustomKNN(CosineSimilarity()),
        )
        found = pml.get_accuracy(unit, torch.from_numpy(labels))
        theirs = {
            ("pytorch-metric-learning", "Recall@1"): found["precision_at_1"],
            ("pytorch-metric-learning", "R-precision"): found["r_precision"],
            ("pytorch-metric-learning", "MAP@R"): found["mean_average_precision_at_r"],
        }
        scores = unit @ unit.T  # torchmetrics' RetrievalMAP counts no match whose score is not positive
        others = ~torch.eye(400, dtype=torch.bool)
        flat = (1 + scores[others]) / 2, torch.from_numpy(labels[:, None] == labels)[others]
        index = torch.arange(400)[:, None].expand(400, 400)[others]
        for name, metric in (
            ("mAP", torchmetrics.RetrievalMAP(empty_target_action="skip")),
            ("Recall@5", torchmetrics.RetrievalHitRate(empty_target_action="skip", top_k=5)),
            ("R-precision", torchmetrics.RetrievalRPrecision(empty_target_action="skip")),
        ):
            theirs["torchmetrics", name] = float(metric(*flat, indexes=index))
        rows += [
            {"what": "peers", "peer": peer, "figure": name, "ties": ties, "theirs": value}
            | {"ours": ours[name], "pessimistic": low[name], "optimistic": high[name]}
            for (peer, name), value in theirs.items()
        ]
    show(
        "peers",
        [
            {key: f"{value:.9f}" if isinstance(value, float) else str(value) for key, value in row.items()}
            for row in rows
        ],
    )
    if asked.save:
        store("retrieval", rows)


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", queries=10_000, gallery=10_000, size=512, rounds=1)
    ways = {
        "cost": cost,
        "memory": cost,
        "pixels": pixels,
        "file": lambda asked: measure(asked, Embeddings.read(asked.images)),
        "peers": peers,
    }
    parser.add_argument("what", choices=list(ways))
    parser.add_argument("--likeness", type=float, default=0.5)
    parser.add_argument("--images", default="")
    parser.add_argument("--says", default="")
    asked = parser.parse_args(arguments)
    ways[asked.what](asked)


if __name__ == "__main__":
    run(main)
