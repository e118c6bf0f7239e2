"""The search of the Compare page, typed as fast as people type, in the address bar and in the browser's history."""

from urllib.parse import parse_qs

import pytest

from gradsift.datastore.store import Store
from gradsift.text.search import search_rows

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

VIEW = "compare?store=toy&targets=two&budget=60%25&methods=less&scope=pool"


@pytest.fixture
def compare(scored, visit):
    """Compare with the whole pool in one column; a tab that opens it has an index to search in."""
    visit.go(VIEW)
    visit.page.locator(".gs-card").first.wait_for()
    visit.settle()
    visit.page.wait_for_function("location.search.includes('session=')")
    return visit


def field(visit):
    """The search field."""
    return visit.page.get_by_role("searchbox", name="Search")


def searched(visit) -> str:
    """The search text in the address."""
    return parse_qs(visit.page.url.partition("?")[2]).get("q", [""])[0]


def matching(scored, text: str) -> set[int]:
    """The scored rows that hold `text`."""
    store = Store.open(scored.store_path("toy"))
    return {row for row in search_rows(store, text, "any").tolist() if row in set(store.scored_rows.tolist())}


def shown(visit) -> set[int]:
    """The rows of the cards on the page."""
    cards = visit.page.locator(".gs-card").all()
    return {int(card.get_attribute("data-key").rpartition("/")[2]) for card in cards}


def await_search(visit, text: str) -> None:
    """Wait until the address has what was typed and the page is idle."""
    visit.page.wait_for_function("text => (new URL(location).searchParams.get('q') ?? '') === text", arg=text)
    visit.settle()


@pytest.mark.parametrize("delay", [20, 50, 80, 120])
def test_no_letter_is_lost_or_doubled_however_fast_one_types(scored, compare, delay):
    search = field(compare)
    for text in ("bengali food", "what is the a", "the the theme") * 4:
        search.press_sequentially(text, delay=delay)
        await_search(compare, text)
        compare.page.wait_for_timeout(300)  # for a late answer that would reset the field
        assert (search.input_value(), searched(compare)) == (text, text)
        rows = matching(scored, text)
        if rows:
            compare.sees(f"{len(rows)} of ")
            assert shown(compare) <= rows
            assert len(shown(compare)) == min(12, len(rows))
        else:
            compare.sees("No row matches")
        for _ in text:
            search.press("Backspace", delay=delay / 4)
        await_search(compare, "")
        compare.page.locator(".gs-card").first.wait_for()
        assert search.input_value() == ""
    compare.check()


def test_letters_taken_back_at_once_are_gone_from_the_address_too(compare):
    search = field(compare)
    for _ in range(5):
        search.press_sequentially("theme", delay=30)
        search.press("Backspace", delay=30)
        search.press_sequentially("m", delay=30)
        search.press("Backspace", delay=30)
        await_search(compare, "them")
        compare.page.wait_for_timeout(300)
        assert (search.input_value(), searched(compare)) == ("them", "them")
        search.fill("")
        await_search(compare, "")
    compare.check()


@pytest.mark.parametrize("delay", [0, 60, 300])
def test_a_search_is_one_step_of_the_history(compare, delay):
    page, search = compare.page, field(compare)
    compare.click("button", "Next page")  # a new text goes back to the first page, in the same step
    page.wait_for_function("location.search.includes('page=2')")
    compare.settle()
    entries, before = page.evaluate("history.length"), page.url

    search.press_sequentially("what is the ", delay=delay)
    await_search(compare, "what is the ")
    assert page.evaluate("history.length") == entries + 1
    after = page.url

    page.go_back()
    page.wait_for_function("address => location.href === address", arg=before)
    page.wait_for_function("!document.querySelector('mark.gs-hit') && document.querySelector('.gs-card')")
    compare.settle()
    assert search.input_value() == ""
    page.locator(".gs-card .gs-rank", has_text="13").first.wait_for()
    page.go_forward()
    page.locator("mark.gs-hit").first.wait_for()
    compare.settle()
    assert search.input_value() == "what is the "
    assert page.url == after

    page.reload()
    page.locator(".gs-card").first.wait_for()
    compare.settle()
    assert field(compare).input_value() == "what is the "
    assert page.locator("mark.gs-hit").count()
    assert page.url == after
    compare.check()


def test_the_next_search_and_what_takes_one_off_are_steps_of_their_own(compare):
    page, search = compare.page, field(compare)
    page.get_by_role("heading", name="Compare").click()
    entries = page.evaluate("history.length")
    search.press_sequentially("the", delay=60)
    await_search(compare, "the")
    page.get_by_role("heading", name="Compare").click()
    search.press("End")
    search.press_sequentially("re", delay=60)
    await_search(compare, "there")
    assert page.evaluate("history.length") == entries + 2
    compare.click("button", "Clear filters")
    await_search(compare, "")
    assert page.evaluate("history.length") == entries + 3
    for text in ("there", "the", ""):
        page.go_back()
        await_search(compare, text)
        page.wait_for_function("text => document.querySelector('.st-key-search input').value === text", arg=text)
    search.press_sequentially("w", delay=60)  # after Back it is a step again, not the first page's
    await_search(compare, "w")
    page.go_back()
    await_search(compare, "")
    compare.check()


def test_a_search_that_one_leaves_at_once_is_kept_whole(compare):
    """What is clicked right after the last letter has the address from before it."""
    page, search = compare.page, field(compare)
    for text in ("bengali", "there is", "a theme") * 2:
        search.press_sequentially(text, delay=50)
        page.get_by_role("radio", name="Picks").click()
        await_search(compare, text)
        compare.page.wait_for_timeout(300)
        assert (search.input_value(), searched(compare)) == (text, text)
        page.get_by_role("radio", name="Whole pool").click()
        search.fill("")
        await_search(compare, "")
    compare.check()
