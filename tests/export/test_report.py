"""The selection report: its numbers equal the tables', it needs no request and no script, and data stays text."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from gradsift import select
from gradsift.analysis import distributions
from gradsift.data.conversation import Conversation, Message, ToolCall
from gradsift.data.targets import read_targets
from gradsift.datastore.store import Store
from gradsift.export.report import _turns
from gradsift.export.svg import bar, cells, chart, dots, line, number, steps, text_of, x_axis, y_axis
from gradsift.scoring.score_targets import score_targets

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


class Page(HTMLParser):
    """The tags, attributes and text of a report."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.text += data + "\n"


@pytest.fixture(scope="module")
def report(tiny_store: Store, tiny_targets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of 12 picks by LESS, with BM25 also scored."""
    targets, out = read_targets(tiny_targets).rows, tmp_path_factory.mktemp("report")
    score_targets(tiny_store, targets, ["less", "bm25"])
    select(tiny_store, targets, "12", out, report=True, length_matched=True)
    return out / "report.html"


def test_numbers_are_those_of_the_tables(report: Path, tiny_store: Store, tiny_targets: Path) -> None:
    page = Page(report.read_text())
    lines = page.text
    picks = read_picks(report.parent, tiny_store)
    names = tiny_store.pool().loc[tiny_store.scored_rows, "source"].to_numpy(str)
    for row in distributions.shares({"picks": picks}, names).itertuples():
        shown = [row.source, f"{row.rows:,}", f"{row.share:.1%}", f"{row.pool_share:.1%}", f"×{row.lift:.2f}"]
        assert re.search("\n+".join(map(re.escape, shown)), lines)
    answer = tiny_store.pool().loc[tiny_store.scored_rows, "n_answer_tokens"].to_numpy()
    assert f"{np.median(answer[picks]):.0f}" in lines
    assert "length matched\nyes (changed)" in lines
    assert "--report" in lines
    assert tiny_store.fingerprint in lines
    for heading in ("come from", "answers are", "cut lies", "Which subtask", "other methods", "norm", "Leakage"):
        assert any(heading in part for part in lines.split("\n")), heading
    first = tiny_store.texts(tiny_store.rows[picks[:1]])["conversation"].iloc[0]
    assert first.messages[0].content in lines


def test_a_method_that_ignores_the_targets_has_no_subtask(
    tiny_store: Store, tiny_targets: Path, tmp_path: Path
) -> None:
    for method, shown in (("random", False), ("less", True)):
        select(tiny_store, read_targets(tiny_targets).rows, "6", tmp_path / method, method=method, report=True)
        page = Page((tmp_path / method / "report.html").read_text())
        assert ("Which subtasks the picks serve" in page.text) == shown
        assert ("for boxes" in page.text or "for cats" in page.text) == shown
        served = {line.split(",")[-1] for line in (tmp_path / method / "picks.csv").read_text().splitlines()[1:]}
        assert served <= ({"boxes", "cats"} if shown else {""})


def read_picks(out: Path, store: Store) -> np.ndarray:
    """Positions of the picks, in rank order."""
    import pandas as pd

    ids = pd.read_csv(out / "picks.csv")["id"]
    pool = store.pool().loc[store.scored_rows]["id"].reset_index(drop=True)
    return np.array([pool[pool == id].index[0] for id in ids])


def test_nothing_in_it_makes_a_request(report: Path) -> None:
    page = Page(report.read_text())
    assert not page.tags & {"script", "iframe", "object", "embed", "img", "form", "base", "video", "audio"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert {value for name, value in page.attributes if name in ("href", "src")} == {"data:,"}
    assert "url(" not in report.read_text()
    assert "@import" not in report.read_text()
    policy = next(value for name, value in page.attributes if value.startswith("default-src"))
    assert policy.startswith("default-src 'none';")
    assert "script-src" not in policy


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_it_opens_without_a_request_or_an_error(report: Path, chromium: str, scheme: str, width: int) -> None:
    sync_playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        ).new_page()
        seen: list[str] = []
        page.on("request", lambda request: seen.append(request.url))
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.goto(report.as_uri())
        assert page.locator("svg").count() == 3
        assert page.locator("svg").first.bounding_box()["height"] > 100
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")
        assert [url for url in seen if not url.startswith("data:")] == [report.as_uri()]
        browser.close()


def test_calls_results_and_reasoning_are_shown_as_such(report: Path) -> None:
    hostile = "<script>alert(1)</script>"
    messages = (
        Message("user", "q", name="Ann"),
        Message("assistant", "", hostile, (ToolCall(f"weather{hostile}", '{"place": "Bern"}'),), learned=False),
        Message("tool", "r" * 500, name="weather"),
        Message("assistant", "fine"),
    )
    shown = _turns(Conversation(messages, tools='[{"name": "weather"}]', prefix="It is"))
    page = Page(shown)
    assert "script" not in page.tags
    assert hostile in page.text
    folds = re.findall(r'<details class="part"( open)?><summary>(.*?)</summary>', shown)
    assert [name[:12] for _, name in folds] == ["tools", "reasoning", "call of weat", "result"]
    assert [bool(open_) for open_, _ in folds] == [False, True, True, False]  # tools and long parts are folded
    for heading in ("user · Ann", "assistant · not learned", "tool · weather", "starts with It is"):
        assert heading in page.text


# -- drawing -----------------------------------------------------------------------------------------------------------


def test_an_axis_places_its_ends_and_round_numbers() -> None:
    x = x_axis("tokens", 2, 2000, log=True)
    assert x.place([2, 2000]).tolist() == [x.start, x.end]
    assert x.place([np.sqrt(2 * 2000)])[0] == pytest.approx((x.start + x.end) / 2)
    assert x.ticks() == [2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]
    y = y_axis("score", -0.13, 0.41)
    assert y.place([-0.13, 0.41]).tolist() == [y.start, y.end]
    assert y.ticks() == pytest.approx([-0.1, 0, 0.1, 0.2, 0.3, 0.4])
    assert y.start > y.end  # upward
    for low, high in ((0, 1), (0.001, 0.0013), (-5e6, 3), (1, 1)):
        axis = y_axis("", low, high)
        assert 2 <= len(axis.ticks()) <= 8
        assert all(axis.low <= tick + 1e-9 and tick - 1e-9 <= axis.high for tick in axis.ticks())
    for low, high in ((1, 1e6), (3, 4), (7, 7), (1e-4, 1e3)):
        axis = x_axis("", low, high, log=True)
        assert all(axis.low <= tick <= axis.high for tick in axis.ticks())
        assert np.isfinite(axis.place([low, high])).all()


def test_marks_lie_where_their_numbers_are() -> None:
    x, y = x_axis("x", 0, 10), y_axis("y", 0, 1)
    points = re.findall(r"([\d.]+),([\d.]+)", line(x, y, [0, 10], [0, 1], "m"))
    assert [tuple(map(float, point)) for point in points] == [(x.start, y.start), (x.end, y.end)]
    outline = re.findall(r"([\d.]+),([\d.]+)", steps(x, y, np.array([0, 5, 10]), np.array([0.5, 1]), "m"))
    assert (float(outline[1][1]), float(outline[3][1])) == (round(float(y.place([0.5])[0]), 1), y.end)
    assert dots(x, y, np.array([0.0, 10.0]), np.array([0.0, 1.0]), "m").count("h0") == 2
    one, two = np.array([0.0, 5.0]), np.array([5.0, 10.0])
    drawn = cells(x, y, one, two, one / 10, two / 10, np.array([1, 100]), "pool")
    assert drawn.count("<path") == 2  # few rows are paler
    assert 'width:100.0%"></i><i class="mark" style="left:50.0%"' in bar(2, "m", 0.5)
    assert [number(value) for value in (0, 0.1 + 0.2, 1500, 2e7, 1e-5)] == ["0", "0.3", "1,500", "2e7", "1e-5"]
    assert 'aria-label="a &quot;b&quot;"' in chart(x, y, [], 'a "b"')


def test_text_is_shown_not_taken() -> None:
    assert text_of("<b>&\"'\0\u202e\t\nx\r\ny\x1b") == "&lt;b&gt;&amp;&quot;&#x27;[U+0000][U+202E]\t\nx\ny[U+001B]"
    assert text_of("a" * 1_000_000, 10) == "a" * 10 + " … [999,990 more characters]"
