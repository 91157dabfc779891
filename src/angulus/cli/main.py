"""The command line: every error in the input ends in one sentence and exit code 2."""

from __future__ import annotations

import io
import os
import re
import sys
import warnings
from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from angulus import __version__
from angulus.cli.examples import EXAMPLES
from angulus.cli.urls import add_urls
from angulus.core import checks, files, limits, redact
from angulus.distributed import launch

TRAIN, DATA, MODELS, EVALUATE, FIND = "Train and compare", "Data", "Models", "Evaluate", "Find"
COMMANDS = {  # name: (where in angulus.cli, its panel and its line in the help); imported when it is called
    "train": ("train:train", TRAIN, "Train a recipe and evaluate the model."),
    "compare": ("reproduce:compare", TRAIN, "Train all variants and seeds of a recipe, and print a table."),
    "demo": ("reproduce:demo", TRAIN, "Train five losses on real digits and draw what they learn."),
    "reproduce": ("reproduce:reproduce", TRAIN, "Train a row of a paper's table, next to the published numbers."),
    "capacity": ("capacity:capacity", TRAIN, "Compute memory, bytes, hours and cost for many classes and images."),
    "report": ("report:report", TRAIN, "Write runs, comparisons and results as one HTML page."),
    "data": ("data:data_app", DATA, "Find, fetch and check data sets; draw pairs to verify."),
    "prepare": ("prepare:prepare_app", DATA, "Align faces in photos, or resize images, for training."),
    "convert": ("convert:convert", DATA, "Convert a data set to records."),
    "audit": ("audit:audit", DATA, "Find duplicates, overlaps and wrong labels in a data set."),
    "import": ("imports:import_app", MODELS, "Make a model folder of another project's checkpoint."),
    "info": ("info:info", MODELS, "Show what a model folder contains."),
    "embed": ("embed:embed", MODELS, "Write the features of images to a file."),
    "predict": ("predict:predict", MODELS, "Name the classes of images, or mark nodules in CT scans."),
    "verify": ("verify:verify", MODELS, "Decide whether two images show the same person."),
    "doctor": ("doctor:doctor", MODELS, "Find out whether images are prepared as the model needs them."),
    "subcenters": ("subcenters:subcenters", MODELS, "List images far from their class's dominant sub-centre."),
    "export": ("export:export", MODELS, "Export a model to ONNX and compare it with PyTorch."),
    "evaluate": ("evaluate:evaluate_app", EVALUATE, "Evaluate embeddings or predictions by a protocol."),
    "compare-results": ("calibrate:compare_results", EVALUATE, "Print the difference of two results, with intervals."),
    "results": ("results:results_app", EVALUATE, "Check saved results, and print their schema."),
    "calibrate": ("calibrate:calibrate", EVALUATE, "Choose a threshold for a target false match rate."),
    "search": ("search:search_app", FIND, "Find people in a gallery of embeddings."),
    "upgrade": ("upgrade:upgrade", FIND, "Map the vectors of a gallery to a new model."),
    "who": ("who:who", FIND, "Name the person on a photo, or nobody."),
    "serve": ("serve:serve", FIND, "Serve a model and a gallery over HTTP."),
    "list": ("listing:list_names", FIND, "List recipes and their keys, losses, backbones, protocols, data sets."),
}


class LazyGroup(TyperGroup):
    """The commands by name, of which one is imported when it is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, load_command(str(name)), rest


def load_command(name: str) -> Any:
    """Import a command, or a group of commands, and return it as typer runs it."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    command, holder = getattr(import_module(f"angulus.cli.{module}"), attribute), typer.Typer()
    if isinstance(command, typer.Typer):
        holder.add_typer(command, name=name)
    else:
        holder.command(name)(command)
    add_urls(holder)
    made = typer.main.get_group(holder).commands[name]
    _complete_help(made, name)
    _name_options(made)
    return made


def _name_options(command: Any) -> None:
    """Let the errors of a command, and of those below it, name options as they are typed."""
    for inner in getattr(command, "commands", {}).values():
        _name_options(inner)
    flags = {entry.name: max(entry.opts, key=len) for entry in command.params}
    flags = {name: flag for name, flag in flags.items() if flag.startswith("--")}
    invoke = command.invoke

    def run(context: Any) -> Any:
        try:
            return invoke(context)
        except checks.InputError as error:
            texts = re.findall("'([^']*)'", str([*context.params.values()]))  # a folder may be called as an option
            own = {name: flag for name, flag in flags.items() if name not in texts}
            given = {name for name in own if context.get_parameter_source(name).name == "COMMANDLINE"}
            error.args = (as_typed(str(error), own, given),)
            raise

    if not hasattr(command, "commands"):
        command.invoke = run


