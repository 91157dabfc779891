"""How each protocol of the registry is computed: from embeddings, lists and options to a `Result`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.core.id_rule import AS_THEY_ARE, IdRule
from angulus.evaluation import scoring
from angulus.evaluation.lists import bin_set as bin_sets
from angulus.evaluation.lists import blufr as blufr_lists
from angulus.evaluation.lists import cfp as cfp_lists
from angulus.evaluation.lists import detection_csv, ijb, luna16_csv, named_columns
from angulus.evaluation.lists import lfw as lfw_lists
from angulus.evaluation.lists import megaface as megaface_lists
from angulus.evaluation.lists.groups_csv import with_groups
from angulus.evaluation.lists.pair_list import PairList, join_groups
from angulus.evaluation.protocols import classification as predictions
from angulus.evaluation.protocols import (
    degradation,
    detection,
    distractors,
    error_discard,
    groups,
    open_set,
    query_sides,
    template_identification,
    template_verification,
    templates,
    videos,
)
from angulus.evaluation.protocols import pairs as verification
from angulus.evaluation.protocols import quality as norms
from angulus.evaluation.protocols import retrieval as searches
from angulus.evaluation.protocols import trillion_pairs as all_pairs
from angulus.evaluation.protocols.result import Number, Result

MEASURES = ("split", "bins", "changed", "discard", "degradation")
POOLING = ("pool", "norm", "detector", "flip")  # options of `templates.Pooling`


@dataclass(frozen=True)
class Inputs:
    """What a protocol reads."""

    # by name, a file, or several where the protocol takes several; with groups, one file per group
    lists: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)  # by name; what is left out has the protocol's default
    images: Embeddings | Path | None = None  # embeddings or their file: of the images, and of distractors or a gallery
    others: Embeddings | Path | None = None
    samples: tuple[Path, ...] = ()  # files of marks or predictions
    # instead of `samples`, the test split: labels, predictions, probabilities, norms, and what the data set says about
    # its images
    columns: Mapping[str, Any] = field(default_factory=dict)
    # what messages call a list or an option, where it is not its name
    names: Mapping[str, str] = field(default_factory=dict)
    report: Callable[[str], None] = lambda line: None  # gets a line on how a file was read
    scoring: scoring.ScoringOptions = scoring.DEFAULT  # how all pairs are scored
    groups: Path | None = None  # a CSV that names the group of each image
    id_rule: IdRule = AS_THEY_ARE  # how ids of embeddings become those of the lists

    def with_id_rule(self) -> Inputs:
        """These inputs, with the options on ids made to the rule."""
        rule = IdRule(tuple(self.options.get("id_strip") or ()), self.options.get("id_parts"))
        return replace(self, options=self.but("id_strip", "id_parts"), id_rule=rule)

    def embeddings(self, role: Literal["images", "others"] = "images") -> Embeddings:
        """The embeddings of the images, or of the others."""
        found = self.read(getattr(self, role))
        return found if self.groups is None else with_groups(found, self.groups, needed=role == "images")

    def read(self, source: Embeddings | Path) -> Embeddings:
        """Embeddings of a file, or those given, with their ids under the rule."""
        found = source if isinstance(source, Embeddings) else Embeddings.read(source)
        matched = found.match_by(self.id_rule)
        if self.id_rule:
            before, after = (checks.shown(str(ids[0])) for ids in (found.ids, matched.ids))
            self.report(f"{found.source}: {self.id_rule} makes ids such as {before} to {after}")
        return matched

    def only(self, *names: str) -> dict[str, Any]:
        """Those of the named options that are given."""
        return {name: self.options[name] for name in names if name in self.options}

    def but(self, *names: str) -> dict[str, Any]:
        """The options without the named ones."""
        return {name: value for name, value in self.options.items() if name not in names}

    def choice(self, name: str, values: tuple[str, ...]) -> str:
        """An option that must be one of the values, by default the first."""
        return checks.choice(self.called(name), self.options.get(name, values[0]), values)

    def called(self, name: str) -> str:
        """What messages call a list or an option."""
        return self.names.get(name, name)

    def pairs(self, path: Path | None = None, form: str | None = None) -> PairList:
        """The list of pairs, in the form that `format` asks for."""
        form = form or self.choice("format", ("auto", *lfw_lists.FORMS))
        return read_pairs(path or self.lists["pairs"], form, self.report)


def read_pairs(path: Path, form: str, report: Callable[[str], None]) -> PairList:
    """Read a list of pairs; if its form is detected, report which it is."""
    pairs, detected = lfw_lists.read_pair_list(path, form)
    if form == "auto":
        folds = f"{pairs.fold_count} folds" if pairs.folds is not None else "no folds"
        count = f"{len(pairs):,} pair{'s' * (len(pairs) != 1)}"
        report(f"{path} is read as {detected} ({lfw_lists.FORMS[detected]}): {count}, {folds}")
    return pairs


def lfw(inputs: Inputs) -> Result:
    """Accuracy over the folds of LFW's list."""
    return _verify(inputs, inputs.pairs(form="lfw"))


