"""`angulus capacity`: what a training, its data and a gallery take, by formulas."""

from __future__ import annotations

from typing import Annotated

import typer

from angulus.cli.output import JsonFile, refuse_unwritable, save_json, say, show_table

SUFFIXES = {"k": 1e3, "M": 1e6, "B": 1e9}


def _count(text: str) -> int:
    number, factor = (text[:-1], SUFFIXES[text[-1]]) if text[-1:] in SUFFIXES else (text, 1)
    try:
        value = float(number.replace("_", "").replace(",", "")) * factor
        if value == int(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise typer.BadParameter(f"{text!r} is no whole number; give one such as 1500000, 10M or 1B")


def capacity(
    classes: Annotated[int, typer.Option(parser=_count, metavar="<count>", help="Classes, such as 10M.")],
    images: Annotated[int, typer.Option(parser=_count, metavar="<count>", help="Images, such as 1B.")],
    dimensions: Annotated[int, typer.Option(help="Numbers of a feature.")] = 512,
    gpus: Annotated[int, typer.Option(help="GPUs, with a process each.")] = 8,
    batch_size: Annotated[
        int, typer.Option(help="Rows of each GPU in a step: training.batch_size divided by --gpus.")
    ] = 128,
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = 20,
    image_bytes: Annotated[float, typer.Option(help="Bytes of an encoded image, on average.")] = 5_000.0,
    update_in_backward: Annotated[
        bool,
        typer.Option("--update-in-backward", help="Class weights are updated within backward: no gradient is kept."),
    ] = False,
    images_per_s: Annotated[
        float | None, typer.Option(help="Images that one GPU trains per second with few classes.", show_default=False)
    ] = None,
    embed_images_per_s: Annotated[
        float | None, typer.Option(help="Images that one GPU embeds per second.", show_default=False)
    ] = None,
    core_images_per_s: Annotated[
        float | None,
        typer.Option(help="Images that one core reads, decodes and augments per second.", show_default=False),
    ] = None,
    teraflops: Annotated[
        float | None, typer.Option(help="10^12 operations per second of one GPU in products.", show_default=False)
    ] = None,
    network_gb_per_s: Annotated[
        float | None, typer.Option(help="10^9 bytes that one GPU sends per second.", show_default=False)
    ] = None,
    disk_mb_per_s: Annotated[
        float | None, typer.Option(help="10^6 bytes that all processes write per second.", show_default=False)
    ] = None,
    price_per_gpu_hour: Annotated[float | None, typer.Option(help="In any currency.", show_default=False)] = None,
    json: JsonFile = None,
) -> None:
    """Compute memory, bytes, hours and cost of a training and a gallery from their size and your rates."""
    from rich.table import Table

    from angulus.core.capacity import Plan
    from angulus.core.capacity import capacity as compute

    chosen = {name: value for name, value in locals().items() if name in Plan.__dataclass_fields__}
    refuse_unwritable("--json", json)
    lines = compute(Plan(**chosen))
    table = Table("what", "formula")
    table.add_column("", justify="right")
    for line in lines:
        table.add_row(line.what, line.formula, shown(line.value, line.unit))
    show_table(table)
    say("C classes, N images, d dimensions, R GPUs, b rows of each GPU per step, E epochs")
    computed = {line.what for line in lines}
    if "training" not in computed:
        rates = {"--images-per-s": images_per_s, "--teraflops": teraflops}
        rates |= {"--network-gb-per-s": network_gb_per_s} if gpus > 1 else {}
        missing = [name for name, rate in rates.items() if rate is None]
        say(f"for hours and cost of the training, give {' and '.join(missing)}")
    if "embedding all images" not in computed:
        say("for hours and cost of embedding, give --embed-images-per-s")
    save_json(json, {"plan": chosen, "figures": [line._asdict() for line in lines]})


def shown(value: float, unit: str) -> str:
    """A figure as the table has it, in powers of 1,000."""
    if unit == "bytes":
        power = next((each for each in (12, 9, 6, 3) if value >= 10**each), 0)
        return (
            f"{value / 10**power:,.{1 if power else 0}f} { {12: 'TB', 9: 'GB', 6: 'MB', 3: 'kB', 0: 'bytes'}[power] }"
        )
    if unit == "s":
        return (
            f"{value / 3600:,.1f} h" if value >= 3600 else f"{value:,.1f} s" if value >= 1 else f"{1e3 * value:,.2f} ms"
        )
    return f"{value:,.{0 if isinstance(value, int) or value >= 100 else 2}f} {unit}".rstrip()
