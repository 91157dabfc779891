"""One of several processes that compare a sharded head with the dense one; `test_sharded.py` starts them.

    python ranks.py RANK COUNT RENDEZVOUS RESULTS

Rank 0 writes the worst difference of every comparison to RESULTS, as JSON.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import pickle
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[1]))

import angulus
from angulus import BackwardSGD, ClassSampling, DenseHead, InputError, ShardedHead, losses
from angulus.distributed.runtime import Ranks
from angulus.heads import deferred
from angulus.heads.clipping import clip_grad_norm_
from angulus.heads.saving import load_head, read_weight, save_head
from angulus.losses import Objective, Statistics
from angulus.losses.negatives import Curricular
from angulus.losses.running import whole_batch
from angulus.losses.subcenters import Nearest
from angulus.losses.weighting import HardMining
from losses import own
from losses.aliases import CASES

CLASSES, SIZE, INPUT = 7, 5, 6
ARCFACE = losses.arcface(8.0, 0.5)
SOFT_TRIPLE = losses.soft_triple(8.0, 0.1, k=3, gamma=0.3)
MEMORY = losses.normface() + losses.center_loss(0.1) + losses.cross_batch_memory(29, 0.1)
ROWS = {1: [11], 2: [4, 7], 3: [5, 1, 5]}
SETTINGS = {
    1: [("reference", [7]), ("chunked", [7])],
    2: [("reference", [4, 3]), ("chunked", [6, 1])],
    3: [("reference", [3, 2, 2]), ("chunked", [1, 5, 1])],
}
OTHERS = {
    "global hard mining": losses.normface().replace(weighting=HardMining(0.6, scope="global")) + losses.iam(0.2),
    "auto contraction from the first batch": losses.cm_softmax(gamma="auto"),
    "class weights divided by their sum": losses.weighted_softmax(8.0, [0.5, 3, 1, 0.2, 1, 2, 4], divide="weights"),
    "elastic margins by rank": losses.elasticface(s=8.0, sigma=0.2, plus=True) + losses.iam(0.1),
    "curricular of quality": losses.adaface(8.0, h=0.9, rate=0.5).replace(negatives=Curricular(0.4)),
    "quality of the batch": losses.adaface(8.0, h=0.9, statistics="batch"),
    "ring from the first batch": losses.softmax() + losses.ring_loss(0.1),
    "nested quality": losses.adaface(8.0, h=0.9, rate=0.5).replace(nested=[2, 3]),
    "nested hard mining": losses.normface(learn=True).replace(weighting=HardMining(0.6, scope="global"), nested=[3]),
    "nested norms": (losses.softmax(bias=True) + losses.ring_loss(0.1)).replace(nested=[2, 3]),
    **{f"own {role}": objective for role, objective in own.objectives().items()},
}


def main(rank: int, count: int, rendezvous: str, results: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    if count > 1:
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=count)
    found = {}
    objectives = {name: _global(case.objective_for(CLASSES)) for name, case in CASES.items()} | OTHERS
    for number, (name, objective) in enumerate(objectives.items()):
        impl, counts = SETTINGS[count][(number + count) % 2]  # on two ranks the one, on one and three the other
        found[f"{name}, {impl}, {counts}"] = compare(objective, impl, counts, rank, count)
    for check in CHECKS:
        found[check.__name__] = check(rank, count)
    everywhere = [found] if count == 1 else [None] * count
    if count > 1:
        dist.all_gather_object(everywhere, found)
    if rank == 0:
        worst = {name: max(each[name] for each in everywhere) for name in found}
        Path(results).write_text(json.dumps(worst))


def _global(objective: Objective) -> Objective:
    """The same, with hard mining among the rows of all ranks, as a dense head has it."""
    if isinstance(objective.weighting, HardMining):
        return objective.replace(weighting=replace(objective.weighting, scope="global"))
    return objective


def batch(count: int, seed: int = 0) -> tuple[Tensor, Tensor, list[slice]]:
    """Inputs and labels of all ranks, and which rows are whose."""
    generator = torch.Generator().manual_seed(seed)
    rows = ROWS[count]
    inputs = torch.randn(sum(rows), INPUT, generator=generator)
    labels = torch.randint(CLASSES, (sum(rows),), generator=generator)
    stops = torch.tensor([0, *rows]).cumsum(0).tolist()
    return inputs, labels, [slice(first, last) for first, last in itertools.pairwise(stops)]


def backbone() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(INPUT, SIZE)


def compare(objective: Objective, impl: str, counts: list[int], rank: int, count: int) -> float:
    """The worst difference between a sharded and a dense head over two steps: loss, gradients, statistics."""
    inputs, labels, owned = batch(count)
    own = owned[rank]
    one, many = backbone(), backbone()
    wrapped = DistributedDataParallel(many) if count > 1 else many
    dense = DenseHead(SIZE, CLASSES, objective, impl="reference", alone=True)
    sharded = ShardedHead(SIZE, CLASSES, objective, impl=impl, class_counts=counts)
    held = slice(sharded.classes.start, sharded.classes.stop)
    with torch.no_grad():
        torch.manual_seed(2)
        dense.weight.copy_(torch.randn_like(dense.weight))
        sharded.weight.copy_(dense.weight[held])
        if dense.bias is not None and sharded.bias is not None:
            dense.bias.copy_(torch.randn(CLASSES))
            sharded.bias.copy_(dense.bias[held])
    worst = 0.0
    for _ in range(2):
        for module in (one, wrapped, dense, sharded):
            module.zero_grad()
        expected, found = dense(one(inputs), labels), sharded(wrapped(inputs[own]), labels[own])
        expected.backward()
        found.backward()
        pairs = [(found, expected), (sharded.weight.grad, dense.weight.grad[held])]
        if dense.bias is not None and sharded.bias is not None:
            pairs.append((_or_zero(sharded.bias), _or_zero(dense.bias)[held]))
        pairs += [(_or_zero(a), _or_zero(b)) for a, b in zip(many.parameters(), one.parameters(), strict=True)]
        own_parameters = zip(sharded.objective.parameters(), dense.objective.parameters(), strict=True)
        pairs += [(_or_zero(a), _or_zero(b)) for a, b in own_parameters]
        here, there = sharded.statistics(many(inputs[own]), labels[own]), dense.statistics(one(inputs), labels)
        pairs += [(here[name], there[name]) for name in there]
        pairs += [(sharded.seen[name], dense.seen[name]) for name in there]
        pairs += list(zip(sharded.objective.state_dict().values(), dense.objective.state_dict().values(), strict=True))
        worst = max([worst, *(difference(a, b) for a, b in pairs)])
    return worst


def _or_zero(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, as a share of the largest entry where that exceeds 1."""
    if a.shape != b.shape:
        return float("inf")
    if a.numel() == 0:
        return 0.0
    largest = float((a.double() - b.double()).abs().max())
    return largest / max(1.0, float(b.double().abs().max())) if largest == largest else float("inf")


