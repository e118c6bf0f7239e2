"""The Why page: by address, through the picks, token by token, in light and dark."""

import re

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def shades(visit) -> set[str]:
    """The background colors of the tokens."""
    spans = visit.page.locator(".gs-tokens .gs-said span")
    return set(spans.evaluate_all("spans => spans.map(span => getComputedStyle(span).backgroundColor)"))


def test_why_a_row_is_picked(visit, scored):
    visit.go("why?store=toy&targets=two&budget=5")
    visit.scheme("light")
    visit.sees("No row is open")
    visit.sees("Opponents")
    visit.check()

    visit.click("button", re.compile("^Next"))
    visit.sees(re.compile("pick 1 of 5"))
    visit.page.locator(".js-plotly-plot .heatmaplayer").nth(1).wait_for()
    first = visit.page.locator(".gs-why-id").inner_text()
    visit.page.locator("body").press("j")
    visit.sees(re.compile("pick 2 of 5"))
    visit.settle()
    assert visit.page.locator(".gs-why-id").inner_text() != first
    visit.check()

    visit.page.locator("body").press("a")
    visit.page.get_by_role("button", name=re.compile("^Accepted")).wait_for()
    note = visit.page.get_by_role("textbox", name="Note")
    note.fill("a jar, axle")
    note.press_sequentially(" x")
    note.press("Enter")
    visit.settle()
    visit.page.get_by_role("button", name=re.compile("^Accepted")).wait_for()
    visit.check()

    visit.page.get_by_role("button", name="Show token influence").click()
    visit.page.locator(".gs-tokens span[title]").first.wait_for(timeout=120_000)
    visit.sees("Identity check.")
    assert visit.page.locator(".gs-checks li b", has_text="yes").count() == 2
    light = shades(visit)
    visit.check()
    visit.scheme("dark")
    visit.page.locator(".js-plotly-plot .heatmaplayer").nth(1).wait_for()
    dark = shades(visit)
    assert len(light) > 2
    assert len(dark) > 2
    visit.click("radio", "weighted sum")
    visit.sees(re.compile("share of the cosine"))
    visit.check()

    visit.click("radio", "Opponents")
    visit.page.get_by_role("link", name=re.compile("^Why row")).first.click()
    visit.sees("The target it serves best")
    assert "view=" not in visit.page.url
    address = visit.page.url
    opened = visit.page.locator(".gs-why-id").inner_text()
    visit.page.goto(address)
    visit.settle()
    visit.page.get_by_text(opened, exact=True).wait_for()
    visit.check()
