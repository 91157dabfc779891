"""The docs' site in a real browser, from disk: pages open, search finds, and nothing is fetched from elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives a browser")
mkdocs_config = pytest.importorskip("mkdocs.config", reason="needs mkdocs, which builds the site")
from mkdocs.commands.build import build  # noqa: E402

ROOT = Path(__file__).parents[1]
WIDE = """| a key of a recipe | what it is |
|---|---|
| `training.optimizer.backbone_lr_scale_of_a_long_name` | The rate of the backbone, by that of the head |

| loss | accuracy good | accuracy low | accuracy entire | norm good | norm low | norm entire |
|---|---:|---:|---:|---:|---:|---:|
| CM-M-Softmax | 99.88 ± 0.09 | 93.57 ± 0.60 | 98.62 ± 0.07 | 54.54 ± 1.95 | 22.80 ± 0.46 | 48.19 ± 1.66 |
"""
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pages built with the site's own theme, search and scripts."""
    here = tmp_path_factory.mktemp("site")
    for folder in ("javascripts", "stylesheets"):
        shutil.copytree(ROOT / "docs" / folder, here / "docs" / folder)
    (here / "docs" / "index.md").write_text(f"# Begin\n\nGo to [the other](other/page.md).\n\n{WIDE}\n")
    (here / "docs" / "other").mkdir()
    (here / "docs" / "other" / "page.md").write_text("# Another page\n\nHere stands a quetzal.\n")
    yaml = YAML(typ="safe", pure=True)
    whole = yaml.load((ROOT / "mkdocs.yml").read_text())
    kept = {name: value for name, value in whole.items() if name not in ("hooks", "nav")}
    kept["plugins"] = [each for each in whole["plugins"] if "mkdocstrings" not in each]  # the API takes a minute
    yaml.dump(kept, here / "mkdocs.yml")
    build(mkdocs_config.load_config(str(here / "mkdocs.yml")))
    return here / "site"


@pytest.fixture
def page(site: Path) -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"needs a Chromium: none of {', '.join(BROWSERS)} is installed")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=["--no-sandbox"])  # as root in a container
        opened = browser.new_page()
        opened.set_default_timeout(60_000)
        complaints: list[str] = []
        opened.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("request", lambda asked: asked.url.startswith(("file:", "data:")) or complaints.append(asked.url))
        opened.goto((site / "index.html").as_uri())
        yield opened
        browser.close()
        assert complaints == []


def test_a_page_from_disk_opens_the_next(page: Any) -> None:
    page.get_by_role("link", name="the other").click()
    page.get_by_role("heading", name="Another page").wait_for()


@pytest.mark.parametrize("start", ["index.html", "other/page.html"])
def test_search_from_disk_finds_a_word_and_opens_its_page(page: Any, site: Path, start: str) -> None:
    page.goto((site / start).as_uri())
    page.keyboard.press("/")
    page.locator("input.md-search__input").press_sequentially("quetzal")
    page.locator(".md-search-result__link", has_text="Another page").first.click()
    page.wait_for_url("**/other/page.html*")
    page.get_by_text("Here stands a quetzal").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tables_fit_a_phone(page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 390, "height": 844})
    rights = page.evaluate("[...document.querySelectorAll('table')].map(e => e.getBoundingClientRect().right)")
    assert len(rights) == 2 and max(rights) <= 390
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
