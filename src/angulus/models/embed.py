"""Embed the images of a source into an embeddings file: in batches, with one or many processes, resumable."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks, files, formats
from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.core.workers import Died, Workers, check_engine, start_workers
from angulus.data.records import Row
from angulus.data.sources import LeftOut
from angulus.distributed.runtime import Ranks
from angulus.models import artifact, batching, inputs
from angulus.models.parity import Parity, compare_features

ON_ERROR = ("stop", "skip")
LEFT_OUT = "left-out.jsonl"
NAMED = 5  # images that an error names; the others are in a file
HOPELESS = 1000  # images from the first on that cannot be embedded: the source is not for this model
COMPARED = 64  # images whose features are compared with float32's
_BLOCK = 2**14  # rows whose norms are computed at a time


class Embeds(Protocol):
    """What `run` needs of a model: `artifact.Model` has it, and `onnx_model.OnnxModel`."""

    precision: str

    @property
    def config(self) -> artifact.Config:
        """What images it takes."""

    @property
    def name(self) -> str:
        """Its fingerprint and flip rule."""

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features [B, d], float32, of images uint8 [B, channels, height, width]."""


def run(
    model: Path | Embeds,
    source: Path,
    out: Path,
    *,
    batch: int = 256,
    flip: str | None = None,
    dimensions: int | None = None,
    device: torch.device | None = None,
    precision: str = "float32",
    ranks: Ranks | None = None,
    engine: str = "local",
    ray_address: str | None = None,
    on_error: str = "stop",
    on_images: Callable[[int], None] | None = None,
    on_left_out: Callable[[list[LeftOut], Path], None] | None = None,
    on_parity: Callable[[Parity], None] | None = None,
) -> int:
    """Embed the images of a source; returns the number of embeddings in `out` on rank 0, of images seen elsewhere.

    Until `out` is complete, the features of each batch are kept in the folder `OUT.parts`, in a file named after the
    model and the images. A run that was stopped reuses those files, bit for bit, and embeds again what has changed.
    Rank r embeds every world_size-th batch, on a disk that all ranks share, and rank 0 writes `out`.

    Args:
        model: a model folder; or a model that is loaded, with its flip rule, device and precision.
        source: records, or anything `angulus convert` reads. Images must have the size that the contract states.
        out: .npz, .safetensors or .parquet; holds ids, features, norms, the model's name and, where any are known,
            labels ("" for an image without one) and scores (NaN for an image without one).
        batch: images that are read, decoded and saved at a time, >= 1. The next batch is decoded in threads meanwhile.
        flip: replaces the contract's rule for mirror images.
        dimensions: keep the first numbers of each feature only; see `Model.with_dimensions`.
        device: where the model runs; None: the CPU.
        precision: "float32"; "bfloat16" is faster where the processor has its instructions, and less exact.
        ranks: the processes that share the work, each of which calls this; None: only this one.
        engine: "local": this process and its threads; "ray": processes of a Ray cluster, each of which gets the model
            and works on the CPU with one core, for a model folder.
        ray_address: as `workers.start_workers` takes it.
        on_error: "stop": raise an error that names the images that cannot be embedded, after embedding all others;
            "skip": leave them out and list them in `OUT.left-out.jsonl`.
        on_images: called with the number of images done.
        on_left_out: called on rank 0, after `out` is written, with what was left out and the file that lists it.
        on_parity: called with how far the first features in bfloat16 are from those in float32.

    Raises:
        checks.InputError: images that cannot be embedded, `out` inside the source, or `out` in use by another process;
            `out` is then not written. If one rank fails, all do.
    """
    checks.integer("batch", batch, low=1)
    checks.choice("--on-error", on_error, ON_ERROR)
    check_engine(engine, ray_address)
    formats.suffix_of(out)
    ranks = ranks or Ranks()
    if engine == "ray" and (ranks.count > 1 or not isinstance(model, Path | artifact.Model)):
        raise InputError("the engine ray embeds with a model folder, and not under torchrun; leave out --engine ray")
    refuse_within(source, out)
    folder = out.with_name(f"{out.name}.parts")
    trained = ranks.run_on_all(
        lambda: _load(model, flip, dimensions, device, precision) if isinstance(model, Path) else model
    )
    with contextlib.ExitStack() as stack:
        ranks.run_on_first(lambda: stack.enter_context(_locked(folder)))
        ranks.run_on_first(lambda: _remove_parts(folder, keep=f"{trained.name}-"))
        work = _Work(trained, folder, ranks, on_parity=on_parity)
        if engine == "ray":
            work.cluster = start_workers(partial(_start, trained), engine, ray_address=ray_address)
            stack.callback(work.cluster.close)
        batches = batching.ahead(_batches(source, batch), work.start, lambda: work.ahead)
        work.batches = stack.enter_context(contextlib.closing(batches))
        ended = False
        while not ended:  # all ranks meet after one batch each, so that none waits long for a lost one
            before = work.seen
            ended = all(ranks.gather_from_all(work.step))
            if on_images is not None and work.seen > before:
                on_images(work.seen)
        ranks.agree(images=work.digest.hexdigest())
        unreadable = ranks.gather_objects(work.unreadable)
        if ranks.rank > 0:  # writing takes longer than the other ranks should wait
            return work.seen
        rows, features, left_out = _collect(work, unreadable)
        _report_left_out(left_out, len(rows), source, out, folder, on_error)
        _embeddings(rows, features, trained.name).write(out)
        del features  # Windows removes no file that is mapped
        _remove_parts(folder)
    if left_out and on_left_out is not None:
        on_left_out(left_out, _list_of(out))
    return len(rows)