def heads(count: int, objective: Objective = ARCFACE) -> tuple[DenseHead, ShardedHead]:
    dense, sharded = DenseHead(SIZE, CLASSES, objective, alone=True), ShardedHead(SIZE, CLASSES, objective)
    with torch.no_grad():
        torch.manual_seed(3)
        dense.weight.copy_(torch.randn_like(dense.weight))
        sharded.weight.copy_(dense.weight[sharded.classes.start : sharded.classes.stop])
    return dense, sharded


def logits(rank: int, count: int) -> float:
    inputs, _, owned = batch(count)
    dense, sharded = heads(count, losses.cm_softmax(gamma="auto"))
    features = backbone()(inputs)
    return difference(sharded.logits(features[owned[rank]]), dense.logits(features)[owned[rank]])


def sum_and_none(rank: int, count: int) -> float:
    inputs, labels, owned = batch(count)
    dense, sharded = heads(count)
    features, own = backbone()(inputs).detach(), owned[rank]
    rows = sharded(features[own], labels[own], reduction="none")
    whole = sharded(features[own], labels[own], reduction="sum")
    each = dense(features, labels, reduction="none")
    worst = max(difference(rows, each[own]), difference(whole, each.sum()))
    held = slice(sharded.classes.start, sharded.classes.stop)
    (expected,) = torch.autograd.grad(each.sum(), dense.weight)
    for loss in (rows.sum(), whole):
        worst = max(worst, difference(torch.autograd.grad(loss, sharded.weight)[0], expected[held]))
    return worst


def copies(rank: int, count: int) -> float:
    """A copied head still sums the gradient of s over the ranks."""
    inputs, labels, owned = batch(count)
    dense, sharded = heads(count, losses.normface())
    features = backbone()(inputs).detach()
    dense(features, labels).backward()
    worst = 0.0
    for each in (sharded, copy.deepcopy(sharded), pickle.loads(pickle.dumps(sharded))):
        each(features[owned[rank]], labels[owned[rank]]).backward()
        worst = max(worst, difference(each.objective.radius.s.grad, dense.objective.radius.s.grad))
    return worst


def sampling_of_all_classes(rank: int, count: int) -> float:
    """With rate 1 a sampled head, with a bias, is the full one: values and sparse gradients."""
    return max(_sample_all(objective, rank, count) for objective in (losses.softmax(bias=True), SOFT_TRIPLE))


def _sample_all(objective: Objective, rank: int, count: int) -> float:
    inputs, labels, owned = batch(count)
    objective = objective.replace(bias=True)
    dense = heads(count, objective)[0]
    sharded = ShardedHead(SIZE, CLASSES, objective, sampling=ClassSampling(1.0))
    held = slice(sharded.classes.start, sharded.classes.stop)
    with torch.no_grad():
        dense.bias.copy_(torch.linspace(-1, 1, CLASSES))
        sharded.weight.copy_(dense.weight[held])
        sharded.bias.copy_(dense.bias[held])
    features = backbone()(inputs).detach()
    expected, found = dense(features, labels), sharded(features[owned[rank]], labels[owned[rank]])
    expected.backward()
    found.backward()
    pairs = [(found, expected), (sharded.weight.grad.to_dense(), dense.weight.grad[held])]
    pairs.append((sharded.bias.grad.to_dense(), dense.bias.grad[held]))
    return max(difference(a, b) for a, b in pairs)