def pairs(inputs: Inputs) -> Result:
    """Accuracy over the folds of a list of pairs."""
    return _verify(inputs, inputs.pairs())


def cfp(inputs: Inputs) -> Result:
    """Accuracy over the folds of CFP's frontal-profile or frontal-frontal list."""
    part = inputs.choice("part", ("fp", "ff"))
    return _verify(inputs, getattr(cfp_lists.read_cfp(inputs.lists["protocol"]), part))


def bin_set(inputs: Inputs) -> Result:
    """Accuracy over folds of a .bin set."""
    path = inputs.lists["bin"]
    drawn = inputs.only("folds", "fold_seed")
    listed = bin_sets.read_bin(path, **drawn).pairs
    if drawn.get("fold_seed") is None and listed.folds is not None:
        for fold in range(listed.fold_count):
            if len(set(listed.same[listed.folds == fold].tolist())) < 2:
                raise InputError(
                    f"{path}: fold {fold} must have both kinds of pairs, and has one, as in a set that is sorted "
                    f"by kind; draw the folds with {inputs.called('fold_seed')} 0, or use none with "
                    f"{inputs.called('folds')} 1"
                )
    return _verify(inputs, listed)


def _verify(inputs: Inputs, listed: PairList) -> Result:
    options = inputs.but("format", "part", "folds", "fold_seed")
    return verification.evaluate(inputs.embeddings(), listed, **options)


def rfw(inputs: Inputs) -> Result:
    """Accuracy of each group; the lists are one per group, or one for the groups of the embeddings."""
    lists = {group: inputs.pairs(path) for group, path in inputs.lists.items()}
    listed = lists[""] if list(lists) == [""] else join_groups(lists)
    return groups.evaluate(inputs.embeddings(), listed, **inputs.but("format"))


def blufr(inputs: Inputs) -> Result:
    """Verification and open-set identification over the trials of BLUFR."""
    return open_set.evaluate(inputs.embeddings(), blufr_lists.read_blufr(inputs.lists["config"]), **inputs.options)


def ytf(inputs: Inputs) -> Result:
    """Accuracy over folds of pairs of videos."""
    return videos.evaluate(inputs.embeddings(), lfw_lists.read_ytf_pairs(inputs.lists["pairs"]), **inputs.options)


def ijb_verify(inputs: Inputs) -> Result:
    """Comparisons of templates."""
    images, comparisons = _template_images(inputs, inputs.lists["templates"]), inputs.lists["comparisons"]
    pooled = templates.pool(inputs.embeddings(), images, _pooling(inputs), **inputs.only("missing"))
    if images.subjects is None:
        pooled = templates.link(pooled, ijb.read_comparisons(comparisons))
    stream = ijb.read_comparisons(comparisons, images if images.subjects is not None else None)
    return template_verification.verify(pooled, stream, **inputs.but("ids", "missing", *POOLING))


