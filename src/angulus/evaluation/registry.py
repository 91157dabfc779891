"""One table of protocols: it generates `angulus evaluate NAME` and checks the benchmarks of recipes.

Importing it is cheap. What computes a protocol is in `runners`, imported when it runs.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

if TYPE_CHECKING:
    from angulus.evaluation.protocols.result import Result
    from angulus.evaluation.runners import Inputs


@dataclass(frozen=True)
class Parameter:
    """A file or an option of a protocol."""

    name: str  # its key in recipes, and the keyword of the function that takes it
    help: str  # one sentence for `--help`
    type: Any = str  # what it holds; a list may be given several times on the command line
    default: Any = None  # what holds where it is left out; None leaves it to the protocol
    required: bool = False  # whether the protocol needs it
    # its option on the command line; by default from its name. Of positional files: the name that help shows
    flag: str = ""
    usual: tuple[float, ...] = ()  # the rates or ranks that the protocol reports where the option is left out

    @property
    def option(self) -> str:
        """The option on the command line, such as `--low-fraction`."""
        return self.flag or f"--{self.name.replace('_', '-')}"

    def check(self, where: str, value: object) -> None:
        """Refuse a value of another type."""
        from angulus.core.checks import InputError, shown

        if not _fits(self.type, value):
            raise InputError(f"{where}: options.{self.name} must be {_described(self.type)}; got {shown(value)}")


@dataclass(frozen=True)
class Protocol:
    """One protocol, for the command line and for recipes."""

    name: str  # of the command, and of the recipe's key `protocol`
    summary: str  # one line for `--help`
    measures: str = ""  # what `angulus evaluate --list` shows
    reads: str = ""
    runner: str = ""  # the function of `runners` that computes it; by default named after the protocol
    images: Parameter | None = None  # embeddings that it measures, and embeddings of distractors or a gallery
    others: Parameter | None = None
    samples: Parameter | None = None  # files of marks or predictions; recipes give the test split instead
    lists: tuple[Parameter, ...] = ()  # the files that describe the protocol
    grouped: bool = False  # whether recipes give one list per group, under names of their own
    options: tuple[Parameter, ...] = ()  # what it can vary
    shared: bool = False  # whether processes under torchrun share its work
    available: Literal["command", "recipe", "both"] = "both"  # as a command, in recipes, or both
    by_quality: bool = False  # whether it splits samples into good and low quality
    by_group: bool = False  # whether it measures error rates of groups of people, which `--groups` may name
    # names of its numbers, for the columns of recipes: {fars} stands for a value of that option, {*} for any name
    figures: tuple[str, ...] = ()

    def run(self, inputs: Inputs) -> Result:
        """Compute the result."""
        from angulus.evaluation import runners

        result: Result = getattr(runners, self.runner or self.name.replace("-", "_"))(inputs.with_id_rule())
        return result

    def check(
        self, where: str, lists: Mapping[str, str], options: Mapping[str, Any], columns: Mapping[str, str]
    ) -> None:
        """Refuse what a recipe cannot ask for: unknown lists, options and numbers, other types, and missing lists."""
        from angulus.core import checks

        if self.grouped:
            if not lists:
                raise checks.InputError(f"{where} needs lists, one per group: GROUP: FILE")
        else:
            for parameter in self.lists:
                if parameter.required and parameter.name not in lists:
                    raise checks.InputError(f"{where} needs lists.{parameter.name}")
            _refuse_unknown(f"{where} has no list", lists, self.lists)
        _refuse_unknown(f"{where} has no option", options, self.options)
        for parameter in self.options:
            if parameter.name in options:
                parameter.check(where, options[parameter.name])
        known = list(self._numbers(options))
        for title, number in columns.items():
            wanted = number.removesuffix(WITHOUT_FAILURES) if options.get("missing") == "fail" else number
            if not any(name.startswith(f"{wanted}, ") or re.fullmatch(_any_name(name), wanted) for name in known):
                raise checks.InputError(
                    f"{where}: column {title!r} shows {number!r}, which the protocol {self.name} does not measure; "
                    f"with these options it measures {', '.join(map(repr, known))}{checks.nearest(number, known)}"
                )

    def _numbers(self, options: Mapping[str, Any]) -> Iterator[str]:
        """The names of the numbers under these options."""
        from angulus.evaluation.protocols.figures import rate_label

        for figure in self.figures:
            keys = re.findall(r"\{(\w+)\}", figure)
            values = [
                options.get(parameter.name) or parameter.usual or parameter.default
                for key in keys
                for parameter in self.options
                if parameter.name == key
            ]
            lists = [
                value if isinstance(value, list | tuple) else () if value is None else (value,) for value in values
            ]
            for chosen in itertools.product(*lists):
                words = [rate_label(value) if isinstance(value, float) else str(value) for value in chosen]
                yield figure.format(**dict(zip(keys, words, strict=True)), **{"*": "*"})


WITHOUT_FAILURES = ", without failures"  # how figures end that leave out images without embedding


def _any_name(number: str) -> str:
    """A regular expression of a number's name in which * stands for any name."""
    return re.escape(number).replace(r"\*", ".+")


