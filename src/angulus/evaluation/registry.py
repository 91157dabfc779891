"""The one table of protocols that a recipe may name: from embeddings and lists to a `Result`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from angulus.core import checks
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists import bin_set, blufr, cfp, grouped, ijb, lfw, megaface, ytf
from angulus.evaluation.protocols import classification as classifying
from angulus.evaluation.protocols import detection, gallery, groups, judged, open_set, quality, videos
from angulus.evaluation.protocols import pairs as verification
from angulus.evaluation.protocols import template_verification as template_protocol
from angulus.evaluation.protocols import templates as pooling
from angulus.evaluation.protocols.result import Number, Result

SCORE = ("score",)  # of `videos.evaluate`
POOLING = ("pool", "norm", "detector")  # of `templates.Pooling`


@dataclass(frozen=True)
class Given:
    """What a protocol gets: embeddings of the images (and of the others), the lists' files, its options.

    Of the test split instead: `columns`, by name labels, predictions, probabilities, norms, and what the data set says
    of its images.
    """

    lists: Mapping[str, Path] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    images: Embeddings | None = None
    others: Embeddings | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def embeddings(self) -> Embeddings:
        """Of the images, which the protocol's entry in the table asks for."""
        assert self.images is not None
        return self.images


@dataclass(frozen=True)
class Protocol:
    """One entry: how it is computed, and what it takes.

    Args:
        run: computes the result.
        evaluate: the function whose keyword arguments are its options.
        lists: the lists that it needs; "*" stands for one a group, under names of the recipe's own.
        optional: lists that it can do without.
        images, others: whether it embeds images, and distractors or a gallery beside them.
        extra: options that `run` takes beside those of `evaluate`.
    """

    run: Callable[[Given], Result]
    evaluate: Callable[..., Result]
    lists: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    images: bool = True
    others: bool = False
    extra: tuple[str, ...] = ()

    def check(self, where: str, lists: Mapping[str, str], options: Mapping[str, Any]) -> None:
        """Refuse lists and options that it does not know, and lists that are missing."""
        if self.lists == ("*",):
            if not lists:
                raise checks.InputError(f"{where} needs lists, one a group: GROUP: FILE")
        else:
            missing = [name for name in self.lists if name not in lists]
            if missing:
                raise checks.InputError(f"{where} needs lists.{missing[0]}")
            _refuse_unknown(f"{where} has no list", lists, (*self.lists, *self.optional))
        parameters = inspect.signature(self.evaluate).parameters.values()
        known = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY and each.name != "options"]
        _refuse_unknown(f"{where} has no option", options, (*known, *self.extra))


