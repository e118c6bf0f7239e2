"""Rows as people have them, from public reports: each is read whole, or is excluded with the reason."""

import json

import pytest

from gradsift.data.conversation import Message, ToolCall
from gradsift.data.pool import make_row
from gradsift.data.reasons import Unusable
from gradsift.data.records import Record, to_record
from gradsift.data.schemas import Reading, has_schema, read_conversation
from gradsift.data.targets import parse_targets

U, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
USER, ANSWER = Message("user", "q"), Message("assistant", "a")
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


def read(record, **reading):
    return read_conversation(record, Reading(**reading))


def turns(record, **reading):
    return list(read(record, **reading).messages)


def reason(record, **reading):
    with pytest.raises(Unusable) as caught:
        read(record, **reading)
    text = str(caught.value)
    assert text
    assert "\n" not in text
    return text


def answer(**fields):
    return {"messages": [U, {"role": "assistant", **fields}]}


# Reasoning


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_of_a_turn_or_beside_a_pair(name):
    thought = Message("assistant", "a", "because")
    assert turns(answer(content="a", **{name: "because"})) == [USER, thought]
    assert turns({"instruction": "q", "input": "", "output": "a", name: "because"}) == [USER, thought]
    assert turns({"prompt": "q", name: "because", "completion": "a"}) == [USER, thought]
    assert turns({"prompt": [U], "completion": [A | {name: "because"}]}) == [USER, thought]
    assert turns(answer(content="a", **{name: None})) == turns(answer(content="a", **{name: True})) == [USER, ANSWER]
    assert turns(answer(content="", **{name: "because"}))[1] == Message("assistant", "", "because")
    assert turns(answer(**{name: "because"}))[1] == Message("assistant", "", "because")


def test_parts_of_thinking_are_reasoning():
    parts = [{"type": "thinking", "thinking": "be"}, {"type": "thinking", "thinking": "cause"}]
    text = {"type": "text", "text": "a"}
    assert turns(answer(content=[*parts, text]))[1] == Message("assistant", "a", "because")
    summary = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "because"}]}
    assert turns(answer(content=[summary, text]))[1] == Message("assistant", "a", "because")
    assert "an order that a turn cannot keep" in reason(answer(content=[text, *parts]))
    assert "of type 'redacted_thinking'" in reason(answer(content=[{"type": "redacted_thinking", "data": "x"}, text]))


def test_reasoning_written_twice_counts_once_and_must_agree():
    assert turns(answer(content="a", reasoning="r", thinking="r"))[1].reasoning == "r"
    assert "two reasonings that differ" in reason(answer(content="a", reasoning="r", thinking="s"))
    assert "two reasonings that differ" in reason({"prompt": "q", "completion": "a", "reasoning": "r", "thinking": "s"})


def test_a_switch_is_no_reasoning():
    found = read({"input": [U], "output": "a", "reasoning": "on", "system_prompt": "detailed thinking on"})
    assert found.messages == (Message("system", "detailed thinking on"), USER, ANSWER)
    assert found.unused == ("reasoning",)


def test_reasoning_beside_turns_or_of_a_user_is_told():
    assert read({"messages": [U, A], "reasoning": "r"}).unused == ("reasoning",)
    assert read({"messages": [U | {"thinking": "hm"}, A]}).unused == ("messages.thinking",)


# Tools


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), [json.dumps(TOOL)], [TOOL | {"extra": None}]])
@pytest.mark.parametrize("name", ["tools", "functions", "Tools"])
def test_tools_are_kept_as_json(name, tools):
    assert read({"messages": [U, A], name: tools}).tools == json.dumps([TOOL])


@pytest.mark.parametrize("tools", [None, "", [], "[]", "null", " "])
def test_no_tools(tools):
    assert read({"messages": [U, A], "tools": tools}).tools == ""


