"""`angulus search`: galleries of known people, and which of them an image shows."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from angulus.cli.output import Flip, JsonFile, refuse_unwritable, save_json, say, show_table
from angulus.core import checks

if TYPE_CHECKING:
    from angulus.core.embeddings import Embeddings
    from angulus.evaluation.protocols.calibration import Calibration
    from angulus.search import Answer, Duplicate, Gallery

search_app = typer.Typer(no_args_is_help=True, help="Find who, among many people, an image shows, or nobody.")

SHOWN = 20  # answers in the table
DUPLICATES = ("keep", "report", "refuse")

Where = Annotated[
    str,
    typer.Argument(
        metavar="GALLERY", help="A folder (LanceDB; NAME.faiss: faiss), or http://HOST:6333/COLLECTION (Qdrant)."
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(help="Of a new gallery's vectors: float32, or float16, half the disk.", show_default="float32"),
]
Embedded = Annotated[Path, typer.Argument(metavar="EMBEDDINGS", help=".npz, .safetensors or .parquet.")]


@search_app.command("add")
def add(
    gallery: Where,
    embeddings: Embedded,
    flip: Flip = None,
    expires: Annotated[
        str | None,
        typer.Option(help="A date, or a number of days, after which the rows match no more; else the file's column."),
    ] = None,
    duplicates: Annotated[
        str, typer.Option(help="Photos that are there under another id: keep; report, which compares all; or refuse.")
    ] = "keep",
    readmit: Annotated[bool, typer.Option("--readmit", help="Allow people again who were removed.")] = False,
    dtype: Dtype = None,
    batch: Annotated[int, typer.Option(help="Rows per commit; a crash loses no committed row.")] = 10_000,
) -> None:
    """Add embeddings, or replace those with the same ids; makes the gallery if there is none."""
    from angulus.core.embeddings import Embeddings

    checks.choice("--duplicates", duplicates, DUPLICATES)
    read, opened = Embeddings.read(embeddings), _open(gallery)
    if duplicates != "keep":
        _report_duplicates(opened.duplicates(read, flip=flip), refuse=duplicates == "refuse")
    options: dict[str, Any] = {"expires": expires, "readmit": readmit, "dtype": dtype, "batch": batch}
    opened.add(read, flip=flip, **options, on_rows=lambda count: say(f"{count:,} of {len(read):,} saved"))
    say(f"{opened.store.where}: {len(opened):,} in all")


@search_app.command("remove")
def remove(
    gallery: Where,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Ids, as in the embeddings.")] = None,
    person: Annotated[
        list[str] | None,
        typer.Option(help="A person with all photos, which add then refuses until --readmit; repeat for several."),
    ] = None,
) -> None:
    """Remove photos by id, or whole people, from the stored files as well."""
    opened = _open(gallery)
    if bool(ids) == bool(person):
        raise checks.InputError(f"give ids, or people with --person; got {'both' if ids else 'neither'}")
    count = opened.remove_people(person) if person else opened.remove(ids or [])
    say(f"{opened.store.where}: {count:,} removed, {len(opened):,} left")


@search_app.command("expire")
def expire(gallery: Where) -> None:
    """Remove the rows whose time has ended, from the stored files as well; no query finds them before that."""
    opened = _open(gallery)
    count = opened.expire()
    say(f"{opened.store.where}: {count:,} removed, {len(opened):,} left")


@search_app.command("export")
def export(
    gallery: Where,
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="PATH.npz, .safetensors, .parquet; or another gallery of any store.")
    ],
    dtype: Annotated[
        str | None, typer.Option(help="Of the copy's vectors: float32 or float16 [default: as they are].")
    ] = None,
) -> None:
    """Copy a gallery as it is now into an embeddings file, or into another gallery."""
    from angulus.search import export

    say(f"{out}: {export(_open(gallery), out, dtype=dtype):,} rows")


@search_app.command("threshold")
def threshold(
    gallery: Where,
    strangers: Annotated[Path, typer.Argument(metavar="STRANGERS", help="Embeddings of people who are not in it.")],
    fpir: Annotated[float, typer.Option(help="The largest share of strangers who may match somebody.")] = 0.01,
    flip: Flip = None,
    json: JsonFile = None,
) -> None:
    """Find the threshold at which few enough strangers match somebody in this gallery, by measuring it."""
    from angulus.core.embeddings import Embeddings

    refuse_unwritable("--json", json)
    found = _open(gallery).measure_strangers(Embeddings.read(strangers), fpir, flip=flip)
    say(
        f"threshold {found.threshold:.4f}: {_percent(found.fpir)} % of {found.strangers:,} strangers match somebody "
        f"among {found.rows:,} rows (FPIR; at most {_percent(found.fpir_high)} % with 95 % confidence)"
    )
    save_json(json, asdict(found))


@search_app.command("index")
def index(
    gallery: Where,
    kind: Annotated[
        str,
        typer.Option(
            help="ivf-pq (small), hnsw (fast), int8 (a byte per number) or binary (a bit); faiss has the last two."
        ),
    ] = "ivf-pq",
) -> None:
    """Build the index for approximate queries; LanceDB finds later rows without it until you build it again."""
    opened = _open(gallery)
    opened.index(kind)
    say(f"{opened.store.where}: {kind} over {len(opened):,} rows")


@search_app.command("info")
def info(gallery: Where) -> None:
    """Show what a gallery holds, and the fingerprint of its model, as `angulus info MODEL` does for a folder."""
    from angulus.search.info import describe

    opened = _open(gallery)
    for line in describe(opened).lines(opened.store.where):
        say(line)


@search_app.command("query")
def query(
    gallery: Where,
    embeddings: Embedded,
    top: Annotated[int, typer.Option(help="Matches at most.")] = 5,
    calibration: Annotated[
        Path | None,
        typer.Option(help="A calibration, or a model folder that holds one; scores below its threshold match nobody."),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="A threshold of your own.")] = None,
    approximate: Annotated[bool, typer.Option("--approximate", help="Use the index, and measure its recall.")] = False,
    effort: Annotated[
        int | None,
        typer.Option(help="Approximate: lists or neighbours to search, or rows to compare per match; 64 by default."),
    ] = None,
    by: Annotated[
        str,
        typer.Option(help="A match is a photo; a person, by the best photo; or a person by the mean photo: template."),
    ] = "photo",
    best: Annotated[
        int | None,
        typer.Option(help="By person or template: only that many photos of each, those with the largest norms."),
    ] = None,
    exclude_self: Annotated[
        bool, typer.Option("--exclude-self", help="Leave out the gallery's photo with the query's own id.")
    ] = False,
    flip: Flip = None,
    model: Annotated[
        Path | None,
        typer.Option(help="The model folder of the queries, if it is another than the gallery's, but compatible."),
    ] = None,
    json: JsonFile = None,
) -> None:
    """Identify the person in each image: the nearest in the gallery, or nobody if all are below the threshold."""
    from angulus.core.embeddings import Embeddings
    from angulus.search import EFFORT, threshold_of
    from angulus.search.vector_gallery import BY

    refuse_unwritable("--json", json)
    if effort is not None and not approximate:
        raise checks.InputError(
            f"--effort goes with --approximate; got {effort} without it; exact queries compare all rows"
        )
    if calibration is not None and threshold is not None:
        raise checks.InputError("give one of --calibration and --threshold; got both")
    read, opened = Embeddings.read(embeddings), _open(gallery)
    about = opened.about()
    calibrated = None if calibration is None else read_calibration(calibration, about.model)
    limit = threshold if calibrated is None else threshold_of(calibrated, about, opened.store.where, read.model)
    asked: dict[str, Any] = {"best": best, "compatible_with": _compatible_with(model, calibrated, read)}
    effort = (EFFORT if effort is None else effort) if approximate else None
    checks.choice("--by", by, BY)
    answers = opened.query(
        read, top=top, threshold=limit, flip=flip, effort=effort, by=by, exclude_self=exclude_self, **asked
    )
    _show(answers)
    nobody = sum(not answer.matches for answer in answers)
    if limit is None:
        say("no threshold: the nearest are shown, whoever they are; give --calibration or --threshold")
    else:
        say(f"{nobody:,} of {len(answers):,} queries match nobody in the gallery (threshold {limit:.4f})")
    warning = None
    if calibrated is not None:
        for line in explain_error_rates(calibrated, len(opened)):
            say(line)
        say(
            "with images of strangers, angulus search threshold measures this, and finds the threshold for this gallery"
        )
        warning = calibrated.warning or None
        if warning:
            checks.warn(warning)
    if effort is not None:
        recall = opened.recall(read, top=top, flip=flip, effort=effort, by=by, exclude_self=exclude_self, **asked)
        say(
            f"approximate: {100 * recall.value:.1f} % of the true {recall.top} nearest, over {recall.queries:,} queries"
        )
    save_json(json, {"threshold": limit, "warning": warning, "answers": [asdict(answer) for answer in answers]})


def _report_duplicates(found: list[Duplicate], *, refuse: bool) -> None:
    for one in found[:SHOWN]:
        here, there = (f" ({who})" if who else "" for who in (one.identity, one.other_identity))
        say(f"{one.id}{here} is the same photo as {one.other_id}{there}")
    if len(found) > SHOWN:
        say(f"and {len(found) - SHOWN:,} more")
    other = sum(one.identity != one.other_identity for one in found)
    if found and refuse:
        raise checks.InputError(
            f"{len(found):,} photos are there under another id, {other:,} of them under another person; nothing is "
            "added; leave them out, or give --duplicates report"
        )
    say(f"{len(found):,} photos are there under another id, {other:,} of them under another person")


def explain_error_rates(calibration: Calibration, count: int) -> list[str]:
    """What the error rates of one comparison mean for a search among many, as sentences."""
    from angulus.search import false_positives

    zero = calibration.fmr.value == 0
    share = false_positives(3 / calibration.impostors if zero else calibration.fmr.value, count)  # rule of three
    basis = f" (0 of {calibration.impostors:,}: it may be {3 / calibration.impostors:.2g})" if zero else ""
    return [
        f"FMR {calibration.fmr.value:.2g} per comparison{basis}: among {count:,} rows, up to {_percent(share)} % of "
        "unknown people are taken for somebody in the gallery",
        f"FNMR {calibration.fnmr.value:.2g} per comparison: the share of pairs of photos of one person below the "
        "threshold",
    ]


def _percent(share: float) -> str:
    """A share in percent with two digits, and with more where two would round it to all.

    >>> [_percent(share) for share in (0.0864, 0.95, 0.9976, 1.0)]
    ['8.6', '95', '99.8', '100']
    """
    return f"{100 * share:.{2 if share < 0.99 else 3}g}"


def _compatible_with(folder: Path | None, calibration: Calibration | None, queries: Embeddings) -> tuple[str, ...]:
    """The fingerprints that the queries' model is compatible with, by its folder or by the calibration of a pair."""
    from angulus.core.contract import split_model_name
    from angulus.models import artifact

    if folder is not None:
        loaded = artifact.load(folder)
        artifact.check_made_by(loaded, queries, f"--model {folder}")
        return loaded.config.compatible_with
    pair = None if calibration is None or calibration.model != queries.model else split_model_name(calibration.gallery)
    return () if pair is None else pair[:1]


