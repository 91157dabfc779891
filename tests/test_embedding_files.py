"""Files of embeddings: flipped bits, further columns, one long id among many, and small files that unpack to much."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.core.formats.columns import shortened, text_array
from angulus.core.formats.parquet_footer import ColumnChunk, chunks
from angulus.evaluation.protocols import calibrate
from angulus.evaluation.protocols.result import Result

FORMATS = [".npz", ".safetensors", ".parquet"]
VECTORS = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
IDS = np.array([f"p{i // 2}/{i}.jpg" for i in range(40)])
LABELS = np.array([f"p{i // 2}" for i in range(40)])
NEAR = VECTORS[np.arange(40) // 2] + 0.5 * VECTORS  # images of a person are alike
SMALL = Embeddings(VECTORS, IDS, labels=LABELS, norms=np.linalg.norm(VECTORS.astype(float), axis=1))


@pytest.mark.parametrize("packed", [False, True])
def test_a_flipped_bit_in_any_member_of_an_archive_is_found(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "e.npz"
    save = np.savez_compressed if packed else np.savez
    save(path, embeddings=VECTORS, ids=IDS, labels=LABELS, norms=np.ones(40))
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            damaged = bytearray(whole)
            damaged[info.header_offset + 30 + len(info.filename) + info.compress_size // 2 + 20] ^= 0x40
            path.write_bytes(damaged)
            with pytest.raises(InputError, match=r"e\.npz must be a whole \.npz file; reading it gave: "):
                Embeddings.read(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".parquet"])
def test_a_flipped_bit_in_what_we_wrote_is_found(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"e{suffix}"
    SMALL.write(path)
    data = bytearray(path.read_bytes())
    place = data.find(VECTORS[20].tobytes())
    assert place > 0
    data[place + 2] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"e\.(safetensors: embeddings has changed|parquet must be a whole)"):
        Embeddings.read(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_further_columns_are_named_once_and_not_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"e{suffix}"
    if suffix == ".npz":
        np.savez(path, embeddings=VECTORS, ids=IDS, age=np.ones(40), sub_ject=np.array([None], dtype=object))
    elif suffix == ".safetensors":
        numpy_files = pytest.importorskip("safetensors.numpy")
        numpy_files.save_file({"embeddings": VECTORS, "age": np.ones(40), "sub_ject": np.ones(3)}, path)
        (tmp_path / "e.safetensors.ids.txt").write_text("\n".join(IDS.tolist()))
    else:
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        lists = arrow.array(VECTORS.tolist(), arrow.list_(arrow.float32()))
        parquet.write_table(
            arrow.table({"ids": IDS.tolist(), "embeddings": lists, "age": [1] * 40, "sub_ject": [{"a": 1}] * 40}), path
        )
    with pytest.warns(UserWarning, match=rf"e{suffix} also holds age, sub_ject, which are not read$") as said:
        assert np.array_equal(Embeddings.read(path).vectors, VECTORS)
    assert len(said) == 1


def test_a_column_that_may_be_misspelt_is_asked_about(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", embeddings=VECTORS, ids=IDS, identity=LABELS, group=LABELS)
    sentence = r"rename 'identity' to 'labels' if that is what it is; rename 'group' to 'groups' if that is what it is$"
    with pytest.warns(UserWarning, match=sentence):
        assert Embeddings.read(tmp_path / "e.npz").labels is None


def long_ids(count: int, longest: int) -> list[str]:
    return ["x" * longest] + [f"p{place // 2}/{place}.jpg" for place in range(1, count)]


@pytest.mark.parametrize("suffix", FORMATS)
def test_one_long_id_among_many_takes_little_memory(tmp_path: Path, suffix: str) -> None:
    """A hundred thousand ids and one of 5,020 letters: an array of one width would take 2 GB."""
    ids = long_ids(100_000, 5_020)
    assert text_array(ids).dtype == object
    given = Embeddings(np.ones((100_000, 2), dtype=np.float32), text_array(ids), labels=text_array(ids))
    path = tmp_path / f"e{suffix}"
    if suffix == ".npz":
        with pytest.raises(
            InputError, match=r"ids would take 2,008,000,000 bytes, because .npz pads each text to the long"
        ):
            given.write(path)
        return
    given.write(path)
    tracemalloc.start()
    try:
        found = Embeddings.read(path)
        assert found.rows([ids[0], ids[-1]], "a list").tolist() == [0, 99_999]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.ids.tolist() == ids
    assert peak < 200e6


def test_protocols_give_the_same_for_texts_of_both_kinds(tmp_path: Path) -> None:
    wide = np.array(["y" * 9_000 if name == IDS[3] else name for name in IDS.tolist()])
    objects = wide.astype(object)
    results = []
    for ids, labels in ((wide, LABELS), (objects, LABELS.astype(object))):
        embeddings = Embeddings(NEAR, ids, labels=labels, groups=labels, source="e")
        results.append(
            calibrate.calibrate(embeddings, calibrate.pairs_of_images(embeddings), target_fmr=0.1, draws=9)[1]
        )
    assert results[0].numbers == results[1].numbers
    for name, values in results[0].samples.items():
        assert values.tolist() == results[1].samples[name].tolist(), name
    results[1].save(tmp_path / "r.json")
    saved = Result.read(tmp_path / "r.json").samples["left"].tolist()
    assert saved == shortened(results[1].samples["left"].astype(object)).tolist()
    assert max(map(len, saved)) < 300 and len(set(saved)) == len(set(results[1].samples["left"].tolist()))


BOMBS = """
import sys, zipfile, numpy as np, pyarrow as pa, pyarrow.parquet as pq
folder = sys.argv[1]
with zipfile.ZipFile(folder + "/e.npz", "w", zipfile.ZIP_DEFLATED) as archive:
    for name, shape in (("embeddings", (200_000, 256)), ("ids", (4,))):
        with archive.open(name + ".npy", "w") as file:
            head = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, head)
            file.write(bytes(4 * int(np.prod(shape))))
