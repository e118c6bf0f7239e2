"""The build form of a pool whose columns are unknown: they are mapped with a preview, and what is learned is seen."""

import json

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

ROWS = [{"question": f"Where is box {n}?", "reply": f"In room {n}.", "note": "by hand"} for n in range(1, 6)]


def choose(visit, part: str, column: str) -> None:
    """Choose a column in the form, with the keyboard as people do."""
    field = visit.page.get_by_role("combobox", name=part, exact=True)
    field.click()
    field.fill(column)
    visit.page.get_by_role("option", name=column, exact=True).click()
    visit.settle()


def test_columns_are_mapped_with_a_preview_and_what_is_learned_is_seen(visit, tiny_model, tmp_path):
    pool = tmp_path / "boxes.jsonl"
    pool.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    visit.go("datastore?store=toy")
    visit.click("tab", "New store")
    visit.page.get_by_role("textbox", name="Model", exact=True).fill(str(tiny_model))
    visit.page.get_by_role("textbox", name="Files, folders, globs").fill(str(pool))
    visit.page.keyboard.press("Control+Enter")
    visit.sees("All 5 rows: 0 usable")
    visit.sees("no known schema")

    choose(visit, "Question", "question")
    choose(visit, "Answer", "reply")
    visit.sees("All 5 rows: 5 usable")
    visit.sees("Held text and not used")
    visit.sees("In room 1.")

    visit.page.get_by_text("What is learned", exact=True).click()
    visit.page.locator(".gs-mask").first.wait_for()
    learned = visit.page.locator(".gs-mask .gs-learned")
    assert learned.first.inner_text() == "In room 1.<|im_end|>"
    assert visit.page.locator(".gs-mask .gs-given").first.inner_text() == "Where is box 1?"
    visit.sees("added by the template")
    for width, height in ((1440, 900), (390, 844)):
        visit.page.set_viewport_size({"width": width, "height": height})
        visit.fits()
    visit.check()
