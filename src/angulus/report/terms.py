"""What raw names mean: one table from logged numbers, curves and figures of results to words."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """The words for one name."""

    title: str  # of an axis or a chart
    meaning: str  # one or two short sentences


STATISTICS = {  # what training logs, by its key in metrics.jsonl
    "loss": Term(
        "training loss",
        "Mean over the batch, with margin and penalties. Different losses have different scales: compare each line "
        "only with itself.",
    ),
    "lr": Term("learning rate", "The step size of the optimiser, after the schedule."),
    "norm": Term("mean feature norm ‖x‖", "The mean length of the batch's features before any normalisation."),
    "target_cos": Term(
        "cosine to the own class weight",
        "cos θ of a feature and the weight of its own class: 1 is the same direction, 0 a right angle.",
    ),
    "agent_distortion": Term(
        "squared distance to the class weight",
        "‖x̂ − ŵ‖² = 2 − 2 cos θ on the unit sphere, called agent distortion: 0 if features lie on the weight of "
        "their class.",
    ),
    "radius": Term(
        "radius s", "The length that features have in the logits: fixed, learned, or computed from their norm."
    ),
    "radius_saturation": Term(
        "saturation of the radius",
        "How much of its range the radius has used. Near 1 it is at its upper bound, and the norm no longer matters.",
    ),
    "beyond_pi_minus_m": Term(
        "share of samples with θ > π − m",
        "For these the angle with its margin, θ + m, exceeds π, where the cosine rises again. More than a few mean "
        "that the margin is too large or comes too early.",
    ),
    "misclassified_vectors": Term(
        "share of misclassified vectors",
        "Of all pairs of a sample and another class, those with a cosine above the sample's own cosine after the "
        "margin. This is stricter than the accuracy.",
    ),
    "accuracy": Term("training accuracy", "Share of the batch that is classified correctly, without a margin."),
    "norm_right": Term("mean norm, classified correctly", "Of the samples of the batch that are classified correctly."),
    "norm_wrong": Term(
        "mean norm, classified wrongly", "Of the samples of the batch that are classified wrongly, where there are any."
    ),
    "test_loss": Term("test loss", "Mean loss of the test images after an epoch."),
    "test_accuracy": Term("test accuracy", "Share of the test images classified correctly after an epoch."),
    "test_norm": Term("mean norm of the test images", "The mean length of their features after an epoch."),
    "validation_tar": Term(
        "validation TAR",
        "Share of genuine pairs of held-out classes that are accepted at the recipe's false match rate.",
    ),
    "validation_accuracy": Term(
        "validation accuracy", "Share of pairs of held-out classes that are decided correctly, over ten folds."
    ),
}
CURVES = {  # by the kind of a curve
    "roc": "Each point is a threshold: how many genuine pairs it accepts against how many impostors. Higher is better.",
    "det": "Each point is a threshold: how many genuine pairs it rejects against how many impostors it accepts. Lower "
    "is better.",
    "cmc": "How often the right person or thing is among the first k of a ranked list. Higher is better.",
    "froc": "Each point is a threshold on the marks: lesions found against false marks per case. Higher is better.",
    "fnir": "How often a search misses a person who is in the gallery, at the threshold for that rate of false alarms "
    "in a gallery of that size. Lower is better.",
    "discard": "The error of the samples that remain when those of lowest quality are left out. A curve that falls "
    "means that quality predicts errors.",
}
FIGURES = {  # what the names of a result's figures begin with
    "TAR@FAR": "TAR@FAR is the share of genuine pairs that are accepted at a threshold with that false accept rate.",
    "TPIR@FPIR": "TPIR@FPIR is the share of enrolled people who are found at that rate of false alarms.",
    "DIR@FAR": "DIR@FAR is the share of known people who are found at that rate of false alarms.",
    "EER": "EER is the error rate at the threshold with as many false accepts as false rejects.",
    "AUC": "AUC is the area under the ROC: how often a genuine pair scores above an impostor pair.",
    "rank-": "rank-k is the share of people who are among the first k of the ranked list.",
    "sensitivity@FP/case": "sensitivity@FP/case is the share of lesions found at so many false marks per case.",
    "sensitivity@FP/scan": "sensitivity@FP/scan is the share of nodules found at so many false marks per scan.",
    "CPM": "CPM is the mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false marks per case or scan.",
}


def explain_statistic(key: str) -> Term:
    """The words for a logged number; of an unknown one, its name.

    >>> explain_statistic("lr").title, explain_statistic("my_own")
    ('learning rate', Term(title='my own', meaning=''))
    """
    return STATISTICS.get(key) or Term(key.replace("_", " "), "")


def explain_figures(names: Iterable[str]) -> str:
    """A sentence for each kind of figure among these names.

    >>> explain_figures(["accuracy", "EER"])
    'EER is the error rate at the threshold with as many false accepts as false rejects.'
    """
    names = list(names)
    return " ".join(words for start, words in FIGURES.items() if any(name.startswith(start) for name in names))
