"""An evaluation is watched: finished runs appear on the page by themselves while the next ones go on."""

import json
import re

import pytest

from app.proof import evaluations
from gradsift.runtime import jobs

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def test_runs_appear_as_they_end(visit, scored, tmp_path):
    heldout = tmp_path / "test.jsonl"
    lines = [{"prompt": f"How much is {n} and one?", "completion": str(n + 1)} for n in range(3)]
    heldout.write_text("".join(json.dumps(line) + "\n" for line in lines))
    visit.go("proof?store=toy&targets=two&budget=4")
    visit.sees("No evaluation yet")
    page = visit.page
    path = page.get_by_role("textbox", name="Or a file on this machine")
    path.fill(str(heldout))
    path.press("Enter")
    visit.settle()
    for _ in range(2):
        page.locator(".st-key-proof_epochs").get_by_test_id("stNumberInputStepUp").click()
        visit.settle()
    page.get_by_role("button", name="Evaluate", exact=True).click()
    visit.sees("Cancel")
    counted = re.compile(r"(\d+) of (\d+) runs are finished")
    seen = set()
    (entry,) = evaluations.entries(scored)
    while (jobs.status(entry.folder) or pytest.fail("no run")).state == "running":
        for text in page.get_by_text(counted).all_inner_texts():
            seen.add(int(counted.search(text)[1]))
        page.wait_for_timeout(100)
    total = len(evaluations.report_of(entry).runs)
    assert seen - {total}, "runs that ended were not shown before all had"
    visit.sees(f"{total} of {total} runs are finished")
    visit.check()