@pytest.mark.parametrize("tools", [{"name": "f"}, 3, True, "hammer", "[1, 2]", ["f"], [None], [[TOOL]], "[{"])
def test_tools_that_are_not_a_list_of_objects_exclude_the_row(tools):
    assert "tools is not a list" in reason(
        {"messages": [U, A], "tools": tools}
    ) or "tool 1 of tools is not an" in reason({"messages": [U, A], "tools": tools})


def test_two_lists_of_tools():
    assert read({"messages": [U, A], "tools": [TOOL], "functions": [TOOL]}).tools
    assert "two lists of tools" in reason({"messages": [U, A], "tools": [TOOL], "functions": [{"name": "f"}]})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"place": "Bär", "n": 1}, '{"place": "Bär", "n": 1}'),
        ('{"place":"B\\u00e4r","n":1}', '{"place": "Bär", "n": 1}'),
        ({"place": "x", "limit": None, "more": {"a": None}}, '{"place": "x", "more": {}}'),
        ('{"limit": null}', '{"limit": null}'),
        ({}, "{}"),
        (None, "{}"),
        ("", ""),
        ("place=x", "place=x"),
        ("[1]", "[1]"),
        ('{"a": 1, "a": 2}', '{"a": 1, "a": 2}'),
        ('{"a": NaN}', '{"a": NaN}'),
        ('{"a": "\\ud800"}', '{"a": "\\ud800"}'),
    ],
)
def test_arguments(arguments, text):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    assert turns(answer(content=None, tool_calls=[call]))[1] == Message(
        "assistant", tool_calls=(ToolCall("f", text, "c"),)
    )
    assert turns(answer(tool_calls=json.dumps([call])))[1].tool_calls == (ToolCall("f", text, "c"),)


@pytest.mark.parametrize("arguments", [[1], 3, True, {"a": float("nan")}, {"a": "\ud800"}])
def test_arguments_that_cannot_be_kept(arguments):
    assert reason(answer(tool_calls=[{"name": "f", "arguments": arguments}])).startswith("arguments of call 1 of")


def test_calls_in_every_form():
    call = (ToolCall("f", '{"a": 1}'),)
    bare = {"name": "f", "arguments": {"a": 1}}
    for fields in (
        {"tool_calls": [bare]},
        {"tool_calls": [{"type": "function", "function": bare}]},
        {"function_call": bare},
        {"function_call": {"name": "f", "arguments": '{"a": 1}'}, "tool_calls": None},
        {"content": [{"type": "tool_use", "name": "f", "input": {"a": 1}}]},
    ):
        assert turns(answer(**fields))[1] == Message("assistant", tool_calls=call), fields
    assert turns(answer(content="Let me see.", tool_calls=[bare]))[1] == Message("assistant", "Let me see.", "", call)
    assert "has no name" in reason(answer(tool_calls=[{"arguments": {}}]))
    assert "unknown type 'custom'" in reason(answer(tool_calls=[{"type": "custom", "custom": {"name": "f"}}]))
    assert "calls a tool, but its role is user" in reason({"messages": [U | {"tool_calls": [bare]}, A]})


def test_sharegpt_calls_and_results():
    said = [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": '{"name":"get_weather", "arguments": {"place": "Pisa"}}'},
        {"from": "function_call", "value": '[{"name": "now"}, {"name": "day", "arguments": {}}]'},
        {"from": "observation", "value": "sunny"},
        {"from": "gpt", "value": "a"},
    ]
    calls = (ToolCall("get_weather", '{"place": "Pisa"}'), ToolCall("now"), ToolCall("day"))
    called = [USER, Message("assistant", tool_calls=calls), Message("tool", "sunny"), ANSWER]
    assert turns({"conversations": said}) == called
    said[2]["weight"] = 0
    marked = turns({"conversations": said})
    assert [message.tool_calls for message in marked[1:3]] == [calls[:1], calls[1:]]
    assert [message.learned for message in marked[1:3]] == [None, False]
    assert "is not a call of a tool" in reason({"messages": [U, {"role": "tool_call", "content": "{}"}, A]})


