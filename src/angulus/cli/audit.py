"""`angulus audit`: duplicates, overlaps with a test set and likely wrong labels; and the data set without them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from angulus.cli.output import resumable, say
from angulus.cli.workers import Engine, RayAddress, Workers
from angulus.core import checks

if TYPE_CHECKING:
    from angulus.data.audit import Audit

_SHOWN = 3  # entries printed per list; the files have all


def audit(
    data: Annotated[Path, typer.Argument(help="Records, or what `angulus convert` reads: a folder, a zip, a list ...")],
    against: Annotated[
        Path | None, typer.Option(help="A set that the data must not overlap, such as the test set.")
    ] = None,
    embeddings: Annotated[Path | None, typer.Option(help="Of the data, as `angulus embed` writes them.")] = None,
    against_embeddings: Annotated[Path | None, typer.Option(help="Of the other set, by the same model.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for card.json, card.md and the lists.")] = None,
    apply: Annotated[
        str | None, typer.Option(help="Write records without the listed images to this new folder or URL.")
    ] = None,
    lists: Annotated[
        list[str] | None,
        typer.Option("--list", help="Apply this list; repeat for several. Default: all that are certain."),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="For the card, as the data's owner states it.")] = None,
    provenance: Annotated[str | None, typer.Option(help="For the card: where the data come from.")] = None,
    depth: Annotated[
        int | None, typer.Option(help="Folder, zip: which folder of the path names the identity, from 1. Default: all.")
    ] = None,
    near: Annotated[float, typer.Option(help="Least cosine of two images' signatures for near duplicates.")] = 0.92,
    near_embedding: Annotated[
        float | None,
        typer.Option(help="Least cosine of two images' embeddings for near duplicates. Default: not compared."),
    ] = None,
    same_identity: Annotated[float, typer.Option(help="Least cosine of the means of two identities.")] = 0.8,
    margin: Annotated[float, typer.Option(help="How much nearer another identity must be for a wrong label.")] = 0.1,
    outlier: Annotated[float, typer.Option(help="Typical deviations below its identity's median.")] = 5.0,
    same_numbers: Annotated[
        bool, typer.Option("--same-numbers", help="Equal numbers are the same identity in both sets.")
    ] = False,
    exact_below: Annotated[
        int,
        typer.Option(help="Images from which on an index looks for near duplicates; it misses some."),
    ] = 5_000_000,
    workers: Workers = None,
    engine: Engine = "local",
    ray_address: RayAddress = None,
) -> None:
    """Find duplicates, overlaps with other data sets and wrong labels; write a card and removal lists.

    What it knows of each image is in temporary files in TMPDIR, 0.35 KB per image. Memory: 0.25 KB per image while it
    reads records, most of it their names, and less than 0.1 KB per image otherwise.
    """
    from angulus.data.audit import AuditSet, AuditSettings, apply_removals, check_free
    from angulus.data.audit import audit as run
    from angulus.data.sources import SourceOptions, kind_of

    if against_embeddings is not None and against is None:
        raise checks.InputError("--against-embeddings needs --against, the set they are of; give that too")
    if lists and apply is None:
        raise checks.InputError("--list needs --apply, where to write the data without the listed images; give that")
    if apply is not None:
        check_free(data, apply)  # before all images are read
    settings = AuditSettings(near, near_embedding, same_identity, margin, outlier, same_numbers, exact_below)

    def make_set(path: Path, file: Path | None) -> AuditSet:
        has_folders = path.exists() and kind_of(path) in ("folder", "zip")
        return AuditSet(path, file, options=SourceOptions(depth if has_folders else None))

    stated = {name: text for name, text in (("licence", licence), ("provenance", provenance)) if text}
    own = make_set(data, embeddings)
    other = None if against is None else make_set(against, against_embeddings)
    with Console(stderr=True).status("reading ...") as status:
        result = run(
            own,
            other,
            settings=settings,
            stated=stated,
            workers=workers,
            engine=engine,
            ray_address=ray_address,
            on_image=lambda done: status.update(f"{done:,} images"),
        )
    _show(result)
    if out is not None:
        result.write(out)
        say(f"{out}/ has the card and the lists")
    if apply is not None:
        chosen = result.chosen(None if lists is None else tuple(lists))
        with resumable():
            done = apply_removals(data, chosen, apply, options=own.options)
        by_list = ", ".join(f"{name} {count:,}" for name, count in done.removed.items())
        say(f"{apply}: {done.rows:,} images; {done.left_out:,} left out ({by_list}); left-out.jsonl names them")


def _show(result: Audit) -> None:
    from angulus.data.audit import LISTS

    for name in ("data", "against"):
        counts = result.card[name]
        if counts is not None:
            say(
                f"{counts['source']}: {counts['images']:,} images of {counts['identities']:,} identities; "
                f"{counts['images_without_identity']:,} without one; {len(counts['left_out']):,} things left out"
            )
    for name, removals in result.lists.items():
        say(f"{name}: {len(removals):,} images" + (f" ({LISTS[name][1]})" if removals else ""))
        for removal in removals[:_SHOWN]:
            say(f"  {removal.id}: {removal.reason}")
        if len(removals) > _SHOWN:
            say("  ...")
    for name, rows in result.card["identities"].items():
        say(f"{name}: {len(rows):,}")
    for name, reason in result.card["not_looked_for"].items():
        say(f"not looked for: {name}: {reason}")
    for note in result.card["notes"]:
        say(note)