def refuse_within(source: Path, out: Path) -> None:
    """Refuse an output that replaces the source, or that the next run would read as part of it."""
    if out.resolve() == source.resolve() or (source.is_dir() and out.resolve().is_relative_to(source.resolve())):
        raise InputError(f"the output must not lie in the source, {source}, which the next run reads; got {out}")


def _load(
    model: Path, flip: str | None, dimensions: int | None, device: torch.device | None, precision: str
) -> artifact.Model:
    trained = artifact.load(model)
    if flip is not None:
        trained = trained.with_flip(flip)
    if dimensions is not None:
        trained = trained.with_dimensions(dimensions)
    trained.precision = checks.choice("precision", precision, artifact.PRECISIONS)
    return trained.to(device or torch.device("cpu"))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder of an output's parts against a second run; at the end, remove it if it is empty."""
    with files.lock(folder, "the folder", way="choose another output"):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # another run may have put its own lock there since
                if all(path.name == ".lock" for path in folder.iterdir()):
                    (folder / ".lock").unlink()
                    folder.rmdir()


def _remove_parts(folder: Path, keep: str | None = None) -> None:
    """Remove all files of a folder, also half-written ones, except those whose names start with `keep`."""
    for path in folder.iterdir():
        if path.name != ".lock" and (keep is None or not path.name.startswith(keep)):
            path.unlink()


_Read = tuple[list[Row], list[LeftOut]]
_Image = torch.Tensor | NDArray[np.float32] | InputError  # pixels or, from a cluster, features; or why there are none
_Begun = tuple[str, Callable[[], list[_Image]] | None]


def _start(model: Embeds) -> Callable[[list[Row]], list[_Image]]:
    return partial(_embed_images, model)


def _embed_images(model: Embeds, rows: list[Row]) -> list[_Image]:
    """The features of encoded images, or why they have none."""
    results: list[_Image] = []
    for row in rows:
        try:
            results.append(inputs.pixels_of(row.image, model.config, "the image"))
        except InputError as error:
            results.append(error)
    pixels = [result for result in results if isinstance(result, torch.Tensor)]
    features = iter(model.embed(torch.stack(pixels)).cpu().numpy() if pixels else ())
    return [next(features) if isinstance(result, torch.Tensor) else result for result in results]


