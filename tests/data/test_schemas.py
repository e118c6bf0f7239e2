"""Every schema to (role, content) turns, and every way to be unusable, with its reason."""

import pytest

from gradsift.data.conversation import Message
from gradsift.data.reasons import Unusable, shorten
from gradsift.data.schemas import has_schema, read_conversation

ANSWER = {"role": "assistant", "content": "a"}
QA = (("user", "q"), ("assistant", "a"))


def pairs(found):
    """The turns as (role, content), which is all that these records hold."""
    assert all(message == Message(message.role, message.content) for message in found.messages)
    return tuple((message.role, message.content) for message in found.messages)


@pytest.mark.parametrize(
    ("record", "schema", "messages"),
    [
        ({"messages": [{"role": "user", "content": "q"}, ANSWER]}, "messages", QA),
        ({"conversation": [{"role": "user", "content": "q"}, ANSWER]}, "messages", QA),
        ({"dataset": "d", "id": "1", "messages": [{"role": "user", "content": "q"}, ANSWER]}, "messages", QA),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, "sharegpt", QA),
        ({"conversations": [{"role": "user", "content": "q"}, ANSWER]}, "messages", QA),
        ({"prompt": "q", "completion": "a"}, "prompt-completion", QA),
        ({"prompt": "q", "response": "a"}, "prompt-completion", QA),
        ({"prompt": [{"role": "user", "content": "q"}], "completion": [ANSWER]}, "prompt-completion", QA),
        ({"instruction": "q", "input": "", "output": "a"}, "alpaca", QA),
        ({"instruction": "q", "input": None, "output": "a"}, "alpaca", QA),
        ({"instruction": "q", "input": "x", "output": "a"}, "alpaca", (("user", "q\n\nx"), ("assistant", "a"))),
        ({"instruction": "q", "context": "x", "response": "a"}, "dolly", (("user", "q\n\nx"), ("assistant", "a"))),
        (
            {"instruction": "q", "output": "a", "system": "s", "history": [["q0", "a0"]]},
            "alpaca",
            (("system", "s"), ("user", "q0"), ("assistant", "a0"), *QA),
        ),
        ({"messages": None, "prompt": "q", "completion": "a"}, "prompt-completion", QA),
        ({"messages": [ANSWER, {"role": "user", "content": "more"}]}, "messages", (QA[1], ("user", "more"))),
    ],
)
def test_schemas(record, schema, messages):
    found = read_conversation(record)
    assert (found.schema, pairs(found)) == (schema, messages)


def test_text_is_kept_as_it_is():
    text = " \n a\u0000b\u2028 é \t"
    assert pairs(read_conversation({"prompt": text, "completion": text})) == (("user", text), ("assistant", text))


def test_text_parts_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "image_url": None}]
    assert pairs(read_conversation({"messages": [{"role": "assistant", "content": parts}]})) == (("assistant", "ab"),)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "the object is empty"),
        ({"text": "x", "url": "y"}, "plain text; add --take text to learn every token of it"),
        ({"ask": "x", "reply": "y"}, "no known schema among the fields 'ask', 'reply'; map them with --columns user=…"),
        ({"messages": []}, "messages is empty"),
        ({"messages": "hello"}, "messages is not a list but a string"),
        ({"messages": ["hello"]}, "message 1 of messages is not an object but a string"),
        ({"messages": [{"content": "x"}]}, "message 1 of messages has no role"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "unknown role 'narrator'"),
        (
            {"messages": [ANSWER, {"role": "tool", "content": None}]},
            "the content of message 2 of messages is not text but",
        ),
        (
            {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]},
            "call 1 of message 1 of messages has no",
        ),
        ({"messages": [{"role": "assistant", "content": None}]}, "is not text but null"),
        ({"messages": [{"role": "assistant", "content": 5}]}, "is not text but a number"),
        ({"messages": [{"role": "assistant", "content": [{"type": "image_url"}]}]}, "not text but of type 'image_url'"),
        ({"messages": [{"role": "user", "content": "x"}]}, "no assistant turn"),
        ({"messages": [{"role": "assistant", "content": " \n"}]}, "no assistant turn with text"),
        ({"conversations": [{"from": "observation", "value": "x"}]}, "no assistant turn"),
        ({"prompt": {"a": 1}, "completion": "x"}, "prompt is neither a string nor a list of messages but an object"),
        ({"instruction": "x", "output": ["y"]}, "output holds a part that is not text but a string"),
        ({"instruction": "x", "output": "y", "history": [["only one"]]}, "turn 1 of history is not a pair"),
        ({"instruction": "x", "output": "y", "history": 3}, "history is not a list but"),
        ({"prompt": "x", "completion": "y", "system": 3}, "system is not text but a number"),
    ],
)
def test_unusable_records_say_why(record, reason):
    with pytest.raises(Unusable, match=r".+") as caught:
        read_conversation(record)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_reasons_stay_short_and_printable():
    with pytest.raises(Unusable) as caught:
        read_conversation({"\ud800" + "x" * 10_000 + "\n": 1} | {f"f{n}": n for n in range(100)})
    assert len(str(caught.value)) < 300
    str(caught.value).encode()
    assert "93 more" in str(caught.value)
    assert shorten("a\nb") == r"'a\nb'"


def test_has_schema():
    assert has_schema(frozenset({"prompt", "response", "x"}))
    assert not has_schema(frozenset({"prompt", "x"}))
