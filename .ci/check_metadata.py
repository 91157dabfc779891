"""Checks what an index would refuse or show wrongly: the metadata of a wheel, and the files that it must hold."""

from __future__ import annotations

import re
import sys
import zipfile

from packaging.metadata import Metadata
from packaging.utils import parse_wheel_filename

NEEDED = {"angulus/py.typed", "angulus/recipes/demo.yaml", "angulus/cli/main.py"}
WEIGHTS_AND_DATA = r"\.(bin|ckpt|h5|npy|npz|onnx|parquet|pickle|pkl|pt|pt2|pth|rec|safetensors)$"
UNWANTED = re.compile(rf"^(tests|docs|benchmarks|examples|shared)/|__pycache__|{WEIGHTS_AND_DATA}", re.I)


def main(path: str) -> None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        raw = next(archive.read(name) for name in names if name.endswith(".dist-info/METADATA"))
    metadata = Metadata.from_email(raw, validate=True)  # raises with every fault
    name, version, _, _ = parse_wheel_filename(path.rpartition("/")[2])
    if (name, version) != (metadata.name.lower(), metadata.version):
        sys.exit(f"{path} is named {name} {version}, but its metadata say {metadata.name} {metadata.version}")
    missing = sorted(NEEDED - set(names)) + ([] if any(each.endswith("/LICENSE") for each in names) else ["LICENSE"])
    unwanted = sorted(filter(UNWANTED.search, names))
    if missing or unwanted:
        sys.exit(f"{path} lacks {missing} and should not hold {unwanted}")
    if metadata.description_content_type != "text/markdown" or len(metadata.description or "") < 1000:
        sys.exit(f"{path} has no README as its description")
    print(f"{metadata.name} {metadata.version}: metadata valid, {len(names)} files, Python {metadata.requires_python}")


if __name__ == "__main__":
    main(sys.argv[1])