@dataclass
class _Work:
    """The batches of a source, of which this rank embeds every world_size-th.

    `rows` are each batch's rows without their images, on all ranks, and the name of its file. `unreadable` gives, by
    number of this rank's batches, the name of the file, and why which rows are not in it.
    """

    model: Embeds
    folder: Path
    ranks: Ranks
    on_parity: Callable[[Parity], None] | None = None
    cluster: Workers[Row, _Image] | None = None  # None: this process embeds
    batches: Iterator[tuple[_Read, _Begun]] = field(default_factory=lambda: iter(()))
    rows: list[tuple[list[Row], str]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)  # what the reader could not read
    unreadable: dict[int, tuple[str, dict[int, str]]] = field(default_factory=dict)
    digest: hashlib.blake2b = field(default_factory=hashlib.blake2b)  # of all images: the same on all ranks
    begun: int = 0  # batches
    seen: int = 0
    embedded: int = 0  # images that this rank has features of

    @property
    def ahead(self) -> int:
        """How many batches to read ahead."""
        return 1 if self.cluster is None else self.cluster.ahead

    def start(self, batch: _Read, pool: ThreadPoolExecutor) -> _Begun:
        """The name of a batch's file, and what waits for its images if this rank is to embed them."""
        rows, own = batch[0], self.begun % self.ranks.count == self.ranks.rank
        self.begun += 1
        name = self._file_of(rows)
        if not own or _read(self.folder / name, len(rows)) is not None:
            return name, None
        if self.cluster is not None:
            results = self.cluster.submit(rows)
            return name, lambda: [InputError(each.reason) if isinstance(each, Died) else each for each in results()]
        images = [pool.submit(inputs.pixels_of, row.image, self.model.config, "the image") for row in rows]
        return name, lambda: list(map(batching.result_or_reason, images))

    def step(self) -> bool:
        """Embed this rank's share of the next world_size batches; returns whether there are no more."""
        for _ in range(self.ranks.count):
            (rows, left_out), (name, results) = next(self.batches, (([], []), ("", None)))
            self.left_out += left_out
            if not rows:
                return True
            self.digest.update(name.encode())
            number = len(self.rows)
            if results is not None:
                self._embed(number, rows, name, results())
            elif number % self.ranks.count == self.ranks.rank:
                self.embedded += len(rows)
            self.rows.append(([dataclasses.replace(row, image=b"-") for row in rows], name))
            self.seen += len(rows)
        return False

    def _embed(self, number: int, rows: list[Row], name: str, results: list[_Image]) -> None:
        """Write the features of a batch to its file."""
        reasons = {place: str(result) for place, result in enumerate(results) if isinstance(result, InputError)}
        readable = [row for place, row in enumerate(rows) if place not in reasons]
        if reasons:
            name = self._file_of(readable)
            self.unreadable[number] = name, reasons
        self.embedded += len(readable)
        if not self.embedded and sum(len(reasons) for _, reasons in self.unreadable.values()) >= HOPELESS:
            fault = f"none of the first {HOPELESS:,} images can be embedded"
            raise InputError(f"{fault}: {rows[0].id}: {next(iter(reasons.values()))}")
        if readable and (not reasons or _read(self.folder / name, len(readable)) is None):
            found: list[Any] = [result for result in results if not isinstance(result, InputError)]
            features = np.stack(found) if self.cluster else self.model.embed(torch.stack(found)).cpu().numpy()
            files.write_atomically(self.folder / name, partial(np.savez, features=features), tidy=False)
            if self.model.precision != "float32" and self.on_parity is not None:
                compared = [inputs.pixels_of(row.image, self.model.config, row.id) for row in readable[:COMPARED]]
                self.on_parity(compare_precision(self.model, torch.stack(compared), features[:COMPARED]))
                self.on_parity = None

    def _file_of(self, rows: list[Row]) -> str:
        """The name of a batch's file, from what its features depend on: the model, and each image's id and bytes."""
        digest = hashlib.blake2b(self.model.precision.encode(), digest_size=16)
        for row in rows:
            for part in (row.id.encode(errors="surrogatepass"), row.image):
                digest.update(len(part).to_bytes(8, "little"))
                digest.update(part)
        return f"{self.model.name}-{digest.hexdigest()}.npz"


def compare_precision(model: Embeds, pixels: torch.Tensor, features: NDArray[np.float32]) -> Parity:
    """How far features [B, d] of the model's precision are from those in float32."""
    chosen = model.precision
    model.precision = "float32"
    try:
        exact = model.embed(pixels).cpu().numpy()
    finally:
        model.precision = chosen
    return compare_features(exact, features, np.linalg.norm(features, axis=1))


def _batches(source: Path, size: int) -> Iterator[_Read]:
    """Batches of a source's rows, each with what was left out since the batch before."""
    left_out: list[LeftOut] = []
    rows = inputs.rows(source, left_out)
    while batch := list(islice(rows, size)):
        yield batch, left_out.copy()
        left_out.clear()
    yield [], left_out


