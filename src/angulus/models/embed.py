"""Images through a trained model to an embeddings file: in batches, by one process or many, resumed after a stop."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks, files, formats
from angulus.core.embeddings import Embeddings
from angulus.data.records import Row
from angulus.data.sources import LeftOut
from angulus.distributed.runtime import Ranks
from angulus.models import artifact, inputs

ON_ERROR = ("stop", "skip")
LEFT_OUT = "left-out.jsonl"
NAMED = 5  # images that a sentence names; the others are in a file
HOPELESS = 1000  # images in a row, from the first, that cannot be embedded: the source is not for this model


def run(
    model: Path,
    source: Path,
    out: Path,
    *,
    batch: int = 256,
    flip: str | None = None,
    device: torch.device | None = None,
    ranks: Ranks | None = None,
    on_error: str = "stop",
    on_images: Callable[[int], None] | None = None,
    on_left_out: Callable[[list[LeftOut], Path], None] | None = None,
) -> int:
    """Embed the images of a source.

    The features of each batch are kept in the folder `OUT.parts`, under a name that says what they are of, until `out`
    is whole. A run that was stopped takes from there what is done, to the bit, and repeats what has changed. Rank r of
    n embeds every n-th batch, on a disk that all see, and rank 0 writes `out`.

    Args:
        model: its folder.
        source: records, or anything `angulus convert` reads. Images must be as large as the contract says already.
        out: .npz, .safetensors or .parquet; gets ids, features, norms, the model's name and, where any are known,
            labels ("" for an image without one) and scores (NaN).
        batch: images at a time, >= 1.
        flip: in place of the contract's rule for mirror images.
        device: where the model runs; None: the CPU.
        ranks: the processes that share the work, each of which calls this; None: this one alone.
        on_error: "stop": images that cannot be embedded are an error that names them, once all others are done; "skip":
            they are left out, and listed in `OUT.left-out.jsonl`.
        on_images: told how many are done.
        on_left_out: told, on rank 0, once `out` is written, what was left out, and in which file it is listed.

    Raises:
        checks.InputError: images that cannot be embedded, `out` in the source, or in use by another process; `out` is
            not written then. On several ranks, where one of them fails all do.

    Returns:
        How many: on rank 0, which comes back once `out` is written, of `out`; on others, of the source.
    """
    checks.integer("batch", batch, low=1)
    checks.choice("--on-error", on_error, ON_ERROR)
    formats.suffix_of(out)
    ranks = ranks or Ranks()
    refuse_within(source, out)
    folder = out.with_name(f"{out.name}.parts")
    trained = ranks.run_on_all(lambda: _loaded(model, flip, device))
    with contextlib.ExitStack() as stack:
        ranks.run_on_first(lambda: stack.enter_context(_held(folder)))
        ranks.run_on_first(lambda: _remove_others(folder, trained.name))
        work = _Work(trained, folder, ranks, _batches(source, batch))
        ended = False
        while not ended:  # all ranks meet after a batch each, so that none waits long for one that is lost
            before = work.seen
            ended = all(ranks.gather_from_all(work.step))
            if on_images is not None and work.seen > before:
                on_images(work.seen)
        ranks.agree(images=work.digest.hexdigest())
        unreadable = ranks.gather_objects(work.unreadable)
        if ranks.rank > 0:  # writing takes longer than others should wait
            return work.seen
        rows, features, left_out = _joined(work, unreadable)
        _settle(left_out, len(rows), source, out, folder, on_error)
        _embeddings(rows, features, trained.name).write(out)
        _remove_parts(folder)
    if left_out and on_left_out is not None:
        on_left_out(left_out, _list_of(out))
    return len(rows)


def refuse_within(source: Path, out: Path) -> None:
    """Refuse an output that would replace the source, or that the next reader of the source would meet in it."""
    if out.resolve() == source.resolve() or (source.is_dir() and out.resolve().is_relative_to(source.resolve())):
        raise checks.InputError(f"the output must not lie in the source, {source}, which the next run reads; got {out}")


def _loaded(model: Path, flip: str | None, device: torch.device | None) -> artifact.Model:
    trained = artifact.load(model)
    if flip is not None:
        trained = trained.with_flip(flip)
    return trained.to(device or torch.device("cpu"))


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the folder of an output's parts against a second run; it goes where nothing is left in it."""
    with files.lock(folder, "the folder", way="choose another output"):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # also where another run has put its own lock there since
                if all(path.name == ".lock" for path in folder.iterdir()):
                    (folder / ".lock").unlink()
                    folder.rmdir()


def _remove_others(folder: Path, model: str) -> None:
    """Remove parts of other models, and what killed processes left half-written."""
    _remove_parts(folder, but=f"{model}-")


def _remove_parts(folder: Path, but: str | None = None) -> None:
    for path in folder.iterdir():
        if path.name != ".lock" and (but is None or not path.name.startswith(but)):
            path.unlink()


