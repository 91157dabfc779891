"""Stream tiles of probe x gallery scores in a low precision, each with a proven bound on its error."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from angulus.core import checks
from angulus.distributed.runtime import Ranks
from angulus.evaluation.scoring import exact, low_precision
from angulus.evaluation.scoring.exact import Matrix, RowReader
from angulus.evaluation.scoring.mates import Identities, Ids, Mates

TILE = {"cpu": (1024, 4096), "cuda": (8192, 16384)}  # probes x gallery: the output fits in the last cache
CACHED = 2**18  # scores searched at a time, so that they stay in a core's cache
SMALL = 2**22  # pairs below which a lower precision saves nothing
BATCH = 2**10  # pairs scored exactly at a time; a step of few costs as much as one of hundreds


@dataclass(frozen=True)
class ScoringOptions:
    """How scores are computed; no option changes a result.

    Attributes:
        precision: of the products that reject pairs: "float32", "bfloat16", or "auto": the faster one, by a trial.
        memory_mib: memory for the engine, apart from the embeddings and its results, in MiB, at least 64.
        device: "cpu", "cuda", ...; None: where the tensors are.
        ranks: the processes that share the work, from `Ranks.here()` under torchrun; all get the same arguments.
        on_block: called with (tiles done, tiles in all) of this process's share after each tile.
    """

    precision: str = "auto"
    memory_mib: int = 1024
    device: torch.device | str | None = None
    ranks: Ranks = field(default_factory=Ranks)
    on_block: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        checks.choice("precision", self.precision, ("auto", *low_precision.PRECISIONS))
        checks.integer("memory_mib", self.memory_mib, low=64)

    @property
    def bytes(self) -> int:
        """The budget in bytes."""
        return self.memory_mib * 2**20

    @property
    def strip(self) -> int:
        """Scores of a tile to search at a time; keys, masks and indices take up to 64 bytes each."""
        return min(self.bytes // 16 // 64, CACHED)


DEFAULT = ScoringOptions()


@dataclass(frozen=True)
class Task:
    """Two checked sides to score; `within`: one set against itself, each unordered pair once.

    Pairs of one identity are left out.
    """

    probes: RowReader
    gallery: RowReader
    identities: Identities | None
    within: bool
    options: ScoringOptions

    @property
    def pairs(self) -> int:
        """How many pairs there are."""
        rows = len(self.probes)
        total = rows * (rows - 1) // 2 if self.within else rows * len(self.gallery)
        return total - (self.identities.pairs(self.within) if self.identities else 0)

    def dtype(self) -> torch.dtype:
        """The precision of the products."""
        if self.options.precision != "auto":
            return low_precision.PRECISIONS[self.options.precision]
        if len(self.probes) * len(self.gallery) <= SMALL:
            return torch.float32
        return (
            torch.bfloat16 if low_precision.bfloat16_time(self.probes.device, self.probes.size) < 0.9 else torch.float32
        )

    def score(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Exact scores of chosen pairs."""
        return exact.score(self.probes, self.gallery, rows, columns)


def task(probes: Matrix, gallery: Matrix | None, ids: Ids | None, options: ScoringOptions) -> Task:
    """Check both sides; without a gallery, pairs are within the probes, and `ids` is one array."""
    first, second = exact.rows_of(probes, gallery, options.device)
    identities = None if ids is None else Identities.of(ids, len(first), None if gallery is None else len(second))
    return Task(first, second, identities, gallery is None, options)


