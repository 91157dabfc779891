"""Compares two wheels: the same files with the same bytes, and metadata that an index can show."""

from __future__ import annotations

import re
import sys
import zipfile

first, second = (
    {info.filename: archive.read(info) for info in archive.infolist()}
    for archive in map(zipfile.ZipFile, sys.argv[1:3])
)
differing = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
if differing:
    sys.exit(f"the wheel from the sdist differs from that of the checkout in {', '.join(differing)}")
metadata = next(data.decode() for name, data in first.items() if name.endswith(".dist-info/METADATA"))
relative = re.findall(r"\]\((?!https?:|#)[^)]*\)", metadata)
if relative:
    sys.exit(f"the README that an index shows has links that lead nowhere: {', '.join(relative)}")
print(f"{len(first)} files in each wheel, the same; the README that an index shows has no relative link")