def read_calibration(path: Path, stored: str | None = None) -> Calibration:
    """The calibration in a file or in a model's folder; of a folder, that for stored vectors of the model `stored`."""
    from angulus.evaluation.protocols.calibration import Calibration
    from angulus.models import artifact

    if path.exists() and not path.is_dir() and not path.is_file():  # a pipe or a device never ends
        raise checks.InputError(f"--calibration must be a file or a folder; {path} is neither")
    if stored is not None and path.is_dir() and (pair := artifact.pair_path(path, stored)).is_file():
        return Calibration.read(pair)
    if path.is_dir() and not (path / artifact.CALIBRATION).exists():
        raise checks.InputError(
            f"{path} must hold {artifact.CALIBRATION}; it does not; make it with angulus calibrate --model (and "
            "--gallery, if another model made the gallery), or give --threshold"
        )
    return Calibration.read(path / artifact.CALIBRATION if path.is_dir() else path)


def _open(where: str) -> Gallery:
    from angulus.search import open_gallery  # slow to import

    return open_gallery(where)


def _show(answers: list[Answer]) -> None:
    table = Table()
    for name in ("query", "match", "identity", "score"):
        table.add_column(name, justify="right" if name == "score" else "left")
    for answer in answers[:SHOWN]:
        if not answer.matches:
            table.add_row(Text(answer.id), "nobody", "", "")
        for place, match in enumerate(answer.matches):
            query = Text(answer.id if place == 0 else "")
            table.add_row(query, Text(match.id), Text(match.identity or ""), f"{match.score:.4f}")
    show_table(table)
    if len(answers) > SHOWN:
        say(f"and {len(answers) - SHOWN:,} more; --json saves them all")
