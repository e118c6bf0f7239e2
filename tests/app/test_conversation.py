"""A conversation as the pages draw it: every turn as what it is, long parts folded, search hits marked wherever."""

import json
import re

import pytest

from app.views import highlights
from app.views.highlights import Marks
from app.views.tools import laid_out, tools_of
from app.widgets import conversation
from gradsift.data.conversation import Conversation, Message, ToolCall

WEATHER = ToolCall("get_weather", '{"city":"Zürich","days":2}', "call-1")
TOOLS = json.dumps(
    [{"type": "function", "function": {"name": "get_weather", "description": "The weather <of> a city"}}]
)
MESSAGES = (
    Message("user", "Will it rain?"),
    Message("assistant", reasoning="I should look it up.", tool_calls=(WEATHER,)),
    Message("tool", '{"rain": true}', name="get_weather", call_id="call-1"),
    Message("assistant", "Yes.", reasoning="The tool says so."),
)


def row(*messages: Message, tools: str = "", prefix: str = "") -> Conversation:
    return Conversation(messages, tools, prefix)


def said(html: str) -> str:
    """What a person reads: the text without its tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).strip()


def searched(words: str, role: str = "any") -> Marks:
    return Marks(highlights.search_pattern(words), role)


class TestPlainRows:
    def test_they_are_drawn_as_ever(self):
        turns = row(Message("system", "Be brief."), Message("user", "q & a"), Message("assistant", "yes"))
        assert conversation.draw(turns) == (
            '<div class="gs-turn"><span class="gs-role">System</span><p class="gs-said" dir="auto">Be brief.</p></div>'
            '<div class="gs-turn"><span class="gs-role">User</span><p class="gs-said" dir="auto">q &amp; a</p></div>'
            '<div class="gs-turn gs-answer"><span class="gs-role">Assistant</span>'
            '<p class="gs-said" dir="auto">yes</p></div>'
        )

    def test_a_long_one_is_folded_and_nothing_of_it_is_lost(self):
        turns = [
            Message(role, text)
            for role, text in (
                ("user", "q" * 500),
                ("assistant", "a1"),
                ("user", "more"),
                ("assistant", "the very end"),
            )
        ]
        html = conversation.draw(row(*turns))
        assert "<details" in html
        assert "Show all 4 turns" in html
        assert "the very end" in html
        assert "<details" not in conversation.draw(row(*turns[2:]))

    def test_a_prefix_is_shown_apart_in_the_last_answer_only(self):
        turns = [Message(*turn) for turn in (("user", "q"), ("assistant", "one"), ("user", "r"), ("assistant", "two"))]
        html = conversation.draw(row(*turns, prefix="The answer is:"))
        assert html.count("The answer is:") == 1
        assert html.index("The answer is:") > html.index("one")

    def test_plain_text_is_a_turn_called_text(self):
        assert said(conversation.draw(row(Message("text", "Once upon a time")))) == "Text Once upon a time"


class TestParts:
    def test_every_part_is_named_as_what_it_is_in_the_order_it_was_said(self):
        assert said(conversation.unfolded(row(*MESSAGES))) == (
            "User Will it rain? "
            "Assistant Reasoning I should look it up. "
            "Calls get_weather { &quot;city&quot;: &quot;Zürich&quot;, &quot;days&quot;: 2 } "
            "Tool get_weather {&quot;rain&quot;: true} "
            "Assistant Reasoning The tool says so. Yes."
        )

    def test_reasoning_calls_and_results_are_folded_only_if_they_are_long(self):
        assert "<details" not in conversation.unfolded(row(*MESSAGES))
        long = row(
            Message("user", "q"),
            Message("assistant", "the answer " * 90, "a thought " * 90, (ToolCall("f", json.dumps({"x": "y" * 900})),)),
            Message("tool", "a result " * 90, name="f"),
        )
        html = conversation.unfolded(long)
        kinds = re.findall(r'<details class="gs-part gs-(\w+)">', html)
        assert kinds == ["thought", "call", "result"]
        assert html.count("the answer ") == 90  # answers are not folded by themselves
        assert html.count("a thought ") >= 90

    def test_a_short_view_prefers_the_answer_and_names_what_else_there_is(self):
        html = conversation.draw(row(Message("user", "q"), Message("assistant", "a" * 400, "why", (WEATHER, WEATHER))))
        short = html[: html.index("gs-more")]
        assert "with reasoning, 2 tool calls" in short
        assert "why" not in short

    def test_turns_kept_from_being_learned_say_so_and_others_do_not(self):
        turns = [Message("user", "q", learned=False), Message("assistant", "a", learned=False)]
        assert said(conversation.unfolded(row(*turns))) == "User q Assistant not learned a"
        for learned in (None, True):
            assert "not learned" not in conversation.unfolded(row(Message("assistant", "a", learned=learned)))

    def test_a_turn_without_anything_and_a_prefix_before_calls_are_shown(self):
        assert said(conversation.unfolded(row(Message("assistant")))) == "Assistant"
        html = conversation.unfolded(row(Message("assistant", tool_calls=(WEATHER,)), prefix="So:"))
        assert "So:" in html

    def test_the_rows_tools_are_folded_by_name_with_their_definitions_inside(self):
        html = conversation.unfolded(row(*MESSAGES, tools=TOOLS))
        assert html.startswith('<details class="gs-part gs-tools"><summary><span class="gs-what">1 tool</span>')
        assert "get_weather" in html[: html.index("</summary>")]
        assert "The weather &lt;of&gt; a city" in html

    def test_what_does_not_fit_is_counted(self):
        thought = Message("assistant", "x" * 20_000, "y" * 20_000, (ToolCall("f", "z" * 20_000),))
        html = conversation.unfolded(row(thought, *MESSAGES))
        assert html.count("[8,000 more characters are not shown here") == 3
        assert "more turns" not in html
        assert "4 more turns are not shown here" in conversation.unfolded(row(thought, *MESSAGES), most=20_000)


class TestHits:
    @pytest.mark.parametrize(
        ("words", "role"),
        [('"look it up"', "assistant"), ("zürich", "assistant"), ("get_weather", "assistant"), ("rain", "tool")],
    )
    def test_they_are_marked_in_reasoning_calls_and_results(self, words, role):
        html = conversation.unfolded(row(*MESSAGES), searched(words, role))
        assert [hit.lower() for hit in re.findall(r'<mark class="gs-hit">(.*?)</mark>', html)] == [words.strip('"')]

    def test_a_folded_part_with_a_hit_is_open(self):
        long = row(Message("assistant", "yes", "so " * 300 + "needle"), Message("tool", "none " * 300))
        html = conversation.unfolded(long, searched("needle"))
        assert re.findall(r'<details class="gs-part gs-(\w+)"( open)?>', html) == [("thought", " open"), ("result", "")]

    def test_a_folded_row_shows_the_part_with_the_hit(self):
        long = row(Message("user", "q"), Message("assistant", "a" * 400, "so " * 300 + "needle", (WEATHER,)))
        for words in ("needle", "zürich", "get_weather"):
            html = conversation.draw(long, searched(words))
            assert "<mark" in html[: html.index("gs-more")], words


class TestToolText:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "not JSON",
            "{}",
            '"text"',
            '{"a": 1, "a": 2}',
            '{"a": 1e5}',
            '{"a": 0.10000000000000000001}',
            "[" * 20_000,
            "[" * 20_000 + "]" * 20_000,
            '{"a": ' + "9" * 5000 + "}",
        ],
    )
    def test_what_cannot_be_laid_out_faithfully_stays_as_it_stands(self, text):
        assert laid_out(text) == text

    def test_json_is_laid_out_with_its_letters(self):
        assert laid_out('{"a":[1,2.5,null],"b":"\\u00fc"}') == (
            '{\n  "a": [\n    1,\n    2.5,\n    null\n  ],\n  "b": "ü"\n}'
        )

    def test_tools_are_named_however_they_are_written(self):
        tools = [{"function": {"name": "f"}}, {"name": "g"}, {"name": 3}, "h"]
        assert [name for name, _ in tools_of(json.dumps(tools))] == ["f", "g", "tool 3", "tool 4"]
        assert tools_of("") == []
        assert tools_of("{broken") == [("", "{broken")]
