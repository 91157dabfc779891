"""The stages of `benchmarks/gpu/run`: each prints one line of JSON per result. `stages.py STAGE "TRAIN ARGUMENTS"`."""

from __future__ import annotations

import copy
import importlib.util
import json
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import ARCFACE, DEVICE, GPU, MV_IAM, Row, kernels, milliseconds_of
from torch import Tensor
from tuning import tune

from angulus import BackwardSGD, ClassSampling, DenseHead, ShardedHead, SparseSGD, class_loss, losses
from angulus.core import environment
from angulus.core.checks import InputError
from angulus.kernels import fused

sys.path.append(str(Path(__file__).resolve().parents[1]))
from every_loss import FLOOR, floor_of, objectives

COMPOSED = {
    "ArcFace + CM radius": ARCFACE.replace(radius=losses.radius.Contraction(gamma="auto")),
    "MV over ArcFace + IAM": MV_IAM,
    "ArcFace + incay + IAM": ARCFACE + losses.feature_incay(0.01) + losses.iam(0.1),
}
ALONE = {"iam", "feature_incay", "ring_loss", "center_loss", "cross_batch_memory"}  # terms that are added to a loss
# operands' dtype, dtype of the products, whether TF32 is allowed
PRECISIONS = {
    "float32": (torch.float32, None, False),
    "TF32": (torch.float32, None, True),
    "bfloat16 products": (torch.float32, torch.bfloat16, False),
    "bfloat16": (torch.bfloat16, None, False),
    "float16": (torch.float16, None, False),
}


def facts() -> Iterator[Row]:
    """What machine this is, and what it has."""
    row: Row = {
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "device": str(DEVICE),
        "kernels": kernels(),
    }
    row["fused"] = fused.unavailable(DEVICE) or "runs"
    if not GPU:
        row["note"] = (
            "there is no CUDA device, so everything runs at small sizes, the Triton kernels in the interpreter"
        )
    row["triton"] = importlib.util.find_spec("triton") and __import__("triton").__version__
    row["peers"] = [name for name in ("pytorch_metric_learning", "cut_cross_entropy") if importlib.util.find_spec(name)]
    if GPU:
        about = torch.cuda.get_device_properties(0)
        row |= {
            "name": about.name,
            "capability": f"{about.major}.{about.minor}",
            "memory_gib": about.total_memory / 2**30,
        }
        query = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,power.limit", "--format=csv,noheader"]
        row["driver"] = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
        row["gpus"] = torch.cuda.device_count()
    yield row


