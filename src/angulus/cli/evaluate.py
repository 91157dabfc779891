"""`angulus evaluate NAME`: one command per protocol of the registry."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from angulus.cli.engine import Device, TimeoutS, engine
from angulus.cli.output import Digits, GroupsFile, Json, Output, Plot, Report, refuse_no_groups, say, show_table
from angulus.core import checks, urls
from angulus.core.files import digest
from angulus.evaluation.registry import COMMANDS, Parameter, Protocol

if TYPE_CHECKING:
    from angulus.evaluation.runners import Inputs

evaluate_app = typer.Typer(no_args_is_help=True, help="Measure embeddings, predictions or marks by a protocol.")

CAPTION = "embeddings: a file .npz, .safetensors or .parquet with embeddings [N, d] and ids [N]"
GROUPS: dict[str, Any] = {"groups": (GroupsFile, None)}
OUTPUT: dict[str, Any] = {"json": (Json, None), "plot": (Plot, None), "digits": (Digits, 4), "report": (Report, None)}
ENGINE: dict[str, Any] = {"device": (Device, "cpu"), "timeout_s": (TimeoutS, 3600.0)}


@evaluate_app.callback(invoke_without_command=True)
def evaluate(
    show_list: Annotated[
        bool, typer.Option("--list", help="Show the protocols: name, what it measures, reads.")
    ] = False,
) -> None:
    """Measure embeddings, predictions or marks by a protocol."""
    if show_list:
        from rich.table import Table

        table = Table(title="angulus evaluate NAME", caption=CAPTION)
        for head in ("name", "measures", "reads"):
            table.add_column(head, no_wrap=True)
        for protocol in COMMANDS.values():
            table.add_row(protocol.name, protocol.measures, protocol.reads)
        show_table(table)
        raise typer.Exit


class ProtocolCommand(TyperCommand):
    """Refuses two slips with a sentence that names the option to give instead."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {flag for entry in self.get_params(ctx) for flag in (*entry.opts, *entry.secondary_opts)}
        _check_flags(COMMANDS[str(self.name)], args, known)
        return list(super().parse_args(ctx, args))


def _check_flags(protocol: Protocol, args: list[str], known: set[str]) -> None:
    several = {parameter.option for parameter in protocol.options if parameter.type in (list[int], list[float])}
    for arg, following in itertools.pairwise([*args, ""]):
        flag, sign, value = arg.partition("=")
        value = value if sign else following
        if flag in several and "," in value:
            again = " ".join(f"{flag} {part.strip()}" for part in value.split(",") if part.strip())
            raise checks.InputError(f"{flag} must be one number; got {value!r}; repeat it for several: {again}")
        if flag.startswith("--") and flag not in known and not checks.nearest(flag, known):
            meant = [one for one in protocol.options if flag[2:] and flag[2:].casefold() in one.help.casefold()]
            if len(meant) == 1:
                raise checks.InputError(f"there is no option {flag}; did you mean {meant[0].option}: {meant[0].help}")


def command(protocol: Protocol) -> Callable[..., None]:
    """A function that typer can make a command of: its signature and its help are the protocol's."""
    files = [parameter for parameter in (protocol.images, protocol.others, protocol.samples) if parameter]
    named = {f"list_{parameter.name}": parameter for parameter in protocol.lists}
    named |= {parameter.name: parameter for parameter in protocol.options}
    annotated: dict[str, Any] = {parameter.name: _argument(parameter) for parameter in files}
    annotated |= {key: _option(parameter) for key, parameter in named.items()}
    annotated |= (GROUPS if protocol.by_group else {}) | (ENGINE if protocol.shared else {}) | OUTPUT

    def run(**values: Any) -> None:
        _run(protocol, values)

    run.__doc__ = protocol.summary
    run.__annotations__ = {key: annotation for key, (annotation, _) in annotated.items()}
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for key, (annotation, default) in annotated.items()
        ]
    )
    return run


def _argument(parameter: Parameter) -> tuple[Any, Any]:
    """The annotation and the default of a positional file."""
    type_ = parameter.type if parameter.required else Optional[parameter.type]  # noqa: UP045  # typer
    info = typer.Argument(metavar=parameter.flag, help=parameter.help, show_default=False)
    return Annotated[type_, info], inspect.Parameter.empty if parameter.required else None


def _option(parameter: Parameter) -> tuple[Any, Any]:
    """The annotation and the default of an option."""
    flag, optional = parameter.option, parameter.default is None and not parameter.required
    if parameter.type is bool:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    type_ = Optional[parameter.type] if optional else parameter.type  # noqa: UP045  # typer
    info = typer.Option(flag, help=parameter.help, show_default=not optional)
    return Annotated[type_, info], inspect.Parameter.empty if parameter.required else parameter.default


def _run(protocol: Protocol, values: dict[str, Any]) -> None:
    from angulus.evaluation import scoring
    from angulus.evaluation.runners import Inputs

    output = Output(*(values.pop(name) for name in OUTPUT))
    parameters = (*protocol.lists, *protocol.options)
    values = {name: value for name, value in values.items() if value not in (None, [], ())}
    lists = {key.name: values[f"list_{key.name}"] for key in protocol.lists if f"list_{key.name}" in values}
    samples = values.get("samples", ())
    with contextlib.ExitStack() as stack:
        inputs = Inputs(
            lists=_groups(lists["pairs"]) if protocol.grouped else lists,
            options={key.name: values[key.name] for key in protocol.options if key.name in values},
            images=values.get("images"),
            others=values.get("others"),
            samples=(samples,) if isinstance(samples, Path) else tuple(samples),
            names={parameter.name: parameter.option for parameter in parameters},
            report=say,
            groups=values.get("groups"),
            scoring=stack.enter_context(engine(values["device"], values["timeout_s"]))
            if protocol.shared
            else scoring.DEFAULT,
        )
        result = protocol.run(inputs)
        refuse_no_groups(inputs.groups, result)
        if inputs.scoring.ranks.rank == 0:
            if output.json or output.report:
                result = replace(result, about={**result.about, **_provenance(inputs)})
            output.show(result)


def _provenance(inputs: Inputs) -> dict[str, Any]:
    """When this was measured, and the SHA-256 of each file that was read."""
    listed = [path for given in inputs.lists.values() for path in (given if isinstance(given, list) else [given])]
    given = (inputs.images, inputs.others, *inputs.samples, *listed, inputs.groups)
    paths = [path for path in given if isinstance(path, Path)]
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return {"date": date, "files": {str(path): digest(path) for path in paths}}


def _groups(items: list[str]) -> dict[str, Path]:
    """The list of each group, of GROUP=FILE; one FILE alone has the name ""."""
    if len(items) == 1 and "=" not in items[0]:
        return {"": urls.fetch(items[0])}
    named = {group: urls.fetch(path) for group, sign, path in (item.partition("=") for item in items) if sign and path}
    if len(named) < len(items):
        wrong = [item for item in items if not item.partition("=")[2]]
        raise checks.InputError(f"--pairs must be GROUP=FILE, each group once; got {' '.join(wrong or items)}")
    return named


for _protocol in COMMANDS.values():
    evaluate_app.command(_protocol.name, cls=ProtocolCommand)(command(_protocol))