def _refuse_unknown(what: str, given: Iterable[str], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise checks.InputError(f"{what} {name!r}{checks.nearest(name, known)}; known: {listed}")


def _lfw(given: Given) -> Result:
    return verification.evaluate(given.embeddings, lfw.read_lfw_pairs(given.lists["pairs"]), **given.options)


def _pairs(given: Given) -> Result:
    return verification.evaluate(given.embeddings, lfw.read_pair_list(given.lists["pairs"])[0], **given.options)


def _cfp(given: Given) -> Result:
    options = dict(given.options)
    part = checks.choice("part", options.pop("part", "fp"), ("fp", "ff"))
    return verification.evaluate(given.embeddings, getattr(cfp.read_cfp(given.lists["protocol"]), part), **options)


def _bin(given: Given) -> Result:
    return verification.evaluate(given.embeddings, bin_set.read_bin(given.lists["bin"]).pairs, **given.options)


def _rfw(given: Given) -> Result:
    lists = grouped.joined({name: lfw.read_pair_list(path)[0] for name, path in given.lists.items()})
    return groups.evaluate(given.embeddings, lists, **given.options)


def _blufr(given: Given) -> Result:
    return open_set.evaluate(given.embeddings, blufr.read_blufr(given.lists["config"]), **given.options)


def _ytf(given: Given) -> Result:
    return videos.evaluate(given.embeddings, ytf.read_ytf_pairs(given.lists["pairs"]), **given.options)


def _quality(base: Callable[[Given], Result]) -> Callable[[Given], Result]:
    """Good and low of the pairs that another protocol judges, by its own norms; a comparison splits them again."""

    def run(given: Given) -> Result:
        options = dict(given.options)
        passed = {name: options.pop(name) for name in SCORE if name in options}
        found = base(Given(given.lists, {"draws": 0, **passed}, given.images))
        return quality.evaluate(judged.of_result(found), **options)

    return run


def _ijb_verify(given: Given) -> Result:
    options = dict(given.options)
    how = {name: options.pop(name) for name in POOLING if name in options}
    templates = given.lists["templates"]
    read = ijb.read_templates if ".csv" in templates.suffixes else ijb.read_template_media
    images = read(templates)
    pooled = pooling.pool(given.embeddings, images, pooling.Pooling(**how))
    comparisons = given.lists["comparisons"]
    if images.subjects is None:
        pooled = pooling.link(pooled, ijb.read_comparisons(comparisons))
    stream = ijb.read_comparisons(comparisons, images if images.subjects is not None else None)
    return template_protocol.verify(pooled, stream, **options)


def _megaface(given: Given) -> Result:
    assert given.others is not None
    files = given.lists
    lists = tuple(megaface.read_feature_list(files[name]) for name in ("probes", "distractors") if name in files)
    noises = [megaface.read_noises(files[name]) if name in files else None for name in _NOISES]
    if len(lists) == 1:
        raise checks.InputError("megaface needs lists.probes and lists.distractors, both or neither; got one")
    return gallery.megaface(
        given.embeddings,
        given.others,
        lists=(lists[0], lists[1]) if lists else None,
        noises=(noises[0], noises[1]),
        **given.options,
    )


_NOISES = ("probe_noises", "distractor_noises")


def _trillion_pairs(given: Given) -> Result:
    assert given.others is not None
    return gallery.trillion_pairs(given.embeddings, given.others, **given.options)


def _classification(given: Given) -> Result:
    columns = {name: given.columns[name] for name in ("labels", "predictions", "norms")}
    return classifying.evaluate(classifying.Predictions.of(**columns), **given.options)


def _training(given: Given) -> Result:
    return _training_numbers(given.columns)


def _training_numbers(columns: Mapping[str, Any]) -> Result:
    """What the training itself came to."""
    number = Number("last epoch loss", float(columns["last_epoch_loss"]))
    return Result("training", (number,), {}, {}, notes=("the mean loss of the training batches of the last epoch",))


def _luna16_candidates(given: Given) -> Result:
    columns = given.columns
    if "scans" not in columns:
        raise checks.InputError(
            "luna16-candidates needs a data set that says which scan each candidate is from: luna16"
        )
    return detection.candidates(
        columns["labels"], columns["probabilities"], columns["scans"], columns.get("nodules"), **given.options
    )


PROTOCOLS: dict[str, Protocol] = {
    "lfw": Protocol(_lfw, verification.evaluate, ("pairs",)),
    "pairs": Protocol(_pairs, verification.evaluate, ("pairs",)),
    "cfp": Protocol(_cfp, verification.evaluate, ("protocol",), extra=("part",)),
    "bin": Protocol(_bin, verification.evaluate, ("bin",)),
    "rfw": Protocol(_rfw, groups.evaluate, ("*",)),
    "blufr": Protocol(_blufr, open_set.evaluate, ("config",)),
    "ytf": Protocol(_ytf, videos.evaluate, ("pairs",)),
    "ijb-verify": Protocol(_ijb_verify, template_protocol.verify, ("templates", "comparisons"), extra=POOLING),
    "megaface": Protocol(
        _megaface,
        gallery.megaface,
        optional=("probes", "distractors", *_NOISES),
        others=True,
    ),
    "trillion-pairs": Protocol(_trillion_pairs, gallery.trillion_pairs, others=True),
    "quality-lfw": Protocol(_quality(_lfw), quality.evaluate, ("pairs",)),
    "quality-pairs": Protocol(_quality(_pairs), quality.evaluate, ("pairs",)),
    "quality-ytf": Protocol(_quality(_ytf), quality.evaluate, ("pairs",), extra=SCORE),
    "classification": Protocol(_classification, classifying.evaluate, images=False),
    "training": Protocol(_training, _training_numbers, images=False),
    "luna16-candidates": Protocol(_luna16_candidates, detection.candidates, images=False),
}