def problem(batch: int, classes: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, class weights and labels in float64, from one seed; the same on every device."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(batch, size, generator=generator, dtype=torch.float64)
    weight = torch.randn(classes, size, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (batch,), generator=generator)
    return features.to(DEVICE), weight.to(DEVICE), labels.to(DEVICE)


def step(head: DenseHead, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and the gradients of features and class weights, of one training step."""
    features = features.clone().requires_grad_()
    loss = head(features, labels)
    return (loss.detach().double(), *(grad.double() for grad in torch.autograd.grad(loss, (features, head.weight))))


def make_head(
    objective: losses.Objective, weight: Tensor, *, kind: Callable[..., Any] = DenseHead, **options: Any
) -> DenseHead:
    """A head with those class weights, in their dtype."""
    torch.manual_seed(0)
    if objective.needs_counts:
        objective = objective.with_counts(range(1, len(weight) + 1))
    head: DenseHead = kind(weight.shape[1], weight.shape[0], objective, **options).to(DEVICE, weight.dtype)
    if head.weight.ndim == 3:  # other directions for the further sub-centres
        weight = torch.stack([weight.roll(k, 1) for k in range(head.weight.shape[1])], dim=1)
    head.weight.data.copy_(weight)
    return head


def errors(objective: losses.Objective, shape: tuple[int, int, int], impls: list[str]) -> Iterator[Row]:
    """How far each kernel and precision is from the reference in float64."""
    features, weight, labels = problem(*shape)
    try:
        exact = step(make_head(objective, weight, impl="reference"), features, labels)
    except Exception as error:
        yield {"impl": "reference", "shape": shape, "failed": f"{type(error).__name__}: {error}"[:500]}
        return
    for precision, (dtype, products, tf32) in PRECISIONS.items():
        if tf32 and not GPU:
            continue
        torch.backends.cuda.matmul.allow_tf32 = tf32
        for impl in impls:
            row: Row = {"impl": impl, "precision": precision, "shape": shape}
            try:
                head = make_head(objective, weight.to(dtype), impl=impl, products=products)
                found = step(head, features.to(dtype), labels)
            except Exception as error:  # whatever it is, the other rows are worth having
                yield row | {"failed": f"{type(error).__name__}: {error}"[:500]}
                continue
            names = ("loss", "features", "weight")
            yield row | {n: float((a - b).norm() / b.norm()) for n, a, b in zip(names, found, exact, strict=True)}
    torch.backends.cuda.matmul.allow_tf32 = False


def compile_() -> Iterator[Row]:
    """Two losses through each kernel at an ordinary size: does it compile, how long does that take, is it right?"""
    shape = (1024, 10_000, 512) if GPU else (8, 40, 16)
    features, weight, labels = problem(*shape)
    for impl in kernels():
        head = make_head(ARCFACE, weight.float(), impl=impl)
        began = time.perf_counter()
        try:
            step(head, features.float(), labels)
            yield {"impl": impl, "first_step_s": round(time.perf_counter() - began, 3)}
        except Exception as error:  # the other kernels are worth having
            yield {"impl": impl, "failed": f"{type(error).__name__}: {error}"[:500]}
    for name, objective in {"ArcFace": ARCFACE, "MV + IAM": MV_IAM}.items():
        for row in errors(objective, shape, kernels()):
            yield {"objective": name} | row


def exact() -> Iterator[Row]:
    """Every named loss with its paper's defaults, and compositions, at an odd shape."""
    named = {name: losses.ALIASES[name]() for name in losses.list_losses()}
    named |= {name: ARCFACE + named[name] for name in ALONE}
    named["subcenter_spread"] = named["subcenter_arcface"] + named["subcenter_spread"]
    shape = (33, 1001, 65) if GPU else (3, 17, 9)
    for name, objective in {**COMPOSED, **named}.items():
        one_row = objective.rows_per_class == 1  # the fused kernel takes no other
        for row in errors(objective, shape, kernels() if GPU and one_row else ["chunked"]):
            yield {"objective": name} | row


def modes() -> Iterator[Row]:
    """Loops of others: autocast, gradient scaling, compiled networks, streams, graphs, no synchronisation."""
    features, weight, labels = (each.float() if each.is_floating_point() else each for each in problem(64, 1000, 128))
    for impl in kernels() if GPU else ["chunked"]:
        for name, mode in MODES.items():
            if not GPU and name not in ("autocast", "compiled backbone"):
                continue
            if impl == "chunked" and name in ("no synchronisation", "CUDA graph"):
                continue  # it reads numbers from the GPU
            heads = QUIET if mode is quiet_steps else {"ArcFace": partial(make_head, ARCFACE)}
            for what, make in heads.items():
                row: Row = {"mode": name, "impl": impl, "head": what}
                torch.manual_seed(0)
                try:
                    head = make(weight, impl=impl)
                    yield row | {"result": mode(head, features, labels)}
                except Exception as error:
                    yield row | {"failed": f"{type(error).__name__}: {error}"[:500]}


def trained(head: DenseHead, features: Tensor, labels: Tensor, **how: Any) -> list[float]:
    """The losses of 20 steps of a linear backbone."""
    backbone = torch.nn.Linear(features.shape[1], features.shape[1], device=features.device)
    # on a CPU, what Inductor does after this with C++ shows nothing of the head
    compiler = "inductor" if GPU else "aot_eager"
    network = torch.compile(backbone, backend=compiler) if how.get("compiled") else backbone
    optimizer = torch.optim.SGD([*backbone.parameters(), *head.parameters()], lr=0.1)
    scaler = torch.amp.GradScaler(features.device.type, enabled=how.get("dtype") is torch.float16)
    found = []
    for _ in range(20):
        optimizer.zero_grad()
        with torch.autocast(features.device.type, how.get("dtype"), enabled="dtype" in how):
            loss = head(network(features), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        found.append(float(loss.detach()))
    return [round(found[0], 4), round(found[-1], 4)]


def on_stream(head: DenseHead, features: Tensor, labels: Tensor) -> float:
    """The largest difference of a gradient to the default stream's."""
    expected = step(copy.deepcopy(head), features, labels)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = step(head, features, labels)
    stream.synchronize()
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))


def in_graph(head: DenseHead, features: Tensor, labels: Tensor) -> str:
    """Capture a step of the loss in a CUDA graph, and replay it on other features."""
    head.eval()
    still = features.clone().requires_grad_()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            class_loss(still, head.weight, labels, ARCFACE, impl=head.kernel.impl).backward()
    torch.cuda.current_stream().wait_stream(side)
    still.grad = head.weight.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        class_loss(still, head.weight, labels, ARCFACE, impl=head.kernel.impl).backward()
    other = torch.randn_like(features)
    still.data.copy_(other)
    graph.replay()
    torch.cuda.synchronize()
    again = other.clone().requires_grad_()
    class_loss(again, head.weight.detach(), labels, ARCFACE, impl=head.kernel.impl).backward()
    assert still.grad is not None and again.grad is not None
    return f"captured; largest difference {float((still.grad - again.grad).abs().max()):.2e}"


# losses with figures, draws and mining, and other heads, which may not wait
QUIET = {
    "ArcFace + CM radius": partial(make_head, COMPOSED["ArcFace + CM radius"]),
    "AdaFace": partial(make_head, losses.adaface()),
    "CurricularFace": partial(make_head, losses.curricularface()),
    "AdaCos": partial(make_head, losses.adacos()),
    "ElasticFace+": partial(make_head, losses.elasticface(plus=True)),
    "hard mining": partial(make_head, losses.hm_softmax()),
    "center loss": partial(make_head, losses.normface() + losses.center_loss(0.01)),
    "memory": partial(make_head, losses.normface() + losses.cross_batch_memory()),
    "Proxy-Anchor": partial(make_head, losses.proxy_anchor()),
    "sampled classes": partial(make_head, ARCFACE, sampling=ClassSampling(0.5)),
    "ShardedHead": partial(make_head, COMPOSED["ArcFace + CM radius"], kind=ShardedHead),
}


def quiet_steps(head: DenseHead, features: Tensor, labels: Tensor) -> str:
    """Steps under which PyTorch raises where they wait. A bad batch is named later."""
    optimizer, late = SparseSGD(head.parameters(), lr=0.1), ""
    step(copy.deepcopy(head), features, labels)  # what is made once is made
    bad = labels.clone().index_fill_(0, labels.new_zeros(1), head.num_classes)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in (labels, bad, labels):
            optimizer.zero_grad()
            head(features.clone().requires_grad_(), batch).backward()
            optimizer.step()
    except InputError as error:  # the findings of the bad batch had arrived already
        late = str(error)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    try:
        head.check()
    except InputError as error:
        late = str(error)
    assert "labels must be in" in late, f"the bad batch was not named: {late!r}"
    assert bool(head.weight.isfinite().all()), "the bad batch reached the class weights"
    return f"no synchronisation; later: {late}"


def on_second_device(head: DenseHead, features: Tensor, labels: Tensor) -> list[float] | str:
    """The same on cuda:1."""
    if torch.cuda.device_count() < 2:
        return "there is one GPU"
    return trained(head.to("cuda:1"), features.to("cuda:1"), labels.to("cuda:1"))


MODES: dict[str, Callable[[DenseHead, Tensor, Tensor], object]] = {
    "plain": trained,
    "autocast": lambda *of: trained(*of, dtype=torch.bfloat16),
    "autocast float16 with GradScaler": lambda *of: trained(*of, dtype=torch.float16),
    "compiled backbone": lambda *of: trained(*of, compiled=True),
    "second stream": on_stream,
    "no synchronisation": quiet_steps,
    "CUDA graph": in_graph,
    "second device": on_second_device,
}


def speed() -> Iterator[Row]:
    """Forward and backward of the head next to its bare products and peers; interleaved, in bfloat16."""
    shapes = ((1024, 1_000_000), (4096, 1_000_000), (256, 100_000)) if GPU else ((8, 200),)
    for batch, classes in shapes:
        try:
            yield from timed(batch, classes, 512 if GPU else 16, rounds=7 if GPU else 1)
        except torch.OutOfMemoryError as error:
            yield {"shape": (batch, classes), "failed": str(error)[:200]}
        if GPU:
            torch.cuda.empty_cache()


def timed(batch: int, classes: int, size: int, rounds: int) -> Iterator[Row]:
    """Medians and memory of each contestant at one shape."""
    torch.manual_seed(0)
    features = torch.randn(batch, size, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(classes, size, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
    labels = torch.randint(classes, (batch,), device=DEVICE)
    contestants = contestants_on(features, weight, labels)
    milliseconds: dict[str, list[float]] = {}
    memory: dict[str, float | None] = {}
    for name, call in contestants.items():  # warm up, and measure the memory
        features.grad = weight.grad = None
        try:
            call()
            features.grad = weight.grad = None
            memory[name] = peak_mib(call, weight.nbytes * (2 if "float32 W" in name else 1))
            milliseconds[name] = []
        except Exception as error:
            yield {"what": name, "shape": (batch, classes, size), "failed": f"{type(error).__name__}: {error}"[:300]}
            if GPU:
                torch.cuda.empty_cache()
    for _ in range(rounds):
        for name, values in milliseconds.items():
            features.grad = weight.grad = None
            values.append(milliseconds_of(contestants[name]))
    floor = milliseconds.get("4 products")
    if floor is None:
        return  # its line says why
    for name, values in milliseconds.items():
        ratios = [mine / bare for mine, bare in zip(values, floor, strict=True)]
        yield {
            "what": name, "shape": (batch, classes, size), "rounds": rounds, "median_ms": statistics.median(values),
            "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios), "extra_mib": memory[name],
        }  # fmt: skip


def contestants_on(features: Tensor, weight: Tensor, labels: Tensor) -> dict[str, Callable[[], object]]:
    """What is timed, by name; the peers that are installed."""

    def products() -> None:
        with torch.no_grad():
            for part in torch.split(weight, max((1 << 28) // len(features), 1)):
                features @ part.T
                logits = features @ part.T
                _ = logits @ part, logits.T @ features

    wide = weight.detach().float().requires_grad_()  # its gradient has room for the products of 2 d rows

    def ours(objective: losses.Objective, impl: str, own: Tensor = weight) -> Callable[[], object]:
        def call() -> None:
            own.grad = None
            class_loss(features, own, labels, objective, impl=impl, products=torch.bfloat16).backward()

        return call

    def autograd() -> None:
        cosines = F.normalize(features) @ F.normalize(weight).T
        target = cosines.gather(1, labels[:, None]).float()
        margined = (target.clamp(-1 + 1e-6, 1 - 1e-6).acos() + 0.5).cos().to(cosines.dtype)
        F.cross_entropy(64 * cosines.scatter(1, labels[:, None], margined), labels).backward()

    found: dict[str, Callable[[], object]] = {"4 products": products}
    for impl in kernels():
        found |= {f"{impl} ArcFace": ours(ARCFACE, impl), f"{impl} MV + IAM": ours(MV_IAM, impl)}
        found[f"{impl} ArcFace, float32 W"] = ours(ARCFACE, impl, wide)
    found["autograd ArcFace, as insightface"] = autograd
    if importlib.util.find_spec("cut_cross_entropy") and GPU:
        from cut_cross_entropy import linear_cross_entropy

        found["cut-cross-entropy softmax"] = lambda: linear_cross_entropy(features, weight, labels).backward()
    if importlib.util.find_spec("pytorch_metric_learning"):
        from pytorch_metric_learning.losses import ArcFaceLoss

        peer = ArcFaceLoss(1, features.shape[1], margin=28.6479, scale=64)
        peer.num_classes, peer.W = len(weight), torch.nn.Parameter(weight.detach().T)
        found["pytorch-metric-learning ArcFace"] = lambda: peer(features, labels).backward()
    return found


def peak_mib(call: Callable[[], object], gradient: int) -> float | None:
    """The allocator's peak over what was there before, less the gradient of the class weights; None on a CPU."""
    if not GPU:
        return None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before - gradient) / 2**20


def costs() -> Iterator[Row]:
    """Forward and backward of the head of every loss next to ArcFace's on the same kernel, in turn, in bfloat16."""
    batch, classes, size, rounds = (1024, 100_000, 512, 7) if GPU else (4, 24, 8, 1)
    every = objectives(classes)
    torch.manual_seed(0)
    features = torch.randn(batch, size, device=DEVICE, requires_grad=True)
    labels = torch.randint(classes, (batch,), device=DEVICE)

    def call(objective: losses.Objective, times: int, impl: str) -> Callable[[], object]:
        head = DenseHead(size, classes * times, objective, impl=impl, products=torch.bfloat16).to(DEVICE)

        def once() -> None:
            head.zero_grad(set_to_none=True)
            features.grad = None
            head(features, labels).backward()

        return once

    for impl in kernels() if GPU else ["chunked"]:  # `exact` runs every loss in the interpreter
        for name, objective in every.items():
            to, times = floor_of(objective)
            row: Row = {"what": name, "to": to, "impl": impl, "shape": (batch, classes, size)}
            try:
                own, floor = call(objective, 1, impl), call(every[FLOOR], times, impl)
                own(), floor()  # compile, and let a kernel refuse
            except InputError as error:
                yield row | {"refused": str(error)[:200]}
                continue
            except Exception as error:
                yield row | {"failed": f"{type(error).__name__}: {error}"[:300]}
                continue
            pairs = [(milliseconds_of(own), milliseconds_of(floor)) for _ in range(rounds)]
            ratios = [mine / bare for mine, bare in pairs]
            yield row | {
                "rounds": rounds, "median_ms": statistics.median(mine for mine, _ in pairs),
                "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
            }  # fmt: skip


def huge() -> Iterator[Row]:
    """Ten million classes on one card, trained with momentum inside backward; then what a bfloat16 weight loses."""
    classes, size, batch = (10_000_000, 512, 1024) if GPU else (300, 16, 8)
    # what has to be shown first, then the loss curves on fewer classes, against float32
    weights = [(torch.float32, "nearest"), (torch.bfloat16, "stochastic"), (torch.bfloat16, "kahan")]
    settings = [(impl, classes, *weights[0], 4 if GPU else 2) for impl in kernels()]
    settings += [(kernels()[-1], classes, *weight, 4 if GPU else 2) for weight in weights[1:]]
    curves = [*weights, (torch.bfloat16, "nearest")]
    settings += [(kernels()[-1], classes // 50, *weight, 100 if GPU else 2) for weight in curves]
    for impl, many, dtype, rounding, steps in settings:
        row: Row = {"impl": impl, "classes": many, "size": size, "batch": batch}
        row |= {"dtype": str(dtype), "rounding": rounding}
        try:
            yield row | momentum_steps(impl, (many, size, batch), dtype, rounding, steps)
        except Exception as error:
            yield row | {"failed": f"{type(error).__name__}: {error}"[:500]}
        if GPU:
            torch.cuda.empty_cache()


def momentum_steps(impl: str, shape: tuple[int, int, int], dtype: torch.dtype, rounding: str, steps: int) -> Row:
    """Steps of `BackwardSGD`: a loss of every tenth and of the last, milliseconds, and the peak of the memory."""
    classes, size, batch = shape
    torch.manual_seed(0)
    if GPU:
        torch.cuda.reset_peak_memory_stats()
    head = DenseHead(size, 1, ARCFACE, impl=impl, products=torch.bfloat16).to(DEVICE, dtype)
    head.objective = ARCFACE.bind(size, classes)
    # the same first numbers in every dtype
    head.weight = torch.nn.Parameter(torch.randn(classes, size, device=DEVICE, dtype=torch.bfloat16).to(dtype))
    optimizer = BackwardSGD(head, lr=0.1, momentum=0.9, rounding=rounding)
    features = torch.randn(batch, size, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
    labels = torch.randint(classes, (batch,), device=DEVICE)
    found: list[float] = []

    def once() -> None:
        loss = head(features, labels)
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))

    once()
    milliseconds = [round(milliseconds_of(once), 1) for _ in range(steps - 1)]
    row: Row = {"ms": milliseconds[-3:], "losses": [round(value, 4) for value in (*found[::10], found[-1])]}
    return row | ({"peak_gib": torch.cuda.max_memory_allocated() / 2**30} if GPU else {})


# what the base install imports, besides torch
BASE = (
    *(
        "numpy",
        "scipy",
        "sklearn",
        "safetensors",
        "pyarrow",
        "fsspec",
        "matplotlib",
        "pydantic",
        "ruamel",
        "rich",
        "typer",
    ),
    *("filelock", "jinja2", "PIL", "plotly"),
)


def train(arguments: str) -> Iterator[Row]:
    """One training run through the command line; needs the packages of the base install."""
    missing = [name for name in BASE if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(f"the stage train needs {', '.join(missing)}: give wheels of them with --wheels")
    began = time.perf_counter()
    folder = f"gpu-run-{time.strftime('%Y%m%d-%H%M%S')}"
    command = [sys.executable, "-m", "angulus", "train", *shlex.split(arguments), "--out", folder]
    code = subprocess.run(command, stdout=sys.stderr, check=False).returncode
    yield {"command": command[2:], "code": code, "seconds": round(time.perf_counter() - began, 1)}


def main() -> None:
    """Run the stage that the first argument names."""
    stage, arguments = sys.argv[1], sys.argv[2]
    table: dict[str, Callable[[], Iterator[Row]]] = {
        "facts": facts, "compile": compile_, "exact": exact, "modes": modes, "speed": speed, "huge": huge,
        "tune": tune, "costs": costs,
        "train": lambda: train(arguments),
    }  # fmt: skip
    with environment.timing():
        for row in table[stage]():
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
