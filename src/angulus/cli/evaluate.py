"""`angulus evaluate`: the protocols by name, each from files."""

from __future__ import annotations

from typing import Annotated

import typer

from angulus.cli import evaluate_identification, evaluate_samples, evaluate_verification
from angulus.cli.calibrate import calibrate, compare_results
from angulus.cli.output import show_table

__all__ = ["calibrate", "compare_results", "evaluate_app"]

evaluate_app = typer.Typer(no_args_is_help=True, help="Measure embeddings, predictions or marks by a protocol.")

CAPTION = "embeddings: a file .npz, .safetensors or .parquet with embeddings [N, d] and ids [N]"
TABLE = (  # name, command, what it measures, what it reads
    ("lfw", evaluate_verification.lfw, "accuracy over folds, AUC, EER, TAR@FAR", "embeddings; LFW's pairs.txt"),
    (
        "pairs",
        evaluate_verification.pairs,
        "the same for a list of your own, CALFW, CPLFW, AgeDB, SLLFW",
        "embeddings; the list of pairs",
    ),
    (
        "cfp",
        evaluate_verification.cfp,
        "the same of CFP-FP or CFP-FF",
        "embeddings; CFP's Protocol, folder or .tar.gz",
    ),
    ("bin", evaluate_verification.bin_set, "the same of a .bin set", "embeddings with ids 0, 1, 2, ...; the .bin"),
    ("rfw", evaluate_verification.rfw, "accuracy per group, how unequal", "embeddings; a list a group, with folds"),
    ("blufr", evaluate_verification.blufr, "TAR@FAR, open-set DIR@FAR", "embeddings; blufr_lfw_config.mat"),
    ("ytf", evaluate_verification.ytf, "accuracy over folds of pairs of videos", "embeddings of frames; splits.txt"),
    (
        "ijb-verify",
        evaluate_identification.ijb_verify,
        "TAR@FAR of templates, 1:1",
        "embeddings; template lists; comparisons",
    ),
    (
        "ijb-identify",
        evaluate_identification.ijb_identify,
        "rank-k, TPIR@FPIR of templates, 1:N",
        "embeddings; galleries; probes",
    ),
    (
        "megaface",
        evaluate_identification.megaface,
        "rank-k and TAR@FAR among distractors",
        "embeddings of probes and distractors; their lists, noises",
    ),
    (
        "trillion-pairs",
        evaluate_identification.trillion_pairs,
        "TAR@FAR of all pairs, TPR@FAR of searches",
        "embeddings of probes and gallery, with labels",
    ),
    (
        "luna16",
        evaluate_samples.luna16,
        "FROC and CPM of a nodule detector",
        "marks, annotations, excluded findings (.csv); scans",
    ),
    (
        "luna16-candidates",
        evaluate_samples.luna16_candidates,
        "the same of scored candidates",
        ".npz: labels, probabilities, scans, nodules",
    ),
    (
        "classification",
        evaluate_samples.classification,
        "top-1, top-5, by class, good and low; over seeds",
        ".npz: labels, predictions or logits, norms",
    ),
    (
        "quality",
        evaluate_samples.quality,
        "norm as quality: split, bins, changed, discard, degradation",
        "predictions, or embeddings with a list, or a saved result",
    ),
)


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
        for name, _, measures, reads in TABLE:
            table.add_row(name, measures, reads)
        show_table(table)
        raise typer.Exit


for _name, _command, _, _ in TABLE:
    evaluate_app.command(_name)(_command)