@pytest.mark.parametrize(
    "role", ["tool", "observation", "tool_response", "function", "function_response", "ipython", "TOOL"]
)
def test_results_of_tools(role):
    result = {"role": role, "content": "x", "name": "f", "tool_call_id": "c"}
    assert turns({"messages": [U, result, A]})[1] == Message("tool", "x", name="f", call_id="c")


def test_the_name_of_a_turn_that_is_only_a_result_is_told():
    user = {"role": "user", "name": "ann", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "x"}]}
    found = read({"messages": [user, A]})
    assert (found.messages, found.unused) == ((Message("tool", "x", call_id="c"), ANSWER), ("messages.name",))
    assert turns({"messages": [user | {"content": []}, A]})[0] == Message("user", "", name="ann")


def test_a_result_among_the_parts_of_a_user_turn():
    parts = [
        {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "sunny"}]},
        {"type": "text", "text": "q"},
    ]
    assert turns({"messages": [{"role": "user", "content": parts}, A]}) == [
        Message("tool", "sunny", call_id="c"),
        USER,
        ANSWER,
    ]


# Media


@pytest.mark.parametrize("name", ["image", "images", "video", "videos", "audio", "audios", "Image"])
def test_media_exclude_the_row(name):
    for value in ("a.png", ["a.png"], {"bytes": None, "path": "a"}, [{"bytes": b"x"}], object()):
        assert reason({"messages": [U, A], name: value}).endswith("and its text alone is not the example")
        assert reason({"messages": [U | {name: value}, A]}).startswith("message 1 of messages holds")
    for value in (None, "", [], [None], {"bytes": None, "path": None}, False):
        assert turns({"messages": [U, A], name: value}) == [USER, ANSWER]


def test_parts_that_are_media_exclude_the_row():
    for part in ({"type": "image"}, {"type": "image_url", "image_url": {"url": "x"}}, {"type": "input_audio"}):
        assert "part" in (text := reason({"messages": [{"role": "user", "content": [part]}, A]})) or "holds" in text
    hidden = {"type": "text", "text": "q", "image_url": {"url": "x"}}
    assert "holds image_url" in reason({"messages": [{"role": "user", "content": [hidden]}, A]})


# Whether a turn is learned


@pytest.mark.parametrize(
    ("name", "no", "yes"),
    [
        ("weight", 0, 1),
        ("weight", 0.0, 1.0),
        ("train", False, True),
        ("trainable", "false", "True"),
        ("training", "0", "1"),
        ("loss", False, True),
        ("learn", 0, 1),
        ("train_on_turn", False, True),
        ("compute_loss", False, True),
        ("masked", True, False),
        ("mask", 1, 0),
    ],
)
def test_marks(name, no, yes):
    wrong = {"role": "assistant", "content": "5", name: no}
    right = {"role": "assistant", "content": "4", name: yes}
    assert [m.learned for m in turns({"messages": [U, wrong, U, right]})] == [None, False, None, True]
    assert reason({"messages": [U, wrong]}) == "no assistant turn is to be learned: the row marks each as not learned"
    assert "no assistant turn is to be learned" in reason(
        {"messages": [U, wrong, {"role": "assistant", "content": ""}]}
    )
    sharegpt = [{"from": "human", "value": "q", name: yes}, {"from": "gpt", "value": "a", name: None}]
    user, found = turns({"conversations": sharegpt})
    assert (user.learned, user.is_learned, found.learned, found.is_learned) == (True, False, None, True)


@pytest.mark.parametrize("value", [0.5, 2, -1, "half", [1], {"a": 1}])
def test_another_mark_excludes_the_row(value):
    assert reason(answer(content="a", weight=value)).startswith("weight of message 2 of messages is")


def test_marks_that_differ():
    assert "both" in reason(answer(content="a", weight=1, masked=True))
    marked = {"messages": [U, A | {"weight": 0.0, "masked": True}, A]}
    assert [message.learned for message in turns(marked)] == [None, False, None]
    assert "learned in part" in reason(answer(content="a", train_detail=[{"begin_offset": 0, "end_offset": 1}]))


