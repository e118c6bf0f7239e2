"""Parts of the app that need no page: text made harmless, budgets, the build's command line, looks."""

import pytest

from app import theme
from app.datastore import build
from app.state.session import _readable
from app.text import clip, duration, ends, escape, label, plural, size
from app.widgets import budget, cards, running, tables
from gradsift.config import BuildConfig
from gradsift.data.conversation import Conversation, Message, ToolCall
from gradsift.runtime.progress import Status
from gradsift.scoring.methods import METHODS

HOSTILE = "<script>alert(1)</script> **bold** $x$ ![i](http://e.com/i.png) :red[x] `c` \n# h"


def hostile_row() -> Conversation:
    """A row that is hostile in every place where a row has text."""
    call = ToolCall(HOSTILE, f'{{"a": "{HOSTILE}"}}', HOSTILE)
    answer = Message("assistant", HOSTILE * 40, HOSTILE, (call,), HOSTILE, HOSTILE, learned=False)
    messages = (Message("user", HOSTILE, name=HOSTILE), answer, Message("tool", HOSTILE, name=HOSTILE))
    return Conversation(messages, f'[{{"name": "{HOSTILE}"}}]', HOSTILE)


def test_html_shows_every_character():
    assert "<" not in escape(HOSTILE)
    assert escape('"') == "&quot;"


def test_a_label_has_no_markdown_left():
    text = label(HOSTILE)
    assert "\n" not in text
    for sign in "*_`$[](){}<>#!:":
        assert text.count(sign) == text.count("\\" + sign)


def test_small_words_for_numbers():
    assert [size(n) for n in (0, 999, 1500, 13_200, 8_900_000_000)] == [
        "0 bytes",
        "999 bytes",
        "1.5 kB",
        "13.2 kB",
        "8.9 GB",
    ]
    assert [duration(s) for s in (None, 4.4, 185, 7800)] == ["", "4 s", "3 min 05 s", "2 h 10 min"]
    assert [plural(n, "row") for n in (0, 1, 1204)] == ["0 rows", "1 row", "1,204 rows"]
    assert clip("a  b\nc", 10) == "a b c"
    assert clip("abcdefghij", 5) == "abcd…"


@pytest.mark.parametrize("text", ["5%", "0.5%", "0.00001%", "200", "50000tokens"])
def test_a_budget_survives_its_fields(text):
    assert budget.written(*budget.parts(text)) == text


def test_a_budget_is_shown_with_its_unit():
    texts = ("5%", "200", "1", "50000tokens")
    assert [budget.shown(text) for text in texts] == ["5%", "200 rows", "1 row", "50,000 tokens"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [("lots", "5%"), ("-3", "5%"), ("1.2.3", "5%"), ("5 %%", "5%"), ("2,500", "2500"), (" 0.05 %", "0.05%"), ("", "")],
)
def test_a_budget_in_the_address_is_read_once_for_all_pages(text, meant):
    assert _readable(text) == meant


def test_position_says_where_the_page_stands():
    assert tables.position(0, 20, 136, "picks") == "1–20 of 136 picks"
    assert tables.position(120, 16, 136, "picks") == "121–136 of 136 picks"
    assert tables.position(140, 0, 136, "picks") == "0 of 136 picks"
    assert tables.position(0, 0, 0, "picks") == "no picks"


def test_every_preset_is_a_config_and_the_papers_is_the_default(tmp_path):
    for values in build.PRESETS.values():
        BuildConfig(model="m", **values)
    assert BuildConfig(model="m", **build.PRESETS["Paper"]) == BuildConfig(model="m")


def test_pool_paths_are_lines():
    assert build.pool_paths(" /a/*.jsonl \n\norg/data\n") == ["/a/*.jsonl", "org/data"]
    assert not build.pool_paths("~/x")[0].startswith("~")
    assert build.pool_paths("~no-such-person/x") == ["~no-such-person/x"]


def test_every_method_has_a_mark_and_a_color_of_its_own():
    looks = [theme.look(name) for name in METHODS]
    assert len({look.mark for look in looks}) == len(looks)
    assert len({look.light for look in looks}) == len(looks)
    assert theme.look("something-new") == theme.look("something-new")


def test_a_card_escapes_everything_and_tells_membership():
    card = cards.Card(
        method="less", rank=3, score=0.25, share=0.5, ranks={"less": (3, True), "bm25": (40, False)}, source=HOSTILE,
        task=HOSTILE, subtask=HOSTILE, content=hostile_row(), foot=[HOSTILE],
    )  # fmt: skip
    html = cards.draw(card, [HOSTILE])
    assert "<script" not in html
    assert "<img" not in html
    assert "only here" in html
    assert "BM25: rank 40, not picked" in html


def test_a_stage_is_said_in_one_line():
    status = Status(done=12, total=40, unit="rows", rate=3.14, seconds_left=9.0)
    assert running.line(status) == "12 of 40 rows · 3.1 rows/s · 9 s left in this stage"
    assert running.line(Status()) == ""
    slow = Status(done=1, total=8, unit="steps", rate=1 / 56, seconds_left=392.0)
    assert running.line(slow) == "1 of 8 steps · 56 s a step · 6 min 32 s left in this stage"


def test_what_is_not_seen_is_shown_by_its_number():
    assert escape("a\0b\u202ec\u2066") == "a[U+0000]b[U+202E]c[U+2066]"
    assert label("\u202e=1+1") == r"\[U\+202E\]\=1\+1"
    assert escape("\tשלום\u200f\r\n👩\u200d👧") == "\tשלום\u200f\r\n👩\u200d👧"  # characters that scripts need stay


def test_long_names_that_begin_alike_differ_by_their_ends():
    names = [f"a rather long name of subtask number {n}" for n in range(200)]
    assert len({ends(name, 17) for name in names}) == 200
    assert max(len(ends(name, 17)) for name in names) == 17
    assert ends("short \n name", 17) == "short name"


@pytest.mark.parametrize(
    "text",
    [":material/home:", ":material_home:", ":streamlit:", "a -> b", "<-", "http://e.com", "WWW.e.com", "a@e.com"],
)
def test_a_label_has_nothing_left_that_becomes_an_icon_an_arrow_or_a_link(text):
    shown = label(text).replace("\\", "")
    assert shown != text
    assert shown.replace("\u2060", "") == text  # an invisible character breaks it up


def test_what_is_copied_from_a_message_stays_whole():
    assert label("build it with --restart, see /data/x.jsonl: 12:30").replace("\\", "") == (
        "build it with --restart, see /data/x.jsonl: 12:30"
    )
