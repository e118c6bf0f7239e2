"""Rows with tools, calls, reasoning and weights: pool -> export -> pool keeps every field, or the format is refused.

Files are read back with the pool's own reader.
"""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from picked import export_rows as export
from picked import pick_of

from gradsift.data.conversation import Conversation, Message, ToolCall, json_text
from gradsift.data.pool import read_rows
from gradsift.data.schemas import Reading
from gradsift.export.formats import FORMATS, preview
from gradsift.export.holdings import LACKS, fits, refusal, survey
from gradsift.runtime.errors import UsageError

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
CALL = ToolCall("weather", '{"place": "Bern"}', "c1")
TOOL_ROW = Conversation(
    (
        Message("system", "Use tools."),
        Message("user", "Warm in Bern?"),
        Message("assistant", tool_calls=(CALL,)),
        Message("tool", '{"t": 21}', name="weather", call_id="c1"),
        Message("assistant", "Yes, 21 degrees.", reasoning="21 is warm."),
    ),
    tools=json_text([TOOL]),
)
WEIGHTED = Conversation(
    (
        Message("user", "2 + 2?"),
        Message("assistant", "5", learned=False),
        Message("user", "No."),
        Message("assistant", "4", learned=True),
    )
)
PLAIN = Conversation((Message("user", "q"), Message("assistant", "a")))
TEXT = Conversation((Message("text", "once upon a time"),))

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)
calls = st.builds(
    ToolCall,
    words,
    st.dictionaries(words, values, max_size=3).map(json_text) | st.just("not JSON"),
    st.just("") | words,
)
marks = st.sampled_from([None, True, False])
answers = st.builds(
    Message,
    st.just("assistant"),
    words,
    reasoning=st.just("") | words,
    tool_calls=st.just(()) | st.lists(calls, min_size=1, max_size=2).map(tuple),
    name=st.just("") | words,
    learned=marks,
)
others = st.builds(Message, st.sampled_from(["user", "system"]), words, name=st.just("") | words, learned=marks)
results = st.builds(Message, st.just("tool"), words, name=st.just("") | words, call_id=st.just("") | words)
tools = st.just("") | st.lists(st.dictionaries(words, values, min_size=1, max_size=2), min_size=1, max_size=2).map(
    json_text
)
conversations = st.builds(
    Conversation,
    st.lists(others | answers | results, max_size=4).flatmap(
        lambda turns: answers.map(lambda last: (*turns, Message("assistant", last.content, last.reasoning)))
    ),
    tools,
)


def read(path):
    rows = list(read_rows([path], reading=Reading(take=("text",))))
    assert not [row.reason for row in rows if row.reason]
    return [row.conversation for row in rows]


@pytest.mark.parametrize("format", ["messages", "parquet", "less"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(conversations, min_size=1, max_size=3))
def test_every_field_comes_back(tmp_path, format, rows):
    assert read(export(tmp_path / "out", format, rows)) == rows


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(conversations, min_size=1, max_size=3))
def test_sharegpt_brings_back_what_it_carries_or_refuses(tmp_path, rows):
    holdings = survey((str(number), row) for number, row in enumerate(rows))
    if not fits("sharegpt", holdings):
        with pytest.raises(UsageError, match=r"The format sharegpt has no place for .*: choose messages"):
            export(tmp_path / "out", "sharegpt", rows)
        return
    back = read(export(tmp_path / "out", "sharegpt", rows))
    assert [row.tools for row in back] == [row.tools for row in rows]
    assert [row.messages for row in back] == [tuple(map(shared, row.messages)) for row in rows]


def shared(message):
    """A message as ShareGPT holds it: reasoning in the text, and no mark for turns that are learned anyway."""
    text = f"<think>\n{message.reasoning}\n</think>\n\n{message.content}" if message.reasoning else message.content
    return Message(message.role, text, "", message.tool_calls, message.name, message.call_id)


@pytest.mark.parametrize("format", ["messages", "parquet"])
def test_plain_text_comes_back_as_text(tmp_path, format):
    assert read(export(tmp_path / "out", format, [TEXT])) == [TEXT]


def test_a_prompt_with_tools_comes_back(tmp_path):
    assert read(export(tmp_path / "out", "prompt-completion", [TOOL_ROW, PLAIN])) == [TOOL_ROW, PLAIN]


def test_the_completion_is_the_last_answer_that_is_learned(tmp_path):
    row = Conversation((*WEIGHTED.messages, Message("user", "Sure?"), Message("assistant", "No", learned=False)))
    path = export(tmp_path / "out", "prompt-completion", [row])
    record = json.loads(path.read_text())
    assert record["completion"] == [{"role": "assistant", "content": "4", "weight": 1}]
    assert record["prompt"][1] == {"role": "assistant", "content": "5", "weight": 0}
    assert "1 row: turns after the last learned answer were left out" in (path.parent / "README.md").read_text()


# -- refusals ----------------------------------------------------------------------------------------------------------

CASES = [
    ("alpaca", [TOOL_ROW], "tools (1 row, first 'i1'), tool calls (1 row, first 'i1'), tool results"),
    ("alpaca", [PLAIN, WEIGHTED], "assistant turns that are not to be learned (1 row, first 'i2'): choose messages"),
    ("sharegpt", [WEIGHTED], "assistant turns that are not to be learned"),
    ("prompt-completion", [TEXT], "plain text without turns (1 row, first 'i1'): choose messages, less or parquet."),
    (
        "messages",
        [TEXT, PLAIN],
        "these rows are both: text in 1 row, first 'i1'; turns in 1 row, first 'i2'. Choose less",
    ),
]


@pytest.mark.parametrize(("format", "rows", "reason"), CASES)
def test_a_format_without_a_place_is_refused_before_anything_is_written(tmp_path, format, rows, reason):
    with pytest.raises(UsageError) as refused:
        export(tmp_path / "out", format, rows)
    assert reason in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_refusal_leaves_the_former_export(tmp_path):
    before = export(tmp_path / "out", "messages", [TOOL_ROW]).read_bytes()
    with pytest.raises(UsageError, match="alpaca has no place"):
        export(tmp_path / "out", "alpaca", [TOOL_ROW])
    assert (tmp_path / "out" / "train.jsonl").read_bytes() == before


PARTS = {
    "text": TEXT,
    "tools": Conversation(PLAIN.messages, tools=TOOL_ROW.tools),
    "calls": Conversation((Message("user", "q"), Message("assistant", tool_calls=(CALL,)))),
    "results": Conversation((Message("tool", "r"), Message("assistant", "a"))),
    "reasoning": Conversation((Message("user", "q"), Message("assistant", "a", reasoning="r"))),
    "unlearned": WEIGHTED,
    "names": Conversation((Message("user", "q", name="Ann"), Message("assistant", "a"))),
    "spoken calls": Conversation((Message("user", "q"), Message("assistant", "so", tool_calls=(CALL,)))),
    "reasoned calls": Conversation((Message("user", "q"), Message("assistant", reasoning="r", tool_calls=(CALL,)))),
    "runs of results": Conversation((Message("tool", "r"), Message("tool", "s"), Message("assistant", "a"))),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("format", FORMATS)
def test_every_part_is_written_or_refused_by_name(tmp_path, format, part):
    holdings = survey([("hostile\nid", PARTS[part])])
    assert holdings.has(part)
    reason = refusal(format, holdings)
    assert fits(format, holdings) == (not reason)
    if part in LACKS[format]:
        assert "'hostile\\nid'" in reason
    if not reason:
        assert preview(format, [pick_of(PARTS[part])], 1).count("\n") == 1