def updates_within_backward(rank: int, count: int) -> float:
    """Against SGD on the dense head, three steps."""
    sums = losses.siglip(learn=False) + losses.proxy_anchor(4.0)
    return max(update_within_backward(objective, rank, count) for objective in (ARCFACE, SOFT_TRIPLE, sums))


def update_within_backward(objective: Objective, rank: int, count: int) -> float:
    inputs, labels, owned = batch(count)
    dense, _ = heads(count, objective)
    sharded = ShardedHead(SIZE, CLASSES, objective, impl="chunked")
    held = slice(sharded.classes.start, sharded.classes.stop)
    with torch.no_grad():
        sharded.weight.copy_(dense.weight[held])
    own = BackwardSGD(sharded, lr=0.1, momentum=0.9, weight_decay=0.01)
    other = torch.optim.SGD(dense.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    features = backbone()(inputs).detach()
    for _ in range(3):
        other.zero_grad()
        dense(features, labels).backward()
        other.step()
        sharded(features[owned[rank]], labels[owned[rank]]).backward()
        own.step()
    return difference(sharded.weight, dense.weight[held])


def second_derivatives(rank: int, count: int) -> float:
    """Of the plain kernel: the gradient of the squared length of the weights' gradient."""
    inputs, labels, owned = batch(count)
    dense, sharded = heads(count, ARCFACE + losses.iam(0.2))
    features, held = backbone()(inputs).detach(), slice(sharded.classes.start, sharded.classes.stop)
    found = []
    for head, rows in ((dense, slice(None)), (sharded, owned[rank])):
        (gradient,) = torch.autograd.grad(head(features[rows], labels[rows]), head.weight, create_graph=True)
        found.append(torch.autograd.grad(gradient.square().sum(), head.weight)[0])
    return difference(found[1], found[0][held])


def wrapped_heads_are_refused(rank: int, count: int) -> float:
    """A head whose weights DistributedDataParallel would overwrite, or leave to part."""
    if count == 1:
        return 0.0
    inputs, labels, owned = batch(count)
    inputs, labels = inputs[owned[rank]], labels[owned[rank]]

    class Model(nn.Module):
        def __init__(self, head: nn.Module) -> None:
            super().__init__()
            self.backbone, self.head = backbone(), head

        def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
            return self.head(self.backbone(inputs), labels)

    def sharded() -> ShardedHead:
        return ShardedHead(SIZE, 2 * count, ARCFACE)

    labels, said = labels % 2, "must not be within DistributedDataParallel"
    features = backbone()(inputs).detach()
    alone, within = DistributedDataParallel(sharded()), DistributedDataParallel(Model(sharded()))
    worst = max(refused(lambda: alone(features, labels), said), refused(lambda: within(inputs, labels), said))
    dense = DenseHead(SIZE, CLASSES, ARCFACE, impl="chunked")
    together = DistributedDataParallel(Model(dense))
    together(inputs, labels).backward()
    BackwardSGD(dense, lr=0.1)
    worst = max(worst, refused(lambda: together(inputs, labels), "cannot be averaged over processes"))
    left_out = Model(sharded())
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(left_out, ["head.weight"])
    DistributedDataParallel(left_out)(inputs, labels).backward()
    return worst


def dense_heads_on_several_ranks(rank: int, count: int) -> float:
    """By itself it is refused; synchronised, or within DDP, its copies stay one and see the rows of all ranks."""
    inputs, labels, owned = batch(count)
    own = owned[rank]
    objective = losses.cm_softmax(gamma="auto", lower=3, upper=9) + losses.center_loss(0.1) + losses.ring_loss(0.1)
    worst = 0.0
    if count > 1:
        torch.manual_seed(4)  # the same weights on every rank do not stay the same
        for plain in (objective, ARCFACE):
            head, said = DenseHead(SIZE, CLASSES, plain), f"torch.distributed runs {count} processes"
            worst = max(worst, refused(lambda head=head: head(inputs[own, :SIZE], labels[own]), said))
            with torch.no_grad():
                head(inputs[own, :SIZE], labels[own])
            head.eval()(inputs[own, :SIZE], labels[own])
        mined = DenseHead(SIZE, CLASSES, losses.hm_softmax(8.0).replace(weighting=HardMining(0.5, scope="global")))
        mined.synchronize()
        worst = max(worst, refused(lambda: mined(inputs[own, :SIZE], labels[own]), "ShardedHead, or scope='rank'"))
        of_batch = DenseHead(SIZE, CLASSES, losses.proxy_anchor()).synchronize()
        worst = max(worst, refused(lambda: of_batch(inputs[own, :SIZE], labels[own]), "reduces over the rows of all"))
        sampled = DenseHead(SIZE, CLASSES, ARCFACE, sampling=ClassSampling(0.5))
        worst = max(worst, refused(sampled.synchronize, "for class sampling"))
        bound, weight = objective.bind(SIZE, CLASSES), torch.randn(CLASSES, SIZE)
        worst = max(
            worst, refused(lambda: angulus.class_loss(inputs[own, :SIZE], weight, labels[own], bound), "would train")
        )
    if count == 3:
        worst = max(worst, wrapped_on_some_ranks(objective, rank))
    group = dist.group.WORLD if count > 1 else None
    joinings = [DenseHead.synchronize, lambda head: copy.deepcopy(head.synchronize(group))]
    for join in [*joinings, DistributedDataParallel] if count > 1 else joinings:
        worst = max(worst, together(join, objective, rank, count))
    return worst


def figures_before_the_loss_of_dense_heads(rank: int, count: int) -> float:
    """Synchronised heads see the rows of all ranks before the loss: each row's loss is that of the whole batch."""
    inputs, labels, owned = batch(count)
    features, own = backbone()(inputs).detach(), owned[rank]
    worst = 0.0
    for objective in (
        losses.adaface(8.0, h=0.9, rate=0.5).replace(negatives=Curricular(0.4)),
        losses.elasticface(s=8.0, sigma=0.2, plus=True),
        losses.adacos(),
        losses.normface() + losses.cross_batch_memory(29, 0.1),
    ):
        whole = heads(count, objective)[0]
        head = copy.deepcopy(whole)
        head.alone = False
        head.synchronize()
        for _ in range(2):
            expected = whole(features, labels, reduction="none")[own]
            worst = max(worst, difference(head(features[own], labels[own], reduction="none"), expected))
            pairs = zip(head.state_dict().values(), whole.state_dict().values(), strict=True)
            worst = max([worst, *(difference(a, b) for a, b in pairs)])
    return worst


def wrapped_on_some_ranks(objective: Objective, rank: int) -> float:
    """Of three ranks two train a head within DDP: it sees the rows of those alone."""
    inputs, labels, owned = batch(3)
    two = dist.new_group([0, 1])
    if rank == 2:
        return 0.0
    model = DistributedDataParallel(DenseHead(SIZE, CLASSES, objective), process_group=two)
    model(inputs[owned[rank], :SIZE], labels[owned[rank]]).backward()
    seen = inputs[: owned[1].stop, :SIZE]
    return difference(model.module.seen["norm"], seen.norm(dim=1).mean())


def buffers_that_ddp_sends(rank: int, count: int) -> float:
    """Of a wrapped head once, before its first step: its figures move by all rows. Of a batch norm at every step."""
    if count != 2:  # of three, one has a single row, too few for batch norm
        return 0.0
    inputs, labels, owned = batch(count)
    model = nn.ModuleDict({"norm": nn.BatchNorm1d(SIZE), "head": DenseHead(SIZE, CLASSES, MEMORY)})
    model.forward = lambda x, y: model["head"](model["norm"](x), y)  # type: ignore[method-assign]
    wrapped, sent = DistributedDataParallel(model), []
    send = wrapped._distributed_broadcast_coalesced

    def counted(buffers: list[Tensor], *rest: int) -> None:
        sent.append(sum(buffer.numel() for buffer in buffers))
        send(buffers, *rest)

    wrapped._distributed_broadcast_coalesced = counted
    model["head"].objective.cross_batch_memory.step += rank  # as if rank 0 alone had loaded a checkpoint
    for step in range(3):
        wrapped(inputs[owned[rank], :SIZE], labels[owned[rank]]).backward()
        model.eval() if step == 1 else model.train()
    every = [[]] * count
    dist.all_gather_object(every, [*model["head"].buffers()])
    norm, head = (sum(buffer.numel() for buffer in model[part].buffers()) for part in ("norm", "head"))
    pairs = (zip(every[0], other, strict=True) for other in every)
    same = all(torch.equal(one, other) for pair in pairs for one, other in pair)
    return float(sent != [norm + head, norm, norm] or not same or head < 29 * SIZE)


def together(join: Callable[[DenseHead], nn.Module], objective: Objective, rank: int, count: int) -> float:
    """The worst difference, over three steps, from one process that holds every row: weights, state and backbone."""
    inputs, labels, owned = batch(count)
    own = owned[rank]
    torch.manual_seed(100 + rank)
    joined = join(DenseHead(SIZE, CLASSES, objective))
    many = DistributedDataParallel(backbone()) if count > 1 else backbone()
    head = joined.module if isinstance(joined, DistributedDataParallel) else joined
    one, whole = backbone(), DenseHead(SIZE, CLASSES, objective, alone=True).eval()
    whole.load_state_dict(head.state_dict())
    steps = [torch.optim.SGD([*a.parameters(), *b.parameters()], lr=0.1) for a, b in ((many, joined), (one, whole))]
    worst = 0.0
    for _ in range(3):
        for optimizer in steps:
            optimizer.zero_grad()
        joined(many(inputs[own]), labels[own]).backward()
        features = one(inputs)
        norm = features.detach().norm(dim=1).mean()
        with whole_batch(norm), at_once():
            losses_by_rank = [whole(features[rows], labels[rows]) for rows in owned]
        whole.objective.observe(Statistics({"norm": norm}, len(inputs), features.detach(), labels))
        (sum(losses_by_rank) / count).backward()
        for optimizer in steps:
            optimizer.step()
        plain = many.module if count > 1 else many
        pairs = [*zip(head.state_dict().values(), whole.state_dict().values(), strict=True)]
        pairs += [*zip(plain.parameters(), one.parameters(), strict=True)]
        pairs.append((head.seen["norm"], norm))
        worst = max([worst, *(difference(a, b) for a, b in pairs)])
    return worst


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Checks are not read later, also where a CPU poses as a GPU: so a test may give a head the mean norm."""
    before, deferred.POSING = deferred.POSING, False
    yield
    deferred.POSING = before


def accumulation(rank: int, count: int) -> float:
    """Two micro-batches of every rank move what one batch of them all moves, and a rank that forgets is refused."""
    inputs, labels, owned = batch(count)
    features = backbone()(inputs).detach()
    objective = losses.cm_softmax(gamma="auto", lower=3, upper=9) + losses.center_loss(0.1)
    objective = objective + losses.cross_batch_memory(29)
    dense, sharded = heads(count, objective)
    own = torch.arange(len(inputs))[owned[rank]]
    with sharded.accumulate():
        sharded(features[own], labels[own])
    sharded(2 * features[own], labels[own])
    dense(torch.cat([features, 2 * features]), labels.repeat(2))
    pairs = list(zip(sharded.objective.buffers(), dense.objective.buffers(), strict=True))
    worst = max([difference(a, b) for a, b in pairs] + [difference(sharded.seen["norm"], dense.seen["norm"])])
    if count > 1:
        inside = heads(count, objective)[0]
        inside.alone = False
        wrapped = DistributedDataParallel(inside)
        with wrapped.no_sync():  # by which the loops of other libraries accumulate
            wrapped(features[own], labels[own])
            worst = max(worst, float(inside.objective.center_loss.centers.abs().max()))
        wrapped(2 * features[own], labels[own])
        pairs = zip(inside.objective.buffers(), dense.objective.buffers(), strict=True)
        worst = max([worst, *(difference(a, b) for a, b in pairs)])
        for head in (sharded, DenseHead(SIZE, CLASSES, objective).synchronize()):
            with head.accumulate() if rank == 0 else contextlib.nullcontext():
                said = "the same head.accumulate()"
                worst = max(worst, refused(lambda head=head: head(features[own], labels[own]), said))
    return worst


def clipping(rank: int, count: int) -> float:
    """The norm over all classes, and the gradients that it leaves, are those of a dense head."""
    inputs, labels, owned = batch(count)
    dense, sharded = heads(count)
    dense(backbone()(inputs).detach(), labels).backward()
    sharded(backbone()(inputs).detach()[owned[rank]], labels[owned[rank]]).backward()
    limit = 0.1
    norms = clip_grad_norm_(sharded.parameters(), limit, sharded), clip_grad_norm_(dense.parameters(), limit, dense)
    held = slice(sharded.classes.start, sharded.classes.stop)
    if float(norms[1]) < limit:
        return 1.0
    return max(difference(*norms), difference(sharded.weight.grad, dense.weight.grad[held]))


def spread_backbone(rank: int, count: int) -> float:
    """A backbone that `fully_shard` spreads gets the gradients of a whole one, and clipping sees all of them."""
    if count != 2:
        return 0.0
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    inputs, labels, owned = batch(count)
    dense, sharded = heads(count)
    one, many = backbone(), backbone()
    fully_shard(many, mesh=init_device_mesh("cpu", (count,)))
    dense(one(inputs), labels).backward()
    sharded(many(inputs[owned[rank]]), labels[owned[rank]]).backward()
    norms = [
        clip_grad_norm_([*net.parameters(), *head.parameters()], 0.1, head)
        for net, head in ((many, sharded), (one, dense))
    ]
    pairs = [(a.grad.full_tensor(), b.grad) for a, b in zip(many.parameters(), one.parameters(), strict=True)]
    return max(difference(a, b) for a, b in [tuple(norms), *pairs])


def states_of_other_ranks(rank: int, count: int) -> float:
    """A state that one rank saved for all is refused by the others, whose classes it lacks."""
    if count == 1:
        return 0.0
    head = ShardedHead(SIZE, 2 * count, ARCFACE)
    mine = head.state_dict()
    head.load_state_dict(mine)
    first = head.ranks.broadcast(lambda: mine)
    within = nn.ModuleDict({"head": head})
    if rank == 0:
        within.load_state_dict({f"head.{name}": value for name, value in first.items()})
        return 0.0
    said = f"classes 0 to 1, and this rank holds {2 * rank} to {2 * rank + 1}"
    call = lambda: within.load_state_dict({f"head.{name}": value for name, value in first.items()})  # noqa: E731
    return refused(call, said)


def overflow(rank: int, count: int) -> float:
    """An infinite float16 feature on one rank: NaN for the loss and every gradient on all, and nothing moves."""
    inputs, labels, owned = batch(count)
    features = backbone()(inputs).detach()[owned[rank]].half()
    features[:1] *= torch.inf if rank == count - 1 else 1.0
    for head in (
        heads(count, losses.cm_softmax(gamma="auto"))[1],
        DenseHead(SIZE, CLASSES, losses.cm_softmax(gamma="auto")),
    ):
        if isinstance(head, DenseHead):
            head.synchronize()
        before = [buffer.clone() for buffer in head.buffers()]
        loss = head(features.requires_grad_(), labels[owned[rank]])
        loss.backward()
        nan = [loss, features.grad, *(parameter.grad for parameter in head.parameters())]
        if not all(bool(each.isnan().all()) for each in nan):
            return 1.0
        if not all(torch.equal(a, b) for a, b in zip(head.buffers(), before, strict=True)):
            return 2.0
    said = "features must be finite" if rank == count - 1 else "refused its batch"
    sharded = heads(count)[1]
    return refused(lambda: sharded(features.detach().double(), labels[owned[rank]]), said)


def ignored_rows(rank: int, count: int) -> float:
    """All rows of the last rank ignored, and one of the first; the gradient of s is summed all the same."""
    inputs, labels, owned = batch(count)
    labels[0] = -100
    if count > 1:
        labels[owned[-1]] = -100
    dense, sharded = heads(count, losses.normface())
    one, many = backbone(), backbone()
    expected, found = dense(one(inputs), labels), sharded(many(inputs[owned[rank]]), labels[owned[rank]])
    expected.backward()
    found.backward()
    held = slice(sharded.classes.start, sharded.classes.stop)
    pairs = [(found, expected), (sharded.weight.grad, dense.weight.grad[held])]
    pairs.append((sharded.objective.radius.s.grad, dense.objective.radius.s.grad))
    return max(difference(a, b) for a, b in pairs)


def hard_mining_within_each_rank(rank: int, count: int) -> float:
    """scope="rank": the sum of the ranks' kept losses over the sum of the numbers kept."""
    inputs, labels, owned = batch(count)
    objective = losses.normface(8.0, learn=False).replace(weighting=HardMining(0.6))
    dense, sharded = heads(count, objective)
    features = backbone()(inputs).detach()
    parts = [dense(features[own], labels[own], reduction="none") for own in owned]
    numbers = [int((part > 0).sum()) for part in parts]
    expected = sum(part.sum() for part in parts) / sum(numbers)
    return difference(sharded(features[owned[rank]], labels[owned[rank]]), expected)


def float16_overflow_skips_everywhere(rank: int, count: int) -> float:
    """An infinite gradient on one rank's shard: no rank takes the step, and all halve the scale."""
    from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

    if count == 1:
        return 0.0
    _, sharded = heads(count)
    before = sharded.weight.detach().clone()
    optimizer = torch.optim.SGD(sharded.parameters(), lr=0.1)
    scaler = ShardedGradScaler(device="cpu", init_scale=8.0, process_group=dist.group.WORLD)
    inputs, labels, owned = batch(count)
    loss = sharded(backbone()(inputs[owned[rank]]).detach(), labels[owned[rank]])
    scaler.scale(loss).backward()
    if rank == 1:
        sharded.weight.grad[0, 0] = torch.inf
    scaler.step(optimizer)
    scaler.update()
    return 0.0 if bool((sharded.weight == before).all()) and scaler.get_scale() == 4.0 else 1.0


def refusals(rank: int, count: int) -> float:
    """A rule broken on one rank is refused on all, in a sentence, and the head can be used again."""
    inputs, labels, owned = batch(count)
    dense, sharded = heads(count)
    features = backbone()(inputs).detach()
    own = owned[rank]
    bad_rank = count - 1
    wrong = labels[own].clone()
    if rank == bad_rank:
        wrong[0] = CLASSES
    expected = "labels must be in [0, 7)" if rank == bad_rank else f"rank {bad_rank} refused its batch"
    worst = refused(lambda: sharded(features[own], wrong), expected)
    broken = features[own].clone()
    if rank == bad_rank:
        broken[0] = 1e200
    said = "the loss is not finite" if count > 1 or rank == bad_rank else ""
    raw = heads(count, losses.softmax())[1]
    with torch.no_grad():
        raw.weight *= 1e200
    worst = max(worst, refused(lambda: raw(broken, labels[own]), said))
    worst = max(worst, refused(lambda: sharded(features[own], torch.full_like(labels[own], -100)), "every label"))
    if count > 1:
        worst = max(worst, refused(lambda: ShardedHead(SIZE, CLASSES + rank, losses.softmax()), "the same num_classes"))
        worst = max(worst, refused(lambda: ShardedHead(SIZE + rank, CLASSES, losses.softmax()), "embedding_size"))
        worst = max(worst, refused(lambda: ShardedHead(SIZE, count - 1, losses.softmax()), "cannot share"))
        impl = "chunked" if rank == 0 else "fast"
        worst = max(worst, refused(lambda: ShardedHead(SIZE, CLASSES, losses.softmax(), impl=impl), "chunked|failed"))
        eps = losses.softmax() + losses.feature_incay(0.1, eps=1e-8 * (1 + rank))
        worst = max(worst, refused(lambda: ShardedHead(SIZE, CLASSES, eps), "the same objective"))
        word = "mean" if rank == 0 else "sum"
        worst = max(worst, refused(lambda: sharded(features[own], labels[own], word), "the same reduction"))
        word = "mean" if rank == 0 else "average"
        worst = max(
            worst, refused(lambda: sharded(features[own], labels[own], word), "refused its batch|reduction must")
        )
        zero = features[own].clone()
        zero[:1] *= rank != bad_rank
        incay = ShardedHead(SIZE, CLASSES, losses.softmax() + losses.feature_incay(0.1, eps=0.0))
        worst = max(worst, refused(lambda: incay(zero, labels[own]), "infinite at a zero feature|another rank"))
        wide = features[own] if rank == 0 else features[own][:, 1:]
        worst = max(worst, refused(lambda: sharded.logits(wide), "agree on embedding_size|failed"))
        mixed = features[own].clone().requires_grad_(rank == 0)
        worst = max(worst, refused(lambda: sharded(mixed, labels[own]), "features.requires_grad"))
    worst = max(
        worst, refused(lambda: ShardedHead(SIZE, CLASSES, losses.softmax(), class_counts=[1] * count), "sum to")
    )
    if count > 1:
        early = ShardedHead(SIZE, CLASSES, ARCFACE)
        early.ranks = Ranks()  # as if it had been made before init_process_group
        worst = max(worst, refused(lambda: early(features[own], labels[own]), "make it after"))
    return max(worst, difference(sharded(features[own], labels[own]), dense(features, labels)))


def refused(call: Callable[[], object], sentence: str) -> float:
    try:
        call()
    except InputError as error:
        return 0.0 if any(part in str(error) for part in sentence.split("|")) else 1.0
    return 2.0


def checkpoints(rank: int, count: int) -> float:
    """Saved on all ranks, loaded on two, on one and as one tensor, with the optimiser's momentum."""
    plain = losses.normface() + losses.ring_loss(0.1) + losses.center_loss(0.1) + losses.cross_batch_memory(29)
    return max(_save_and_load(each, rank, count) for each in (plain, plain.replace(subcenters=Nearest(2))))


def _save_and_load(objective: Objective, rank: int, count: int) -> float:
    folder = [tempfile.mkdtemp()]
    if count > 1:
        dist.broadcast_object_list(folder)
    path = Path(folder[0])
    inputs, labels, owned = batch(count)
    features = backbone()(inputs).detach()
    sharded = ShardedHead(SIZE, CLASSES, objective.replace(bias=True), class_counts=SETTINGS[count][1][1])
    optimizer = torch.optim.AdamW(sharded.parameters(), lr=0.1)
    for _ in range(2):
        sharded(features[owned[rank]], labels[owned[rank]]).backward()
        optimizer.step()
        save_head(sharded, path, optimizer)
    expected = sharded(features[owned[rank]], labels[owned[rank]]).detach()
    dense = DenseHead(SIZE, CLASSES, objective.replace(bias=True), alone=True)
    other = torch.optim.AdamW(dense.parameters(), lr=0.1)
    load_head(dense, path, other)
    held = slice(sharded.classes.start, sharded.classes.stop)
    pairs = [(dense(features, labels), expected), (read_weight(path)[held], sharded.weight)]
    for name in ("exp_avg", "exp_avg_sq"):
        pairs.append((other.state[dense.weight][name][held], optimizer.state[sharded.weight][name]))
    pairs.append((other.state[dense.objective.radius.s]["step"], optimizer.state[sharded.objective.radius.s]["step"]))
    worst = max(difference(a, b) for a, b in pairs)
    if count == 3:
        two = dist.new_group([0, 1])
        if rank < 2:
            fewer = ShardedHead(SIZE, CLASSES, objective.replace(bias=True), group=two)
            moments = torch.optim.AdamW(fewer.parameters(), lr=0.1)
            load_head(fewer, path, moments)
            rows = [slice(0, 6), slice(6, 11)][rank]
            worst = max(worst, difference(fewer.eval()(features[rows], labels[rows]), expected))
            save_head(fewer, path / "two", moments)
        dist.barrier()
        more = ShardedHead(SIZE, CLASSES, objective.replace(bias=True), class_counts=[2, 4, 1])
        again = torch.optim.AdamW(more.parameters(), lr=0.1)
        load_head(more, path / "two", again)
        worst = max(worst, difference(more(features[owned[rank]], labels[owned[rank]]), expected))
        span = slice(more.classes.start, more.classes.stop)
        worst = max(worst, difference(again.state[more.weight]["exp_avg"], other.state[dense.weight]["exp_avg"][span]))
        shutil.rmtree(path / "two") if rank == 0 else None
        blocked = Path(sys.executable) / "x" if rank == 1 else path / "three"
        worst = max(worst, refused(lambda: save_head(more, blocked), "cannot write|failed"))
        dist.barrier()
        shutil.rmtree(path / "three", ignore_errors=True)
        dist.barrier()
    files = {each.name for each in path.iterdir()}
    if count > 1:
        dist.barrier()
    return worst if len(files) == count + 2 else 1.0


def kahan(rank: int, count: int) -> float:
    """Shards keep what a whole head keeps of what bfloat16 drops, and go on from it on any number of ranks."""
    folder = [tempfile.mkdtemp()]
    if count > 1:
        dist.broadcast_object_list(folder)
    path = Path(folder[0])
    inputs, labels, owned = batch(count)
    features = backbone()(inputs).detach()
    rows = features[owned[rank]], labels[owned[rank]]

    def attached(head: nn.Module) -> BackwardSGD:
        return BackwardSGD(head.bfloat16(), 1e-3, 0.9, weight_decay=0.01, rounding="kahan")

    def steps(head: nn.Module, optimizer: BackwardSGD, rows: tuple[Tensor, Tensor]) -> None:
        for _ in range(5):
            head(*rows).backward()
            optimizer.step()

    def held(head: nn.Module, optimizer: BackwardSGD) -> Tensor:
        return head.weight.detach().double() + optimizer.state[head.weight]["compensation"].double()

    whole = DenseHead(SIZE, CLASSES, ARCFACE, impl="chunked", alone=True)
    sharded = ShardedHead(SIZE, CLASSES, ARCFACE, impl="chunked", class_counts=SETTINGS[count][1][1])
    span = slice(sharded.classes.start, sharded.classes.stop)
    its, own = attached(whole), attached(sharded)
    with torch.no_grad():
        torch.manual_seed(3)
        whole.weight.copy_(torch.randn_like(whole.weight))
        sharded.weight.copy_(whole.weight[span])
    steps(whole, its, (features, labels))
    steps(sharded, own, rows)
    pairs = [(held(sharded, own), held(whole, its)[span])]
    if float(own.state[sharded.weight]["compensation"].abs().max()) == 0:
        return 1.0
    save_head(sharded, path, own)
    fewer = DenseHead(SIZE, CLASSES, ARCFACE, impl="chunked", alone=True)
    again = attached(fewer)
    load_head(fewer, path, again)
    for name, value in own.state[sharded.weight].items():
        pairs.append((again.state[fewer.weight][name][span], value))
    other = ShardedHead(SIZE, CLASSES, ARCFACE, impl="chunked")  # an even split
    even = attached(other)
    load_head(other, path, even)
    evenly = slice(other.classes.start, other.classes.stop)
    for head, optimizer, part in (
        (whole, its, (features, labels)),
        (fewer, again, (features, labels)),
        (sharded, own, rows),
        (other, even, rows),
    ):
        steps(head, optimizer, part)
    expected = held(whole, its)
    pairs += [
        (held(fewer, again), expected),
        (held(sharded, own), expected[span]),
        (held(other, even), expected[evenly]),
    ]
    if count > 1:
        dist.barrier()
    if rank == 0:
        shutil.rmtree(path)
    return max(difference(a, b) for a, b in pairs)


def first_weights(rank: int, count: int) -> float:
    """They are the same on any number of ranks: those of a single process, which needs no group."""
    torch.manual_seed(5)
    many = ShardedHead(SIZE, 10_000, losses.softmax())
    torch.manual_seed(5)
    seed = int(torch.randint(2**62, ()))
    drawn = [torch.randn(4096, SIZE, generator=torch.Generator().manual_seed(seed + block)) for block in range(3)]
    expected = torch.cat(drawn)[:10_000] / SIZE**0.5
    return difference(many.weight, expected[many.classes.start : many.classes.stop])


def spread_weights(rank: int, count: int) -> float:
    """Spread class weights are those of a dense head, from rank 0's seed, also where the ranks have uneven shares."""
    torch.manual_seed(7)
    dense = DenseHead(SIZE, CLASSES, ARCFACE, init="spread", alone=True)
    torch.manual_seed(7 + rank)
    sharded = ShardedHead(SIZE, CLASSES, ARCFACE, init="spread", class_counts=SETTINGS[count][1][1])
    worst = difference(sharded.weight, dense.weight[sharded.classes.start : sharded.classes.stop])
    if count > 1:
        mixed = "spread" if rank else "normal"
        worst = max(worst, refused(lambda: ShardedHead(SIZE, CLASSES, ARCFACE, init=mixed), "the same init"))
    few = refused(lambda: ShardedHead(SIZE, 20_000, ARCFACE, init="spread"), "at most 10,000")
    return max(worst, few)


CHECKS = (
    logits,
    sum_and_none,
    copies,
    sampling_of_all_classes,
    updates_within_backward,
    second_derivatives,
    wrapped_heads_are_refused,
    dense_heads_on_several_ranks,
    figures_before_the_loss_of_dense_heads,
    buffers_that_ddp_sends,
    accumulation,
    clipping,
    spread_backbone,
    states_of_other_ranks,
    overflow,
    ignored_rows,
    hard_mining_within_each_rank,
    float16_overflow_skips_everywhere,
    refusals,
    checkpoints,
    kahan,
    first_weights,
    spread_weights,
)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