def ijb_identify(inputs: Inputs) -> Result:
    """Searches of templates in galleries."""
    embeddings = inputs.embeddings()

    def pool(path: Path | list[Path]) -> templates.Templates:
        return templates.pool(embeddings, _template_images(inputs, path), _pooling(inputs), **inputs.only("missing"))

    galleries = [pool(path) for path in inputs.lists["gallery"]]
    options = inputs.but("ids", "missing", *POOLING)
    return template_identification.identify(galleries, pool(inputs.lists["probes"]), **options)


def _pooling(inputs: Inputs) -> templates.Pooling:
    return templates.Pooling(**inputs.only(*POOLING))


def _template_images(inputs: Inputs, paths: Path | list[Path]) -> ijb.TemplateImages:
    paths = [paths] if isinstance(paths, Path) else paths
    if len(paths) == 1 and ".csv" not in paths[0].suffixes:
        return ijb.read_template_media(paths[0])
    return ijb.read_templates(*paths, ids=inputs.options.get("ids", "file"))


def megaface(inputs: Inputs) -> Result:
    """Identification and verification among distractors."""
    probe_list, distractor_list = inputs.lists.get("probes"), inputs.lists.get("distractors")
    noises = [inputs.lists.get(name) for name in ("probe_noises", "distractor_noises")]
    if (probe_list is None) != (distractor_list is None):
        raise InputError(f"{inputs.called('probes')} and {inputs.called('distractors')} go together; give both or none")
    lists = None
    if probe_list is not None and distractor_list is not None:
        lists = megaface_lists.read_feature_list(probe_list), megaface_lists.read_feature_list(distractor_list)
    elif noises != [None, None]:
        raise InputError(f"noises need lists; give {inputs.called('probes')} and {inputs.called('distractors')}")
    noisy = [None if path is None else megaface_lists.read_noises(path) for path in noises]
    return distractors.megaface(
        inputs.embeddings(),
        inputs.embeddings("others"),
        lists=lists,
        noises=(noisy[0], noisy[1]),
        options=inputs.scoring,
        **inputs.options,
    )


def trillion_pairs(inputs: Inputs) -> Result:
    """Verification over all pairs of probes and gallery, and searches of the gallery."""
    sides = inputs.embeddings(), inputs.embeddings("others")
    return all_pairs.evaluate(*sides, options=inputs.scoring, **inputs.options)


def froc(inputs: Inputs) -> Result:
    """FROC of a detector's marks."""
    (path,), lists = inputs.samples, inputs.lists
    columns: dict[str, str] = {}
    for text in inputs.options.get("columns", ()):
        key, sign, name = text.partition("=")
        if not sign or key in columns:
            raise InputError(f"{inputs.called('columns')} must be KEY=NAME, each key once; got {text!r}")
        columns[key] = name
    kinds = {"lesions": detection_csv.LESIONS, "cases": detection_csv.CASES}
    read = [(path, detection_csv.MARKS), *((lists[name], kind) for name, kind in kinds.items() if name in lists)]
    named_columns.check_columns(columns, [(file, needed + optional) for file, (needed, optional) in read])
    marks = detection_csv.read_marks(path, columns, inputs.report)
    sized = "distance" not in inputs.options
    lesions = detection_csv.read_lesions(lists["lesions"], columns, inputs.report, sized=sized)
    cases = detection_csv.read_cases(lists["cases"], columns, inputs.report) if "cases" in lists else None
    return detection.evaluate(marks, lesions, cases, source=str(path), **inputs.but("columns"))


def _retrieval_of(kind: str, inputs: Inputs) -> Result:
    """Queries that search a gallery."""
    chosen = inputs.only("queries", "gallery", "split", "camera_rule", "junk", "distractors")
    figures = inputs.only("ks", "at", "ap", "ties", "per_class", "single_shot")
    return searches.evaluate(
        inputs.embeddings(),
        None if inputs.others is None else inputs.embeddings("others"),
        kind=kind,
        chosen=query_sides.defaults(kind, **chosen),
        reported=searches.figures(kind, **figures),
        options=inputs.scoring,
        **inputs.only("flip", "draws", "seed"),
    )


retrieval, reid = (partial(_retrieval_of, kind) for kind in (searches.RETRIEVAL, searches.REID))


