"""The report in a real browser: opened, sorted, filtered, driven by keys, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sa_runtime.datasets.base import ReidDataset, Sample
from sa_runtime.retrieval.analysis import analyse
from sa_runtime.retrieval.comparison import compare_reports
from sa_runtime.retrieval.evaluation import RetrievalReport, evaluate_embedder
from sa_runtime.retrieval.report.attention import Attention
from sa_runtime.retrieval.report.build import page_of, write_report
from sa_runtime.retrieval.report.content import Content, Evaluated, content_of
from sa_runtime.retrieval.report.thumbnails import thumbnails

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: no browser can be driven"
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOSTILE = "</script><img src=x onerror=alert(1)>.png"
PEOPLE, CAMERAS = 30, 4
COLOUR = """image => {
  const style = getComputedStyle(image);
  return style.filter === "none" ? style.borderTopColor.match(/\\d+/g) : [];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser is installed: expected one of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


def drawn_world(root: Path) -> ReidDataset:
    """Crops of two heights, and one whose name tries to be a script."""
    (root / "query").mkdir(parents=True)
    rng = np.random.default_rng(0)
    samples: list[Sample] = []
    for person in range(1, PEOPLE + 1):
        for camera in range(CAMERAS):
            name = f"{person:04d}_c{camera + 1}s{1 + person % 2}_000000_00.png"
            path = root / "query" / (HOSTILE.replace("/", "_") if not samples else name)
            height = 64 if person % 3 else 96
            image = np.full((height, 32, 3), rng.integers(0, 255, 3), np.uint8)
            cv2.imwrite(str(path), image)
            samples.append(Sample(path, person, camera))
    return ReidDataset(
        name="<b>drawn</b>", root=root, train=(), query=tuple(samples), gallery=tuple(samples)
    )


def evaluated(world: ReidDataset, noise: float, name: str) -> RetrievalReport:
    rng = np.random.default_rng(1)
    who = np.array([sample.person for sample in world.query])
    centres = rng.normal(size=(who.max() + 1, 16))
    vectors = centres[who] + noise * rng.normal(size=(len(who), 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    by_path = {sample.path: vector for sample, vector in zip(world.query, vectors, strict=True)}
    report = evaluate_embedder(lambda paths: np.stack([by_path[path] for path in paths]), world)
    return replace(report, model=name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[RetrievalReport]]:
    from tests.tiny_onnx import write_convolutional_onnx

    folder = tmp_path_factory.mktemp("page")
    world = drawn_world(folder / "world")
    (folder / "runs").mkdir()
    model = folder / "runs" / "a.onnx"
    write_convolutional_onnx(model)
    reports = [evaluated(world, 1.0, str(model)), evaluated(world, 1.4, "runs/b.engine")]
    comparisons = [compare_reports(*reports)]
    return write_report(folder / "out", reports, world, comparisons, most_maps=60), reports


@pytest.fixture
def page(browser: Any, made: tuple[Path, list[RetrievalReport]]) -> Iterator[Any]:
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    opened.on("dialog", lambda dialog: faults.append("a name ran as a script"))
    opened.on(
        "request",
        lambda asked: (
            None if asked.url.startswith(("file:", "data:")) else faults.append(asked.url)
        ),
    )
    opened.goto(made[0].as_uri())
    opened.wait_for_selector("body[data-ready]")
    yield opened
    opened.close()
    assert faults == []


def column(page: Any, table: str, index: int) -> list[str]:
    found: list[str] = page.locator(f"{table} tbody tr > :nth-child({index})").all_inner_texts()
    return found


def heads(page: Any) -> list[str]:
    found: list[str] = page.locator("#list .query .head b").all_inner_texts()
    return found


def test_the_figures_are_those_of_the_reports(
    page: Any, made: tuple[Path, list[RetrievalReport]]
) -> None:
    texts = column(page, "#figures", 2)
    for text, report in zip(texts, made[1], strict=True):
        interval = report.intervals()["mAP"]
        assert text.split() == [
            f"{100 * report.mAP:.1f}",
            *f"{100 * interval.low:.1f} to {100 * interval.high:.1f}".split(),
        ]
    assert page.locator("h1").inner_text() == "<b>drawn</b>: a.onnx and b.engine"
    assert page.locator("#comparisons td.real").count() >= 1
    assert page.locator("#charts svg path").count() == 2 * 3 + 2 * 2


def test_a_table_is_sorted_by_its_heads(page: Any) -> None:
    table = "#tables > div:first-child"
    values = [float(text) for text in column(page, table, 3)]
    assert len(values) == CAMERAS * (CAMERAS - 1)
    assert values == sorted(values)
    head = page.locator(f"{table} th:nth-child(3)")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(text) for text in column(page, table, 3)] == sorted(values, reverse=True)


def test_queries_are_ordered_and_filtered(
    page: Any, made: tuple[Path, list[RetrievalReport]]
) -> None:
    reports = made[1]
    total = len(reports[0].query)
    status = page.locator("#shown")
    assert status.inner_text() == f"{total} of {total} queries"
    first = page.locator("#query-0")
    worst = first.inner_text()
    page.get_by_role("button", name="Best").click()
    assert first.inner_text() != worst
    assert "AP 100.0 %" in first.inner_text()

    page.locator("#find").fill("0007_c")
    assert status.inner_text() == f"{CAMERAS} of {total} queries"
    assert all(name.startswith("query/0007_c") for name in heads(page))
    page.locator("#camera").select_option("2")
    assert status.inner_text() == f"1 of {total} queries"
    page.get_by_role("button", name="Show all").click()
    page.locator("#outcome").select_option("dropped")
    ranks = [report.result.first_rank for report in reports]
    dropped = int(np.count_nonzero((ranks[0] == 1) & (ranks[1] > 1)))
    assert dropped > 0
    assert status.inner_text() == f"{dropped} of {total} queries"
    page.locator("#find").fill("nobody")
    assert status.inner_text() == f"0 of {total} queries"
    assert page.locator("#list .query").count() == 0


def test_a_pair_of_cameras_leads_to_its_queries(page: Any) -> None:
    page.locator("#tables > div:first-child tbody tr button").first.click()
    assert page.locator("#shown").inner_text().startswith(f"{PEOPLE} of {PEOPLE * CAMERAS} queries")
    assert "with matches under camera" in page.locator("#shown").inner_text()


def test_frames_say_who_is_right(page: Any, made: tuple[Path, list[RetrievalReport]]) -> None:
    page.locator("#find").fill("0005_c2")
    row = page.locator("#query-0")
    index = next(i for i, s in enumerate(made[1][0].query_labels.person) if s == 5) + 1
    rank = int(made[1][0].result.first_rank[index])
    strip = row.locator(".strip").first
    marks = strip.locator(".crop b").all_inner_texts()
    assert marks[0] == "query"
    assert "–" in marks  # its own image, under its own camera
    right = [mark for mark in marks if mark.startswith("✓")]
    assert right[0] == f"✓ {rank}"
    assert strip.locator(".crop.wrong").count() + strip.locator(".crop.right").count() >= 10
    assert strip.locator("img").first.evaluate("image => image.decode().then(() => true)")


def test_everything_is_reached_by_keys(page: Any) -> None:
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "find"
    page.locator("#list").focus()
    for key, place in (("ArrowDown", 1), ("ArrowDown", 2), ("ArrowUp", 1), ("Home", 0)):
        page.keyboard.press(key)
        assert page.locator("#list").get_attribute("aria-activedescendant") == f"query-{place}"
    page.keyboard.press("End")
    last = f"query-{PEOPLE * CAMERAS - 1}"
    assert page.locator("#list").get_attribute("aria-activedescendant") == last
    title = page.locator(f"#{last} .head b").inner_text()
    page.keyboard.press("Enter")
    assert page.locator("#dialog h2").inner_text() == title
    page.keyboard.press("Escape")
    assert not page.locator("#dialog").is_visible()
    assert page.evaluate("document.activeElement.id") == "list"


def test_where_a_model_looks_is_shown_and_hidden_by_a_button_and_by_a_key(page: Any) -> None:
    words = page.locator("#looks").inner_text()
    assert "a.onnx: bright where its last map is strongest" in words
    assert "b.engine: none, since maps are read from ONNX files only" in words
    first, second = (page.locator("#query-0 .strip").nth(model) for model in (0, 1))
    drawn = "canvas.look[data-drawn]"
    assert page.locator("canvas.look").count() == 0
    button = page.locator(".controls button.look")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    first.locator(drawn).first.wait_for()
    assert first.locator(drawn).count() == first.locator("img").count()
    assert second.locator("canvas.look").count() == 0  # it has no maps
    colours = first.locator(drawn).first.evaluate(
        "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)"
        ".data].length / 4"
    )
    image = first.locator("img").first
    assert colours == image.evaluate("one => one.naturalWidth * one.naturalHeight")
    boxes = [first.locator(one).first.bounding_box() for one in ("img", drawn)]
    image_box, canvas_box = boxes
    assert image_box["x"] <= canvas_box["x"]
    assert image_box["y"] <= canvas_box["y"]
    assert abs(image_box["width"] - canvas_box["width"]) < 8
    page.locator("#list").focus()
    page.keyboard.press("a")
    assert page.locator("canvas.look").count() == 0
    page.keyboard.press("Enter")
    page.keyboard.press("a")
    page.locator(f"#dialog {drawn}").first.wait_for()
    assert page.evaluate("document.activeElement.ariaLabel") == "Close"
    frame = page.locator("#dialog .crop.wrong img, #dialog .crop.right img").first
    assert len(set(frame.evaluate(COLOUR))) > 1  # what the frame says stays to be seen
    page.locator("#dialog button.look").click()
    assert page.locator("canvas.look").count() == 0
    page.keyboard.press("Escape")
    page.locator("#find").fill("aa")  # letters that are typed are letters
    assert page.locator("canvas.look").count() == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_hangs_over_the_edge(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def many(content: Content, images: int) -> Content:
    """The same queries again and again, each time with pictures of their own."""
    size = len(content.images)
    queries = []
    for turn in range(-(-images // size)):
        shift = turn * size
        for query in content.data["queries"]:
            found = [
                {
                    **one,
                    "list": [[image + shift, distance] for image, distance in one["list"]],
                    "first": [one["first"][0] + shift, one["first"][1]],
                }
                for one in query["found"]
            ]
            file = f"{turn:03d} {query['file']}"
            queries.append({**query, "file": file, "image": query["image"] + shift, "found": found})
    times = len(queries) // len(content.data["queries"])
    data = {**content.data, "queries": queries, "images": content.data["images"] * times}
    return Content(data=data, images=content.images * times)


@pytest.mark.alone
def test_20_000_pictures_do_not_freeze_the_page(browser: Any, tmp_path: Path) -> None:
    world = drawn_world(tmp_path / "world")
    report = evaluated(world, 1.0, "a.onnx")
    one = Evaluated(report=report, analysis=analyse(report, world))
    content = content_of(world, [one], [], most_images=1000)
    for model in content.data["models"]:
        model["attention"] = Attention.absent("nothing was asked for").to_dict()
    large = many(content, 20_000)
    pictures = thumbnails(content.images) * (len(large.images) // len(content.images))
    path = tmp_path / "report.html"
    path.write_text("".join(page_of(large, pictures)))
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.add_init_script(
        "window.longest = 0; new PerformanceObserver(list => { for (const task of"
        " list.getEntries()) window.longest = Math.max(window.longest, task.duration); })"
        ".observe({type: 'longtask', buffered: true});"
    )
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready]")
    assert page.evaluate("data.images.length") >= 20_000
    page.locator("#list").focus()
    for _ in range(20):
        page.keyboard.press("PageDown")
    page.keyboard.press("End")
    page.get_by_role("button", name="File").click()
    page.locator("#find").fill("050 query/0010")
    page.locator("#list img").nth(10).wait_for()
    assert page.locator("#list .query").count() < 20
    assert page.evaluate("window.longest") < 1000  # ms, loading included
    page.close()
