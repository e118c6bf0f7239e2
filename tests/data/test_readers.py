"""Every format to records: good ones with their values, broken ones with line, bytes and reason."""

import gzip
import json

import pandas as pd
import pytest

from gradsift.data.hub_reader import read_hub
from gradsift.data.readers import records_of
from gradsift.data.records import PoolError, parse_object

RECORDS = [{"prompt": f"q{number}é", "completion": "a\u0000\u2028"} for number in range(3)]


def read(path, data=None):
    if data is not None:
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return list(records_of(path))


def test_a_broken_line_costs_only_itself(tmp_path):
    lines = [json.dumps(record).encode() for record in RECORDS]
    lines[1:1] = [
        b'{"prompt": "q",, }',
        b"[1]",
        b'{"a": "\xff"}',
        b'{"a": "\\ud83d"}',
        b"[" * 5000,
        b'{"a": "\\ud83d\\ude00"}',
    ]
    records = read(tmp_path / "a.jsonl", b"\r\n".join(lines))
    assert [record.raw for record in records] == lines
    assert [record.line for record in records] == list(range(1, 10))
    assert [record.reason for record in records] == [
        "",
        "not valid JSON: Expecting property name enclosed in double quotes at column 16",
        "not a JSON object but a list",
        "not valid UTF-8 at byte 8",
        "holds half of a surrogate pair, which UTF-8 cannot write",
        "not valid JSON: nested too deeply, or a number with too many digits",
        "",
        "",
        "",
    ]
    assert [record.value for record in records if not record.reason] == [RECORDS[0], {"a": "😀"}, *RECORDS[1:]]


def test_parse_object_survives_huge_numbers():
    assert parse_object(b'{"a": ' + b"9" * 10_000 + b"}")[1].startswith("not valid JSON")


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(RECORDS),
        "\ufeff" + json.dumps(RECORDS, indent=2),
        json.dumps({"data": RECORDS}),
        json.dumps({"version": 1, "rows": RECORDS}, indent=1),
        json.dumps({"anything": RECORDS}),
        "\n".join(map(json.dumps, RECORDS)),  # JSON Lines under the wrong name
        "\n\n" + "\n\n".join(map(json.dumps, RECORDS)),
    ],
)
def test_json(tmp_path, text):
    records = read(tmp_path / "a.json", text)
    assert [record.value for record in records] == RECORDS
    assert [json.loads(record.raw) for record in records] == RECORDS


def test_json_of_one_record_is_no_wrapper(tmp_path):
    record = {"messages": [{"role": "assistant", "content": "a"}], "data": [{"x": 1}]}
    for text in (json.dumps(record), json.dumps(record, indent=1)):
        assert [found.value for found in read(tmp_path / "a.json", text)] == [record]


def test_json_list_with_bad_elements(tmp_path):
    records = read(tmp_path / "a.json", '[{"a": 1}, 5, {"b": "\\ud800"}]')
    assert [(record.line, record.reason) for record in records] == [
        (1, ""),
        (2, "not a JSON object but a number"),
        (3, "holds half of a surrogate pair, which UTF-8 cannot write"),
    ]
    assert json.loads(records[2].raw) == {"b": "\ud800"}


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        (b"[" * 100_000, 1, "nested too deeply"),
        (b'[\n"\xff"]', 1, "not valid UTF-8"),
    ],
)
def test_json_that_does_not_parse_is_one_bad_record(tmp_path, data, line, reason):
    (record,) = read(tmp_path / "a.json", data)
    assert record.line == line
    assert reason in record.reason


def test_a_broken_item_of_a_json_list_costs_only_itself(tmp_path):
    records = read(tmp_path / "a.json", b'[\n{"a": 1},\n\n{"b" 2},\n{"c": 3}]')
    assert [(record.line, record.reason) for record in records] == [
        (1, ""),
        (2, "not valid JSON: Expecting ':' delimiter at column 6 of line 4"),
        (3, ""),
    ]


def test_truncated_json_archive(tmp_path):
    *records, last = read(tmp_path / "a.json.gz", gzip.compress(json.dumps(RECORDS, indent=1).encode())[:-12])
    assert [record.value for record in records] == RECORDS[: len(records)]
    assert len(records) > 0
    assert "breaks off" in last.reason


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_csv(tmp_path, name):
    frame = pd.DataFrame([{**record, "id": "x,\ny"} for record in RECORDS])
    frame.to_csv(tmp_path / name, index=False, encoding="utf-8-sig")
    records = read(tmp_path / name)
    assert [record.value for record in records] == frame.to_dict("records")
    assert [record.line for record in records] == [1, 2, 3]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators(tmp_path, separator):
    (record,) = read(tmp_path / "a.csv", f"Prompt {separator} completion\r\nq,r{separator}a\r\n")
    assert record.value == {"prompt": "q,r", "completion": "a"}


