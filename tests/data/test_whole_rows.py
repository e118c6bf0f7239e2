"""Rows as people publish them: reasoning, tools, weights, media, columns of every name; nothing vanishes in silence."""

import json

import pytest
from conversations import pairs
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsift.data.conversation import Message, ToolCall
from gradsift.data.pool import make_row
from gradsift.data.reasons import Unusable
from gradsift.data.records import to_record
from gradsift.data.schemas import PAIRS, Reading, read_conversation

QUESTION = {"role": "user", "content": "Name a river."}
ANSWER = {"role": "assistant", "content": "The Po."}
RIVER = [("user", "Name a river."), ("assistant", "The Po.")]


def chat(*turns, **more):
    return {"messages": [QUESTION, *turns], **more}


def reason(record, **reading) -> str:
    with pytest.raises(Unusable) as caught:
        read_conversation(record, Reading(**reading))
    return str(caught.value)


class TestReasoning:
    @pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
    def test_every_name_on_a_message(self, name):
        found = read_conversation(chat({**ANSWER, name: "It is in Italy."}))
        assert found.messages[1] == Message("assistant", "The Po.", "It is in Italy.")
        assert found.unused == ()

    def test_parts_of_thinking(self):
        parts = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "The Po."}]
        found = read_conversation(chat({"role": "assistant", "content": parts}))
        assert found.messages[1] == Message("assistant", "The Po.", "Hm.")

    def test_a_column_beside_a_pair(self):
        found = read_conversation({"question": "q", "answer": "a", "reasoning": "because"})
        assert found.messages[1] == Message("assistant", "a", "because")

    def test_a_switch_is_not_reasoning(self):
        found = read_conversation({"prompt": "q", "response": "a", "reasoning": "off"})
        assert found.messages[1].reasoning == ""
        assert found.unused == ("reasoning",)

    def test_the_same_text_twice_counts_once_and_two_texts_are_refused(self):
        twice = read_conversation(chat({**ANSWER, "reasoning": "x", "thinking": "x"}))
        assert twice.messages[1].reasoning == "x"
        assert "two reasonings that differ" in reason(chat({**ANSWER, "reasoning": "x", "thinking": "y"}))


