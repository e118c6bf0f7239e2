"""The first rows of a pool: counted by shape and reason, with the columns that were not used."""

import json
from pathlib import Path

import pytest

from gradsift.data.conversation import Message, ToolCall
from gradsift.data.pool import PoolError, Row
from gradsift.data.preview import preview, shape_of
from gradsift.data.schemas import Reading


def write(path: Path, *records: object) -> Path:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n")
    return path


def chat(question: str = "q", answer: str = "a", **fields: object) -> dict[str, object]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **fields}


ALPACA = {"instruction": "q", "output": "a"}


def test_every_row_is_counted_once_as_usable_or_excluded(tmp_path):
    seen = preview([write(tmp_path / "a.jsonl", chat(), ALPACA, "{broken", {"x": "y"}, chat())])
    assert (seen.rows, seen.usable, seen.excluded.total(), seen.whole) == (5, 3, 2, True)
    assert seen.shapes == {"messages": 2, "alpaca": 1}
    assert [row.line for row in seen.first] == [1, 2, 5]
    assert [row.line for row in seen.bad] == [3, 4]
    assert seen.columns == ["messages", "instruction", "output", "x"]


def test_only_the_first_rows_of_every_file_are_read(tmp_path):
    paths = [write(tmp_path / f"{name}.jsonl", *[chat(name)] * 50) for name in "ab"]
    seen = preview([tmp_path], most=60)
    assert {row.file for row in preview([tmp_path], most=60, each=60).first} == {"a.jsonl", "b.jsonl"}
    assert (seen.rows, seen.whole) == (60, False)
    assert len(seen.first) == 3
    assert preview(paths, most=100).whole
    assert preview(paths, most=2).rows == 20  # at least 20 of a file, and fewer files instead


def test_test_files_that_a_build_leaves_out_are_named(tmp_path):
    for name in ("train", "test"):
        write(tmp_path / f"{name}.jsonl", chat())
    seen = preview([tmp_path])
    assert (seen.rows, seen.whole) == (1, True)
    assert "test.jsonl" in " ".join(seen.left_out)


def test_tools_reasoning_and_mapped_columns_are_seen(tmp_path):
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    tool_row = chat(tools=[{"name": "f"}])
    tool_row["messages"][1:1] = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "1"}]
    thought = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "reasoning": "so"}]}
    seen = preview([write(tmp_path / "a.jsonl", chat(), tool_row, thought)])
    assert seen.shapes == {"messages": 1, "messages with tools": 1, "messages with reasoning": 1}
    path = write(tmp_path / "b.jsonl", {"ask": "q", "reply": "a", "note": "n"})
    assert preview([path]).usable == 0
    seen = preview([path], Reading(columns=(("user", "ask"), ("assistant", "reply"))))
    assert (seen.usable, seen.unused, seen.used) == (1, {"note": 1}, ["ask", "reply"])


def test_a_row_that_something_else_refuses_is_excluded_with_that_reason(tmp_path):
    path = write(tmp_path / "a.jsonl", chat(), chat(answer="no"))
    seen = preview([path], refuse=lambda row: "too rude" if row.messages[1].content == "no" else "")
    assert seen.usable == 1
    assert seen.excluded == {"too rude": 1}
    assert seen.bad[0].reason == "too rude"


def test_reasons_are_whole_and_only_some_rows_of_each_are_kept(tmp_path):
    seen = preview([write(tmp_path / "a.jsonl", *["{broken"] * 9, chat())], each=2)
    ((reason, count),) = seen.excluded.items()
    assert count == 9
    assert "JSON" in reason
    assert len(seen.bad) == 2


def test_one_file_that_cannot_be_read_is_a_problem_and_all_are_an_error(tmp_path):
    good, empty = write(tmp_path / "a.jsonl", chat()), tmp_path / "empty.jsonl"
    empty.write_text("")
    seen = preview([good, empty])
    assert seen.usable == 1
    assert len(seen.problems) == 1
    assert "empty.jsonl" in seen.problems[0]
    with pytest.raises(PoolError, match=r"empty\.jsonl"):
        preview([empty])
    with pytest.raises(PoolError, match="does not exist"):
        preview([good, tmp_path / "no.jsonl"])


def row(*messages: Message, tools: str = "") -> Row:
    return Row("f", 1, b"", "s", "i", "", "", messages, "", "messages", "", tools)


@pytest.mark.parametrize(
    ("made", "shape"),
    [
        (row(Message("user", "q"), Message("assistant", "a")), "messages"),
        (row(Message("assistant", "a"), tools="[{}]"), "messages with tools"),
        (row(Message("tool", "a"), Message("assistant", "a", "why")), "messages with tools and reasoning"),
        (row(Message("assistant", "a", tool_calls=(ToolCall("f"),))), "messages with tools"),
        (row(Message("assistant", "a", learned=False)), "messages with turns that are not learned"),
        (row(Message("user", "a", learned=False)), "messages"),
    ],
)
def test_a_shape_is_the_schema_and_what_it_holds(made, shape):
    assert shape_of(made) == shape