rows = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(200_000 * 256, np.float32)), 256)
table = pa.table({"ids": pa.array(np.zeros(200_000, np.int32)), "embeddings": rows})
pq.write_table(table, folder + "/e.parquet", compression="zstd")
word = pa.DictionaryArray.from_arrays(pa.array(np.zeros(65_536, np.int32)), pa.array(["x" * 1_000_000]))
rows = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(65_536, np.float32)), 1)
pq.write_table(pa.table({"ids": word, "embeddings": rows}), folder + "/words.parquet", compression="zstd")
"""

READ = """
import resource, sys
from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        Embeddings.read(path)
    except InputError as error:
        print(str(error)[:1000])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_small_file_cannot_fill_the_memory(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow.parquet")
    subprocess.run([sys.executable, "-c", BOMBS, str(tmp_path)], check=True)
    paths = [tmp_path / name for name in ("e.npz", "e.parquet", "words.parquet")]
    assert all(path.stat().st_size < 400_000 for path in paths)
    environment = {**os.environ, "ANGULUS_MAX_UNPACKED": "16M"}
    command = [sys.executable, "-c", READ, *map(str, paths)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    for line in said[:2]:
        assert "must unpack to at most 16,777,216 bytes; it holds 20" in line
        assert line.endswith("raise the limit: angulus --max-unpacked 16G COMMAND, or ANGULUS_MAX_UNPACKED=16G")
    assert "ids must be unique" in said[2]  # a text that is stored once is in memory once
    assert int(said[3]) < 120  # MiB; most of it is pyarrow itself


FLIPS = """
import random, sys, warnings
from pathlib import Path
from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
warnings.simplefilter("ignore")
path, rng = Path(sys.argv[1]), random.Random(0)
whole, refused = path.read_bytes(), 0
footer = int.from_bytes(whole[-8:-4], "little")
for _ in range(600):
    data = bytearray(whole)
    data[rng.randrange(len(data) - 8 - footer, len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    try:
        Embeddings.read(path)
    except InputError:
        refused += 1
print(refused)
"""


def test_a_damaged_footer_of_parquet_never_ends_the_process(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow.parquet")
    SMALL.write(tmp_path / "e.parquet")
    command = [sys.executable, "-c", FLIPS, str(tmp_path / "e.parquet")]
    assert int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) > 100


def test_chunks_of_a_footer_are_those_that_pyarrow_finds(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "e.parquet"
    columns = {"ids": IDS.tolist(), "norms": np.ones(40), "rows": VECTORS.tolist(), "few": np.ones(40, dtype=np.int32)}
    parquet.write_table(arrow.table(columns), path, row_group_size=15)
    metadata = parquet.ParquetFile(path).metadata
    expected = []
    for group in range(metadata.num_row_groups):
        for chunk in (metadata.row_group(group).column(place) for place in range(metadata.num_columns)):
            text = chunk.total_uncompressed_size if chunk.physical_type == "BYTE_ARRAY" else 0
            width = {"INT32": 4, "FLOAT": 4}.get(chunk.physical_type, 8)
            name, unpacked = chunk.path_in_schema.partition(".")[0], width * chunk.num_values + text
            expected.append(ColumnChunk(name, unpacked, chunk.data_page_offset, chunk.total_compressed_size))
    with path.open("rb") as file:
        assert list(chunks(file)) == expected and len(expected) == 12
