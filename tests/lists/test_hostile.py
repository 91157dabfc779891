"""Lists that are made to fill the memory or to end a reader in a traceback: each ends in a sentence."""

from __future__ import annotations

import gzip
import io
import os
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from angulus.core.checks import InputError
from angulus.evaluation.lists import bin_set, blufr, cfp, detection_csv, ijb, lfw, luna16_csv, megaface, pair_list

HEADER = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM"


def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def array(kind: int, shape: tuple[int, ...], content: bytes, name: bytes = b"") -> bytes:
    flags = element(6, struct.pack("<II", kind, 0))
    return element(14, flags + element(5, struct.pack(f"<{len(shape)}i", *shape)) + element(1, name) + content)


def nested(depth: int) -> bytes:
    value = array(6, (1, 1), element(9, bytes(8)))
    for level in range(depth):
        value = array(1, (1, 1), value, b"imageList" if level == depth - 1 else b"")
    return value


def packed(variable: bytes) -> bytes:
    data = zlib.compress(variable, 9)
    return struct.pack("<II", 15, len(data)) + data


MANY = array(1, (2_000_000, 1), element(14, b"") * 2_000_000, b"imageList")
LONG = array(4, (1, 3_000_000), element(4, b"x" * 6_000_000), b"imageList")
BIG = array(6, (1, 20 * 2**20), element(2, bytes(20 * 2**20)), b"labels")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (nested(3000), "must nest cells at most 64 deep; it goes deeper"),
        (packed(nested(3000)), "must nest cells at most 64 deep; it goes deeper"),
        (packed(MANY), "must be a whole MATLAB v5 file; reading it gave: more than 1,000,000 elements"),
        (packed(LONG), "must be a whole MATLAB v5 file; reading it gave: text of 6,000,000 bytes"),
        (packed(BIG), "must unpack to at most 16,777,216 bytes; it holds 16,777,217 or more"),
        (packed(BIG[: 2**22]) * 3, "must be a whole MATLAB v5 file"),
    ],
)
def test_matlab_files(tmp_path: Path, content: bytes, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANGULUS_MAX_UNPACKED", "16M")
    (tmp_path / "x.mat").write_bytes(HEADER + content)
    with pytest.raises(InputError, match=sentence):
        blufr.read_blufr(tmp_path / "x.mat")


def tar_of(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("a")
        info.type, info.size = tarfile.XHDTYPE, len(content)  # a header of the next file, which is kept in memory
        archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


BOMBS = {  # what unpacks to 64 MiB, and who reads it
    "x.bin.gz": (bytes(2**26), "bin_set.read_bin"),
    "x.txt.gz": (b"a b 1\n" * (2**26 // 6), "lfw.read_pair_list"),
    "line.csv.gz": (b"1," * 2**25, "ijb.read_comparisons"),
    "x.csv.gz": (b"1,2\n" * 2**24, "ijb.read_comparisons"),
    "x.json.gz": (b"[" * 2**26, "megaface.read_feature_list"),
    "x.f.gz": (bytes(2**26), "matrices.read_matrix"),
    "x.mat.gz": (HEADER + bytes(2**26), "blufr.read_blufr"),
    "x.tar.gz": (tar_of(bytes(2**26)), "cfp.read_cfp"),
}

READ = """
import resource, sys
import numpy as np
from angulus.core.checks import InputError
from angulus.core.formats import matrices
from angulus.evaluation.lists import bin_set, blufr, cfp, detection_csv, ijb, lfw, megaface
images = ijb.TemplateImages(np.array(["a", "b"]), np.array([1, 2]), None, np.array([5, 6]), "images")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path, reader in zip(sys.argv[1::2], sys.argv[2::2]):
    module, name = reader.split(".")
    try:
        found = getattr(globals()[module], name)(path, *([images] if name == "read_comparisons" else []))
        for _ in found:
            pass
    except InputError as error:
        print(path.rpartition("/")[2], str(error))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_small_packed_files_cannot_fill_the_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", READ]
    for name, (content, reader) in BOMBS.items():
        (tmp_path / name).write_bytes(gzip.compress(content, 6))
        command += [str(tmp_path / name), reader]
    environment = {**os.environ, "ANGULUS_MAX_UNPACKED": "4M"}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[0] for line in said[:-1]] == list(BOMBS)
    for line in said[:-1]:
        assert "must unpack to at most 4,194,304 bytes" in line or "line.csv.gz" in line, line
    assert "must have lines of fewer than 16,777,216 bytes" in said[2]
    assert int(said[-1]) < 200  # MiB, of 64 in each file; a table is read 16 MiB at a time


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (b"2\t\x1c\nA\t1\t4\n", lfw.read_lfw_pairs),
        (b"1, 1, A/0, A/1, 1\n\xc2\xb2, 2, A/0, B/1, 0\n", lfw.read_ytf_pairs),
        (b"9" * 5000 + b", 1, A/0, A/1, 1\n", lfw.read_ytf_pairs),
        (b"9" * 5000 + b" 1\na b 1\n", pair_list.read_pairs),
        (b'{"path": ' + b"[" * 5000, megaface.read_feature_list),
        (b'{"path": ["a"], "id": [' + b"9" * 5000 + b"]}", megaface.read_feature_list),
        (b"seriesuid,coordX,coordY,coordZ,class\na,1,2,3,\xc2\xb2\n", luna16_csv.read_candidates),
        (b"seriesuid,coordX,coordY,coordZ,class\na,1e400,2,3,1\n", luna16_csv.read_candidates),
        (b"case,x,y,score\na,1,2," + b"9" * 5000 + b"\n", detection_csv.read_marks),
        (b"case,x,y,score\na,1,\xc2\xb2,3\n", detection_csv.read_marks),
        (b"k" * 5000 + b",x,y,score\na,1,2,3\n", detection_csv.read_marks),
        (b"case,x,y,radius,ignore\na,1,2,3," + b"9" * 5000 + b"\n", detection_csv.read_lesions),
        (b"case,x,y,radius\n" + 2 * (b"a" * 5000 + b",1,2,3\n"), detection_csv.read_lesions),
        (
            b"case,x,y," + b"score" + b"s" * 5000 + b"\na,1,2,z\n",
            lambda path: detection_csv.read_marks(path, {"score": "score" + "s" * 5000}),
        ),
        (b"case\n" + 2 * (b"a" * 5000 + b"\n"), detection_csv.read_cases),
        (b"case,x,y," + b"diameter" * 900 + b",diameter\na,1,2,3,4\n", detection_csv.read_lesions),
        (b"a " + b"9" * 5000 + b" 3\n", ijb.read_template_media),
        (b"\xc2\xb2 1 1\n", lambda path: list(ijb.read_comparisons(path))),
        (b"(" * 5000, bin_set.read_bin),
        (b"I" + b"9" * 5000 + b"\n.", bin_set.read_bin),
        (b'{"' + b"k" * 5000 + b'": 1}', megaface.read_feature_list),
        (b"x" * 70_000 + b" 1\n", ijb.read_template_media),
        (b"no tar", cfp.read_cfp),
        (b"TEMPLATE_ID,SUBJECT_ID,FILE," + b"x" * 5000 + b"\n1,2,a\n", ijb.read_templates),
    ],
)
def test_odd_numbers_nesting_and_length_end_in_a_short_sentence(
    tmp_path: Path, text: bytes, read: Callable[[Path], Any]
) -> None:
    (tmp_path / "x.txt").write_bytes(text)
    with pytest.raises(InputError, match=r"x\.txt") as found:
        read(tmp_path / "x.txt")
    assert len(str(found.value)) < 1000 and "\n" not in str(found.value)
