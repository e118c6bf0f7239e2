"""Export: what goes in, decisions, the check for leaks, and the files, from the page to a real run."""

import json
import re
import time
from pathlib import Path

import pytest

from app.export import exports
from app.widgets import uploads
from gradsift.data.conversation import Conversation, Message
from gradsift.data.targets import read_targets
from gradsift.datastore.store import Store
from gradsift.export.holdings import survey
from gradsift.export.selection import select
from gradsift.runtime import jobs
from gradsift.scoring.score_targets import score_targets
from gradsift.selection.ranking import rank
from gradsift.workspace.sessions import Sessions

ASK = {"store": "toy", "targets": "two", "budget": "5"}


def texts(at) -> str:
    kinds = (at.markdown, at.caption, at.html, at.error, at.warning, at.info, at.success)
    return "\n".join(str(element.value) for kind in kinds for element in kind).replace("\\", "")


def labels(at) -> list[str]:
    return [button.label for button in at.button]


def rows_by_source(at) -> int:
    return next(frame.value["rows"].sum() for frame in at.dataframe if "rows" in frame.value)


def finished(folder: Path) -> None:
    """Wait for the run in `folder`; returns how it ended."""
    while (status := jobs.status(folder)) is not None and status.state == "running":
        time.sleep(0.05)
    assert status is not None
    assert status.state == "finished", status.message


def folder_of(workspace) -> Path:
    (folder,) = (workspace.root / "exports").iterdir()
    return folder


def test_the_preview_is_what_will_be_written(app, scored):
    at = app("export", **ASK)
    assert '{"messages":' in at.code[0].value
    assert rows_by_source(at) == 5
    at.radio(key="format").set_value("sharegpt").run()
    assert '"conversations"' in at.code[0].value


def test_a_format_without_a_place_says_so_before_a_run(app, scored, monkeypatch):
    held = Conversation((Message("user", "q"), Message("assistant", "a", reasoning="r")))
    monkeypatch.setattr(exports, "holdings_of", lambda view: survey([("row-1", held)]))
    at = app("export", **ASK, format="alpaca")
    assert not at.exception
    assert "alpaca has no place for reasoning (1 row, first 'row-1'): choose messages" in at.error[0].value.replace(
        "\\", ""
    )
    assert "Write the files" not in labels(at)
    at.radio(key="format").set_value("messages").run()
    assert not at.error
    assert "Write the files" in labels(at)


def test_the_files_are_written_by_a_run_and_taken_home(app, scored):
    at = app("export", **ASK)
    at.session_state["compress"] = "gzip"
    at.run()
    assert at.query_params["compress"] == "gzip"
    at.button(key="write").click().run()
    assert not at.exception
    out = folder_of(scored)
    finished(out)
    at.run()
    assert "Ready: 5 rows" in texts(at)
    assert "No pick shares text with the 2 targets" in texts(at)
    assert json.loads((out / "manifest.json").read_text())["data"]["file"] == "train.jsonl.gz"
    assert {f"{out.name}.zip", "report.html", "SHA256SUMS", "picks.csv"} <= {file.name for file in out.iterdir()}
    downloads = [button.label for button in at.get("download_button")]
    assert downloads[0] == "Download train.jsonl.gz"
    assert "Selection report" in downloads


def test_the_format_stays_when_the_page_changes(app, scored):
    at = app("export", **ASK, format="parquet")
    assert at.radio(key="format").value == "parquet"
    for page in ("compare", "export"):
        at.query_params.clear()
        at.switch_page(f"../pages/{page}.py").run()
    assert at.radio(key="format").value == "parquet"
    assert at.query_params["format"] == "parquet"


def test_parquet_offers_no_compression(app, scored):
    at = app("export", **ASK, compress="zstd")
    assert [group.value for group in at.get("button_group") if group.key == "compress"] == ["zstd"]
    at.radio(key="format").set_value("parquet").run()
    assert not at.exception
    assert not [group for group in at.get("button_group") if group.key == "compress"]


@pytest.fixture
def decided(scored):
    """A session in which the first pick is rejected and the last row of the pool accepted; its id, and the rows."""
    store = Store.open(scored.store_path("toy"))
    sessions = Sessions(scored.sessions_path)
    id = sessions.create().id
    scoring = score_targets(store, read_targets(scored.target_set("two").path).rows)
    order = scoring.rows[rank(scoring, "less").order]
    sessions.decide(id, store.fingerprint, [int(order[0])], "reject")
    sessions.decide(id, store.fingerprint, [int(order[-1])], "accept")
    return id, [int(row) for row in order]


def written_rows(out: Path) -> list[int]:
    import pandas as pd

    return pd.read_csv(out / "picks.csv")["rank"].tolist()


