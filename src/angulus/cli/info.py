"""`angulus info`: what a model folder holds, and its fingerprint."""

from __future__ import annotations

from dataclasses import asdict

from angulus.cli.output import ModelFolder, say


def info(model: ModelFolder) -> None:
    """Show what a model is and takes, and its fingerprint, which embeddings, calibrations and galleries record."""
    from angulus.core.contract import describe_model
    from angulus.models import artifact, model_card
    from angulus.models.classifier import FILE

    loaded = artifact.load(model)
    config = loaded.config
    numbers = config.embedding_size * (2 if config.contract.flip == "concat" else 1)
    say(f"{model}: {config.backbone}, features of {numbers} numbers")
    say(f"  fingerprint {loaded.fingerprint}, flip {config.contract.flip}")
    say(f"  sha256 of the weights {loaded.sha256}")
    for line in model_card.takes(asdict(config), config.contract):
        say(f"  {line}")
    for name, value in config.about.items():  # a stranger's folder may hold anything here
        say(f"  {model_card.plain(name)}: {model_card.plain(value)}")
    if loaded.classes:
        size = (model / FILE).stat().st_size
        counted = f"{len(loaded.classes):,} {'class' if len(loaded.classes) == 1 else 'classes'}"
        say(f"  {counted}: {model_card.list_classes(loaded.classes)}; {FILE} has {size / 2**10:,.1f} KiB")
    cut = [pair for pair in loaded.pairs.values() if pair.gallery is None]
    if loaded.calibration is None and not cut and not loaded.classes:
        say("  not calibrated; angulus calibrate --model finds a threshold")
    for calibration in filter(None, (loaded.calibration, *cut)):
        made_for = f"FMR {calibration.target_fmr:g} of {describe_model(calibration.model)}"
        say(f"  threshold {calibration.threshold.value:.4f} for {made_for}")
