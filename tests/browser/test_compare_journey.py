"""Reviewing on the Compare page with the keys, in a real browser."""

import re

import pytest

from gradsift.workspace.sessions import Sessions

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def verdicts(visit) -> list[str]:
    """The verdicts of the first column's cards, as the page shows them."""
    cards = visit.page.locator(".gs-column").first.locator(".gs-card")
    return [card.get_attribute("data-verdict") or "" for card in cards.all()]


def test_search_review_with_keys_and_reload(scored, visit):
    page = visit.page
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    visit.go("compare?store=toy&targets=two&budget=60%25")
    page.locator(".gs-card").first.wait_for()

    search = page.get_by_role("searchbox", name="Search")
    search.press_sequentially("the")  # j, a, x in a field are letters
    page.wait_for_url("**q=the")
    visit.settle()
    assert {text.lower() for text in page.locator("mark.gs-hit").all_text_contents()} == {"the"}
    search.fill("")
    page.wait_for_function("!document.querySelector('mark.gs-hit') && document.querySelector('.gs-card')")
    search.press_sequentially("jaxxn")
    visit.sees("No row matches")
    page.get_by_role("button", name="Clear filters").click()
    page.locator(".gs-card").first.wait_for()
    assert set(verdicts(visit)) == {""}

    page.get_by_role("heading", name="Compare").click()
    for key in ("j", "a", "j", "x", "j", "a"):  # faster than the page answers
        page.keyboard.press(key)
    assert verdicts(visit)[:4] == ["accept", "reject", "accept", ""]
    page.locator(".st-key-reviewing").get_by_text("2 accepted · 1 rejected").wait_for()
    page.keyboard.press("u")
    page.locator(".st-key-reviewing").get_by_text("1 accepted · 1 rejected").wait_for()
    page.wait_for_function("document.querySelectorAll('.gs-column')[0].children[1].children[2].dataset.verdict === ''")
    assert verdicts(visit)[:3] == ["accept", "reject", ""]
    page.keyboard.press("ArrowRight")
    focused = page.evaluate("document.activeElement.closest('.gs-column').getAttribute('aria-label')")
    assert focused == "BM25"

    page.keyboard.press("w")
    page.get_by_role("dialog").get_by_text("Why this row").wait_for()
    visit.settle()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    page.keyboard.press("n")
    field = page.get_by_role("dialog").get_by_role("textbox")
    field.wait_for()
    page.wait_for_function("document.activeElement.tagName === 'TEXTAREA'")
    page.keyboard.type("jaxx")
    page.get_by_role("button", name="Save").click()
    page.locator(".gs-note", has_text="jaxx").first.wait_for()
    visit.check()

    page.reload()
    page.locator(".gs-card").first.wait_for()
    visit.settle()
    assert verdicts(visit)[:3] == ["accept", "reject", ""]
    page.locator(".gs-note", has_text="jaxx").first.wait_for()
    visit.check()
    assert {re.match(r"data:|(blob:)?http://[^/]*/", url)[0] for url in requests} <= {
        visit.url,
        f"blob:{visit.url}",
        "data:",
    }

    [session] = Sessions(scored.sessions_path).list()
    assert (session.accepted, session.rejected, session.notes) == (1, 1, 1)


LOOKED_AT = (
    ".gs-card:nth-child(8)",
    ".gs-card:nth-child(8) .gs-act",
    ".gs-key",
    ".gs-head",
    ".gs-badge",
    ".gs-search input",
)
LOOKS = """names => names.map(name => {
  const style = getComputedStyle(document.querySelector(name))
  const looks = ["display", "padding", "margin", "borderTop", "borderLeft", "background", "color", "font"]
  return looks.map(key => style[key])
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_toast_takes_the_style_away(scored, visit, scheme):
    """Streamlit puts a fragment's toast in the place of the first element there."""
    page = visit.page
    page.emulate_media(color_scheme=scheme)
    visit.go("compare?store=toy&targets=two&budget=60%25")
    visit.scheme(scheme)
    page.locator(".gs-card").first.wait_for()
    visit.settle()
    page.get_by_role("heading", name="Compare").click()
    before = page.evaluate(LOOKS, LOOKED_AT)
    assert page.evaluate("getComputedStyle(document.body).colorScheme") == scheme
    assert before[0][3].startswith("1px solid")
    toasts = page.get_by_test_id("stToast")

    def unchanged() -> None:
        visit.settle()
        page.mouse.move(0, 0)
        assert page.evaluate(LOOKS, LOOKED_AT) == before
        assert page.evaluate("getComputedStyle(document.body).colorScheme") == scheme

    for press in (
        lambda: page.keyboard.press("u"),
        lambda: page.locator(".st-key-undo").get_by_role("button", name="Undo").click(),
    ):
        page.keyboard.press("j")
        page.keyboard.press("a")
        page.locator(".st-key-reviewing").get_by_text("1 accepted").wait_for()
        press()
        toasts.get_by_text("Undone: 1 row accepted").first.wait_for()
        unchanged()
    page.get_by_role("heading", name="Compare").click()
    page.keyboard.press("u")
    toasts.get_by_text("There is nothing to undo.").first.wait_for()
    unchanged()

    sessions = Sessions(scored.sessions_path)
    sessions.delete(sessions.list()[0].id)  # in another tab
    page.keyboard.press("j")
    page.keyboard.press("a")
    toasts.get_by_text("That session is gone").first.wait_for()
    unchanged()
    visit.check()
