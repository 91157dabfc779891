"""What a file may unpack to and how deep it may nest; optional packages; temporary files of killed processes."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from angulus.core import checks, extras, files, limits
from angulus.core.checks import InputError


@pytest.fixture(autouse=True)
def default_limit(monkeypatch):
    monkeypatch.delenv(limits.VARIABLE, raising=False)
    yield
    limits.set_most_unpacked(None)


def test_a_small_gzip_file_that_unpacks_to_much_is_refused_and_the_option_reads_it(tmp_path):
    path = tmp_path / "list.txt.gz"
    path.write_bytes(gzip.compress(b"a" * 1_000_000))
    limits.set_most_unpacked("100K")
    with pytest.raises(InputError, match=r"list.txt.gz must unpack to at most 102,400 bytes; .*--max-unpacked"):
        limits.read_file(path)
    limits.set_most_unpacked("1M")
    assert len(limits.read_file(path)) == 1_000_000


def test_the_environment_raises_the_limit_and_a_large_file_may_unpack_to_more(monkeypatch):
    assert limits.most_unpacked() == 2**30
    assert limits.most_unpacked(packed=2**30) == 20 * 2**30
    monkeypatch.setenv(limits.VARIABLE, "2G")
    assert limits.most_unpacked() == 2**31
    monkeypatch.setenv(limits.VARIABLE, "much")
    with pytest.raises(InputError, match="ANGULUS_MAX_UNPACKED must be a size such as 500M or 16G; got 'much'"):
        limits.most_unpacked()


def test_inflate_stops_early():
    limits.set_most_unpacked("10K")
    assert limits.inflate(zlib.compress(b"b" * 10_000), "it") == b"b" * 10_000
    with pytest.raises(InputError, match="it must unpack to at most"):
        limits.inflate(zlib.compress(b"b" * 100_000), "it")


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("[" * 100_000 + "]" * 100_000, "must nest lists and mappings at most 64 deep"),
        ("[" * 65 + "]" * 65, "must nest lists and mappings at most 64 deep"),
        ("1" * 5_000, "must be JSON"),
        ("{", "must be JSON"),
        (b"\xff\xfe\x00", "must be JSON"),
    ],
)
def test_json_that_is_none_or_too_deep(text, sentence):
    with pytest.raises(InputError, match=f"^c.json {sentence}"):
        limits.parse_json(text, "c.json")
    deep: list = []
    for _ in range(63):
        deep = [deep]
    assert limits.parse_json(json.dumps(deep), "c.json") == deep


def test_aliases_are_counted_where_they_stand():
    value: list = [1]
    for _ in range(40):
        value = [value, value]
    with pytest.raises(InputError, match=r"r.yaml must hold at most 1,000 values, aliases written out"):
        limits.check_nesting(value, "r.yaml", most_values=1_000)


def test_values_in_errors_are_short_whatever_they_are():
    value: tuple = ()
    for _ in range(40):
        value = (value, value)
    assert len(checks.shown(value)) < 2_000
    assert checks.shown(10**5_000).endswith("bits")
    assert checks.shown("a'b") == repr("a'b")
    assert len(checks.shown("x" * 10**6)) < 200


def test_an_absent_package_names_one_extra_and_a_broken_one_its_error(tmp_path, monkeypatch):
    with pytest.raises(
        InputError, match=r"aligning needs `pip install 'angulus\[faces\]'` \(there is no package nix\)"
    ):
        extras.load("nix", "faces", "aligning")
    with pytest.raises(InputError, match=r"^aligning needs `pip install 'angulus\[faces\]'`"):
        extras.require("faces", "aligning", "json", "nix")
    (tmp_path / "broken_package.py").write_text("import absent_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"broken_package, which is installed but cannot be imported: .*absent_depend"):
        extras.load("broken_package", "faces", "aligning")
    assert extras.load("json", "faces", "aligning") is json


KILLED = """
import sys, time
from pathlib import Path
from angulus.core import files
def write(file):
    file.write(b"half"); file.flush(); print("writing", flush=True); time.sleep(60)
files.write_atomically(Path(sys.argv[1]), write)
"""


@pytest.mark.skipif(os.name != "posix", reason="file locks are POSIX's")
def test_a_killed_writer_leaves_nothing_after_the_next_write_and_a_living_one_is_left_alone(tmp_path):
    path = tmp_path / "e.npz"
    writers = [
        subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "writing\n"
    writers[0].send_signal(signal.SIGKILL)
    writers[0].wait()
    (tmp_path / ".e.npz.notes.tmp").write_text("not ours")
    files.write_text(path, "whole")
    left = sorted(each.name for each in tmp_path.iterdir())
    assert len(left) == 3 and {".e.npz.notes.tmp", "e.npz"} < set(left)  # the third is the living writer's
    writers[1].send_signal(signal.SIGKILL)
    writers[1].wait()
    files.write_text(path, "whole again")
    assert sorted(each.name for each in tmp_path.iterdir()) == [".e.npz.notes.tmp", "e.npz"]
    assert path.read_text() == "whole again"


def test_a_lock_waits_as_long_as_asked_and_names_its_folder(tmp_path):
    start = time.monotonic()
    with (
        files.lock(tmp_path, "gallery", way="add later"),
        pytest.raises(InputError, match=f"gallery {tmp_path} is in use by another process; wait for it to end, or add"),
        files.lock(Path(tmp_path), "gallery", wait_s=0.2, way="add later"),
    ):
        pass
    assert time.monotonic() - start >= 0.2