@dataclass(frozen=True)
class ScoreTile:
    """Scores [b, n] in a low precision of probes `row`, row + 1, ... and gallery rows `column`, column + 1, ...

    Pairs left out are -inf. The next tile reuses the buffer. `slack` bounds the product's error.
    """

    scores: Tensor
    row: int
    column: int
    slack: float
    task: Task

    @cached_property
    def peaks(self) -> Tensor:
        """The key of each row's highest score."""
        return low_precision.peaks(self.scores)

    def strips(self, floor: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(rows, keys) of the rows that reach their floor (one key, or one per row), part by part."""
        rows = (self.peaks >= floor).nonzero().squeeze(1)
        for part in torch.split(rows, max(1, self.task.options.strip // self.scores.shape[1])):
            yield part, low_precision.keys(self.scores.index_select(0, part))

    def floors(self, bounds: Tensor) -> Tensor:
        """Keys below which no exact score reaches the bound."""
        return low_precision.floor_keys(bounds.to(self.scores.device) - self.slack, self.scores.dtype)

    def ceilings(self, bounds: Tensor) -> Tensor:
        """Keys above which every exact score exceeds the bound."""
        return low_precision.ceiling_keys(bounds.to(self.scores.device) + self.slack, self.scores.dtype)

    def least(self, key: Tensor) -> Tensor:
        """The lowest exact score that a key allows."""
        low = low_precision.values(key, self.scores.dtype)
        return low - self.slack - low_precision.rounding(low, self.scores.dtype)


@dataclass(frozen=True)
class Plan:
    """Which probes to hold together, and where to cut the gallery into blocks."""

    groups: list[list[range]]  # of this rank; each range is the probes of a tile
    blocks: list[range]
    within: bool

    @staticmethod
    def of(task: Task, dtype: torch.dtype, edges: Sequence[int]) -> "Plan":
        """Deal tiles out to the ranks in turn; hold as many as fit in half the budget; blocks also end at `edges`."""
        height, width = TILE[task.probes.device.type]
        total, ranks = len(task.probes), task.options.ranks
        height = max(1, min(height, math.ceil(total / ranks.count)))
        every = [range(start, min(start + height, total)) for start in range(0, total, height)]
        mine = every[ranks.rank :: ranks.count]
        held = max(1, task.options.bytes // 2 // (task.probes.size * dtype.itemsize * height))
        end = max(edges, default=len(task.gallery))
        cuts = sorted({*range(0, end, width), *edges, end})
        return Plan(
            [mine[start : start + held] for start in range(0, len(mine), held)],
            [range(first, last) for first, last in itertools.pairwise(cuts)],
            task.within,
        )

    def wanted(self, probes: range, block: range) -> bool:
        """Whether a tile has any pair: within one set, the block must extend beyond the first probe."""
        return not self.within or block[-1] > probes[0]

    def tiles(self) -> int:
        """The number of tiles."""
        return sum(self.wanted(probes, block) for group in self.groups for probes in group for block in self.blocks)


def tiles(task: Task, dtype: torch.dtype, edges: Sequence[int] = ()) -> Iterator[ScoreTile]:
    """This rank's tiles: all gallery blocks in ascending order for each group of probes that memory holds.

    Blocks also end at the gallery rows `edges`, and stop at the last of them.
    """
    plan = Plan.of(task, dtype, edges)
    done, total = 0, plan.tiles()
    if not total:
        return
    low_precision.check_products(task.probes.device, dtype, task.probes.size)
    size = max(len(probes) for group in plan.groups for probes in group) * max(map(len, plan.blocks))
    buffer = torch.empty(size, dtype=dtype, device=task.probes.device)
    for group in plan.groups:
        held = [task.probes.low(probes[0], probes[-1] + 1, dtype) for probes in group]
        for block in plan.blocks:
            here = [number for number, probes in enumerate(group) if plan.wanted(probes, block)]
            if not here:
                continue
            columns, far = task.gallery.low(block[0], block[-1] + 1, dtype)
            mates = task.identities.block(block[0], block[-1] + 1) if task.identities else None
            for number in here:
                rows, near = held[number]
                scores = low_precision.product(rows, columns, buffer)
                _mask(scores, group[number], block, mates, task.within)
                slack = low_precision.slack(near, far, task.probes.size, dtype)
                yield ScoreTile(scores, group[number][0], block[0], slack, task)
                done += 1
                if task.options.on_block is not None:
                    task.options.on_block(done, total)


def _mask(scores: Tensor, probes: range, block: range, mates: Mates | None, within: bool) -> None:
    """Set pairs of one identity, and repeated pairs within one set, to -inf."""
    if mates is not None:
        rows, columns = mates.pairs(probes[0], probes[-1] + 1)
        scores[rows.to(scores.device), columns.to(scores.device)] = -math.inf
    if within and block[0] <= probes[-1]:
        place = torch.arange(probes[0], probes[-1] + 1, device=scores.device)[:, None]
        scores.masked_fill_(torch.arange(block[0], block[-1] + 1, device=scores.device) <= place, -math.inf)


@dataclass
class Survivors:
    """Pairs that no product could reject, collected until there are enough to score exactly at once.

    Each has its probe and gallery row, its low-precision score, the bound on that, and the caller's mark.
    """

    task: Task
    waiting: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = field(default_factory=list)
    count: int = 0

    def add(self, tile: ScoreTile, rows: Tensor, columns: Tensor, marks: Tensor | None = None) -> None:
        """Add pairs of a tile, by their places in it."""
        if len(rows):
            low = tile.scores[rows, columns].double()
            bound = tile.slack + low_precision.rounding(low, tile.scores.dtype)
            pairs = rows + tile.row, columns + tile.column, low, bound, rows if marks is None else marks
            self.waiting.append(pairs)
            self.count += len(rows)

    @property
    def due(self) -> bool:
        """Whether there are enough to score."""
        return self.count >= BATCH

    def take(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Take out all pairs: probe rows, gallery rows, exact scores, marks.

        Raises:
            RuntimeError: the device's product broke the bound, so its rejections cannot be trusted.
        """
        device = self.task.probes.device
        nothing = torch.empty(0, dtype=torch.int64, device=device)
        parts = [(nothing, nothing, nothing.double(), nothing.double(), nothing), *self.waiting]
        self.waiting, self.count = [], 0
        rows, columns, low, bound, marks = (torch.cat(part) for part in zip(*parts, strict=True))
        scores = self.task.score(rows, columns)
        off = (low - scores).abs() - bound
        if len(off) and float(off.max()) > 0:
            raise RuntimeError(
                f"a product in low precision on {device} is off by {float(off.max()):.2e} more than IEEE allows, "
                "so its rejections are in doubt; use precision='float32' or another device"
            )
        return rows, columns, scores, marks
