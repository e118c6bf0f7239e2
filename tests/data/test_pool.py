"""Rows: identity, order, sources, kept bad lines; and sampling."""

import json
import os
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsift.data import hub_reader
from gradsift.data.conversation import Message
from gradsift.data.pool import PoolError, Row, read_rows, sample_rows, unique_ids
from gradsift.runtime.errors import UsageError


def record(number=0, **fields):
    return {"prompt": f"q{number}", "completion": "a", **fields}


def write(path, *records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(item) + "\n" for item in records))
    return path


def row(source="s", line=1, **fields):
    values = {"file": "f", "raw": b"", "id": f"{source}:{line}", "task": "", "subtask": "", "messages": ()}
    return Row(**{**values, "source": source, "line": line, "prefix": "", "schema": "", "reason": "", **fields})


def test_fields(tmp_path):
    fields = {"dataset": "d", "id": 7, "task": "t", "subtask": "u", "prefix": "The answer is:", "source": "x"}
    (found,) = read_rows([write(tmp_path / "a.jsonl", record(**fields))])
    assert (found.source, found.id, found.task, found.subtask, found.prefix) == ("d", "7", "t", "u", "The answer is:")
    assert (found.file, found.line, found.schema, found.reason) == ("a.jsonl", 1, "prompt-completion", "")
    assert found.messages == (Message("user", "q0"), Message("assistant", "a"))
    assert json.loads(found.raw) == record(**fields)


def test_defaults(tmp_path):
    write(tmp_path / "some.data.jsonl", record(), record(source="s", category="c", id=True), record(dataset=5, id=""))
    first, second, third = read_rows([tmp_path / "some.data.jsonl"])
    assert (first.source, first.id, first.task, first.subtask, first.prefix) == ("some.data", "some.data:1", "", "", "")
    assert (second.source, second.id, second.task) == ("s", "s:2", "c")
    assert (third.source, third.id) == ("some.data", "some.data:3")


def test_a_bad_row_names_file_line_reason_and_keeps_its_bytes(tmp_path):
    path = write(tmp_path / "a.jsonl", *(record(number) for number in range(5)))
    lines = path.read_bytes().split(b"\n")
    lines[2] = b'{"prompt": "q2", '
    lines[3] = b'{"prompt": "q", "completion": "a", "prefix": 3, "dataset": "other"}'
    path.write_bytes(b"\n".join(lines))
    rows = list(read_rows([path]))
    assert [found.line for found in rows] == [1, 2, 3, 4, 5]
    assert [found.line for found in rows if found.messages] == [1, 2, 5]
    assert (rows[2].file, rows[2].raw, rows[2].schema) == ("a.jsonl", lines[2], "")
    assert rows[2].reason.startswith("not valid JSON: ")
    assert (rows[3].reason, rows[3].source, rows[3].prefix) == ("prefix is not a string but a number", "other", "")


def test_schemas_may_mix_within_a_file(tmp_path):
    chat = {"messages": [{"role": "assistant", "content": "a"}]}
    rows = list(read_rows([write(tmp_path / "a.jsonl", record(), chat, {"instruction": "i", "output": "o"}, record())]))
    assert [found.schema for found in rows] == ["prompt-completion", "messages", "alpaca", "prompt-completion"]


def test_duplicate_ids_are_numbered(tmp_path):
    path = write(tmp_path / "a.jsonl", *(record(id=name) for name in ("x", "x#2", "x", "x", "y", "x" * 5000 + "\n|")))
    assert [found.id for found in read_rows([path])] == ["x", "x#2", "x#3", "x#4", "y", "x" * 5000 + "\n|"]


@given(st.lists(st.sampled_from(["a", "a#2", "a#2#2", "a#3", "b"])))
def test_ids_are_unique_and_first_ones_stay(names):
    found = [named.id for named in unique_ids(row(id=name) for name in names)]
    assert len(set(found)) == len(names)
    assert all(new.startswith(old) for old, new in zip(names, found, strict=True))


def test_folders_patterns_and_order(tmp_path):
    for name in ("b.jsonl", "a/z.jsonl", "a/y.ndjson", ".hidden/x.jsonl", ".x.jsonl"):
        write(tmp_path / name, record(source=name))
    (tmp_path / "README.md").write_text("not data")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert [found.file for found in read_rows([tmp_path])] == ["a/y.ndjson", "a/z.jsonl", "b.jsonl"]
    (tmp_path / "a" / "up").unlink()
    assert [found.file for found in read_rows([f"{tmp_path}/*/*.jsonl"])] == ["a/z.jsonl"]
    assert [found.file for found in read_rows([f"{tmp_path}/**/*.jsonl", tmp_path / "b.jsonl"])] == [
        "a/z.jsonl",
        "b.jsonl",
    ]