# Columns


@pytest.mark.parametrize(
    ("question", "answered"),
    [
        *(("question", "answer"), ("query", "response"), ("problem", "solution"), ("input", "output")),
        *(("question", "response"), ("prompt", "answer"), ("instruction", "answer"), ("user", "assistant")),
        *(("prompt", "completion"), ("prompt", "response"), ("prompt", "output"), ("inputs", "targets")),
        *(("instruction", "output"), ("instruction", "response"), ("instruction", "completion")),
        *(("Instruction", "OUTPUT"), ("Question", "Answer")),
    ],
)
def test_pairs_and_what_stands_beside_them(question, answered):
    record = {question: "q", answered: "a"}
    assert has_schema(frozenset(record))
    assert turns(record) == [USER, ANSWER]
    assert turns(record | {"context": "c"}) == [Message("user", "q\n\nc"), ANSWER]
    if question != "input":
        assert turns(record | {"input": "x", "context": "c"}) == [Message("user", "q\n\nx\n\nc"), ANSWER]
    for name in ("system", "system_prompt"):
        assert turns(record | {name: "s", "history": [["q", "a"]]}) == [
            Message("system", "s"),
            USER,
            ANSWER,
            USER,
            ANSWER,
        ]
    found = read(
        record | {"history": [U, A], "url": "u", "n": 3, "id": "i", "source": "s", "tags": [], "meta": {"a": "b"}}
    )
    assert found.messages == (USER, ANSWER, USER, ANSWER)
    assert found.unused == ("meta", "url")


def test_two_complete_pairs_are_read_in_a_fixed_order():
    found = read({"question": "other", "answer": "wrong", "instruction": "q", "output": "a"})
    assert (found.schema, list(found.messages), found.unused) == ("alpaca", [USER, ANSWER], ("answer", "question"))
    assert turns({"prompt": "", "completion": "", "question": "q", "answer": "a"}) == [USER, ANSWER]
    assert read({"prompt": "p", "messages": [U, A]}).unused == ("prompt",)


def test_json_written_as_a_string():
    text = json.dumps([U, A])
    assert turns({"messages": text}) == turns({"conversations": f" {text}\n"}) == [USER, ANSWER]
    assert turns({"messages": [json.dumps(U), json.dumps(A)]}) == [USER, ANSWER]
    assert turns({"prompt": json.dumps([U]), "completion": json.dumps([A])}) == [USER, ANSWER]
    assert turns({"prompt": "q", "completion": json.dumps([A])})[1].content == json.dumps([A])
    assert "half of a surrogate pair" in reason({"messages": '[{"role": "user", "content": "\\ud800"}]'})
    assert reason({"messages": "[{"}) == "messages is not a list but a string"


def test_an_object_of_lists():
    assert turns({"conversations": {"from": ["human", "gpt"], "value": ["q", "a"]}}) == [USER, ANSWER]
    found = turns({"messages": {"role": ["user", "assistant"], "content": ["q", "a"], "weight": [None, 1], "x": None}})
    assert found == [USER, Message("assistant", "a", learned=True)]
    assert "different lengths" in reason({"messages": {"role": ["user"], "content": ["q", "a"]}})


@pytest.mark.parametrize(
    ("names", "role"),
    [
        (("developer", "System"), "system"),
        (("User", "human", "USER", "prompter"), "user"),
        (("AI", "BOT", "chatbot", "ASSISTANT", "model", "gpt"), "assistant"),
    ],
)
def test_names_of_roles(names, role):
    for name in names:
        assert turns({"messages": [{"role": name, "content": "x"}, U, A]})[0].role == role


@pytest.mark.parametrize("name", ["bing", "customer", "npc", "Q", "claude", "context", "input"])
def test_unclear_roles_are_named(name):
    assert reason({"messages": [{"role": name, "content": "x"}, A]}) == (
        f"message 1 of messages has the unknown role {name!r}"
    )


