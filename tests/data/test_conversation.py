"""A message as a record: what trainers and people read, with nothing added."""

import pytest

from gradsift.data.conversation import Message, ToolCall, openai_message


def test_a_plain_message_has_role_and_content_alone():
    assert openai_message(Message("user", "q")) == {"role": "user", "content": "q"}


def test_everything_a_message_can_hold():
    calls = (ToolCall("add", '{"a": 1, "b": "é"}', "c1"), ToolCall("now"))
    message = Message("assistant", "", "because", calls, "bot", learned=False)
    assert openai_message(message) == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "because",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": "é"}}},
            {"type": "function", "function": {"name": "now", "arguments": {}}},
        ],
        "name": "bot",
        "weight": 0,
    }
    result = Message("tool", "3", name="add", call_id="c1")
    assert openai_message(result) == {"role": "tool", "content": "3", "name": "add", "tool_call_id": "c1"}
    assert openai_message(Message("assistant", "a", learned=True))["weight"] == 1


@pytest.mark.parametrize("text", ["", "x=1", "[1]", "3", '{"a": NaN}', '{"a": 1, "a": 2}', '{"a":1}', "{" * 100_000])
def test_arguments_that_an_object_would_change_stay_text(text):
    (call,) = openai_message(Message("assistant", "", tool_calls=(ToolCall("f", text),)))["tool_calls"]
    assert call["function"]["arguments"] == text
