"""The page in a real browser, as a reader has it: charts, hovers, the slider, light and dark, and no network."""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import reports
from angulus.experiments import build
from angulus.report.sections import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives a browser")
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 30_000  # a busy machine draws slowly
OPTIONS = ["--no-sandbox", "--enable-unsafe-swiftshader"]  # as root in a container, and 3-D without a graphics card


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"needs a Chromium: none of {', '.join(BROWSERS)} is installed")
    with sync_api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=found, args=OPTIONS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a run in the plane, one in space, and a result of pairs with images, all of dangerous names."""
    here = tmp_path_factory.mktemp("browser")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "splits", lambda recipe: reports.splits())
        flat = reports.train(here / "flat", "backbone.embedding_size=2", f"title={reports.EVIL!r}")
        solid = reports.train(here / "solid", "backbone.embedding_size=3")
        result = reports.result(here, "crowd")
        write_report([flat, solid, result], here / "report.html", images=reports.photos(here / "photos"), draws=20)
    return here / "report.html"


class Watched:
    """A page, and what it complained of or asked for."""

    def __init__(self, context: Any, file: Path) -> None:
        self.page = context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.add_init_script("window.evil = () => { window.harmed = true; }")
        self.page.goto(file.as_uri())

    def plot(self, anchor: str, number: int = 0) -> Any:
        """A chart of a section, once it is drawn."""
        plot = self.page.locator(f"section[aria-labelledby={anchor}] .plot").nth(number)
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for(state="attached")
        self.page.wait_for_function("plot => plot.data && plot._fullLayout", arg=plot.element_handle())
        return plot


def a_context(browser: Any, **options: Any) -> Any:
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(PATIENCE_MS)
    return context


@pytest.fixture(scope="module")
def opened(browser: Any, file: Path) -> Iterator[Watched]:
    """The page in light; each test leaves it as it was."""
    context = a_context(browser, color_scheme="light")
    watched = Watched(context, file)
    yield watched
    context.close()


@pytest.fixture(autouse=True)
def all_is_well(opened: Watched) -> Iterator[None]:
    yield
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []


def test_every_chart_is_drawn_and_nothing_runs_or_leaves(opened: Watched) -> None:
    page = opened.page
    page.evaluate("document.querySelectorAll('details').forEach(folded => { folded.open = true; })")
    for plot in page.locator(".plot").all():
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for(state="attached")
    assert page.locator(".plot").count() > 15
    assert page.locator(".plot .scatterlayer .trace").count() > 20
    assert page.locator(".plot .barlayer .trace").count() > 4
    assert page.evaluate("window.harmed") is None
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_nothing_can_be_fetched(browser: Any, file: Path) -> None:
    context = a_context(browser)
    watched = Watched(context, file)
    assert watched.page.evaluate("fetch('https://example.com/').then(() => 'sent', () => 'refused')") == "refused"
    added = (
        "new Promise(done => { addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));"
        "const script = document.createElement('script'); script.textContent = 'evil()';"
        "document.body.append(script) })"
    )
    assert watched.page.evaluate(added) == "script-src-elem"
    assert watched.page.evaluate("window.harmed") is None
    context.close()


def test_a_hover_shows_the_values_of_the_point(opened: Watched) -> None:
    plot = opened.plot("verification")
    place = plot.evaluate(
        """plot => {
            const { xaxis, yaxis } = plot._fullLayout, trace = plot._fullData[0], row = Math.floor(trace.x.length / 2);
            const box = plot.getBoundingClientRect(), x = trace.x[row], y = trace.y[row];
            return [box.x + xaxis._offset + xaxis.d2p(x), box.y + yaxis._offset + yaxis.d2p(y), x, y];
        }"""
    )
    opened.page.mouse.move(place[0] - 3, place[1])
    opened.page.mouse.move(place[0], place[1])
    label = plot.locator(".hovertext").first
    label.wait_for()
    said = label.text_content()
    assert f"{place[2]:.4g}" in said and f"{place[3]:.4g}" in said, said


def test_a_feature_shows_its_image_and_what_is_known_of_it(opened: Watched) -> None:
    plot, page = opened.plot("features"), opened.page
    plot.evaluate("plot => plot.scrollIntoView({ block: 'center' })")
    place = plot.evaluate(
        """plot => {
            const { xaxis, yaxis } = plot._fullLayout, trace = plot._fullData.find(each => each.name === "9");
            const box = plot.getBoundingClientRect(), norms = trace.x.map((x, row) => Math.hypot(x, trace.y[row]));
            const row = norms.indexOf(Math.max(...norms));
            const left = box.x + xaxis._offset + xaxis.d2p(trace.x[row]);
            return [left, box.y + yaxis._offset + yaxis.d2p(trace.y[row])];
        }"""
    )
    page.mouse.move(place[0] - 3, place[1])
    page.mouse.move(place[0], place[1])
    peek = page.locator("#peek")
    peek.wait_for()
    samples = page.evaluate("JSON.parse(document.getElementById('charts').textContent).charts.find(c => c.samples)")[
        "samples"
    ]
    # another feature may lie on top: what is said must be of one image, whichever it is
    said = peek.locator(".said").evaluate("each => [...each.children].map(line => line.textContent)")  # all at once
    row = samples["ids"].index(said[0])
    assert said[1] == f"class {samples['classes'][samples['labels'][row]]}"
    assert said[2].startswith(f"predicted {samples['classes'][samples['predictions'][row]]}")
    assert said[3] == f"norm {samples['norms'][row]:g}, {samples['degrees'][row]:g}° to its class weight"
    assert "data:image/png;base64" in peek.locator(".picture").evaluate("each => each.style.backgroundImage")
    assert page.evaluate("window.harmed") is None
    page.mouse.move(2, 2)
    peek.wait_for(state="hidden")


def test_the_legend_of_the_page_switches_all_charts(opened: Watched) -> None:
    opened.plot("training")
    page = opened.page
    entry = page.locator(".page-legend .entry").nth(1)
    group = entry.get_attribute("data-group")
    shown = """group => [...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot._fullData)
        .filter(trace => trace.meta === group && trace.visible === true).length"""
    figures = "group => [...document.querySelectorAll('figure[data-group]')].filter(f => f.hidden).length"
    before = page.evaluate(shown, group)
    assert before > 0
    entry.click()
    page.wait_for_function(f"group => ({shown})(group) === 0", arg=group)
    assert page.evaluate(figures, group) >= 2 and entry.get_attribute("aria-pressed") == "false"
    entry.click()
    page.wait_for_function(f"group => ({shown})(group) >= {before}", arg=group)
    assert page.evaluate(figures, group) == 0


def test_the_circle_on_a_curve_has_the_number_of_the_table(opened: Watched) -> None:
    plot = opened.plot("verification")
    place = plot.evaluate(
        """plot => {
            const { xaxis, yaxis } = plot._fullLayout, box = plot.getBoundingClientRect();
            const { x, y } = plot._fullData.find(trace => trace.mode === "markers");
            return [box.x + xaxis._offset + xaxis.d2p(x[0]), box.y + yaxis._offset + yaxis.d2p(y[0])];
        }"""
    )
    opened.page.mouse.move(place[0] - 3, place[1])
    opened.page.mouse.move(place[0], place[1])
    label = plot.locator(".hovertext").first
    label.wait_for()
    row = opened.page.locator("tr", has=opened.page.locator("th", has_text="TAR@FAR=1e-1"))
    assert f"TAR@FAR=1e-1: {row.locator('td').first.text_content()}" in label.text_content()


def test_the_button_turns_light_into_dark_and_back(opened: Watched) -> None:
    plot, button = opened.plot("classification"), opened.page.locator("#theme")
    look = "() => [getComputedStyle(document.body).backgroundColor, document.querySelector('.xtick text').style.fill]"
    before, called = opened.page.evaluate(look), button.inner_text()
    button.focus()
    opened.page.keyboard.press("Enter")
    opened.page.wait_for_function(f"before => ({look})().every((now, place) => now !== before[place])", arg=before)
    assert button.inner_text() != called
    button.click()
    opened.page.wait_for_function(f"before => ({look})().join() === before.join()", arg=before)
    assert plot.locator(".main-svg").count()


def test_the_slider_shows_earlier_epochs(opened: Watched) -> None:
    plot, page = opened.plot("features"), opened.page
    slider, said = page.locator(".epoch"), page.locator("output")
    chart = page.evaluate("JSON.parse(document.getElementById('charts').textContent).charts.find(c => c.samples)")
    assert said.text_content() == "the end"
    slider.focus()
    for epoch in (2, 1, 0):
        page.keyboard.press("ArrowLeft")
        page.wait_for_function("say => document.querySelector('output').textContent === say", arg=f"epoch {epoch}")
        assert slider.get_attribute("aria-valuetext") == f"epoch {epoch}"
        page.wait_for_function(
            "([plot, x]) => plot.data[0].x.join() === x.join()",
            arg=[plot.element_handle(), chart["frames"][epoch][0][0]],
        )
        norms = sorted(math.hypot(*xy) for trace in chart["frames"][epoch] for xy in zip(*trace, strict=True))
        far = 1.08 * min(norms[-1], 3 * norms[int(0.95 * (len(norms) - 1))])
        page.wait_for_function(
            "([plot, far]) => Math.abs(plot.layout.xaxis.range[1] / far - 1) < 1e-6", arg=[plot.element_handle(), far]
        )
    page.locator(".play").click()
    page.wait_for_function("() => document.querySelector('output').textContent === 'the end'")
    page.wait_for_function(
        "([plot, x]) => plot.data[0].x.join() === x.join()", arg=[plot.element_handle(), chart["traces"][0]["x"]]
    )
    assert page.locator(".play").text_content() == "Play"


def test_features_can_be_put_on_the_circle(opened: Watched) -> None:
    plot, page = opened.plot("features"), opened.page
    lengths = "plot => plot.data[0].x.map((x, row) => Math.hypot(x, plot.data[0].y[row]))"
    before = plot.evaluate(lengths)
    page.locator(".lengths").check()
    page.wait_for_function(
        f"plot => ({lengths})(plot).every(length => Math.abs(length - 1) < 1e-3)", arg=plot.element_handle()
    )
    assert plot.evaluate("plot => plot.data.filter(trace => trace.name === 'length 1' && trace.visible).length") == 1
    page.locator(".lengths").uncheck()
    page.wait_for_function(
        f"([plot, was]) => ({lengths})(plot).join() === was.join()", arg=[plot.element_handle(), before]
    )


def test_a_projection_without_epochs_has_no_circle(browser: Any, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "splits", lambda recipe: reports.splits())
        run = reports.train(tmp_path / "run", "backbone.embedding_size=8")
        (run / "formation.npz").unlink()
        write_report([run], tmp_path / "report.html", draws=0)
    context = a_context(browser)
    plot = Watched(context, tmp_path / "report.html").plot("features")
    outline = "plot => plot._fullData.find(trace => trace.name === 'length 1').visible"
    plot.page.wait_for_timeout(500)  # what is drawn is then placed
    assert plot.evaluate(outline) is False
    context.close()


def test_space_turns_under_the_mouse(opened: Watched) -> None:
    plot, page = opened.plot("features", 1), opened.page
    page.wait_for_function("plot => Boolean(plot._fullLayout.scene._scene)", arg=plot.element_handle())
    eye = "plot => JSON.stringify(plot._fullLayout.scene._scene.getCamera().eye)"
    before, box = plot.evaluate(eye), plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 4)
    page.mouse.down()
    for step in range(1, 9):  # as a hand does: between two frames nothing turns
        page.mouse.move(box["x"] + box["width"] / 2 + 10 * step, box["y"] + box["height"] / 4 + 3 * step)
        page.wait_for_timeout(60)
    page.mouse.up()
    page.wait_for_function(f"([plot, was]) => ({eye})(plot) !== was", arg=[plot.element_handle(), before])


def test_it_is_dark_where_the_reader_wants_that_and_in_one_column_on_a_phone(browser: Any, file: Path) -> None:
    context = a_context(
        browser, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True, color_scheme="dark"
    )
    page = Watched(context, file).page
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 29)"
    assert page.locator("#theme").inner_text() == "Light"
    lefts = {plot.bounding_box()["x"] for plot in page.locator(".plot:visible").all()}
    assert len(lefts) == 1
    heights = "[...document.querySelectorAll('button, .controls label')].map(each => each.offsetHeight)"
    small = f"{heights}.filter(height => height > 0 && height < 40).length"  # 0: folded
    assert page.evaluate(small) == 0
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_wide_table_on_a_phone_says_that_it_scrolls(browser: Any, file: Path, scheme: str) -> None:
    context = a_context(
        browser, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True, color_scheme=scheme
    )
    page = Watched(context, file).page
    region = page.get_by_role("region", name="Test images, each run")
    hint = page.locator(".hint", has=page.locator("xpath=self::p[following-sibling::*[1][@aria-label]]"))
    wide = "region => region.scrollWidth > region.clientWidth + 1"
    page.wait_for_function(
        f"region => !region.previousElementSibling.hidden && ({wide})(region)", arg=region.element_handle()
    )
    for each, said in zip(page.locator(".scroll").all(), hint.all(), strict=True):
        assert said.is_visible() == (each.evaluate(wide) and each.is_visible())

    def edge() -> int:
        """The brightness at the region's right edge, as far from the ground's as the shadow is strong."""
        with Image.open(io.BytesIO(region.screenshot())) as picture:
            grey = picture.convert("L")
            return abs(grey.getpixel((grey.width - 2, 2)) - grey.getpixel((grey.width // 2, 2)))

    assert edge() > 20
    first, before = region.locator("tbody th").first, region.locator("tbody th").first.bounding_box()
    region.focus()
    assert region.evaluate("region => document.activeElement === region")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("region => region.scrollLeft > 20", arg=region.element_handle())
    region.evaluate("region => { region.scrollLeft = region.scrollWidth }")
    end = "region => region.scrollLeft + region.clientWidth > region.scrollWidth - 2"
    page.wait_for_function(end, arg=region.element_handle())
    assert first.bounding_box() == before  # the names stay
    assert edge() < 5
    context.close()
