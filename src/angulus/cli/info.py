"""`angulus info`: what a model folder holds, and its fingerprint."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from angulus.cli.output import say


def info(model: Annotated[Path, typer.Argument(help="A model folder, such as RUN/model.")]) -> None:
    """Show what a model is and takes, and the fingerprint that embeddings, calibrations and galleries keep of it."""
    from angulus.core.contract import describe_model
    from angulus.models import artifact, card

    loaded = artifact.load(model)
    config = loaded.config
    numbers = config.embedding_size * (2 if config.contract.flip == "concat" else 1)
    say(f"{model}: {config.backbone}, {numbers} numbers a feature")
    say(f"  fingerprint {loaded.fingerprint}, flip {config.contract.flip}")
    say(f"  sha256 of the weights {loaded.sha256}")
    for line in card.takes(asdict(config), config.contract):
        say(f"  {line}")
    for name, value in config.about.items():  # whoever wrote the folder may have written anything here
        say(f"  {card.plain(name)}: {card.plain(value)}")
    found = loaded.calibration
    if found is None:
        say("  not calibrated; angulus calibrate --model finds a threshold")
    else:
        say(f"  threshold {found.threshold.value:.4f} for FMR {found.target_fmr:g} of {describe_model(found.model)}")
