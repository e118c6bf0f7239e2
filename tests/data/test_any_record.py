"""Any record: it is read, or is excluded with one clause; and every text that it holds is kept or is told.

The records are drawn from the names and shapes that data sets use, put together at random. Every text in them is a
token of its own, so that it can be looked for in what was read.
"""

import itertools
import json
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradsift.data.conversation import openai_message
from gradsift.data.pool import make_row
from gradsift.data.records import Record, to_record
from gradsift.data.schemas import PAIRS, Reading, read_conversation

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
TOKEN = re.compile(r"⟦\d+⟧")
READINGS = (
    Reading(),
    Reading(take=("text", "chosen", "label")),
    Reading(columns=(("user", "meta"), ("assistant", "answer"), ("context", "text"))),
    Reading(columns=(("messages", "messages"), ("reasoning", "meta"), ("tools", "functions"), ("system", "context"))),
    Reading(columns=(("text", "meta"),), source_column="category"),
)

texts = st.just("⟦⟧")
odd = st.none() | st.booleans() | st.sampled_from([0, 1, 0.5, "", " ", float("nan"), [], {}, "true", "[", "{"])
values = st.recursive(
    texts | texts | odd,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "text", "x"]), inner, max_size=2),
    max_leaves=4,
)


def mostly(usual, other):
    """The usual strategy nine times out of ten, so that most records can be read."""
    return st.integers(0, 9).flatmap(lambda number: usual if number else other)


arguments = mostly(st.dictionaries(st.sampled_from("ab"), texts | st.none(), max_size=2) | texts, odd)
functions = st.fixed_dictionaries({"name": mostly(texts, odd)}, optional={"arguments": arguments, "x": values})
calls = functions | st.fixed_dictionaries(
    {"function": functions}, optional={"id": texts, "type": st.just("function"), "index": values, "x": values}
)
lists_of_calls = st.lists(calls, min_size=1, max_size=2)
text_parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "output_text"]), "text": texts}, optional={"x": values}
)
thoughts = st.fixed_dictionaries({"type": st.just("thinking"), "thinking": texts}, optional={"signature": values})
uses = st.fixed_dictionaries({"type": st.just("tool_use"), "name": texts, "input": arguments}, optional={"id": texts})
results = st.fixed_dictionaries({"type": st.just("tool_result"), "content": texts}, optional={"tool_use_id": texts})
images = st.fixed_dictionaries({"type": st.just("image"), "image": texts})
asked = texts | texts | st.lists(mostly(text_parts | results, images | thoughts), max_size=3)
said = (
    texts | texts | st.tuples(thoughts, text_parts, uses).map(list) | st.lists(text_parts | thoughts | uses, max_size=2)
)
extras = {
    **{"name": texts, "tool_call_id": texts, "x": values, "text": texts, "images": mostly(st.none(), odd)},
    **{"weight": mostly(st.none() | st.sampled_from([0, 1]), odd), "reasoning_content": texts | st.none()},
}


def turn(roles, content, **optional):
    keys = st.sampled_from([("role", "content"), ("from", "value"), ("Role", "Content")])
    roles = st.sampled_from(roles)
    return keys.flatmap(
        lambda names: st.fixed_dictionaries(
            {names[0]: roles, names[1]: mostly(content, values)}, optional=extras | optional
        )
    )


turns = mostly(
    turn(("user", "human", "system", "tool", "observation"), asked)
    | turn(("assistant", "gpt"), said, tool_calls=lists_of_calls, function_call=calls, thinking=texts)
    | turn(("function_call",), lists_of_calls.map(json.dumps) | lists_of_calls),
    turn(("narrator", "user"), values, tool_calls=lists_of_calls),
)
chats = st.tuples(st.lists(turns, max_size=3), turn(("assistant",), said)).map(lambda both: [*both[0], both[1]])
pairs = st.sampled_from(PAIRS).flatmap(lambda pair: st.fixed_dictionaries(dict.fromkeys(pair, mostly(texts, chats))))
chosen = st.fixed_dictionaries({"chosen": texts | chats, "rejected": texts}, optional={"prompt": texts | chats})
chat_records = st.dictionaries(st.sampled_from(CHATS[:6]), chats | chats.map(json.dumps), min_size=1, max_size=1)
beside = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            (*METADATA, "url", "system", "system_prompt", "context", "reasoning", "question", "Input"), texts
        ),
        **{
            "meta": values,
            "tools": st.lists(functions | texts, max_size=1),
            "label": odd,
            "history": chats,
            "image": odd,
        },
    },
)
loose = st.dictionaries(st.sampled_from((*COLUMNS, *METADATA, *CHATS)), texts | values | chats, max_size=2)
plain = st.tuples(mostly(beside, beside | loose), pairs | chat_records | chosen | st.just({"text": "⟦⟧"})).map(
    lambda both: both[0] | both[1]
)
records = mostly(plain, st.fixed_dictionaries({"body": plain, "x": values}))


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


def drawn(record, reading):
    """The record with its tokens, and with the columns that the reading maps."""
    return numbered(dict.fromkeys((column for _, column in reading.columns if column != "messages"), "⟦⟧") | record)


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


@settings(max_examples=600, suppress_health_check=list(HealthCheck), deadline=None)
@given(records, st.sampled_from(READINGS))
def test_every_text_is_kept_or_told(record, reading):
    record = drawn(record, reading)
    before = json.dumps(record)
    row = make_row(Record(1, b"", record, ""), "f", "s", reading)
    assert len(row.reason) < 400
    assert row.reason.isprintable()
    if row.reason:
        return
    found = read_conversation(record, reading)
    assert json.dumps(record) == before
    assert any(message.is_learned or message.role == "text" for message in found.messages)
    kept = tokens([message.record() for message in found.messages]) | tokens(found.tools)
    known = tokens([record.get(name) for name in (*METADATA, reading.source_column)])
    assert tokens(record) == tokens(record) & (kept | known | told(record, found.unused))
    assert kept <= tokens(record)
    assert list(found.unused) == sorted(found.unused)


@settings(max_examples=200, suppress_health_check=list(HealthCheck), deadline=None)
@given(records, st.sampled_from(READINGS))
def test_what_was_read_is_read_again_from_its_own_record(record, reading):
    row = make_row(to_record(1, drawn(record, reading)), "f", "s", reading)
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


@settings(max_examples=200, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    st.dictionaries(st.sampled_from((*CHATS, *COLUMNS, *METADATA)) | st.text(), junk, max_size=5),
    st.sampled_from(READINGS),
)
def test_any_object_is_answered(record, reading):
    row = make_row(Record(1, b"", record, ""), "f", "s", reading)
    assert bool(row.messages) is not bool(row.reason)
    assert "\n" not in row.reason
    row.reason.encode()


def test_deeply_nested_records_are_answered():
    value = []
    for _ in range(100_000):
        value = [value]
    for column in ("messages", "tools", "prompt", "meta"):
        record = {"question": "q", "answer": "a", "completion": "a", column: value}
        assert make_row(Record(1, b"", record, ""), "f", "s").reason
