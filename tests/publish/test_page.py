"""report.html in a real browser: complete, quiet, readable in both themes and on a phone, and deaf to what a run is called."""

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from lft.launch.reporting import read_facts, write_page
from lft.publish.comparison import compare
from lft.publish.page import write_comparison_page
from tests.browser import PROGRAM, Browser
from tests.publish.made_up_run import BENCHMARK, make_run

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium: scripts/chromium installs Debian's")
SAMPLE_KEYS = ("prompt", "reference", "base", "tuned")
KINDS = ("finished", "unfinished", "hostile", "comparison")
WIDTHS = {"desktop": 1280, "phone": 390}
SECTIONS = ["results", "answers", "training", "data", "plan", "attempts", "settings", "next", "versions"]
HOSTILE = (
    "<script>document.title='broken'</script>&amp;\u202e\"'" + "x" * 400 + "\n</style><img src=x onerror=alert(1)>"
)
AXE = """
axe.run(document, {resultTypes: ["violations"]}).then(
    found => found.violations.map(each => each.id + ": " + each.nodes.map(node => node.html).join(" | ")))
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages of a finished run, of one that goes on, of one that calls everything by hostile names, and of all three."""
    folder = tmp_path_factory.mktemp("runs")
    hostile: dict[str, Any] = {
        "model": {"name": "a/" + HOSTILE},
        "data": {"source": "b/" + HOSTILE},
        "training": {"trackers": ["wandb"]},
    }
    runs = [
        make_run(folder / "support"),
        make_run(folder / "longer", steps=200, ends=False, training={"log_every": 1, "learning_rate": 1e-3}),
        make_run(folder / "<i>&", benchmark=BENCHMARK | {"samples": [dict.fromkeys(SAMPLE_KEYS, HOSTILE)]}, **hostile),
    ]
    for run in runs:
        write_page(run)
    write_comparison_page(folder / "comparison.html", compare([read_facts(run) for run in runs]))
    return {
        "finished": runs[0].page,
        "unfinished": runs[1].page,
        "hostile": runs[2].page,
        "comparison": folder / "comparison.html",
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_says_nothing_to_the_console_asks_for_nothing_and_fits_the_window(
    kind: str, width: str, browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages[kind].as_uri(), width=WIDTHS[width])
    assert browser.said == []
    assert browser.asked == [pages[kind].as_uri()]
    assert browser.value("document.documentElement.scrollWidth") == WIDTHS[width]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", WIDTHS)
def test_text_has_the_width_there_is(kind: str, width: str, browser: Browser, pages: dict[str, Path]) -> None:
    """A caption of a table that is laid out otherwise on a phone was one character wide."""
    browser.open(pages[kind].as_uri(), width=WIDTHS[width])
    narrow = """[...document.querySelectorAll('caption:not(.unseen), p, h2, h3, blockquote, dd, figcaption')]
        .filter(each => each.offsetHeight > 10 * Math.max(each.offsetWidth, 1)).map(each => each.outerHTML)"""
    assert browser.value(narrow) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_page_has_no_barrier_that_axe_finds(kind: str, dark: bool, browser: Browser, pages: dict[str, Path]) -> None:
    """Contrast of all text, names of all pictures, order of headings, heads of tables, what the keyboard reaches."""
    browser.open(pages[kind].as_uri(), dark=dark)
    browser.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    browser.value((resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
    assert browser.value(AXE) == []


def test_both_themes_are_drawn_in_colours_of_their_own(browser: Browser, pages: dict[str, Path]) -> None:
    paper = []
    for dark in (False, True):
        browser.open(pages["finished"].as_uri(), dark=dark)
        colour = browser.value("getComputedStyle(document.body).backgroundColor")
        paper.append(sum(map(int, re.findall(r"\d+", colour)[:3])))
    assert paper[0] > 700
    assert paper[1] < 100


def test_the_page_of_a_finished_run_has_every_section_with_its_numbers(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["finished"].as_uri())
    assert browser.value("[...document.querySelectorAll('main section')].map(each => each.id)") == SECTIONS
    assert browser.value("[...document.querySelectorAll('nav a')].map(each => each.hash.slice(1))") == SECTIONS
    shown = {name: browser.value(f"document.getElementById('{name}').innerText") for name in SECTIONS}
    expected = {
        "results": ["0.181", "0.302", "+0.121", "+0.099 to +0.143", "better", "no significant change", "perplexity"],
        "answers": ['Define the noun "tissue".', "a part of an organism made of cells", "(nothing)"],
        "training": ["Loss", "Learning rate", "Tokens a second", "1.59 GB", "1.54 GB", "went on from step 48"],
        "data": ["972", "9,359", "21 %", "rows cut", "rows.jsonl:812"],
        "plan": ["ddp", "each rank holds the whole model", "accumulation"],
        "attempts": ["stopped after step 60", "from checkpoint-48", "done"],
        "settings": ["launch.cpu_procs", "training.log_every"],
        "next": ["PeftModel", "lft launch", "run/settings.yaml", "lft upload"],
        "versions": ["torch", "transformers", "run/report.json"],
    }
    for name, words in expected.items():
        assert [word for word in words if word not in shown[name]] == [], name
    figures = browser.value("document.querySelector('.figures').innerText")
    assert [each for each in ("0.302", "2.731", "120", "1,510", "1.5 GB", "461 k") if each not in figures] == []


def test_the_curves_lie_where_the_numbers_are(browser: Browser, pages: dict[str, Path]) -> None:
    """Of 120 steps, and of an axis that its ticks describe."""
    browser.open(pages["finished"].as_uri())
    point = browser.value(
        """(() => { const dot = [...document.querySelectorAll('.hit')].find(
               each => each.textContent.startsWith('held-out loss, step 15: '));
           const [own, all] = [dot, dot.closest('svg')].map(each => each.getBoundingClientRect());
           const ticks = [...dot.closest('.area').querySelectorAll('.y-axis span')].map(each => +each.textContent);
           return {says: dot.textContent, x: (own.x + own.width / 2 - all.x) / all.width,
                   y: 1 - (own.y + own.height / 2 - all.y) / all.height, low: ticks[0], high: ticks.at(-1)}; })()"""
    )
    value = float(point["says"].rpartition(" ")[2])
    assert point["x"] == pytest.approx(15 / 120, abs=0.01)
    assert point["low"] + point["y"] * (point["high"] - point["low"]) == pytest.approx(value, abs=0.02)


def test_a_run_that_goes_on_shows_what_there_is(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["unfinished"].as_uri())
    assert browser.value("[...document.querySelectorAll('main section')].map(each => each.id)") == [
        name for name in SECTIONS if name not in ("results", "answers", "data")
    ]
    header = browser.value("document.querySelector('header').innerText")
    assert [word for word in ("150 of 200", "held-out loss", "gone without a word") if word not in header] == []


def test_what_a_run_calls_itself_is_shown_and_never_done(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["hostile"].as_uri())
    assert "report of a run" in browser.value("document.title")
    assert browser.value("document.querySelectorAll('script, img, i').length") == 0
    assert "<script>document.title='broken'</script>&amp;" in browser.value("document.body.innerText")


def test_the_keyboard_reaches_the_content_and_every_fold_first_things_first(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["finished"].as_uri())
    reached: list[str] = []
    while len(reached) < 2 or reached[-1] != reached[0]:  # once around
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.append(browser.value("document.activeElement.tagName + ' ' + document.activeElement.innerText"))
        assert len(reached) < 60
    reached.pop()
    assert reached[0] == "A Skip to the content"
    assert reached[1 : 1 + len(SECTIONS)] == [each for each in reached if each.startswith("A ")][1:]
    assert [each for each in reached if each == "SUMMARY Numbers"] == ["SUMMARY Numbers"] * 3
    assert "SUMMARY The whole run file" in reached


def test_a_printed_page_unfolds_and_leaves_the_navigation_out(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["finished"].as_uri())
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.value("getComputedStyle(document.querySelector('nav')).display") == "none"
        assert browser.value("document.querySelector('details pre').getBoundingClientRect().height") > 100
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")


def test_the_comparison_tells_what_differs_and_warns_of_unlike_questions(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["comparison"].as_uri())
    text = browser.value("document.body.innerText")
    for words in ("support", "longer", "<i>&", "training.learning_rate", "0.0002", "0.001", "0.302 (+0.121)"):
        assert words in text
    assert "these runs differ in model.name, data.source" in text
    legends = browser.value("[...document.querySelectorAll('.legend')].map(each => each.innerText.split('\\n'))")
    assert legends[0] == ["support", "longer", "<i>&"]


def test_the_page_holds_nothing_from_elsewhere_and_no_program(pages: dict[str, Path]) -> None:
    for path in pages.values():
        text = path.read_text(encoding="utf-8")
        tags = re.sub(r">[^<]*<", "><", text.partition("</style>")[2])
        assert not re.search(r"\s(src|on\w+)=", tags)
        assert {link[0] for link in re.findall(r'href="([^"]*)"', text)} <= {"#", "d"}
        assert path.stat().st_size < 300_000
