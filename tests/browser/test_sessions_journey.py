"""Two people at once, each with a session of their own, and a link from one to the other."""

import re

import pytest

from gradsift.workspace.sessions import Sessions

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
ACCEPTED = re.compile(r"[1-9] accepted")
PLAIN = "compare?store=toy&targets=two&budget=10"


def session_of(visit) -> str:
    return re.search(r"[?&]session=([a-z0-9]+)", visit.page.url)[1]


def undecided(visit) -> None:
    """The board is there, and nothing on it is accepted."""
    visit.page.get_by_role("button", name=re.compile("^Accept: ")).first.wait_for()
    assert visit.page.get_by_text(ACCEPTED).count() == 0


def accept(visit, rows: int) -> None:
    """Accept the first undecided cards of the board and wait until they are counted."""
    for row in range(rows):
        visit.page.get_by_role("button", name=re.compile("^Accept: ")).nth(row).click()
        visit.sees(f"{row + 1} accepted")
    visit.settle()


def test_two_browsers_have_sessions_of_their_own_and_a_link_opens_one_in_the_other(visit, scored):
    other = type(visit)(visit.page.context.browser.new_context().new_page(), visit.url)
    for tab in (visit, other):
        tab.go(PLAIN)
        undecided(tab)
    mine, theirs = session_of(visit), session_of(other)
    assert mine != theirs

    accept(visit, 2)
    other.page.reload()
    other.settle()
    undecided(other)
    assert session_of(other) == theirs

    visit.click("button", re.compile("^Session"))
    visit.page.get_by_role("textbox", name="Name of the session").fill("Mine")
    visit.page.get_by_role("textbox", name="Name of the session").press("Enter")
    visit.page.get_by_role("button", name=re.compile("^Session Mine")).wait_for()
    visit.page.reload()
    visit.settle()
    visit.sees("2 accepted")
    visit.page.get_by_role("button", name=re.compile("^Session Mine")).wait_for()

    visit.page.locator(".st-key-search input").fill("the")  # redraws the board and nothing above it
    visit.page.wait_for_url("**q=the**")
    visit.settle()
    other.go(f"?session={mine}")
    other.page.wait_for_url(re.compile(r"/compare\?"))
    other.sees("2 accepted")
    assert "q=the" in other.page.url
    assert "budget=10" in other.page.url
    other.click("link", "Sessions")
    other.sees("open in this tab")
    assert other.page.locator(".gs-session b").all_inner_texts()[0] == "Mine"
    other.page.get_by_text("Show 1 unnamed, undecided session").click()
    other.page.locator(".gs-session").nth(1).wait_for()
    assert other.page.locator(".gs-session").count() == 2

    other.page.locator(f".st-key-more-{mine} button:visible").first.click()
    other.click("button", "Delete this session")
    other.click("button", "Delete for good")
    other.page.locator(".st-key-gs-session").get_by_text("unsaved").wait_for()
    assert [record.id for record in Sessions(scored.sessions_path).list()] == [theirs]
    assert "session=" not in other.page.url

    visit.page.get_by_role("button", name=re.compile("^Accept: ")).nth(4).click()
    visit.sees("That session is gone")
    visit.sees("1 accepted")
    assert session_of(visit) not in (mine, theirs)
    for tab in (visit, other):
        tab.check()