@dataclass
class _Work:
    """The batches of a source, of which this rank embeds every n-th.

    Attributes:
        rows: of each batch of all ranks, without their images, and the name of its part.
        left_out: what the reader could not give.
        unreadable: of this rank's batches, by their number: the name of the part, and why which rows are not in it.
        digest: of all images, which must be the same on all ranks.
    """

    model: artifact.Model
    folder: Path
    ranks: Ranks
    batches: Iterator[tuple[list[Row], list[LeftOut]]]
    rows: list[tuple[list[Row], str]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    unreadable: dict[int, tuple[str, dict[int, str]]] = field(default_factory=dict)
    digest: hashlib.blake2b = field(default_factory=hashlib.blake2b)
    seen: int = 0
    embedded: int = 0  # images that this rank has a feature of

    def step(self) -> bool:
        """Embed this rank's one of the next n batches; returns whether there are no more."""
        for _ in range(self.ranks.count):
            rows, left_out = next(self.batches, ([], []))
            self.left_out += left_out
            if not rows:
                return True
            name = _name(self.model.name, rows)
            self.digest.update(name.encode())
            number = len(self.rows)
            if number % self.ranks.count == self.ranks.rank:
                self._embed(number, rows, name)
            self.rows.append(([dataclasses.replace(row, image=b"-") for row in rows], name))
            self.seen += len(rows)
        return False

    def _embed(self, number: int, rows: list[Row], name: str) -> None:
        """Make sure that the features of a batch are in their file."""
        if _read(self.folder / name, len(rows)) is not None:
            self.embedded += len(rows)
            return
        pixels, reasons = _decoded_batch(rows, self.model.config)
        readable = [row for place, row in enumerate(rows) if place not in reasons]
        if reasons:
            name = _name(self.model.name, readable)
            self.unreadable[number] = name, reasons
        self.embedded += len(readable)
        if not self.embedded and sum(len(each) for _, each in self.unreadable.values()) >= HOPELESS:
            raise checks.InputError(
                f"none of the first {HOPELESS:,} images can be embedded: {rows[0].id}: {next(iter(reasons.values()))}"
            )
        if readable and (not reasons or _read(self.folder / name, len(readable)) is None):
            features = self.model.embed(torch.stack(pixels)).cpu().numpy()
            write = partial(np.savez, features=features)
            files.write_atomically(self.folder / name, write, tidy=False)


def _batches(source: Path, size: int) -> Iterator[tuple[list[Row], list[LeftOut]]]:
    """Rows of a source, so many at a time, and what was left out on the way to them."""
    left_out: list[LeftOut] = []
    found = inputs.rows(source, left_out)
    while some := list(islice(found, size)):
        yield some, left_out.copy()
        left_out.clear()
    yield [], left_out


def _name(model: str, rows: list[Row]) -> str:
    """The file of a batch's features, by what they depend on: the model, and each image's id and bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        for each in (row.id.encode(errors="surrogatepass"), row.image):
            digest.update(len(each).to_bytes(8, "little"))
            digest.update(each)
    return f"{model}-{digest.hexdigest()}.npz"


def _read(path: Path, count: int) -> NDArray[np.float32] | None:
    """The features of so many images from a part; None where there is none that is whole (a zip has checksums)."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            features: NDArray[np.float32] = archive["features"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return features if features.ndim == 2 and len(features) == count else None


def _decoded_batch(rows: list[Row], config: artifact.Config) -> tuple[list[torch.Tensor], dict[int, str]]:
    """The images of a batch that the model takes, and by its place in the batch why another is none."""
    pixels: list[torch.Tensor] = []
    reasons: dict[int, str] = {}
    for place, row in enumerate(rows):
        try:
            pixels.append(inputs.decoded(row, config, "the image")[1])
        except checks.InputError as error:
            reasons[place] = str(error)
    return pixels, reasons


def _joined(
    work: _Work, unreadable: list[dict[int, tuple[str, dict[int, str]]]]
) -> tuple[list[Row], NDArray[np.float32], list[LeftOut]]:
    """All rows that have features, their features, and what has none."""
    of_batch = {number: found for each in unreadable for number, found in each.items()}
    rows: list[Row] = []
    parts: list[NDArray[np.float32]] = [np.empty((0, 0), np.float32)]
    left_out = work.left_out.copy()
    for number, (some, whole) in enumerate(work.rows):
        name, reasons = of_batch.get(number, (whole, {}))
        left_out += [LeftOut(some[place].id, reason) for place, reason in reasons.items()]
        readable = [row for place, row in enumerate(some) if place not in reasons]
        if not readable:
            continue
        features = _read(work.folder / name, len(readable))
        if features is None:
            raise checks.InputError(
                f"{work.folder / name} must be whole, on a disk that all processes share; run the same command again"
            )
        usable = np.asarray(np.isfinite(features).all(axis=1) & features.any(axis=1))
        for row, fine in zip(readable, usable.tolist(), strict=True):
            if fine:
                rows.append(row)
            else:
                left_out.append(LeftOut(row.id, "the model gives it a feature that is zero, NaN or infinite"))
        parts.append(features[usable])
    return rows, np.concatenate(parts[1:] or parts), left_out


def _settle(left_out: list[LeftOut], count: int, source: Path, out: Path, parts: Path, on_error: str) -> None:
    """List what cannot be embedded, and refuse to go on where that was not allowed, or nothing else is there."""
    listed = _list_of(out) if on_error == "skip" else parts / LEFT_OUT
    if left_out and (on_error == "skip" or len(left_out) > NAMED):
        lines = [json.dumps({"where": item.where, "reason": item.reason}, ensure_ascii=False) for item in left_out]
        files.write_text(listed, "".join(f"{line}\n" for line in lines))
    elif on_error == "skip":
        listed.unlink(missing_ok=True)
    if left_out and (on_error == "stop" or not count):
        raise checks.InputError(_refusal(left_out, source, listed))
    if not count:
        raise checks.InputError(f"{source} holds no image to embed")


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
    """Features with what is known of their images: "" and NaN where that is known of others only."""
    scores = np.array([np.nan if row.score is None else row.score for row in rows], dtype=np.float64)
    return Embeddings(
        features,
        formats.text_array([row.id for row in rows]),
        norms=np.linalg.norm(features.astype(np.float64), axis=1),
        labels=inputs.known_labels(rows),
        detector_scores=None if np.isnan(scores).all() else scores,
        models=np.full(len(rows), model),
    )
