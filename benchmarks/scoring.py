"""Time and memory of exact scores at scale, beside the bare products of the same blocks and beside faiss.

    python benchmarks/scoring.py thresholds --probes 100000 --gallery 100000 [--fmr 1e-9] [--repeats 3] [--save]
    python benchmarks/scoring.py nearest --probes 10000 --gallery 1000000 [--repeats 3] [--save]

`thresholds`: the exact threshold of FMR = 1e-9 over all impostor pairs; every pair is scored, none is sampled away.
`nearest`: the best gallery row of each probe; the answers are compared with faiss.IndexFlatIP's by exact scores.
The floor is the products of the same blocks in the same precision, with rows converted beforehand and nothing done with
them. Rounds are interleaved, so that the machine's drift falls on all alike; ratios are medians of each round's own.
Memory is the peak resident set during the engine's call over what was there before (Linux only). The embeddings are
random: identities of ten images with a mean cosine of 0.5.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from angulus.core.environment import of_timing
from angulus.evaluation import scoring
from angulus.evaluation.scoring import low_precision, tiles

RESULTS = Path(__file__).parent / "results" / "scoring.jsonl"
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


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result."""
    started = time.perf_counter()
    result = run()
    return time.perf_counter() - started, result


def with_memory(run: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds, MiB beyond what was there before, and result."""
    before = status_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    seconds, result = timed(run)
    return seconds, status_mib("VmHWM") - before, result


def status_mib(field: str) -> float:
    """A field of /proc/self/status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def same_answers(found: tuple[Tensor, Tensor], peer: Any, probes: Tensor, gallery: Tensor) -> dict[str, object]:
    """How the engine's best scores compare with the exact scores of the rows that faiss returned."""
    rows = torch.from_numpy(peer[1][:, 0]).clone()
    theirs = scoring.pair_scores(probes, gallery, torch.arange(len(probes)), rows)
    behind = found[0][:, 0] - theirs
    return {
        "same_rows": int((rows == found[1][:, 0]).sum()),
        "peer_scores_higher": int((behind < 0).sum()),  # must be 0
        "peer_behind_at_most": float(behind.max()),
    }


def main() -> None:
    """Run, print, and store where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["thresholds", "nearest"])
    for option, default in (
        ("probes", 10_000),
        ("gallery", 100_000),
        ("size", 512),
        ("repeats", 3),
        ("memory-mib", 1024),
    ):
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--fmr", type=float, default=1e-9)
    parser.add_argument("--precision", default="bfloat16", choices=list(low_precision.PRECISIONS))
    parser.add_argument("--save", action="store_true", help="append to benchmarks/results/scoring.jsonl")
    arguments = parser.parse_args()

    identities = max(1, arguments.gallery // SAME)
    probes, probe_ids = embeddings(arguments.probes, identities, arguments.size, 1)
    gallery, gallery_ids = embeddings(arguments.gallery, identities, arguments.size, 2)
    options = scoring.ScoringOptions(precision=arguments.precision, memory_mib=arguments.memory_mib)
    dtype = low_precision.PRECISIONS[arguments.precision]
    floor = bare_products(probes, gallery, dtype)
    peer: Callable[[], Any] | None = None
    if arguments.what == "nearest":
        peer = faiss_search(probes, gallery)
        engine: Callable[[], Any] = lambda: scoring.top_k(probes, gallery, 1, options=options)  # noqa: E731
    else:
        ids, fmrs = (probe_ids, gallery_ids), [arguments.fmr]
        engine = lambda: scoring.thresholds_at(probes, gallery, fmrs, ids=ids, zero_ok=True, options=options)  # noqa: E731

    seconds: dict[str, list[float]] = {"products": [], "engine": [], "faiss": []}
    memory, facts = [], {}
    for _ in range(arguments.repeats):
        seconds["products"].append(timed(floor)[0])
        spent, extra, found = with_memory(engine)
        seconds["engine"].append(spent)
        memory.append(extra)
        if peer is not None:
            spent, theirs = timed(peer)
            seconds["faiss"].append(spent)
            facts = same_answers(found, theirs, probes, gallery)
        else:
            (point,) = found
            facts = {"threshold": point.threshold, "accepted": point.accepted, "passes": point.passes}
        print({name: round(values[-1], 2) for name, values in seconds.items() if values}, facts, flush=True)

    rows = []
    for name, values in seconds.items():
        if values:
            ratios = [value / bare for value, bare in zip(values, seconds["products"], strict=True)]
            row = {
                "what": f"{arguments.what}: {name}",
                "median_s": round(statistics.median(values), 3),
                "ratio_to_products": round(statistics.median(ratios), 3),
                "ratio_low": round(min(ratios), 3),
                "ratio_high": round(max(ratios), 3),
            }
            if name == "engine":
                row |= {"extra_mib": round(max(memory), 1)} | facts
                if seconds["faiss"]:
                    faster = [one / other for one, other in zip(seconds["faiss"], values, strict=True)]
                    row["times_faster_than_faiss"] = round(statistics.median(faster), 2)
            rows.append(row)
            print(row, flush=True)
    if arguments.save:
        store(rows, arguments)


def store(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Append one line a row, with the shape, device, versions, date, command and commit."""
    RESULTS.parent.mkdir(exist_ok=True)
    shape = {name: value for name, value in vars(arguments).items() if name not in ("what", "save")}
    facts = of_timing(torch.device("cpu"))
    facts["command"] = ["python", "benchmarks/scoring.py", *sys.argv[1:]]
    with RESULTS.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(shape | row | {"environment": facts}) + "\n")


if __name__ == "__main__":
    main()