def list_protocols() -> list[str]:
    """Names of the protocols, which `angulus evaluate NAME` and the benchmarks of recipes take.

    >>> list_protocols()[:3]
    ['lfw', 'pairs', 'cfp']
    """
    return list(PROTOCOLS)


def _refuse_unknown(what: str, names: Iterable[str], parameters: tuple[Parameter, ...]) -> None:
    from angulus.core import checks

    known = [parameter.name for parameter in parameters]
    for name in names:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise checks.InputError(f"{what} {name!r}{checks.nearest(name, known)}; known: {listed}")


def _fits(kind: Any, value: object) -> bool:
    if value is None:
        return True
    if get_origin(kind) is list:
        return isinstance(value, list | tuple) and all(_fits(get_args(kind)[0], item) for item in value)
    return isinstance(value, int | float if kind is float else kind) and (kind is bool or not isinstance(value, bool))


def _described(type_: Any) -> str:
    words = {str: "text", int: "whole number", float: "number", bool: "boolean"}
    if get_origin(type_) is list:
        return f"a list of {words[get_args(type_)[0]]}s"
    return {str: "text", bool: "true or false"}.get(type_) or f"a {words[type_]}"


def _file(name: str, help: str, flag: str = "", type: Any = Path, required: bool = True) -> Parameter:
    return Parameter(name, help, type, required=required, flag=flag)