def _read(path: Path, count: int) -> NDArray[np.float32] | None:
    """The features of `count` images from a batch's file; None if it is absent or damaged (a zip has checksums)."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            features: NDArray[np.float32] = archive["features"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return features if features.ndim == 2 and len(features) == count else None


def _collect(
    work: _Work, unreadable: list[dict[int, tuple[str, dict[int, str]]]]
) -> tuple[list[Row], NDArray[np.float32], list[LeftOut]]:
    """All rows that have features, the features, and what has none.

    The features are a memory map of a file in the work's folder: together they may be larger than memory.
    """
    of_batch = {number: entry for entries in unreadable for number, entry in entries.items()}
    rows: list[Row] = []
    left_out = work.left_out.copy()
    path, size = work.folder / "features.bin", 0
    with path.open("wb") as file:  # written and then mapped: a full disk ends a write in an error, a map in a crash
        for number, (batch, whole) in enumerate(work.rows):
            name, reasons = of_batch.get(number, (whole, {}))
            left_out += [LeftOut(batch[place].id, reason) for place, reason in reasons.items()]
            readable = [row for place, row in enumerate(batch) if place not in reasons]
            if not readable:
                continue
            part = _read(work.folder / name, len(readable))
            if part is None:
                rule = f"{work.folder / name} must be whole, on a disk that all processes share"
                raise InputError(f"{rule}; run the same command again")
            usable = np.asarray(np.isfinite(part).all(axis=1) & part.any(axis=1))
            wrong = "the model gives it a feature that is zero, NaN or infinite"
            rows += [readable[place] for place in np.flatnonzero(usable)]
            left_out += [LeftOut(readable[place].id, wrong) for place in np.flatnonzero(~usable)]
            size = part.shape[1]
            file.write(part[usable].astype(np.float32, copy=False).tobytes())
    features = np.memmap(path, np.float32, "c", shape=(len(rows), size)) if rows else np.empty((0, size), np.float32)
    return rows, features, left_out


def _report_left_out(left_out: list[LeftOut], count: int, source: Path, out: Path, parts: Path, on_error: str) -> None:
    """List what cannot be embedded; refuse to go on if that is not allowed, or if nothing else is left."""
    listed = _list_of(out) if on_error == "skip" else parts / LEFT_OUT
    if left_out and (on_error == "skip" or len(left_out) > NAMED):
        lines = [json.dumps({"where": item.where, "reason": item.reason}, ensure_ascii=False) for item in left_out]
        files.write_text(listed, "".join(f"{line}\n" for line in lines))
    elif on_error == "skip":
        listed.unlink(missing_ok=True)
    if left_out and (on_error == "stop" or not count):
        raise InputError(_refusal(left_out, source, listed))
    if not count:
        raise InputError(f"{source} holds no image to embed")


def _refusal(left_out: list[LeftOut], source: Path, listed: Path) -> str:
    way = f"out of {source}, or leave out whatever cannot be embedded with --on-error skip"
    if len(left_out) == 1:
        return f"{left_out[0].where} cannot be embedded: {left_out[0].reason}; take it {way}"
    named = "; ".join(f"{item.where} ({item.reason})" for item in left_out[:NAMED])
    more = f"; and {len(left_out) - NAMED:,} more, all listed in {listed}" if len(left_out) > NAMED else ""
    return f"{len(left_out):,} images cannot be embedded: {named}{more}; take them {way}"


def _list_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.{LEFT_OUT}")


def _embeddings(rows: list[Row], features: NDArray[np.float32], model: str) -> Embeddings:
    """Features with what is known of their images; where only some have a label or score, the others get "" or NaN."""
    scores = np.array([np.nan if row.score is None else row.score for row in rows], dtype=np.float64)
    blocks = (features[start : start + _BLOCK].astype(np.float64) for start in range(0, len(rows), _BLOCK))
    return Embeddings(
        features,
        formats.text_array([row.id for row in rows]),
        norms=np.concatenate([np.linalg.norm(block, axis=1) for block in blocks]),
        labels=inputs.row_labels(rows),
        detector_scores=None if np.isnan(scores).all() else scores,
        models=np.full(len(rows), model),
    )
