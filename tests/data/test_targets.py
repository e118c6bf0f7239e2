"""Targets from files and pasted text: good ones are kept, bad ones are listed by line with a helpful reason."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsift.data.pool import PoolError
from gradsift.data.targets import parse_targets, read_targets, write_targets

GOOD = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}'
QA = (("user", "q"), ("assistant", "a"))


def turns(row):
    return tuple((message.role, message.content) for message in row.messages)


def good(text):
    return [(row.line, turns(row)) for row in parse_targets(text).rows]


def bad(text):
    return [(row.line, row.reason) for row in parse_targets(text).bad]


def test_json_lines_with_a_broken_line():
    text = f'{GOOD}\n{GOOD[:-1]}\n\n{GOOD}\n{{"messages": []}}\n{{"messages": [{{"role": "us\n{GOOD}'
    assert good(text) == [(1, QA), (4, QA), (7, QA)]
    assert bad(text) == [
        (2, f"not valid JSON: Expecting ',' delimiter at column {len(GOOD)}"),
        (5, "messages is empty"),
        (6, "not valid JSON: Invalid control character at column 27"),
    ]
    assert parse_targets(text).bad[0].raw.decode() == GOOD[:-1]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (f"\n\r\n  {GOOD}\r\n\n", [3]),
        (f"\ufeff```json\n{GOOD}\n```\n", [2]),
        (f"~~~\n\n{GOOD}\n{GOOD}\n~~~", [3, 4]),
        (f"```\n{GOOD}\n", [2]),
        (f"{GOOD},\n{GOOD},", [1, 2]),
        (f"{GOOD} {GOOD}", [1, 1]),
        (f"[{GOOD}, {GOOD}]", [1, 1]),
        (f"[\n{GOOD},\n{GOOD}\n]", [2, 3]),
        (json.dumps([json.loads(GOOD)] * 2, indent=2), [2, 14]),
        (json.dumps(json.loads(GOOD), indent=4), [1]),
        (json.dumps({"version": "1.0", "n": 2, "data": [json.loads(GOOD)] * 2}, indent=1), [5, 17]),
    ],
)
def test_ways_to_paste_json(text, lines):
    targets = parse_targets(text)
    assert [(row.line, turns(row)) for row in targets.rows] == [(line, QA) for line in lines]
    assert not targets.bad
    assert all(row.subtask == row.source == "target" for row in targets.rows)
    assert len({row.id for row in targets.rows}) == len(lines)


def test_a_broken_element_of_a_list_costs_only_itself():
    text = json.dumps([json.loads(GOOD)] * 3, indent=2)
    text = text.replace('"role": "assistant",', '"role": "assistant"', 1)
    assert [line for line, _ in good(text)] == [14, 26]
    assert bad(text) == [(2, "not valid JSON: Expecting ',' delimiter at column 9 of line 10")]
    inline = f"[{GOOD},\n {GOOD[:40]},\n {GOOD}]"
    assert [line for line, _ in good(inline)] == [1, 3]
    assert [line for line, _ in bad(inline)] == [2]


def test_text_around_json():
    assert good(f"Here they are:\n{GOOD}") == [(2, QA)]
    assert bad(f"Here they are:\n{GOOD}") == [(1, "not valid JSON: Expecting value at column 1")]
    ((line, reason),) = bad(f"{GOOD} and more\n{GOOD}")
    assert (line, reason[-39:]) == (1, "; what follows on this line is not read")


def test_blocks():
    text = """
Q: one
  more

A: answer
A line that only begins like one
Q:two
a :  second

