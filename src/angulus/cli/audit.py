"""`angulus audit`: what is doubled, shared with a test set or likely wrong in a data set, and the set without it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

from angulus.cli.output import kept_on_a_stop, say
from angulus.core import checks

_SHOWN = 3  # of each list that are printed; the files have them all


def audit(
    data: Annotated[Path, typer.Argument(help="Records, or what `angulus convert` reads: a folder, a zip, a list ...")],
    against: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A set that the data must not overlap, such as the one to test on."),
    ] = None,
    embeddings: Annotated[Optional[Path], typer.Option(help="Of the data, as `angulus embed` writes them.")] = None,  # noqa: UP045
    against_embeddings: Annotated[Optional[Path], typer.Option(help="Of the other set, by the same model.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option(help="Folder for card.json, card.md and the lists.")] = None,  # noqa: UP045
    apply: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Write records of the data without what the lists name: a folder that is not there, or a URL."
        ),
    ] = None,
    lists: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--list", help="Apply this list; repeat for several. Else all that are certain."),
    ] = None,
    licence: Annotated[Optional[str], typer.Option(help="For the card, as the data's owner states it.")] = None,  # noqa: UP045
    provenance: Annotated[Optional[str], typer.Option(help="For the card: where the data come from.")] = None,  # noqa: UP045
    depth: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Folder, zip: which folder of the path names the identity, from 1; else all of them."),
    ] = None,
    near: Annotated[float, typer.Option(help="Least cosine of two images' signatures for near duplicates.")] = 0.92,
    near_embedding: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Least cosine of two images' embeddings for near duplicates; else they are not compared."),
    ] = None,
    same_identity: Annotated[float, typer.Option(help="Least cosine of the means of two identities.")] = 0.8,
    margin: Annotated[float, typer.Option(help="How much nearer another identity is where a label is wrong.")] = 0.1,
    outlier: Annotated[float, typer.Option(help="Usual deviations below its identity's median.")] = 5.0,
    same_numbers: Annotated[
        bool, typer.Option("--same-numbers", help="Identities that are numbers are the same in both sets.")
    ] = False,
) -> None:
    """Find duplicates, overlaps with other data sets and wrong labels; write a card and lists of what to remove."""
    from angulus.data.audit import AuditSet, AuditSettings, apply_removals, check_free
    from angulus.data.audit import audit as run
    from angulus.data.sources import SourceOptions, kind_of

    if against_embeddings is not None and against is None:
        raise checks.InputError("--against-embeddings goes with --against, the set that they are of; give that too")
    if lists and apply is None:
        raise checks.InputError(
            "--list goes with --apply, where the data without what is listed are written; give that"
        )
    if apply is not None:
        check_free(data, apply)  # before all images are read
    settings = AuditSettings(near, near_embedding, same_identity, margin, outlier, same_numbers)

    def given(path: Path, file: Path | None) -> AuditSet:
        deep = depth if path.exists() and kind_of(path) in ("folder", "zip") else None
        return AuditSet(path, file, options=SourceOptions(deep))

    stated = {name: text for name, text in (("licence", licence), ("provenance", provenance)) if text}
    ours = given(data, embeddings)
    theirs = None if against is None else given(against, against_embeddings)
    with Console(stderr=True).status("reading ...") as status:
        found = run(
            ours, theirs, settings=settings, stated=stated, on_image=lambda done: status.update(f"{done:,} images")
        )
    _show(found.card, {name: [(each.id, each.reason) for each in some] for name, some in found.lists.items()})
    if out is not None:
        found.write(out)
        say(f"{out}/ has the card and the lists")
    if apply is not None:
        with kept_on_a_stop():
            done = apply_removals(
                data, found.chosen(None if lists is None else tuple(lists)), apply, options=ours.options
            )
        by = ", ".join(f"{name} {count:,}" for name, count in done.removed.items())
        say(f"{apply}: {done.kept:,} images; {done.left_out:,} left out ({by}); left-out.jsonl names them")


def _show(card: dict[str, object], lists: dict[str, list[tuple[str, str]]]) -> None:
    from angulus.data.audit import LISTS

    for name in ("data", "against"):
        counts = card[name]
        if isinstance(counts, dict):
            say(
                f"{counts['source']}: {counts['images']:,} images of {counts['identities']:,} identities; "
                f"{counts['images_without_identity']:,} without one; {len(counts['left_out']):,} things left out"
            )
    for name, some in lists.items():
        say(f"{name}: {len(some):,} images" + (f" ({LISTS[name][1]})" if some else ""))
        for id, reason in some[:_SHOWN]:
            say(f"  {id}: {reason}")
        if len(some) > _SHOWN:
            say("  ...")
    for key in ("identities", "not_looked_for", "notes"):
        shown = card[key]
        if isinstance(shown, dict):
            for name, value in shown.items():
                say(f"{name}: {len(value):,}" if isinstance(value, list) else f"not looked for: {name}: {value}")
        elif isinstance(shown, list):
            for text in shown:
                say(str(text))