def test_a_saved_dataset_inside_a_folder_is_one_input(tmp_path):
    from datasets import Dataset

    Dataset.from_list([record(), record(1)]).save_to_disk(tmp_path / "pool" / "saved")
    write(tmp_path / "pool" / "z.jsonl", record())
    rows = list(read_rows([tmp_path / "pool"]))
    assert [(found.file, found.line, found.source) for found in rows] == [
        ("saved", 1, "saved"),
        ("saved", 2, "saved"),
        ("z.jsonl", 1, "z"),
    ]
    assert [found.file for found in read_rows([tmp_path / "pool" / "saved"])] == ["saved", "saved"]


def test_file_names_that_are_not_utf8(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff=1.jsonl"
    with open(path, "w") as file:
        file.write(json.dumps(record()))
    (found,) = read_rows([tmp_path])
    assert found.file == "\ufffd=1.jsonl"
    found.id.encode()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("missing.jsonl", "does not exist"),
        ("missing/file.jsonl", "does not exist"),
        ("a/b/c", "does not exist"),
        ("*.jsonl", "No readable file matches"),
        ("notes.txt", "is of an unknown type; the formats are .jsonl"),
        ("empty", "holds no readable file"),
        ("x" * 5000, "Cannot access"),
    ],
)
def test_what_cannot_be_read_is_refused_at_once(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(PoolError, match=message):
        read_rows([given])


def test_no_rows_at_all(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n\n")
    with pytest.raises(PoolError, match=r"no row in a\.jsonl"):
        list(read_rows([tmp_path / "a.jsonl"]))
    with pytest.raises(PoolError, match="No input"):
        read_rows([])


def test_a_name_that_is_no_path_goes_to_the_hub(monkeypatch):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: iter([record()]))
    monkeypatch.setattr(hub_reader, "hub_answers", lambda: True)
    (found,) = read_rows(["owner/na.me"])
    assert (found.file, found.line, found.source) == ("owner/na.me", 1, "na.me")


def test_the_real_pool(shared_data):
    rows = list(read_rows([shared_data / "pool"]))
    assert len(rows) == 10_883
    assert not [found for found in rows if found.reason]
    assert Counter(found.source for found in rows) == {"dolly": 3103, "cot": 3000, "flan_v2": 2915, "oasst1": 1865}
    lines = b"".join(path.read_bytes() for path in sorted((shared_data / "pool").glob("*.jsonl")))
    assert b"".join(found.raw + b"\n" for found in rows) == lines


def test_sample_keeps_order_and_counts():
    rows = [row("a" if line % 3 else "b", line, reason="bad" if line % 7 == 0 else "") for line in range(300)]
    sample, counts = sample_rows(rows, 20, seed=1)
    assert counts == {"a": 200, "b": 100}
    assert Counter(found.source for found in sample) == {"a": 20, "b": 20}
    assert sample == sorted(sample, key=lambda found: found.line)
    assert sample_rows(rows, 20, seed=1)[0] == sample
    assert sample_rows(rows, 20, seed=2)[0] != sample
    assert any(found.reason for found in sample_rows(rows, 100, seed=1)[0])


def test_sample_of_everything():
    rows = [row(line=line) for line in range(50)]
    assert sample_rows(iter(rows), None, seed=0) == (rows, {"s": 50})
    assert sample_rows(rows, 50, seed=0) == (rows, {"s": 50})
    assert sample_rows([], 5, seed=0) == ([], {})
    with pytest.raises(UsageError, match="limit of 0 rows"):
        sample_rows(rows, 0, seed=0)


@settings(max_examples=30)
@given(st.permutations(range(12)), st.integers(1, 12))
def test_sample_does_not_depend_on_the_order_of_the_rows(order, size):
    rows = [row(line=line) for line in range(12)]
    chosen = {found.line for found in sample_rows(rows, size, seed=3)[0]}
    assert {found.line for found in sample_rows([rows[line] for line in order], size, seed=3)[0]} == chosen
    assert chosen >= {found.line for found in sample_rows(rows, size - 1 or 1, seed=3)[0]}  # samples are nested