def test_csv_with_messages_as_json(tmp_path):
    messages = [{"role": "assistant", "content": "a"}]
    pd.DataFrame({"messages": [json.dumps(messages), "[broken", ""]}).to_csv(tmp_path / "a.csv", index=False)
    assert [record.value["messages"] for record in read(tmp_path / "a.csv")] == [messages, "[broken", None]


def test_csv_with_a_history_as_json(tmp_path):
    rows = {"instruction": ["a", "b"], "output": ["c", "d"], "history": ["[]", json.dumps([["q", "r"]])]}
    pd.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False)
    assert [record.value["history"] for record in read(tmp_path / "a.csv")] == [[], [["q", "r"]]]


def test_broken_csv_rows_cost_only_themselves(tmp_path):
    data = b'prompt,completion\nq,a\nonly one\n"x"y,z\n\n\xffq,a\nq,"a\nb"\n"never closed,a\nq,a\n'
    records = read(tmp_path / "a.csv", data)
    assert [(record.line, record.reason) for record in records] == [
        (1, ""),
        (2, "has 1 cells where the header has 2"),
        (3, "not valid CSV: ',' expected after '\"'"),
        (4, "not valid UTF-8"),
        (5, ""),
        (6, "not valid CSV: a quote is opened and not closed"),
        (7, ""),
    ]
    assert records[3].raw == b"\xffq,a"
    assert records[5].raw == b'"never closed,a'


def test_csv_header_problems(tmp_path):
    with pytest.raises(PoolError, match="names the column 'prompt' twice"):
        read(tmp_path / "a.csv", "prompt,prompt\n1,2\n")
    assert read(tmp_path / "a.csv", "") == []


def test_truncated_csv_archive(tmp_path):
    text = "prompt,completion\n" + "".join(f"q{number},a{hash((number, 'x'))}\n" for number in range(50_000))
    *records, last = read(tmp_path / "a.csv.gz", gzip.compress(text.encode())[:-50_000])
    assert len(records) > 1000
    assert all(not record.reason for record in records)
    assert "breaks off" in last.reason
    assert last.line == len(records) + 1


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_parquet(tmp_path, suffix):
    import zstandard

    messages = [[{"role": "assistant", "content": f"a{number}"}] for number in range(200)]
    frame = pd.DataFrame({"messages": messages, "day": pd.Timestamp("2024-01-01"), "blob": b"\xff"})
    path = tmp_path / f"a.parquet{suffix}"
    frame.to_parquet(tmp_path / "plain")
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[suffix]
    records = read(path, pack((tmp_path / "plain").read_bytes()))
    assert [record.value["messages"] for record in records] == messages
    assert [json.loads(record.raw)["messages"] for record in records] == messages


def test_damaged_parquet(tmp_path):
    with pytest.raises(PoolError, match=r"a\.parquet is not a readable Parquet file"):
        read(tmp_path / "a.parquet", b"PAR1 not really")
    with pytest.raises(PoolError, match="cannot be decompressed"):
        read(tmp_path / "a.parquet.gz", gzip.compress(b"PAR1" * 9999)[:-12])


def test_saved_datasets(tmp_path):
    from datasets import Dataset, DatasetDict

    data = Dataset.from_list(RECORDS)
    data.save_to_disk(tmp_path / "one")
    DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(tmp_path / "splits")
    DatasetDict({"dev": data, "test": data}).save_to_disk(tmp_path / "unclear")
    assert [record.value for record in read(tmp_path / "one")] == RECORDS
    assert [record.value for record in read(tmp_path / "splits")] == RECORDS
    assert [record.value for record in read(tmp_path / "splits" / "test")] == RECORDS[:1]
    with pytest.raises(PoolError, match="splits dev, test; name one of them"):
        read(tmp_path / "unclear")


def test_a_damaged_saved_dataset(tmp_path):
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(PoolError, match="cannot be loaded as a saved data set"):
        read(tmp_path)


def test_hub_streams_the_train_split(monkeypatch):
    import datasets

    def load(name, split, streaming):
        assert (name, split, streaming) == ("owner/name", "train", True)
        return iter(RECORDS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert [record.value for record in read_hub("owner/name")] == RECORDS


def test_hub_without_a_connection(monkeypatch):
    import datasets

    def load(name, split, streaming):
        raise ConnectionError("Couldn't reach the hub.\nReally.")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(
        PoolError, match=r"owner/name is not a local file or folder.*Couldn't reach the hub\. Really\. Check"
    ):
        list(read_hub("owner/name"))


def test_a_missing_file(tmp_path):
    with pytest.raises(PoolError, match="No such file or directory"):
        read(tmp_path / "a.jsonl")
