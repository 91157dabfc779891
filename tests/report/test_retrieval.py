"""Queries in a report: rows of thumbnails with frames and signs, a table of ids without images, figures by class."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.evaluation.protocols.result import Curve, Number, Result
from angulus.report.content import read_content
from angulus.report.page import render
from angulus.report.sections import build_sections, write_report
from reports import EVIL, Page

FIGURES = {
    "figures": np.array(["recall@1", "mAP"]),
    "hits": np.array([[1.0, 3, 0], [1.2, 2.5, 0]]),
    "trials": np.array([[2.0, 3, 0], [2, 3, 0]]),
    "classes": np.array(["bags", "shoes", EVIL]),
}
SHOWN = {
    "shown_queries": np.array(["q/1", "q/2"]),
    "shown_why": np.array(["worst", "drawn"]),
    "shown_precision": np.array([0.125, 1.0]),
    "shown_neighbours": np.array([["g/1", "g/2", "g/3"], ["g/3", "g/1", ""]]),
    "shown_scores": np.array([[0.9, 0.8, 0.7], [0.6, 0.5, np.nan]]),
    "shown_right": np.array([[False, True, False], [True, True, False]]),
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    curve = Curve("cmc", "retrieval", np.array([1.0, 2, 3]), np.array([0.5, 0.75, 1]))
    number = Number("recall@1", 0.8)
    Result("retrieval", (number,), {"seed": 0}, {"queries": 5}, (curve,), samples={**FIGURES, **SHOWN}).save(
        tmp_path / "shop.json"
    )
    return tmp_path / "shop.json"


def photos(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{name}.png"), np.full((40, 40, 3), 20 * number, np.uint8))
    return folder


def page_of(saved: Path, images: Path | None = None) -> tuple[str, Page]:
    content = read_content([saved])
    text = render(content.title, "", build_sections(content, images))
    return text, Page(text)


def test_neighbours_are_framed_and_signed(saved: Path, tmp_path: Path) -> None:
    text, page = page_of(saved, photos(tmp_path / "all", "q/1", "q/2", "g/1", "g/2", "g/3"))
    judged = [attrs["class"] for attrs, _ in page.all("span") if str(attrs.get("class")).startswith("judged")]
    assert judged == ["judged wrong", "judged right", "judged wrong", "judged right", "judged right"]
    signs = [said for attrs, said in page.all("span") if str(attrs.get("class")).startswith("judged")]
    assert signs == ["✗", "✓", "✗", "✓", "✓"]
    alts = [attrs["alt"] for attrs, _ in page.all("img")]
    assert alts[:3] == ["query q/1", "g/1, wrong, cosine 0.900", "g/2, right, cosine 0.800"]
    assert "query q/2" in alts and len(alts) == 7
    assert [said for _, said in page.all("h3") if "ueries" in said] == [
        "Worst queries: lowest average precision",
        "Other queries, drawn by the seed",
    ]
    assert "q/1: average precision 0.125" in text
    assert EVIL not in text


def test_an_image_that_is_not_there_is_counted(saved: Path, tmp_path: Path) -> None:
    text, page = page_of(saved, photos(tmp_path / "some", "q/1", "g/1"))
    assert "q/1: average precision 0.125; 2 of the images not found" in text
    assert len(page.all("img")) == 3


def test_without_images_there_is_a_table_of_ids(saved: Path) -> None:
    text, page = page_of(saved)
    assert not page.all("img")
    cells = [said for _, said in page.all("td")]
    assert "✗ g/1 (0.900), ✓ g/2 (0.800), ✗ g/3 (0.700)" in cells
    assert "✓ g/3 (0.600), ✓ g/1 (0.500)" in cells
    assert "Give --images to see the images." in text


def test_classes_come_with_the_worst_on_top(saved: Path) -> None:
    _, page = page_of(saved)
    heads = [said for attrs, said in page.all("th") if attrs.get("scope") == "row"]
    assert [head for head in heads if head in FIGURES["classes"].tolist()] == ["bags", "shoes", EVIL]
    cells = [said for _, said in page.all("td")]
    assert cells[cells.index("0.5000") - 1 : cells.index("0.5000") + 2] == ["2", "0.5000", "0.6000"]
    assert "cmc" not in heads and any("CMC" in said for _, said in page.all("h3"))


def test_images_of_others_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it has none of these 5, such as 'g/1'"):
        write_report([saved], tmp_path / "page.html", images=photos(tmp_path / "other", "stranger"))
    assert not (tmp_path / "page.html").exists()