@pytest.mark.parametrize(
    ("take", "sentence", "rows"),
    [("decided", "Your decisions removed 1 row and added 1", 5), ("ranked", "", 5), ("accepted", "", 1)],
)
def test_decisions_go_into_the_export(app, scored, decided, take, sentence, rows):
    id, order = decided
    at = app("export", **ASK, session=id, take=take)
    assert "1 accepted and 1 rejected in this session" in texts(at)
    assert sentence in texts(at)
    assert rows_by_source(at) == rows
    at.button(key="write").click().run()
    out = folder_of(scored)
    finished(out)
    last = len(order)
    expected = {"decided": [2, 3, 4, 5, last], "ranked": [1, 2, 3, 4, 5], "accepted": [last]}
    assert written_rows(out) == expected[take]


def test_nothing_accepted_leads_to_compare(app, scored):
    at = app("export", **ASK, take="accepted")
    assert not at.exception
    assert "Nothing is accepted yet" in texts(at)
    assert not any(button.key == "write" for button in at.button)


def test_leaks_are_shown_beside_the_evaluation_and_dropped(app, scored, tmp_path):
    at = app("export", **ASK)
    first = json.loads(at.code[0].value.split("\n")[0])["messages"]
    held = tmp_path / "held <out>.jsonl"
    held.write_text(json.dumps({"messages": first}) + "\n", encoding="utf-8")
    at.text_area(key="evaluation_paths").set_value(f"{held}\n{tmp_path}/gone.jsonl").run()
    assert f"There is no file {tmp_path}/gone.jsonl" in texts(at)
    at.button(key="write").click().run()
    out = folder_of(scored)
    finished(out)
    at.run()
    assert "share" in at.warning[0].value
    cards = [html.value for html in at.html if html.value.startswith('<article class="gs-card gs-leak">')]
    assert "held &lt;out&gt;.jsonl" in "".join(cards)
    assert "<mark>" in cards[0]
    row = exports.leaks_of(out)[0]["row"]
    at.button(key=f"leak-{row}").click().run()
    assert "1 rejected in this session" in texts(at)
    assert at.button(key=f"leak-{row}").disabled  # and the others can be rejected as well
    assert "write them again" in texts(at)
    assert at.button(key="write")
    at.text_area(key="evaluation_paths").set_value("").run()  # which is a different request
    assert "write them again" not in texts(at)
    at.text_area(key="evaluation_paths").set_value(str(held)).run()

    again = app("export", **ASK)
    again.text_area(key="evaluation_paths").set_value(str(held)).run()
    assert "Ready" in texts(again)
    again.button(key="drop-and-write").click().run()
    assert not again.exception
    assert again.toggle(key="drop_leaks").value
    other = next(folder for folder in (scored.root / "exports").iterdir() if folder != out)
    finished(other)
    again.run()
    assert "No pick shares text" in texts(again)
    manifest = json.loads((other / "manifest.json").read_text())
    assert manifest["leakage"]["dropped_rows"] >= 1
    assert manifest["picked_rows"] == 5


def test_uploaded_evaluation_files_are_kept_and_found(scored):
    class Upload:
        name = "../test.jsonl"

        def getvalue(self) -> bytes:
            return b'{"a": "b"}\n'

    session = type("S", (), {"workspace": scored})
    (path,) = uploads.keep(session, [Upload()])
    assert path.read_bytes() == Upload().getvalue()
    assert path.is_relative_to(scored.root / "uploads")
    assert uploads.keep(session, [Upload(), Upload()]) == [path, path]
    assert uploads.named_files(f"\n {path} \n") == ([path], [])
    nothing = ["~no-such-person/x", "a" * 300, "a\0b"]
    assert uploads.named_files("\n".join(nothing)) == ([], nothing)


def test_uploads_join_the_files_that_are_named_and_stay_when_the_page_changes(app, scored):
    at = app("export", **ASK)
    for name in ("one.jsonl", "two.jsonl", "one.jsonl"):
        rows = json.dumps({"prompt": name, "completion": "b"}) + "\n"
        at.get("file_uploader")[0].set_value([(name, rows.encode(), "text/plain")]).run()
        assert not at.exception, at.exception
    named = at.text_area(key="evaluation_paths").value.splitlines()
    assert [Path(path).name for path in named] == ["two.jsonl", "one.jsonl"]
    at.switch_page("../pages/compare.py").run()
    at.switch_page("../pages/export.py").run()
    assert at.text_area(key="evaluation_paths").value.splitlines() == named
    assert "Compared with two.jsonl, one.jsonl as well." in texts(at)


def test_choices_that_leave_no_row_are_not_taken_for_decisions(app, scored):
    at = app("export", **{**ASK, "budget": "300tokens"}, cap="1%")
    assert "These choices leave no row" in texts(at)
    at = app("export", **ASK, take="accepted")
    assert "Nothing is accepted yet" in texts(at)


@pytest.mark.parametrize("format", ["messages", "less"])
def test_the_size_is_told_before(app, scored, format):
    at = app("export", **{**ASK, "budget": "100%"})
    at.radio(key="format").set_value(format).run()
    estimate = re.search(r"<b>~ ([\d.]+) kB</b>", texts(at))
    store = Store.open(scored.store_path("toy"))
    path = select(store, read_targets(scored.target_set("two").path).rows, "100%", scored.root / "out", format=format)
    assert float(estimate[1]) * 1000 == pytest.approx(path.stat().st_size, rel=0.25)