@pytest.mark.parametrize("column", ["messages", "conversation", "conversations", "dialogue", "chat", "turns"])
def test_columns_of_turns(column):
    assert turns({column: [U, A]}) == turns({column: [{"role": "user", "text": "q"}, A]}) == [USER, ANSWER]
    assert turns({column: [{"speaker": "user", "content": "q"}, A]}) == [USER, ANSWER]


def test_shapes_of_content():
    for parts in (
        [{"type": "text", "text": "a"}],
        [{"type": "output_text", "text": "a"}],
        [{"text": "a", "type": None, "image_url": None}],
        [{"type": "text", "content": "a"}],
    ):
        assert turns(answer(content=parts)) == [USER, ANSWER]
    for content in (None, 42, True, {"name": "Po"}, ["a"]):
        assert "not text but" in reason(answer(content=content))
    assert "no assistant turn with text" in reason(answer(content="  "))
    assert turns({"messages": [A, U]}) == [ANSWER, USER]


def test_nulls_are_named():
    assert reason({"messages": None}) == "messages is null"
    assert reason({"instruction": "q", "input": "", "output": None}) == "output is null"
    assert reason({"prompt": None, "completion": None}) == "prompt and completion are null"
    assert reason({"instruction": "q", "input": 0, "output": "a"}) == "input is not text but a number"
    assert turns({"instruction": None, "input": "q", "output": "a"}) == [USER, ANSWER]
    assert "a number" in reason({"instruction": "q", "output": 42})


def test_conversations_inside_of_an_object():
    body = {"model": "m", "messages": [U, A], "tools": [TOOL]}
    found = read({"custom_id": "1", "method": "POST", "body": body})
    assert (found.messages, found.tools) == ((USER, ANSWER), json.dumps([TOOL]))
    assert found.unused == ("body.model", "custom_id", "method")
    assert turns({"data": {"messages": [U, A]}}) == turns({"conversation": {"messages": [U, A]}}) == [USER, ANSWER]


def test_evaluation_files_of_less_are_refused():
    assert "no known schema" in reason({"A lesion of a nerve, which?": "x", "left": "y"})
    assert "no known schema" in reason({"boolean_expressions": "Q: not True is\nA: False.", "date": "x"})
    assert "no known schema" in reason({"arabic": [{"question": "q", "context": "c", "answers": [{"text": "a"}]}]})


# What is read only when asked for


def test_plain_text():
    assert reason({"text": "x", "url": "u"}) == "plain text; add --take text to learn every token of it"
    found = read({"text": "x", "url": "u"}, take=("text",))
    assert found == ("text", (Message("text", "x"),), "", ("url",))
    assert turns({"body": "x"}, columns=(("text", "body"),)) == [Message("text", "x")]
    assert "no known schema" in reason({"prompt": "q", "text": "x"}, take=("text",))
    assert reason({"text": " "}, take=("text",)) == "text is empty"


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "q", "chosen": "a"},
        {"question": "q", "system": "", "chosen": "a"},
        {"prompt": "q", "chosen": "qa"},
        {"prompt": [U], "chosen": [A]},
        {"prompt": "q", "chosen": [A]},
        {"prompt": "q", "chosen": [U, A]},
        {"prompt": [U], "chosen": [U, A]},
        {"chosen": [U, A]},
        {"chosen": "\n\nHuman: q\n\nAssistant: a"},
        {"messages": [U, A], "chosen": [U, A]},
    ],
)
def test_preferences(record):
    record = record | {"rejected": "no"}
    if "messages" in record:  # a conversation to learn stands beside the preference
        assert set(read(record).unused) >= {"chosen", "rejected"}
    else:
        assert "add --take chosen" in reason(record)
    found = read(record, take=("chosen",))
    assert (found.schema, list(found.messages)) == ("chosen", [USER, ANSWER])
    assert set(found.unused) <= {"rejected", "messages"}


