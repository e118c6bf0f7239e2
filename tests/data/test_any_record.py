"""Any record: it is read, or is excluded with one clause; and every text that it holds is kept or is told.

The records are drawn from the names and shapes that data sets use, put together at random. Every text in them is a token
of its own, so that it can be looked for in what was read.
"""

import itertools
import json
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradsift.data.conversation import openai_message
from gradsift.data.pool import make_row
from gradsift.data.readers import to_record
from gradsift.data.schemas import PAIRS, Reading, Unusable, read_conversation

ROLES = ("system", "developer", "user", "human", "assistant", "gpt", "tool", "observation", "function_call", "narrator")
CHATS = ("messages", "conversations", "conversation", "dialogue", "chat", "turns", "history")
COLUMNS = (*dict.fromkeys(itertools.chain.from_iterable(PAIRS)), "context", "system", "system_prompt", "chosen")
COLUMNS = (
    *COLUMNS,
    "rejected",
    "text",
    "reasoning",
    "thinking",
    "tools",
    "functions",
    "label",
    "image",
    "meta",
    "Input",
)
METADATA = ("id", "source", "dataset", "task", "category", "subtask", "prefix")
MARKS = ("weight", "train", "loss", "masked", "train_detail")
TOKEN = re.compile(r"⟦\d+⟧")
READINGS = (
    Reading(),
    Reading(take=("text", "chosen", "label")),
    Reading(columns=(("user", "meta"), ("assistant", "answer"), ("context", "text"))),
    Reading(columns=(("messages", "messages"), ("reasoning", "meta"), ("tools", "tools"), ("system", "context"))),
    Reading(columns=(("text", "meta"),), source_column="category"),
)

texts = st.just("⟦⟧")
odd = st.none() | st.booleans() | st.sampled_from([0, 1, 0.5, "", " ", float("nan"), [], {}, "true", "[", "{"])
values = st.recursive(
    texts | odd,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "text", "role"]), inner, max_size=2)
    ),
    max_leaves=4,
)
arguments = st.dictionaries(st.sampled_from("ab"), texts | odd, max_size=2) | texts | odd
functions = st.fixed_dictionaries({"name": texts, "arguments": arguments}, optional={"parameters": values, "x": values})
calls = functions | st.fixed_dictionaries(
    {"function": functions}, optional={"id": texts, "type": st.just("function"), "index": values, "x": values}
)
parts = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["text", "output_text"]), "text": texts}, optional={"x": values}),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": texts}, optional={"signature": values}),
    st.fixed_dictionaries({"type": st.just("tool_use"), "name": texts, "input": arguments}, optional={"id": texts}),
    st.fixed_dictionaries({"type": st.just("tool_result"), "content": texts}, optional={"tool_use_id": texts}),
    st.fixed_dictionaries({"type": st.just("image"), "image": texts}),
)
contents = texts | texts | st.lists(parts, max_size=3) | values | st.lists(calls, max_size=2).map(json.dumps)
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(ROLES), "content": contents},
    optional={
        **dict.fromkeys(("reasoning_content", "thinking"), texts | odd),
        **{"tool_calls": st.lists(calls, max_size=2), "function_call": calls, "name": texts, "tool_call_id": texts},
        **{"weight": st.sampled_from([0, 1]) | odd, "images": odd, "x": values},
    },
)
sharegpt = st.fixed_dictionaries({"from": st.sampled_from(ROLES), "value": contents}, optional={"x": values})
chats = st.lists(turns | sharegpt, min_size=1, max_size=4)
pairs = st.sampled_from(PAIRS).map(lambda pair: dict.fromkeys(pair, "⟦⟧"))
loose = st.dictionaries(
    st.sampled_from((*COLUMNS, *METADATA, *CHATS)),
    texts | texts | values | chats | st.lists(calls, max_size=2),
    max_size=4,
)
chat_records = st.dictionaries(st.sampled_from(CHATS[:5]), chats | chats.map(json.dumps), min_size=1, max_size=1)
plain = st.tuples(pairs | chat_records | st.just({}), loose).map(lambda both: both[1] | both[0])
records = plain | st.fixed_dictionaries({"body": plain, "x": values})


def numbered(record):
    """The record with a number in every token, also in those inside of JSON strings."""
    numbers = itertools.count()

    def walk(value):
        if isinstance(value, str):
            return re.sub("⟦⟧", lambda _: f"⟦{next(numbers)}⟧", value)
        if isinstance(value, dict):
            return {name: walk(item) for name, item in value.items()}
        return [walk(item) for item in value] if isinstance(value, list) else value

    return walk(record)


def tokens(value):
    return set(TOKEN.findall(json.dumps(value, ensure_ascii=False)))


def told(value, names, path=()):
    """The tokens below the fields that are named as unused; a name is the path of fields to them."""
    if ".".join(path) in names:
        return tokens(value)
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            return told(json.loads(value), names, path)
        except ValueError:
            return set()
    if isinstance(value, dict):
        return set().union(*(told(item, names, (*path, name)) for name, item in value.items()))
    return set().union(*(told(item, names, path) for item in value)) if isinstance(value, list) else set()


@settings(max_examples=1500, suppress_health_check=list(HealthCheck), deadline=None)
@given(records.map(numbered), st.sampled_from(READINGS))
def test_every_text_is_kept_or_told(record, reading):
    before = json.dumps(record)
    try:
        found = read_conversation(record, reading)
    except Unusable as unusable:
        assert str(unusable)
        assert len(str(unusable)) < 400
        assert str(unusable).isprintable()
        return
    assert json.dumps(record) == before
    assert any(message.is_learned or message.role == "text" for message in found.messages)
    kept = tokens([message.record() for message in found.messages]) | tokens(found.tools)
    known = tokens([record.get(name) for name in (*METADATA, reading.source_column)])
    assert tokens(record) == tokens(record) & (kept | known | told(record, found.unused))
    assert kept <= tokens(record)
    assert list(found.unused) == sorted(found.unused)


@settings(max_examples=500, suppress_health_check=list(HealthCheck), deadline=None)
@given(records.map(numbered), st.sampled_from(READINGS))
def test_what_was_read_is_read_again_from_its_own_record(record, reading):
    row = make_row(to_record(1, record), "f", "s", reading)
    if row.reason or row.schema == "text":
        return
    value = {"messages": [openai_message(message) for message in row.messages], "prefix": row.prefix}
    again = make_row(to_record(1, value | {"tools": json.loads(row.tools or "[]")}), "f", "s")
    assert (again.reason, again.conversation, again.unused) == ("", row.conversation, ())


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(COLUMNS), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=500, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    st.dictionaries(st.sampled_from((*CHATS, *COLUMNS, *METADATA)) | st.text(), junk, max_size=5),
    st.sampled_from(READINGS),
)
def test_any_object_is_answered(record, reading):
    try:
        assert read_conversation(record, reading).messages
    except Unusable as unusable:
        assert "\n" not in str(unusable)
        str(unusable).encode()


def test_deeply_nested_records_are_answered():
    value = []
    for _ in range(100_000):
        value = [value]
    for column in ("messages", "tools", "prompt", "meta"):
        try:
            read_conversation({column: value, "completion": "a", "question": "q", "answer": "a"})
        except Unusable as unusable:
            assert str(unusable)