class TestTools:
    CALL = ToolCall("weather", '{"city": "Pisa"}', "c1")

    def test_openai(self):
        call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Pisa"}'}}
        record = chat(
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "name": "weather", "tool_call_id": "c1", "content": "sunny"},
            ANSWER,
            tools=[{"type": "function", "function": {"name": "weather", "strict": None}}],
        )
        found = read_conversation(record)
        assert found.messages[1:3] == (
            Message("assistant", tool_calls=(self.CALL,)),
            Message("tool", "sunny", name="weather", call_id="c1"),
        )
        assert json.loads(found.tools) == [{"type": "function", "function": {"name": "weather"}}]
        assert found.unused == ()

    def test_the_old_function_call(self):
        record = chat({"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "{}"}}, ANSWER)
        assert read_conversation(record).messages[1].tool_calls == (ToolCall("f"),)

    def test_sharegpt(self):
        record = {
            "conversations": [
                {"from": "human", "value": "Weather?"},
                {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Pisa"}}'},
                {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Bari"}}'},
                {"from": "observation", "value": "sunny"},
                {"from": "gpt", "value": "Sunny."},
            ],
            "tools": '[{"name": "weather"}]',
        }
        found = read_conversation(record)
        assert found.schema == "sharegpt"
        calls = tuple(ToolCall("weather", json.dumps({"city": city})) for city in ("Pisa", "Bari"))
        assert found.messages[1:3] == (Message("assistant", tool_calls=calls), Message("tool", "sunny"))
        assert json.loads(found.tools) == [{"name": "weather"}]

    @pytest.mark.parametrize("tools", ["", None, [], "[]", "null"])
    def test_no_tools(self, tools):
        assert read_conversation(chat(ANSWER, tools=tools)).tools == ""

    @pytest.mark.parametrize(
        ("tools", "said"),
        [
            ("search", "not a list of tools but a string"),
            ([3], "tool 1 of tools is not an object"),
            ({"a": 1}, "not a list"),
        ],
    )
    def test_what_is_no_list_of_tools(self, tools, said):
        assert said in reason(chat(ANSWER, tools=tools))

    def test_arguments_that_are_no_json_stay_as_they_are(self):
        call = {"name": "f", "arguments": "city=Pisa"}
        found = read_conversation(chat({"role": "assistant", "content": "", "tool_calls": [call]}))
        assert found.messages[1].tool_calls == (ToolCall("f", "city=Pisa"),)


class TestWeights:
    @pytest.mark.parametrize(
        "mark",
        [
            *({name: value} for name in ("weight", "train", "trainable", "loss", "learn") for value in (0, False)),
            {"masked": True}, {"mask": 1}, {"train": "false"}, {"weight": 0.0},
        ],
    )  # fmt: skip
    def test_a_turn_that_is_not_learned(self, mark):
        found = read_conversation(chat({**ANSWER, **mark}, QUESTION, ANSWER))
        assert [turn.is_learned for turn in found.messages] == [False, False, False, True]
        assert found.unused == ()

    def test_marks_of_other_roles_are_kept_and_do_not_make_them_learned(self):
        found = read_conversation({"messages": [{**QUESTION, "train": True}, ANSWER]})
        assert found.messages[0].learned is True
        assert not found.messages[0].is_learned

    def test_half_a_weight_and_nothing_to_learn(self):
        assert "weight of message 2 of messages is '0.5'" in reason(chat({**ANSWER, "weight": 0.5}))
        assert reason(chat({**ANSWER, "weight": 0})).startswith("no assistant turn is to be learned")
        assert "both that it is learned" in reason(chat({**ANSWER, "weight": 0, "train": True}))


class TestColumns:
    @pytest.mark.parametrize("pair", PAIRS)
    def test_every_pair_in_any_case_with_input_and_context(self, pair):
        question, answer = pair
        assert pairs(read_conversation({question: "q", answer: "a"}).messages) == [("user", "q"), ("assistant", "a")]
        titled = {question.title(): "q", answer.upper(): "a", "System_Prompt": "s", "Context": "x"}
        found = read_conversation(titled)
        assert pairs(found.messages) == [("system", "s"), ("user", "q\n\nx"), ("assistant", "a")]
        first = PAIRS.index(pair) < PAIRS.index(("input", "output"))
        if question not in ("input", "inputs") and (first or answer != "output"):
            found = read_conversation({question: "q", answer: "a", "input": "x"})
            assert pairs(found.messages) == [("user", "q\n\nx"), ("assistant", "a")]
        assert found.unused == ()

    def test_columns_that_are_not_used_are_named(self):
        found = read_conversation({"query": "q", "response": "a", "type": "GSM", "score": 3, "note": " ", "id": "7"})
        assert found.unused == ("type",)
        assert read_conversation(chat({**ANSWER, "comment": "good"})).unused == ("messages.comment",)

    def test_nulls_are_named(self):
        assert reason({"instruction": "q", "input": "", "output": None}) == "output is null"
        assert reason({"messages": None}) == "messages is null"
        assert pairs(read_conversation({"instruction": None, "input": "q", "output": "a"}).messages)[0] == ("user", "q")

    def test_mapped(self):
        columns = (("user", "Frage"), ("assistant", "Antwort"), ("system", "Rolle"), ("context", "Text"))
        record = {"Frage": "q", "Antwort": "a", "Rolle": "s", "Text": "x", "Notiz": "n"}
        found = read_conversation(record, Reading(columns))
        assert (found.schema, found.unused) == ("columns", ("Notiz",))
        assert pairs(found.messages) == [("system", "s"), ("user", "q\n\nx"), ("assistant", "a")]
        assert "no column 'Antwort'" in reason({"Frage": "q"}, columns=columns)
        turns = read_conversation({"chat": [QUESTION, ANSWER]}, Reading((("messages", "chat"),)))
        assert pairs(turns.messages) == RIVER

    def test_plain_text_only_when_asked_for(self):
        assert "add --take text" in reason({"text": "the cat sat"})
        found = read_conversation({"text": "the cat sat"}, Reading(take=("text",)))
        assert (found.schema, found.messages) == ("text", (Message("text", "the cat sat"),))
        assert "no known schema" in reason({"prompt": "q", "text": "a"}, take=("text",))

    def test_nested_objects_and_lists(self):
        for record in (
            {"body": {"messages": [QUESTION, ANSWER]}, "custom_id": "1"},
            {"conversations": {"from": ["human", "gpt"], "value": ["Name a river.", "The Po."]}},
            {"messages": json.dumps([QUESTION, ANSWER])},
        ):
            assert pairs(read_conversation(record).messages) == RIVER
        assert "different lengths" in reason({"messages": {"role": ["user"], "content": []}})
        assert reason({"messages": "hello"}) == "messages is not a list but a string"

    def test_unknown_columns_say_what_to_do(self):
        assert "--columns user=…,assistant=…" in reason({"frage": "q", "antwort": "a"})


class TestPreferences:
    def test_only_when_asked_for(self):
        record = {"prompt": "Name a river.", "chosen": "The Po.", "rejected": "No."}
        assert "add --take chosen" in reason(record)
        found = read_conversation(record, Reading(take=("chosen",)))
        assert pairs(found.messages) == RIVER
        assert found.unused == ("rejected",)

    def test_whole_conversations(self):
        record = {"prompt": "Name a river.", "chosen": [QUESTION, ANSWER], "rejected": [QUESTION]}
        assert pairs(read_conversation(record, Reading(take=("chosen",))).messages) == RIVER
        short = {"question": "Name a river.", "chosen": [ANSWER], "rejected": [ANSWER]}
        assert pairs(read_conversation(short, Reading(take=("chosen",))).messages) == RIVER
        spoken = {"chosen": "\n\nHuman: hi\n\nAssistant: hello", "rejected": "\n\nHuman: hi\n\nAssistant: no"}
        found = read_conversation(spoken, Reading(take=("chosen",)))
        assert pairs(found.messages) == [("user", "hi"), ("assistant", "hello")]
        assert "no prompt beside it" in reason({"chosen": "hello", "rejected": "no"}, take=("chosen",))

    def test_labels(self):
        record = {"prompt": "Name a river.", "completion": "The Po.", "label": True}
        assert "add --take label" in reason(record)
        assert pairs(read_conversation(record, Reading(take=("label",))).messages) == RIVER
        assert reason({**record, "label": False}, take=("label",)) == "its label is false"
        named = read_conversation({**record, "label": "geography"})
        assert named.unused == ("label",)


class TestMedia:
    @pytest.mark.parametrize("name", ["image", "images", "video", "videos", "audio", "audios", "Image"])
    def test_media_beside_the_text(self, name):
        assert "its text alone is not the example" in reason(chat(ANSWER, **{name: ["cat.png"]}))
        for nothing in (None, "", []):
            assert pairs(read_conversation(chat(ANSWER, **{name: nothing})).messages) == RIVER

    def test_media_in_a_turn(self):
        assert "image" in reason({"messages": [{**QUESTION, "images": ["a.png"]}, ANSWER]})


class TestRoles:
    def test_roles_by_other_names(self):
        names = {"developer": "system", "Human": "user", "AI": "assistant", "chatbot": "assistant", "ipython": "tool"}
        for name, role in names.items():
            found = read_conversation({"messages": [{"role": name, "content": "x"}, ANSWER]})
            assert found.messages[0].role == role
        assert reason(chat({"role": "bing", "content": "x"})) == "message 2 of messages has the unknown role 'bing'"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(allow_nan=True) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    [
        *("messages", "conversations", "prompt", "completion", "instruction", "input", "output", "context", "history"),
        *("question", "answer", "system", "tools", "text", "chosen", "rejected", "label", "reasoning", "image", "note"),
    ]
)
TURNS = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "developer", "bing"]), "content": JSON},
    optional={
        "tool_calls": JSON | st.just([{"name": "f", "arguments": {"a": "b"}}]),
        "reasoning": TEXTS, "weight": JSON, "name": TEXTS, "note": TEXTS, "tool_call_id": TEXTS,
    },
)  # fmt: skip
RECORDS = st.dictionaries(NAMES, JSON | st.lists(TURNS, max_size=3), max_size=6)
READINGS = st.sampled_from(
    [Reading(), Reading(take=("text", "chosen", "label")), Reading((("user", "note"), ("assistant", "text")))]
)


@given(RECORDS, READINGS)
@settings(max_examples=400, deadline=None)
def test_any_record_is_a_conversation_or_says_why_not(record, reading):
    row = make_row(to_record(1, record), "pool.jsonl", "pool", reading)
    assert bool(row.reason) != bool(row.messages)
    assert "\n" not in row.reason
    row.reason.encode()


def texts_in(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in ("role", "weight", "label", "type"):
                yield from texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner)


@given(RECORDS, READINGS)
@settings(max_examples=400, deadline=None)
def test_no_text_vanishes(record, reading):
    """Whatever text a usable record holds is in the conversation, or its column is named as unused."""
    row = make_row(to_record(1, record), "pool.jsonl", "pool", reading)
    if row.reason:
        return
    kept = "\n".join([row.conversation.text, row.tools, *(m.name + m.call_id for m in row.messages)])
    columns = {name.partition(".")[0] for name in row.unused}
    for name, value in record.items():
        for text in texts_in(value):
            written = {text.strip(), json.dumps(text.strip())[1:-1], json.dumps(text.strip(), ensure_ascii=False)[1:-1]}
            assert name in columns or any(form in kept for form in written), (name, text)