def test_labels():
    for record in ({"prompt": "q", "completion": "a"}, {"messages": [U, A]}, {"instruction": "q", "output": "a"}):
        for label in (True, False):
            assert "add --take label" in reason(record | {"label": label})
        assert turns(record | {"label": True}, take=("label",)) == [USER, ANSWER]
        assert reason(record | {"label": False}, take=("label",)) == "its label is false"
        assert read(record | {"label": "sport"}).unused == ("label",)
        assert turns(record | {"label": None}) == turns(record | {"label": 7}) == [USER, ANSWER]
    assert "add --take label" in reason({"prompt": "q", "completion": "a", "label": "False"})
    assert "add --take label" in reason({"messages": [U, A], "kto_tag": True})


# Mapping


def test_columns_that_a_person_maps():
    record = {"question1": "q", "reply": "a", "sys": "s", "cot": "r", "page": "p", "fns": [TOOL], "answer": "no"}
    assert "map them with --columns user=…,assistant=…" in reason({"question1": "q", "reply": "a"})
    pair = (("user", "question1"), ("assistant", "reply"))
    assert read(record, columns=pair)[:2] == ("columns", (USER, ANSWER))
    rest = (("system", "sys"), ("reasoning", "cot"), ("context", "page"), ("tools", "fns"))
    found = read(record, columns=(*pair, *rest))
    assert list(found.messages) == [Message("system", "s"), Message("user", "q\n\np"), Message("assistant", "a", "r")]
    assert (found.tools, found.unused) == (json.dumps([TOOL]), ("answer",))
    assert turns({"log": [U, A]}, columns=(("messages", "LOG"),)) == [USER, ANSWER]
    assert turns({"ask": "q", "answer": "a"}, columns=(("user", "ask"),)) == [USER, ANSWER]


def test_mapped_columns_that_are_not_there():
    columns = (("user", "ask"), ("assistant", "reply"))
    assert reason({"ask": "q", "answer": "a"}, columns=columns) == "has no column 'reply', which is to be the assistant"
    assert reason({"ask": "q", "reply": None}, columns=columns) == "reply is null"
    assert "not one answer" in reason({"messages": [U, A, A], "cot": "r"}, columns=(("reasoning", "cot"),))
    assert turns({"messages": [U, A], "cot": "r"}, columns=(("reasoning", "cot"),))[1].reasoning == "r"


def test_the_column_of_sources():
    def row(value, column="origin"):
        return make_row(
            Record(1, b"", {"prompt": "q", "completion": "a", **value}, ""), "f", "stem", Reading((), (), column)
        )

    assert (row({"origin": "x", "source": "y"}).source, row({"Origin": 3}).source) == ("x", "3")
    assert (row({"origin": None}).source, row({"origin": "", "source": "y"}).source) == ("stem", "y")
    assert row({"origin": "x"}).unused == ()
    assert row({}).reason == "has no column 'origin', which is to name the source"


def test_targets_may_hold_tools_and_calls():
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": {}}]}
    (row,) = parse_targets(json.dumps({"messages": [U, call], "tools": [TOOL]}, indent=1)).rows
    assert (row.tools, row.messages[1].tool_calls) == (json.dumps([TOOL]), (ToolCall("f"),))


def test_a_preference_whose_prompt_is_a_list_of_turns():
    record = {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "a"},
        "rejected": "no",
    }
    assert "add --take chosen" in reason(record)
    assert turns(record, take=("chosen",)) == [USER, ANSWER]
    assert turns(
        {"messages": [{"role": "user", "content": "q"}], "chosen": "a", "rejected": "b"}, take=("chosen",)
    ) == [USER, ANSWER]


def test_a_mapped_column_does_not_name_the_source():
    row = make_row(
        to_record(1, {"source": "q", "target": "a"}), "f", "s", Reading((("user", "source"), ("assistant", "target")))
    )
    assert row.source == "s"