def as_typed(message: str, flags: Mapping[str, str], given: Collection[str]) -> str:
    """A message with options as they are typed: names with an underscore, what stands with them, and the subject.

    Functions call their arguments by Python's names. A name that is also a word is one if the sentence is about it,
    and if the user gave the option. What is quoted, and what follows "got", is of the user and stays.

    >>> flags = {"by": "--by", "exclude_self": "--exclude-self"}
    >>> as_typed("by and exclude_self must be left out; got by", flags, {"by"})
    '--by and --exclude-self must be left out; got by'
    >>> as_typed("by must be one of 'photo', 'exclude_self'; got exclude_self", flags, {"by"})
    "--by must be one of 'photo', 'exclude_self'; got exclude_self"
    """
    message, got, rest = message.partition("; got ")
    own, quoted = "|".join(name for name in flags if "_" in name) or "(?!)", r"(?<!\w)(?:'[^']*'|\"[^\"]*\")"
    pattern = rf"{quoted}|(?<![\w./\\=-])(?:{own})(?![\w./\\=(])"
    message = re.sub(pattern, lambda found: flags.get(found[0], found[0]), message)
    words = "|".join(given) or "(?!)"
    joined, subject = rf"\b(?<!-)({words})(?=(?:,| and| or) --)", rf"^({words})(?= must be (?:{_RULES})\b)"
    for pattern in (joined, joined, subject):  # of three options that are joined, from the last to the first
        message = re.sub(pattern, lambda found: flags[found[0]], message)
    return message + got + rest


_RULES = (
    "an?|one of|true or false|at most|left out|given"  # of options; others are of arrays, as "rates must be finite"
)


def _complete_help(command: Any, words: str) -> None:
    """End the help with an example, and show it in place of an error if required arguments are all missing."""
    command.epilog = f"Example: angulus {EXAMPLES[words]}"
    command.no_args_is_help = command.no_args_is_help or any(entry.required for entry in command.params)
    for name, inner in getattr(command, "commands", {}).items():
        _complete_help(inner, f"{words} {name}")


def load_all() -> TyperGroup:
    """`angulus` with every command imported, for what lists them all."""
    group = typer.main.get_group(app)
    group.commands = {name: load_command(name) for name in COMMANDS}
    return group


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, evaluate and compare embeddings with angular-margin losses.",
    epilog=f"Example: angulus {EXAMPLES['']}",
)
for _name, (_, _panel, _help) in COMMANDS.items():
    app.command(_name, help=_help, rich_help_panel=_panel)(lambda: None)
error_console = Console(stderr=True)
SHARED = {  # run by all processes of torchrun together
    "train",
    "embed",
    *(f"evaluate {name}" for name in ("megaface", "trillion-pairs", "retrieval", "reid")),
}


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    max_unpacked: Annotated[
        str | None,
        typer.Option(help="Bytes that one file may unpack to, such as 16G; by default 1G, or 20 times its size."),
    ] = None,
    read_damaged: Annotated[
        bool, typer.Option("--read-damaged", help="Read images that are cut short, with a warning for each.")
    ] = False,
) -> None:
    """Train, evaluate and compare embeddings with angular-margin losses."""
    if max_unpacked is not None:
        limits.set_most_unpacked(max_unpacked)
    if read_damaged:
        os.environ[limits.READ_DAMAGED] = "1"
    if version:
        Console().print(f"angulus {__version__}", highlight=False)
        raise typer.Exit


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    text = redact.within(files.shown(str(message)), sys.argv[1:])
    if text not in _shown and launch.reports():
        _shown.add(text)
        error_console.print(f"warning: {text}", highlight=False, markup=False, soft_wrap=True)


_shown: set[str] = set()


def main() -> None:
    """Run the command line."""
    try:
        _run()
    except SystemExit as end:
        if launch.is_distributed():
            launch.end_process(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise


def _run() -> None:
    from angulus.training.signals import Interrupted

    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console that has no θ shows ? in its place
    try:
        if launch.is_distributed() and not SHARED & {" ".join(sys.argv[1:2]), " ".join(sys.argv[1:3])}:
            from angulus.distributed.runtime import SharedError

            raise SharedError(
                f"torchrun starts several processes, which only {', '.join(sorted(SHARED))} accept; start this without "
                "torchrun"
            )
        app(prog_name="angulus")
    except checks.InputError as error:
        _fail(str(error), 2, quiet=not launch.reports(error))
    except Interrupted as stopped:
        again = "run the same command again (train: with --resume) to continue"
        _fail(f"{stopped}; its checkpoint is saved: {again}", 130, quiet=not launch.reports())
    except launch.LostRank as lost:
        _fail(str(lost), 1)
    except OSError as error:
        _fail(files.sentence(error), 2)
    except Exception as error:
        plugins = sys.modules.get("angulus.experiments.plugins")
        sentence = plugins.blame(error) if plugins is not None else None
        if sentence is None:
            raise
        _fail(sentence, 2)


def _fail(message: str, code: int, *, quiet: bool = False) -> None:
    """Print a sentence, unless another process prints it, and exit."""
    if quiet:
        sys.exit(launch.quiet_code(code))
    message = redact.within(files.shown(message), sys.argv[1:])
    error_console.print(f"angulus: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