# files and options that several protocols share
EMBEDDINGS = _file("images", ".npz, .safetensors, .parquet, or .bin files of vectors.", "EMBEDDINGS")
DRAWS = Parameter("draws", "Resamples behind the intervals; 0 for none.", int, 1000)
SEED = Parameter("seed", "Seed of the resamples.", int, 0)
FLIP = Parameter("flip", "Fuse with the mirrored images' embeddings: sum or concat.")
FARS = Parameter(
    "fars",
    "FAR where TAR is reported; repeat for several. Default: all possible.",
    list[float],
    flag="--far",
    usual=(1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
)
METRIC = Parameter("metric", "cosine, inner, euclidean or unit-euclidean.", default="cosine")
PCA = Parameter("pca", "Project onto this many directions, fitted on the training folds.", int)
FORMAT = Parameter("format", "plain (`a b 0|1` a line), lfw, two-line (CALFW, CPLFW); auto: detect it.", default="auto")
REFERENCE = _file("reference", "Another model's, of the same samples, whose norms decide.", required=False)
LOW_FRACTION = Parameter("low_fraction", "Share of the samples that is low quality.", float, 0.2)

MISSING = Parameter(
    "missing",
    "Images of a list without embedding: refuse; or fail: failures to enrol, which match nobody.",
    default="refuse",
)
ID_RULE = (
    Parameter("id_strip", "Cut this text off the start or end of the embeddings' ids; repeat for several.", list[str]),
    Parameter("id_parts", "Compare only the last N parts of ids such as a/b/c.jpg.", int),
)

_BOOTSTRAP = (DRAWS, SEED)
_VERIFICATION = (METRIC, FLIP, PCA, FARS, MISSING, *_BOOTSTRAP)
_RATES = ("accuracy", "AUC", "EER", "TAR@FAR={fars}")
_OF_PAIRS = (*_RATES, "best accuracy (threshold from the same pairs)")
_SEARCHES = ("mAP", "mAP@{at}", "mINP", "R-precision", "MAP@R")
_PARTS = ("good", "low", "entire", "good (own norms)", "low (own norms)")
_BY_QUALITY = tuple(f"{figure}, {part}" for part in _PARTS for figure in ("accuracy", "mean norm"))
_TEMPLATES = (
    Parameter("ids", "file: ids are img/1.jpg; file-subject: img/1.jpg#123, for images of two people.", default="file"),
    Parameter("pool", "media: mean within a medium, then over media; flat: of all images.", default="media"),
    Parameter("norm", "Weight images by the feature's norm (N1) or not (N0).", bool, True),
    Parameter("detector", "Weight images by the detector's score (D1) or not (D0).", bool, False),
    FLIP,
    MISSING,
)
_PAIR_LIST = _file("pairs", "The list of pairs.")
_YTF = _file("pairs", "YouTube Faces' splits.txt.")
_LFW = _file("pairs", "LFW's pairs.txt; ids are Name/Name_0001.")
_SCORE = Parameter("score", "mean, cosine, max, or histogram (an SVM).", default="mean")
_QUALITY = (LOW_FRACTION, *_BOOTSTRAP)

_GALLERY = _file(
    "others", "Embeddings of the gallery; default: queries and gallery are in one file.", "[GALLERY]", required=False
)
_RETRIEVAL = (
    Parameter("queries", "The split of the rows that search; default: query, or all rows search each other."),
    Parameter("gallery", "The split of the rows that are searched; default: gallery."),
    Parameter("split", "The only split to use; its rows search each other."),
    Parameter("camera_rule", "Ignore gallery images of a query's class and camera.", bool),
    Parameter("junk", "Label of gallery images to ignore; reid: -1. Empty for none."),
    Parameter("distractors", "Label of gallery images that match nobody; reid: 0. Empty for none."),
    Parameter(
        "ap", "Precision in mAP: rank (at each match), or trapezoid (its mean with the one before).", default="rank"
    ),
    Parameter("ties", "Equal scores: expected (mean of all orders), pessimistic or optimistic.", default="expected"),
    Parameter("per_class", "Report each class, too.", bool, False),
    FLIP,
    *_BOOTSTRAP,
)


def _of_embeddings(
    name: str, summary: str, measures: str = "", reads: str = "", *, options: tuple[Parameter, ...], **others: Any
) -> Protocol:
    """A protocol of embeddings whose ids a list names."""
    options = (*options, *ID_RULE)
    return Protocol(name, summary, measures, reads, images=EMBEDDINGS, options=options, **others)


_searches = partial(Protocol, images=EMBEDDINGS, others=_GALLERY, shared=True)
_TABLE = (
    _of_embeddings(
        "lfw",
        "LFW: accuracy over the ten folds, AUC, EER, TAR at FARs.",
        "accuracy over folds, AUC, EER, TAR@FAR",
        "embeddings; LFW's pairs.txt",
        lists=(_LFW,),
        options=_VERIFICATION,
        by_group=True,
        figures=_OF_PAIRS,
    ),
    _of_embeddings(
        "pairs",
        "A list of pairs: accuracy over its folds, AUC, EER, TAR at FARs.",
        "the same for your own list, CALFW, CPLFW, AgeDB, SLLFW",
        "embeddings; the list of pairs",
        lists=(_PAIR_LIST,),
        options=(FORMAT, *_VERIFICATION),
        by_group=True,
        figures=_OF_PAIRS,
    ),
    _of_embeddings(
        "cfp",
        "CFP: as `pairs`, for its frontal-profile or frontal-frontal list; ids are 001/frontal/01.jpg.",
        "the same for CFP-FP or CFP-FF",
        "embeddings; CFP's Protocol, folder or .tar.gz",
        lists=(_file("protocol", "CFP's Protocol: a folder, or a .tar.gz of it.", "--lists"),),
        options=(
            Parameter("part", "fp: frontal with profile; ff: frontal with frontal.", default="fp"),
            *_VERIFICATION,
        ),
        by_group=True,
        figures=_OF_PAIRS,
    ),
    _of_embeddings(
        "bin",
        "A .bin set: as `pairs`; the id of an embedding is its image's place in the set: 0, 1, 2, ...",
        "the same for a .bin set",
        "embeddings with ids 0, 1, 2, ...; the .bin",
        runner="bin_set",
        lists=(_file("bin", "The .bin set, such as lfw.bin or agedb_30.bin."),),
        options=(
            Parameter("folds", "Runs of consecutive pairs; 1 for none.", int, 10),
            Parameter("fold_seed", "Draw the folds instead, for a set that is sorted by its flags.", int),
            *_VERIFICATION,
        ),
        by_group=True,
        figures=_OF_PAIRS,
    ),
    _of_embeddings(
        "rfw",
        "RFW: accuracy over folds of each group, their standard deviation, and the skewed error ratio.",
        "accuracy per group, how unequal",
        "embeddings; one list per group, with folds",
        lists=(
            _file(
                "pairs",
                "GROUP=FILE, repeated; or one FILE, with the embeddings' groups. All with folds.",
                type=list[str],
            ),
        ),
        grouped=True,
        options=(FORMAT, METRIC, FLIP, MISSING, *_BOOTSTRAP),
        by_group=True,
        figures=("accuracy {*}", "mean accuracy", "standard deviation of accuracy", "skewed error ratio"),
    ),
    _of_embeddings(
        "blufr",
        "BLUFR on LFW: TAR at FARs over all pairs, and open-set DIR at a FAR; mean, and mean minus deviation.",
        "TAR@FAR, open-set DIR@FAR",
        "embeddings; blufr_lfw_config.mat",
        lists=(_file("config", "blufr_lfw_config.mat."),),
        options=(
            FLIP,
            PCA,
            replace(FARS, usual=(1e-3, 1e-4, 1e-5)),
            Parameter(
                "open_set_fars",
                "FAR of DIR, repeatable; default: 1e-2.",
                list[float],
                flag="--open-set-far",
                usual=(1e-2,),
            ),
            Parameter("rank", "The true subject must be within this rank for the DIR.", int, 1),
            MISSING,
        ),
        by_group=True,
        figures=tuple(
            figure + end
            for figure in ("VR@FAR={fars}", "DIR@FAR={open_set_fars}, rank {rank}")
            for end in ("", ", mean − deviation")
        ),
    ),
    _of_embeddings(
        "ytf",
        "YouTube Faces: accuracy over folds of pairs of videos; frames have ids Name/1/0023.jpg, or templates Name/1.",
        "accuracy over folds of pairs of videos",
        "embeddings of frames; splits.txt",
        lists=(_YTF,),
        options=(_SCORE, Parameter("c", "The SVM's regularisation.", float, 1.0), FLIP, FARS, MISSING, *_BOOTSTRAP),
        by_group=True,
        figures=_RATES,
    ),
    _of_embeddings(
        "ijb-verify",
        "IJB-A, IJB-B, IJB-C, 1:1: TAR at FARs of template comparisons, streamed; accuracy over folds of subjects.",
        "TAR@FAR of templates, 1:1",
        "embeddings; template lists; comparisons",
        lists=(
            _file(
                "templates",
                "Lists of the templates' images: metadata .csv, repeated; or face_tid_mid.txt.",
                type=list[Path],
            ),
            _file("comparisons", "`template template 0|1`, or `template,template`."),
        ),
        options=(*_TEMPLATES, FARS, Parameter("folds", "For the accuracy.", int, 10), *_BOOTSTRAP),
        by_group=True,
        figures=("balanced accuracy", "accuracy", "TAR@FAR={fars}"),
    ),
    _of_embeddings(
        "ijb-identify",
        "IJB, 1:N: rank-k, and TPIR at FPIRs, of each gallery and their mean.",
        "rank-k, TPIR@FPIR of templates, 1:N",
        "embeddings; galleries; probes",
        lists=(
            _file("gallery", "Metadata .csv of G1, and again of G2.", type=list[Path]),
            _file("probes", "Metadata .csv of the probes.", type=list[Path]),
        ),
        options=(
            *_TEMPLATES,
            Parameter("ranks", "k of rank-k; repeat for several. Default: 1, 5 and 10.", list[int], flag="--rank"),
            Parameter("fpirs", "FPIR where TPIR is reported; repeat for several.", list[float], flag="--fpir"),
            Parameter("within", "The subject must be within this rank for the TPIR; default: any rank.", int),
            *_BOOTSTRAP,
        ),
        available="command",
        by_group=True,
    ),
    Protocol(
        "megaface",
        "MegaFace: rank-k among 10, 100, ... all distractors, and TAR at FARs.",
        "rank-k and TAR@FAR among distractors",
        "embeddings of probes and distractors; their lists, noises",
        images=_file("images", "Embeddings of the probes, such as FaceScrub's.", "PROBES"),
        others=_file("others", "Embeddings of the distractors.", "DISTRACTORS"),
        lists=(
            _file("probes", "facescrub_features_list.json; default: all, with labels.", "--probe-list", required=False),
            _file("distractors", "megaface_features_list.json_...; default: all.", "--distractor-list", required=False),
            _file("probe_noises", "Probes that show somebody else; needs both lists.", required=False),
            _file("distractor_noises", "Distractors to leave out; needs both lists.", required=False),
        ),
        options=(
            Parameter(
                "noise_rule",
                "Noisy probes: remove, or replace by the mean of the person's others, as insightface does.",
                default="remove",
            ),
            FLIP,
            Parameter(
                "ranks", "k of rank-k; repeat for several. Default: 1 and 10.", list[int], flag="--rank", usual=(1, 10)
            ),
            replace(FARS, usual=(1e-4, 1e-5, 1e-6)),
            MISSING,
            *_BOOTSTRAP,
            *ID_RULE,
        ),
        shared=True,
        by_group=True,
        figures=("rank-{ranks}, {*} distractors", "TAR@FAR={fars}"),
    ),
    Protocol(
        "trillion-pairs",
        "Trillion-Pairs: TAR at FARs over all pairs, and TPR at FARs of searching the gallery; exact, never stored.",
        "TAR@FAR of all pairs, TPR@FAR of searches",
        "embeddings of probes and gallery, with labels",
        images=_file("images", "Embeddings of the probes, with labels.", "PROBES"),
        others=_file("others", "Embeddings of the gallery, with labels.", "GALLERY"),
        options=(
            FLIP,
            replace(FARS, usual=(1e-7, 1e-8, 1e-9)),
            Parameter(
                "search_fars",
                "FAR of the searches; repeat for several.",
                list[float],
                flag="--search-far",
                usual=(1e-2, 1e-3),
            ),
            *_BOOTSTRAP,
        ),
        shared=True,
        by_group=True,
        figures=("rank-1", "TAR@FAR={fars}", "TPR@FAR={search_fars}"),
    ),
    _searches(
        "retrieval",
        "Retrieval: Recall@k, mAP, mAP@k, mINP, R-precision, MAP@R of images that search for others of their class.",
        "Recall@k, mAP, MAP@R, R-precision, mINP",
        "embeddings with labels; or queries, gallery",
        options=(
            Parameter(
                "ks",
                "k of Recall@k; repeat for several. Default: 1, 10 and 100.",
                list[int],
                flag="--k",
                usual=(1, 10, 100),
            ),
            Parameter("at", "k of mAP@k.", int, 100),
            *_RETRIEVAL,
        ),
        figures=tuple(f"{figure}{end}" for end in ("", ", {*}") for figure in ("Recall@{ks}", *_SEARCHES)),
    ),
    _searches(
        "reid",
        "Re-identification: rank-k (CMC), mAP and mINP by Market-1501's rules on cameras, junk and distractors.",
        "rank-k, mAP, mINP across cameras",
        "embeddings with labels, cameras; or two files",
        options=(
            Parameter(
                "ks", "k of rank-k; repeat for several. Default: 1, 5 and 10.", list[int], flag="--k", usual=(1, 5, 10)
            ),
            Parameter("at", "k of mAP@k; default: left out.", int),
            Parameter("single_shot", "Repeats of a gallery with one image of each identity; 0 for none.", int, 0),
            *_RETRIEVAL,
        ),
        figures=(
            *(f"{figure}{end}" for end in ("", ", {*}") for figure in ("rank-{ks}", *_SEARCHES)),
            "rank-{ks}, single shot",
        ),
    ),
    Protocol(
        "froc",
        "Any detector: FROC of marks against lesions, 2-D or 3-D: sensitivity at false positives per case, CPM.",
        "FROC and CPM of any detector, 2-D or 3-D",
        "marks, lesions, cases (.csv with named columns)",
        samples=_file("samples", "case, x, y, optionally z, score (.csv).", "MARKS"),
        lists=(
            _file("lesions", "case, x, y, optionally z, diameter or radius, optionally ignore (.csv)."),
            _file("cases", "All cases that were searched, optionally with their patient (.csv).", required=False),
        ),
        options=(
            Parameter("distance", "A mark nearer to a lesion than this hits it. Default: its radius.", float),
            Parameter("unmeasured", "Diameter of lesions whose size is empty or -1.", float),
            Parameter("most_marks", "Of a case with more marks, use those above the next one. Default: all.", int),
            Parameter(
                "rates",
                "False positives per case; repeat for several. Default: 1/8, 1/4, 1/2, 1, 2, 4, 8.",
                list[float],
                flag="--rate",
            ),
            Parameter(
                "columns",
                "A column's name, such as case=slide_no or diameter=long_axis; repeat for several.",
                list[str],
                flag="--column",
            ),
            *_BOOTSTRAP,
        ),
        available="command",
    ),
    Protocol(
        "luna16",
        "LUNA16: FROC and CPM of a detector's marks, by the challenge's rules.",
        "FROC and CPM of a nodule detector",
        "marks, annotations, excluded findings (.csv); scans",
        samples=_file("samples", "seriesuid,coordX,coordY,coordZ,probability (.csv).", "MARKS"),
        lists=(
            _file("annotations", "annotations.csv: the nodules."),
            _file("excluded", "annotations_excluded.csv: findings that count neither as hits nor as errors."),
            _file("scans", "seriesuids.csv: every scan that was searched."),
        ),
        options=_BOOTSTRAP,
        available="command",
    ),
    Protocol(
        "luna16-candidates",
        "FROC and CPM of candidates labelled as nodule or not, without their positions.",
        "the same for scored candidates",
        ".npz: labels, probabilities, scans, nodules",
        samples=_file("samples", ".npz: labels, probabilities, scans, and optionally nodules.", "CANDIDATES"),
        options=_BOOTSTRAP,
        figures=(
            "CPM",
            *(f"sensitivity@FP/scan={rate:g}" for rate in (0.125, 0.25, 0.5, 1, 2, 4, 8)),
            "sensitivity of all marks",
        ),
    ),
    Protocol(
        "classification",
        "Top-1 and top-5 accuracy and error, by class, of good and low quality; over seeds mean ± standard deviation.",
        "top-1, top-5, by class, good and low; over seeds",
        ".npz: labels, predictions or logits, norms",
        samples=_file(
            "samples",
            ".npz: labels, predictions or logits, norms; several: runs with other seeds.",
            "PREDICTIONS...",
            list[Path],
        ),
        lists=(REFERENCE,),
        options=(LOW_FRACTION, Parameter("per_class", "Also each class's accuracy.", bool, True), *_BOOTSTRAP),
        figures=("accuracy", "error", "top-5 accuracy", "top-5 error", *_BY_QUALITY, "accuracy, class {*}"),
    ),
    Protocol(
        "quality",
        "The feature norm as quality: good and low, bins of norm, what changed, error versus discard, degradation.",
        "norm as quality: split, bins, changed, discard, degradation",
        "predictions, or embeddings with a list, or a saved result",
        samples=_file(
            "samples",
            "Predictions (.npz); embeddings, with --pairs; a saved result of pairs or ytf (.json); for degradation"
            " an .npz of norms, strengths, images, kinds.",
            "SAMPLES",
        ),
        lists=(_file("pairs", "A list of pairs, if SAMPLES are embeddings.", required=False), REFERENCE),
        options=(
            Parameter(
                "measure",
                "split: good and low; bins: accuracy by norm; changed: what --reference got otherwise; discard: FNMR "
                "as the worst pairs go; degradation: correlation of norm and strength.",
                default="split",
            ),
            FORMAT,
            LOW_FRACTION,
            Parameter("bins", "Bins of norm.", int, 10),
            Parameter("edges", "Bins of equal count (quantile) or width.", default="quantile"),
            Parameter("fmr", "Discard: FMR of the threshold.", float, 1e-3),
            Parameter("up_to", "Discard: share where the area ends.", float, 1.0),
            FLIP,
            *_BOOTSTRAP,
            *ID_RULE,
        ),
        available="command",
    ),
    *(
        _of_embeddings(
            f"quality-{base}",
            f"Good and low quality by the feature norm, of the pairs that `{base}` judges.",
            runner=f"quality_{base}",
            lists=(pairs,),
            options=(*own, *_QUALITY),
            available="recipe",
            by_quality=True,
            figures=_BY_QUALITY,
        )
        for base, pairs, own in (("lfw", _LFW, ()), ("pairs", _PAIR_LIST, ()), ("ytf", _YTF, (_SCORE,)))
    ),
    Protocol(
        "training",
        "The mean loss of the training batches of the last epoch.",
        available="recipe",
        figures=("last epoch loss",),
    ),
)
PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _TABLE}
COMMANDS = {name: protocol for name, protocol in PROTOCOLS.items() if protocol.available != "recipe"}
RECIPES = {name: protocol for name, protocol in PROTOCOLS.items() if protocol.available != "command"}
