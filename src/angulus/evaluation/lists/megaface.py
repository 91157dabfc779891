"""MegaFace: lists of features (MegaFace and FaceScrub), and lists of noise."""

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from angulus.core import limits
from angulus.core.checks import InputError
from angulus.core.formats.columns import known_or_empty, text_array
from angulus.evaluation.lists.text import lines_of, malformed, read_lines


@dataclass(frozen=True, eq=False)
class FeatureList:
    """Images of MegaFace (distractors) or FaceScrub (probes)."""

    ids: NDArray[np.str_]  # [N] of str, the paths, unique
    identities: NDArray[np.str_] | None  # [N] of str, "" if unknown, or None if the list has paths only
    source: str  # what the list is, for messages and results

    def __len__(self) -> int:
        return len(self.ids)

    def without(self, noises: NDArray[np.str_]) -> "FeatureList":
        """The images that are not noise, as `noisy` finds it."""
        kept = ~self.noisy(noises)
        people = None if self.identities is None else self.identities[kept]
        return FeatureList(self.ids[kept], people, self.source)

    def noisy(self, noises: NDArray[np.str_]) -> NDArray[np.bool_]:
        """Which images are noise, [N].

        An entry of `noises` meets a path that it equals or that ends with it after a `/`: `a/b.jpg` or `b.jpg` meets
        `c/a/b.jpg`. An entry may meet none, for noise lists cover more images than one list has.

        Raises:
            InputError: no entry meets any path, or one meets several.
        """
        wanted = set(noises.tolist())
        noisy = np.zeros(len(self), dtype=bool)
        met: dict[str, str] = {}
        for row, path in enumerate(self.ids.tolist()):
            parts = path.split("/")
            for start in range(len(parts)):
                entry = "/".join(parts[start:])
                if entry in wanted:
                    if met.setdefault(entry, path) != path:
                        raise InputError(
                            f"{self.source}: noise {entry!r} must meet one path; got {met[entry]!r}, {path!r}"
                        )
                    noisy[row] = True
        if not noisy.any():
            example = str(self.ids[0])
            raise InputError(f"{self.source}: some of {len(noises)} noises must meet paths like {example!r}; got none")
        return noisy


def read_feature_list(path: str | os.PathLike[str]) -> FeatureList:
    """Read `{"path": [...], "id": [...]}`: facescrub_features_list.json, megaface_features_list.json_1000000_1.

    `id` names who is shown, and may be absent.

    Raises:
        InputError: no JSON object of that form, lists of different lengths, a path twice.

    Source: I. Kemelmacher-Shlizerman et al., "The MegaFace Benchmark", CVPR 2016; the template lists of its kit.
    """
    where = os.fspath(path)
    content = limits.parse_json("\n".join(lines_of(limits.read_file(path), path)), where)
    if not isinstance(content, dict) or not {"path"} <= set(content) <= {"path", "id"}:
        got = ", ".join(sorted(content))[:300] if isinstance(content, dict) else type(content).__name__
        raise InputError(f'{where} must be a JSON object with "path" and, where known, "id"; got {got}')
    for name, values in content.items():
        kinds = (str,) if name == "path" else (str, int, type(None))
        if not isinstance(values, list) or not values or not all(type(value) in kinds for value in values):
            raise InputError(f'{where}: "{name}" must be a list of text, at least one')
        if len(values) != len(content["path"]):
            raise InputError(f'{where} must have one "id" per "path"; got {len(values)} and {len(content["path"])}')
    paths = content["path"]
    if len(set(paths)) != len(paths):
        raise InputError(f"{where} must name each path once; got {len(paths) - len(set(paths))} repeats")
    people = text_array(["" if value is None else str(value) for value in content["id"]]) if "id" in content else None
    return FeatureList(text_array(paths), None if people is None else known_or_empty(people), where)


def read_noises(path: str | os.PathLike[str]) -> NDArray[np.str_]:
    """Read a list of noisy images, one path, `identity/file` or file name per line, after an optional number and tab.

    Lines that begin with # are comments.

    Raises:
        InputError: names file and line: an empty line, an entry twice, or no entries.
    """
    entries: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        if line.startswith("#"):
            continue
        entry = line.rpartition("\t")[2].strip()
        if not entry or line.count("\t") > 1:
            raise malformed(path, number, "a path, which may follow a number and a tab", line)
        if entry in entries:
            raise malformed(path, number, f"an entry that is not on line {entries[entry]}", entry)
        entries[entry] = number
    if not entries:
        raise InputError(f"{os.fspath(path)} must name noisy images; it has comments only")
    return text_array(list(entries))
