"""`angulus upgrade`: a map of an old model's vectors to a new one's, and the gallery that it makes."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.table import Table

from angulus.cli.output import Draws, JsonFile, Seed, refuse_unwritable, save_json, say, show_table
from angulus.core import checks

_SHOWN = ("AUC", "Recall@1", "TAR@FAR=1e-2", "TAR@FAR=1e-3")  # --json has all

if TYPE_CHECKING:
    from angulus.core.embeddings import Embeddings
    from angulus.models.map_quality import Quality


def upgrade(
    old: Annotated[Path, typer.Argument(help="The model folder that made the gallery.")],
    new: Annotated[Path, typer.Argument(help="The model folder that is to make the queries; it gets the map.")],
    pairs: Annotated[
        Optional[tuple[Path, Path]],  # noqa: UP045  # typer
        typer.Option("--pairs", metavar="OLD.npz NEW.npz", help="Vectors of the same images under both models."),
    ] = None,
    images: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--images", help="Images to embed with both, by person: what `angulus embed` takes."),
    ] = None,
    gallery: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--gallery", help="The gallery to map, as for `angulus search`; it stays as it is."),
    ] = None,
    out: Annotated[Optional[str], typer.Option("--out", help="The mapped gallery, a new one.")] = None,  # noqa: UP045
    kind: Annotated[str, typer.Option(help="orthogonal; or mlp, a hidden layer more.")] = "orthogonal",
    held_out: Annotated[float, typer.Option(help="Share of the people held out of the fit, to test the map on.")] = 0.3,
    draws: Draws = 1000,
    seed: Seed = 0,
    json: JsonFile = None,
) -> None:
    """Fit a map of stored vectors to a new model, test it on people it was not fitted on, and map a gallery by it."""
    from angulus.core.embeddings import Embeddings
    from angulus.models import artifact
    from angulus.models.map_quality import fit_and_test, map_path

    refuse_unwritable("--json", json)
    if (pairs is None) == (images is None):
        raise checks.InputError(
            "the map is fitted on vectors of the same images under both models: give either --pairs OLD.npz NEW.npz or "
            f"--images; got {'neither' if pairs is None else 'both'}"
        )
    if (gallery is None) != (out is None):
        raise checks.InputError("--gallery is mapped into --out: give both, or neither to keep the map alone")
    models = [artifact.load(folder) for folder in (old, new)]
    if models[0].fingerprint == models[1].fingerprint:
        raise checks.InputError(
            f"{old} and {new} are the same model, fingerprint {models[0].fingerprint}: their vectors are comparable as "
            "they are; give two models"
        )
    if gallery is not None and out is not None:
        from angulus.search import open_gallery
        from angulus.search.transfer import check_places

        check_places(open_gallery(gallery), open_gallery(out))
    vectors = _embedded((old, new), images) if images is not None else [Embeddings.read(path) for path in pairs or ()]
    for which, folder, model, read in zip(("OLD", "NEW"), (old, new), models, vectors, strict=True):
        artifact.check_made_by(model, read, f"{which}, {folder}")
    if gallery is not None:
        from angulus.search import open_gallery
        from angulus.search.upgrade import check_source

        check_source(open_gallery(gallery), vectors[0].model)
    mapping, quality = fit_and_test(*vectors, kind=kind, held_out=held_out, draws=draws, seed=seed)
    _show(quality)
    if gallery is not None and out is not None:
        from angulus.search.upgrade import check_target

        check_target(open_gallery(gallery), open_gallery(out), mapping)  # before it replaces the map in `new`
    path = map_path(new, mapping.old)
    mapping.write(path)
    say(f"The map is written to {path}")
    if gallery is not None and out is not None:
        from angulus.search import open_gallery
        from angulus.search.upgrade import upgrade as map_gallery

        target = open_gallery(out)
        count = map_gallery(open_gallery(gallery), target, mapping, on_rows=lambda done: say(f"{done:,} mapped"))
        say(
            f"{target.store.where}: {count:,} rows; the old threshold does not hold for them. Embed images of people "
            f"outside the gallery with both models: angulus calibrate NEW.npz --gallery OLD.npz --model {new}"
        )
    save_json(json, quality.as_json())


def _embedded(folders: tuple[Path, Path], images: Path) -> list[Embeddings]:
    """The vectors of a source under two models, in memory."""
    import numpy as np

    from angulus.core.embeddings import Embeddings
    from angulus.models import embed

    read = []
    with tempfile.TemporaryDirectory() as folder:
        for number, model in enumerate(folders):
            path = Path(folder) / f"{number}.npz"
            embed.run(model, images, path)
            mapped = Embeddings.read(path)
            read.append(replace(mapped, vectors=np.array(mapped.vectors), source=str(images)))
    return read


def _show(quality: Quality) -> None:
    table = Table(title="people held out of the fit, in %")
    shown = [name for name in quality.names if name in _SHOWN]
    for name in ("query on stored", *shown):
        table.add_column(name, justify="left" if name == "query on stored" else "right", no_wrap=True)
    for what, figures in quality.rows.items():
        table.add_row(what, *(_figure(figures[name]) for name in shown))
    show_table(table)
    for line in (*quality.notes, *quality.verdict):
        say(line)


def _figure(number: Any) -> str:
    text = f"{100 * number.value:.2f}"
    interval = number.interval
    return text if interval is None else f"{text} [{100 * interval.low:.2f}, {100 * interval.high:.2f}]"