def luna16(inputs: Inputs) -> Result:
    """FROC of a detector's marks."""
    (marks,) = inputs.samples
    return detection.luna16(
        luna16_csv.read_marks(marks),
        luna16_csv.read_findings(inputs.lists["annotations"]),
        luna16_csv.read_excluded(inputs.lists["excluded"]),
        luna16_csv.read_scans(inputs.lists["scans"]),
        source=str(marks),
        **inputs.options,
    )


def luna16_candidates(inputs: Inputs) -> Result:
    """FROC of labelled candidates: of a file, or of the test split."""
    if inputs.samples:
        (path,) = inputs.samples
        read: dict[str, Any] = detection.read_candidates(path)
        return detection.candidates(**read, source=str(path), **inputs.options)
    columns = inputs.columns
    if "scans" not in columns:
        raise InputError("luna16-candidates needs a data set that says which scan each candidate is from: luna16")
    given: list[Any] = [columns.get(name) for name in ("labels", "probabilities", "scans", "nodules")]
    return detection.candidates(*given, **inputs.options)


def classification(inputs: Inputs) -> Result:
    """Accuracy of predictions: of files, one per seed, or of the test split."""
    reference = inputs.lists.get("reference")
    other = None if reference is None else predictions.Predictions.read(reference)
    if inputs.samples:
        runs = [predictions.Predictions.read(path) for path in inputs.samples]
    else:
        given = {name: inputs.columns[name] for name in ("labels", "predictions", "norms")}
        runs = [predictions.Predictions.from_arrays(**given)]
    several = {"draws": 0} if len(runs) > 1 else {}
    results = [predictions.evaluate(run, other, **{**inputs.options, **several}) for run in runs]
    return predictions.over_seeds(results) if several else results[0]


def quality(inputs: Inputs) -> Result:
    """The feature norm as quality, by one of `MEASURES`."""
    measure, (samples,) = inputs.choice("measure", MEASURES), inputs.samples
    resampling = inputs.only("draws", "seed")
    if measure == "degradation":
        read: dict[str, Any] = degradation.read(samples)
        return degradation.evaluate(**read, source=str(samples), **resampling)
    if measure == "discard":
        if "pairs" not in inputs.lists:
            raise InputError(f"{inputs.called('measure')} discard needs embeddings with {inputs.called('pairs')}")
        options = {**inputs.only("fmr", "up_to", "flip"), **resampling}
        return error_discard.evaluate(inputs.read(samples), inputs.pairs(), **options)
    judged_samples = _judged(inputs, samples)
    reference = _judged(inputs, inputs.lists["reference"]) if "reference" in inputs.lists else None
    if measure == "bins":
        return norms.evaluate_bins(judged_samples, **inputs.only("bins", "edges"), **resampling)
    if measure == "split":
        return norms.evaluate(judged_samples, reference, **inputs.only("low_fraction"), **resampling)
    if reference is None:
        raise InputError(f"{inputs.called('measure')} changed needs a model before: give {inputs.called('reference')}")
    return norms.evaluate_changes(reference, judged_samples, **resampling)


def _judged(inputs: Inputs, path: Path) -> norms.Judged:
    if path.suffix == ".json":
        return norms.judge_result(Result.read(path))
    if "pairs" in inputs.lists:
        return norms.judge_pairs(inputs.read(path), inputs.pairs(), flip=inputs.options.get("flip"))
    return predictions.Predictions.read(path).judged()


def _quality_of(protocol: Callable[[Inputs], Result], inputs: Inputs) -> Result:
    """Good and low quality of the pairs that another protocol judges, split by their own norms."""
    result = protocol(replace(inputs, options={"draws": 0, **inputs.only("score")}))
    return norms.evaluate(norms.judge_result(result), **inputs.but("score"))


quality_lfw, quality_pairs, quality_ytf = (partial(_quality_of, protocol) for protocol in (lfw, pairs, ytf))


def training(inputs: Inputs) -> Result:
    """The loss of the last epoch of a training."""
    number = Number("last epoch loss", float(inputs.columns["last_epoch_loss"]))
    return Result("training", (number,), {}, {}, notes=("the mean loss of the training batches of the last epoch",))
