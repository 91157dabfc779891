"""Parts of a data set: by the columns of a list, and identities held out."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from angulus.core.checks import InputError
from angulus.data.convert import LEFT_OUT, Selection, convert
from angulus.data.records import Records, Row, write_records
from data.pictures import png

HEAD = "path,identity,split,faces\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    for number, person in enumerate(["ann", "ann", "bob", "cy"]):
        (folder / person).mkdir(parents=True, exist_ok=True)
        (folder / person / f"{number}.png").write_bytes(png(number))
    return folder


def listed(path: Path, *lines: str) -> Path:
    path.write_bytes(gzip.compress((HEAD + "".join(f"{line}\n" for line in lines)).encode()))
    return path


def left_out(out: Path) -> dict[str, str]:
    lines = (out / LEFT_OUT).read_text(encoding="utf-8").splitlines()
    return {item["where"]: item["reason"] for item in map(json.loads, lines)}


def test_a_lists_column_chooses(tree: Path, tmp_path: Path) -> None:
    (tree / "cy" / "torn.png").write_bytes(b"")
    (tree / "bob" / "torn.png").write_bytes(b"")
    table = listed(
        tmp_path / "images.csv.gz",
        *("ann/0.png,1,train,1", "ann/1.png,1,train,2", "bob/2.png,2,test,1", "bob/torn.png,2,test,1"),
        *("cy/torn.png,3,train,1", "gone.png,1,train,1", "gone-too.png,1,test,1"),
    )
    done = convert(tree, tmp_path / "train", selection=Selection(table, ("split=train",)))
    assert Records(tmp_path / "train").ids.tolist() == ["ann/0.png", "ann/1.png"]
    assert (done.rows, done.not_taken, len(done.left_out)) == (2, 2, 3)
    reasons = left_out(tmp_path / "train")
    assert sorted(reasons) == ["cy/3.png", "cy/torn.png", "gone.png"]
    assert "does not name it" in reasons["cy/3.png"] and "the source does not have it" in reasons["gone.png"]
    assert Records(tmp_path / "train").about["where"] == ["split=train"]
    both = convert(tree, tmp_path / "both", selection=Selection(table, ("split=train", "faces=2")))
    assert both.rows == 1 and Records(tmp_path / "both").ids.tolist() == ["ann/1.png"]


def test_identities_are_held_out_whole_and_the_same_in_any_set(tmp_path: Path) -> None:
    names = [f"person {number}" for number in range(60)]
    write_records(tmp_path / "all", [Row(f"{name}/{n}.png", png(n), name) for name in names for n in range(2)])
    write_records(tmp_path / "few", [Row(f"{name}.png", png(1), name) for name in names[::7]])
    sides = {}
    for part, selection in (("rest", Selection(hold_out=5)), ("held", Selection(held_out=5))):
        convert(tmp_path / "all", tmp_path / part, selection=selection)
        sides[part] = set(Records(tmp_path / part).identities.tolist())
        assert len(Records(tmp_path / part)) == 2 * len(sides[part])
    assert sides["rest"] | sides["held"] == set(names) and not sides["rest"] & sides["held"]
    assert 4 <= len(sides["held"]) <= 20
    convert(tmp_path / "few", tmp_path / "few held", selection=Selection(held_out=5))
    assert set(Records(tmp_path / "few held").identities.tolist()) == sides["held"] & set(names[::7])


def test_an_image_of_nobody_is_on_neither_side(tree: Path, tmp_path: Path) -> None:
    (tree / "loose.png").write_bytes(png(7))
    for part, selection in (("rest", Selection(hold_out=2)), ("held", Selection(held_out=2))):
        done = convert(tree, tmp_path / part, selection=selection)
        assert [item.where for item in done.left_out] == ["loose.png"]
        assert "it has no identity" in done.left_out[0].reason


def test_another_selection_does_not_go_on(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("angulus.data.records.writer.PART_BYTES", 1)

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(tree, tmp_path / "out", selection=Selection(held_out=2), on_row=stop)
    with pytest.raises(InputError, match="unfinished records about something else"):
        convert(tree, tmp_path / "out", selection=Selection(hold_out=2))


@pytest.mark.parametrize(
    ("lines", "where", "said"),
    [
        (["ann/0.png,1,train,1"], "splitt=train", r"a column of .*; got 'splitt'; did you mean 'split'\?"),
        (["ann/0.png,1,train,1"], "split=trian", "must hold for a line of .*; got split=trian: split holds train"),
        (["ann/0.png,1,train,1"] * 2, "split=train", "line 3 must name an image that no line before it names"),
        (["ann/0.png,1,train"], "split=train", "line 2 must be 4 cells, as the first line has; got '3'"),
    ],
)
def test_lists_that_are_refused(tree: Path, tmp_path: Path, lines: list[str], where: str, said: str) -> None:
    table = listed(tmp_path / "images.csv.gz", *lines)
    with pytest.raises(InputError, match=said):
        convert(tree, tmp_path / "out", selection=Selection(table, (where,)))
    assert not (tmp_path / "out").exists()


def test_a_list_without_names_is_refused(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_text("name,split\nann/0.png,train\n", encoding="utf-8")
    with pytest.raises(InputError, match="must have a column `id` or `path` that names the images; got name, split"):
        convert(tree, tmp_path / "out", selection=Selection(tmp_path / "images.csv", ("split=train",)))


def test_selections_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="go together; got only --where"):
        Selection(where=("a=b",))
    with pytest.raises(InputError, match="go together; got only --list"):
        Selection(tmp_path)
    for condition in ("split", "=train"):
        with pytest.raises(InputError, match="where must be column=value"):
            Selection(tmp_path, (condition,))
    with pytest.raises(InputError, match="give one of them"):
        Selection(hold_out=2, held_out=2)
    with pytest.raises(InputError, match="held_out must be"):
        Selection(held_out=1)
