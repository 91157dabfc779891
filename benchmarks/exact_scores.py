"""Time and memory of exact scores at scale, next to the bare products of the same blocks and next to faiss.

    python benchmarks/exact_scores.py thresholds --probes 100000 --gallery 100000 [--fmr 1e-9] [--rounds 3] [--save]
    python benchmarks/exact_scores.py nearest --probes 10000 --gallery 1000000 [--rounds 3] [--save]

`thresholds`: the exact threshold of FMR = 1e-9 over all impostor pairs; every pair is scored, none is sampled away.
`nearest`: the best gallery row of each probe; the answers are compared with faiss.IndexFlatIP's by exact scores.
The floor is the products of the same blocks in the same precision, with rows converted beforehand and nothing done with
them. Memory is the peak during the engine's call over what was there before (Linux only). The embeddings are random:
identities of ten images with a mean cosine of 0.5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from angulus.evaluation import scoring
from angulus.evaluation.scoring import low_precision, tiles
from harness import Row, Step, options, peak_mib, ratio_text, run, show, spread, store, take_turns

SAME = 10  # images of an identity


def embeddings(rows: int, identities: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Unit rows [rows, size] in float32 and their identities; the identities' centres do not depend on the seed."""
    centres = torch.nn.functional.normalize(torch.randn(identities, size, generator=torch.Generator().manual_seed(0)))
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(identities, (rows,), generator=random)
    vectors = torch.empty(rows, size)
    for start in range(0, rows, 2**14):
        part = vectors[start : start + 2**14]
        torch.randn(part.shape, generator=random, out=part).div_(size**0.5)
        part += centres[ids[start : start + 2**14]]
        part /= torch.linalg.vector_norm(part, dim=1, keepdim=True)
    return vectors, ids


def bare_products(probes: Tensor, gallery: Tensor, dtype: torch.dtype) -> Callable[[], object]:
    """The products of the engine's tiles and no more."""
    work = tiles.task(probes, gallery, None, scoring.ScoringOptions(memory_mib=2**20))
    plan = tiles.Plan.of(work, dtype, ())
    near = [work.probes.low(rows[0], rows[-1] + 1, dtype)[0] for rows in plan.groups[0]]
    far = [work.gallery.low(block[0], block[-1] + 1, dtype)[0] for block in plan.blocks]
    buffer = torch.empty(max(map(len, near)) * max(map(len, far)), dtype=dtype)

    def run() -> None:
        for columns in far:
            for rows in near:
                low_precision.product(rows, columns, buffer)

    return run


def faiss_search(probes: Tensor, gallery: Tensor) -> Callable[[], Any]:
    """The same by faiss's exact inner-product index, which copies the gallery."""
    import faiss

    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery.numpy())
    return lambda: index.search(probes.numpy(), 1)


def same_answers(best: tuple[Tensor, Tensor], peer: Any, probes: Tensor, gallery: Tensor) -> dict[str, object]:
    """How the engine's best scores compare with the exact scores of the rows that faiss returned."""
    rows = torch.from_numpy(peer[1][:, 0]).clone()
    peer_scores = scoring.pair_scores(probes, gallery, torch.arange(len(probes)), rows)
    behind = best[0][:, 0] - peer_scores
    return {
        "same_rows": int((rows == best[1][:, 0]).sum()),
        "peer_scores_higher": int((behind < 0).sum()),  # must be 0
        "peer_behind_at_most": float(behind.max()),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", probes=10_000, gallery=100_000, size=512, rounds=3, memory_mib=1024)
    parser.add_argument("what", choices=["thresholds", "nearest"])
    parser.add_argument("--fmr", type=float, default=1e-9)
    parser.add_argument("--precision", default="bfloat16", choices=list(low_precision.PRECISIONS))
    asked = parser.parse_args(arguments)
    identities = max(1, asked.gallery // SAME)
    probes, probe_ids = embeddings(asked.probes, identities, asked.size, 1)
    gallery, gallery_ids = embeddings(asked.gallery, identities, asked.size, 2)
    choices = scoring.ScoringOptions(precision=asked.precision, memory_mib=asked.memory_mib)
    answers: dict[str, Any] = {}
    peaks: list[float | None] = []

    def engine() -> None:
        if asked.what == "nearest":
            mib, answers["engine"] = peak_mib(lambda: scoring.top_k(probes, gallery, 1, options=choices))
        else:
            every: dict[str, Any] = {"ids": (probe_ids, gallery_ids), "zero_ok": True, "options": choices}
            mib, answers["engine"] = peak_mib(lambda: scoring.thresholds_at(probes, gallery, [asked.fmr], **every))
        peaks.append(mib)

    steps: dict[str, Step] = {"products": bare_products(probes, gallery, low_precision.PRECISIONS[asked.precision])}
    steps["engine"] = engine
    if asked.what == "nearest":
        peer = faiss_search(probes, gallery)
        steps["faiss"] = lambda: answers.update(faiss=peer())
    timings = {timing.what: timing for timing in take_turns(steps, asked.rounds, warm_up=False)}
    facts: Row = {"extra_mib": max(mib for mib in peaks if mib is not None) if None not in peaks else None}
    if asked.what == "nearest":
        facts |= same_answers(answers["engine"], answers["faiss"], probes, gallery)
        pairs = zip(timings["faiss"].clocks, timings["engine"].clocks, strict=True)
        facts["times_faster_than_faiss"] = spread([peer.seconds / own.seconds for peer, own in pairs])["ratio"]
    else:
        (point,) = answers["engine"]
        facts |= {"threshold": point.threshold, "accepted": point.accepted, "passes": point.passes}
    shape = {name: value for name, value in vars(asked).items() if name not in ("what", "save")}
    rows: list[Row] = [
        {"what": f"{asked.what}: {name}", "median_s": timing.seconds} | timing.slower()
        for name, timing in timings.items()
    ]
    rows[1] |= facts
    show(
        f"{asked.what}, {asked.rounds} rounds",
        [{"what": row["what"], "median s": f"{row['median_s']:.3f}", "ratio": ratio_text(row)} for row in rows],
    )
    print(facts)
    if asked.save:
        store("exact_scores", [shape | row for row in rows])


if __name__ == "__main__":
    run(main)
