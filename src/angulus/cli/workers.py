"""The options of commands that share their work among processes."""

from __future__ import annotations

from typing import Annotated

import typer

_PANEL = "Where it runs"

Engine = Annotated[
    str, typer.Option(help="local: on this machine; ray: on a Ray cluster, with the extra ray.", rich_help_panel=_PANEL)
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        help="With --engine ray: HOST:PORT. Default: that of RAY_ADDRESS, or else a cluster of this machine.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
AllCores = Annotated[
    int | None,
    typer.Option("--workers", help="Number of processes; default: one per core.", rich_help_panel=_PANEL),
]
Workers = Annotated[
    int | None,
    typer.Option(help="Number of processes; default: this one alone.", rich_help_panel=_PANEL, show_default=False),
]
