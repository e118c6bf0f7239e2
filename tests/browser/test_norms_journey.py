"""Rows are marked on the charts with the mouse and shown in Compare, in light and dark."""

import re
from urllib.parse import parse_qs, urlparse

import pytest

from gradsift.analysis.norms import Area

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
ROWS = re.compile(r"Show (these|this) ([\d,]+) rows? in Compare")


def drag(visit, chart: int, *corners: tuple[float, float]) -> None:
    """Draw on a chart's plot with the mouse; corners are fractions of its width and height."""
    plot = visit.page.locator(".js-plotly-plot .nsewdrag").nth(chart)
    plot.wait_for()
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    path = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in corners]
    visit.page.mouse.move(*path[0])
    visit.page.mouse.down()
    for place in path[1:]:
        visit.page.mouse.move(*place, steps=8)
    visit.page.mouse.up()


def area(visit) -> Area:
    """The area in the address bar."""
    return Area.parse(parse_qs(urlparse(visit.page.url).query)["area"][0])


def test_marked_rows_arrive_in_compare(visit, scored):
    visit.go("norms?store=toy&targets=two&budget=10")
    visit.scheme("light")
    drag(visit, 0, (0.03, 0.03), (0.6, 0.97))
    button = visit.page.get_by_role("button", name=ROWS)
    button.wait_for()
    visit.settle()
    box = area(visit)
    assert (box.epoch, box.kind) == ("epoch-2", "grad_norm")
    assert len({x for x, _ in box.vertices}) == len({y for _, y in box.vertices}) == 2
    outlines = visit.page.locator(".js-plotly-plot .shapelayer path")
    outlines.nth(1).wait_for()
    assert outlines.count() == 2
    visit.check()

    visit.scheme("dark")
    outlines.nth(1).wait_for()
    visit.page.locator(".js-plotly-plot").nth(1).locator("[data-title='Lasso Select']").click()
    drag(visit, 1, (0.02, 0.02), (0.98, 0.05), (0.9, 0.95), (0.05, 0.9), (0.02, 0.02))
    visit.page.wait_for_function("before => !decodeURIComponent(location.search).includes(before)", arg=str(box))
    visit.settle()
    assert len(area(visit).vertices) > 3
    assert area(visit) != box
    visit.check()

    count = ROWS.match(button.inner_text().split("\n")[0])[2]
    button.click()
    visit.sees("Area marked on the norms at epoch-2")
    visit.settle()
    assert visit.page.url.split("?")[0].endswith("/compare")
    visit.page.get_by_text(re.compile(rf"^{count} of [\d,]+ rows")).first.wait_for()
    visit.check()


def test_a_bar_opens_compare_and_a_section_its_own_charts(visit, scored):
    visit.go("distributions?store=toy&targets=two&budget=10")
    visit.page.locator(".js-plotly-plot .barlayer .point path").first.click(force=True)
    visit.page.wait_for_url(re.compile(r"/compare\?.*source="))
    visit.settle()
    visit.check()

    visit.go("distributions?store=toy&targets=two&budget=10")
    for name in ("Lengths", "Overlap", "Scores", "Subtasks", "Single targets", "Are my targets enough?"):
        visit.click("radio", name)
        if name.startswith("Are"):
            visit.page.get_by_role("button", name="Resample the targets").click()
            visit.page.locator(".gs-verdict").wait_for()
        visit.page.locator(".js-plotly-plot .main-svg").first.wait_for()
        visit.settle()
        visit.check()
    assert "chart=enough" in visit.page.url
    visit.page.get_by_text("Show as a table").first.click()
    button = visit.page.locator("[data-testid='stDownloadButton'] button").first
    button.scroll_into_view_if_needed()
    with visit.page.expect_download() as download:
        button.click()
    assert download.value.suggested_filename == "gradsift-toy-two-split-half.csv"
    assert visit.page.get_by_role("button", name=re.compile("^Download as CSV:")).count() == 0
    with visit.page.expect_download() as download:
        visit.page.locator("[data-title='Download plot as a PNG']").first.click()
    assert download.value.suggested_filename == "gradsift-toy-two-split-half.png"
    visit.check()