Subtask: last part
**Q:** three?
**A:** third
"""
    targets = parse_targets(text)
    assert [(row.line, row.subtask, turns(row)) for row in targets.rows] == [
        (2, "target", (("user", "one\n  more"), ("assistant", "answer\nA line that only begins like one"))),
        (7, "target", (("user", "two"), ("assistant", "second"))),
        (11, "last part", (("user", "three?"), ("assistant", "third"))),
    ]
    assert not targets.bad


def test_question_and_answer_spelled_out():
    assert good("Question: x\nQ: part of it\nAnswer: y\n\nQuestion: q\nANSWER: a") == [
        (1, (("user", "x\nQ: part of it"), ("assistant", "y"))),
        (5, QA),
    ]


def test_bad_blocks():
    text = "intro\nA: lonely\nQ: no answer\nQ:\nA: x\nQ: q\nA: a\nQ: empty\nA:\n\nQ: which?\nA: x\nB: y\nA: B"
    assert good(text) == [(6, QA)]
    assert bad(text) == [
        (1, "text outside of a Q: block"),
        (2, "an answer without a Q: line before it"),
        (3, "the question has no A: line after it"),
        (4, "the question after Q: is empty"),
        (8, "the answer after A: is empty"),
        (11, "2 A: lines after one Q: (start each example with Q:, write options as (A) or A.)"),
    ]


def test_separated_text():
    text = 'Prompt,completion,subtask,id\n"q\nq",a,s,7\n\nonly one\nq,a,,8\n'
    targets = parse_targets(text)
    assert [(row.line, row.id, row.subtask) for row in targets.rows] == [(2, "7", "s"), (6, "8", "target")]
    assert bad(text) == [(5, "has 1 cells where the header has 4")]
    assert good("instruction\toutput\nq\ta") == [(2, QA)]
    assert bad("prompt,completion,prompt\nq,a,b")[0][1].startswith("The header of the pasted text names the column")


def test_text_of_no_known_form():
    ((line, reason),) = bad("\n\nWhat is the capital of France?")
    assert line == 3
    assert reason.startswith("neither JSON, nor separated columns")


@pytest.mark.parametrize("text", ["", " \n\n", "```\n```"])
def test_nothing_pasted(text):
    targets = parse_targets(text)
    assert (targets.rows, targets.bad) == ([], [])


@settings(max_examples=200)
@given(st.text() | st.text(alphabet='{}[]",:\nQA a1\\'))
def test_any_text_is_answered_with_rows(text):
    targets = parse_targets(text)
    assert all(row.reason and "\n" not in row.reason for row in targets.bad)
    assert all(row.messages for row in targets.rows)
    assert [row for row in (*targets.rows, *targets.bad) if not 1 <= row.line <= len(text) + 1] == []


def test_files(tmp_path, shared_data):
    targets = read_targets(shared_data / "targets" / "bbh.jsonl")
    assert (len(targets.rows), len(targets.bad)) == (81, 0)
    assert len({row.subtask for row in targets.rows}) == 27
    assert targets.rows[0].prefix == "A:"


def test_write_and_read_again(tmp_path):
    text = json.dumps({**json.loads(GOOD), "prefix": "The answer is:", "subtask": "é\n\u2028", "id": "x\u0000"})
    rows = parse_targets(f"{text}\n{GOOD}").rows
    write_targets(tmp_path / "t.jsonl", rows)
    again = read_targets(tmp_path / "t.jsonl").rows
    assert [(r.subtask, r.id, r.prefix, turns(r)) for r in again] == [
        ("é\n\u2028", "x\u0000", "The answer is:", QA),
        ("target", "target:2", "", QA),
    ]
    first, second = map(json.loads, (tmp_path / "t.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n"))
    assert list(first) == ["subtask", "id", "prefix", "messages"]
    assert list(second) == ["subtask", "id", "messages"]


def test_every_field_is_written_and_read_again(tmp_path):
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    odd = {"type": "function", "function": {"name": "now", "arguments": '{"zone": null}'}}
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q", "weight": 1, "name": "ann"},
        {"role": "assistant", "content": "", "reasoning_content": "r", "tool_calls": [call, odd], "weight": 0},
        {"role": "tool", "content": "3", "name": "add", "tool_call_id": "c1"},
        {"role": "assistant", "content": "a", "reasoning_content": "so", "weight": 1},
    ]
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    record = {"subtask": "sums", "id": "1", "prefix": "It is", "messages": messages, "tools": tools}
    (row,) = parse_targets(json.dumps(record)).rows
    assert (row.messages[2].learned, len(row.messages[2].tool_calls), row.messages[3].call_id) == (False, 2, "c1")
    write_targets(tmp_path / "t.jsonl", [row])
    assert json.loads((tmp_path / "t.jsonl").read_text()) == record
    (again,) = read_targets(tmp_path / "t.jsonl").rows
    assert (again.conversation, again.subtask, again.id) == (row.conversation, row.subtask, row.id)
    assert row.conversation.tools


def test_uploads_of_text_and_other_types(tmp_path):
    (tmp_path / "t.txt").write_text("Q: q\nA: a\n", encoding="utf-8")
    (row,) = read_targets(tmp_path / "t.txt").rows
    assert (row.file, row.line, turns(row)) == ("t.txt", 1, QA)
    (tmp_path / "t.bin").write_bytes(b"\xff\xfe")
    with pytest.raises(PoolError, match="is not UTF-8 text"):
        read_targets(tmp_path / "t.bin")
    with pytest.raises(PoolError, match="No such file"):
        read_targets(tmp_path / "missing.txt")
    (tmp_path / "mixed.jsonl").write_text(f"{GOOD}\n{{")
    targets = read_targets(tmp_path / "mixed.jsonl")
    assert ([row.line for row in targets.rows], [row.line for row in targets.bad]) == ([1], [2])
