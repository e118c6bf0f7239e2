"""Every format, written and read back with the loader that trainers use, with scores, manifest and card."""

import hashlib
import json

import pandas as pd
import pyarrow.parquet as pq
import pytest
from conversations import pairs as pairs_of
from conversations import records, talk
from hypothesis import given, settings
from hypothesis import strategies as st
from picked import pick_of

from gradsift.data.pool import read_rows
from gradsift.data.schemas import read_conversation
from gradsift.export.files import ExportError, export_picks
from gradsift.export.formats import FORMATS, preview
from gradsift.runtime.errors import UsageError

SCORES = pd.DataFrame({"row": [0, 1], "score": [0.5, -0.25]}, index=[7, 9])
BESIDE = ("scores.parquet", "picks.csv", "manifest.json", "README.md", "SHA256SUMS")
ALSO = {
    "messages": ("dataset_info.json", "axolotl.yaml"),
    "prompt-completion": (),
    "alpaca": ("dataset_info.json",),
    "sharegpt": ("dataset_info.json", "axolotl.yaml"),
    "less": ("sorted.csv",),
    "parquet": ("dataset_info.json", "axolotl.yaml"),
}
HARD = "a\u0000b\r\n\u2028\u0085 é 中 😀 \\ \" '"


def pick(*turns, prefix="", **fields):
    """A pick of (role, content) turns."""
    return pick_of(talk(*turns, prefix=prefix), **fields)


def picks():
    return [
        pick(("system", "be kind"), ("user", HARD), ("assistant", HARD), ("user", "q2"), ("assistant", "a2")),
        pick(("user", "q"), ("assistant", "a"), rank=2, prefix="The answer is:"),
        pick(("user", "q"), ("assistant", "a"), ("user", "thanks"), rank=3),
    ]


def export(tmp_path, format, chosen=None, manifest=None):
    return export_picks(tmp_path / "out", format, chosen or picks(), SCORES, manifest or {})


def load(tmp_path, path, loader="json"):
    import datasets

    data = datasets.load_dataset(loader, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    return data.to_list()


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


def test_messages(tmp_path):
    rows = load(tmp_path, export(tmp_path, "messages"))
    assert [list(row) for row in rows] == [["messages"]] * 3
    assert rows[0]["messages"] == records(picks()[0].conversation.messages)
    assert rows[1]["messages"] == turns(("user", "q"), ("assistant", "The answer is: a"))
    assert rows[2]["messages"] == records(picks()[2].conversation.messages)


def test_prompt_completion(tmp_path):
    path = export(tmp_path, "prompt-completion")
    rows = load(tmp_path, path)
    assert rows[0]["prompt"] == records(picks()[0].conversation.messages[:-1])
    assert rows[0]["completion"] == records(picks()[0].conversation.messages[-1:])
    assert rows[1] == {"prompt": turns(("user", "q")), "completion": turns(("assistant", "The answer is: a"))}
    assert rows[2] == {"prompt": turns(("user", "q")), "completion": turns(("assistant", "a"))}
    assert "- 1 row: turns after the last assistant turn were left out" in (path.parent / "README.md").read_text()


def test_alpaca(tmp_path):
    rows = load(tmp_path, export(tmp_path, "alpaca"))
    assert [list(row) for row in rows] == [["instruction", "input", "output", "system", "history"]] * 3
    assert rows[0] == {
        "instruction": "q2",
        "input": "",
        "output": "a2",
        "system": "be kind",
        "history": [[HARD, HARD]],
    }
    assert rows[1]["output"] == "The answer is: a"
    assert rows[1]["history"] == []


def test_alpaca_merges_turns_out_of_order(tmp_path):
    odd = pick(("assistant", "hi"), ("user", "a"), ("system", "s"), ("user", "b"), ("assistant", "c"))
    path = export(tmp_path, "alpaca", [odd])
    (row,) = load(tmp_path, path)
    assert (row["instruction"], row["output"], row["system"], row["history"]) == ("a\n\nb", "c", "s", [["", "hi"]])
    assert "- 1 row: turns did not alternate" in (path.parent / "README.md").read_text()


def test_sharegpt(tmp_path):
    rows = load(tmp_path, export(tmp_path, "sharegpt"))
    assert [turn["from"] for turn in rows[0]["conversations"]] == ["system", "human", "gpt", "human", "gpt"]
    assert rows[1]["conversations"][-1] == {"from": "gpt", "value": "The answer is: a"}


def test_parquet(tmp_path):
    path = export(tmp_path, "parquet")
    assert path.name == "train.parquet"
    assert str(pq.read_schema(path).field("messages").type).startswith("list<")
    assert load(tmp_path, path, "parquet")[0]["messages"] == records(picks()[0].conversation.messages)
    assert preview("parquet", picks(), 1) == preview("messages", picks(), 1)


def test_less_copies_lines_and_rewrites_the_rest(tmp_path):
    line = b'{ "messages" : [{"role":"user","content":"\\u00e9"},{"role":"assistant","content":"a"}],\t"prefix":"P"}'
    alpaca = b'{"instruction": "q", "output": "a"}'
    qa = (("user", "q"), ("assistant", "a"))
    path = export(
        tmp_path,
        "less",
        [
            pick(*qa, raw=line, file="=sub/a.jsonl.gz", prefix="P", line=5),
            pick(*qa, raw=alpaca, file='a, "b".jsonl', rank=2),
            pick(*qa, raw=line, file="list.json", rank=3),
            pick(*qa, raw=alpaca, file="a.csv", prefix="P", rank=4),
        ],
    )
    rewritten = {"dataset": "s", "id": "i4", "messages": turns(("user", "q"), ("assistant", "P a"))}
    lines = path.read_bytes().split(b"\n")
    assert lines == [line, alpaca, line, json.dumps(rewritten).encode(), b""]
    card = (path.parent / "README.md").read_text()
    for note in ("3 rows: written as in the source", "1 row: rewritten as", "1 row: copied, but the line has no"):
        assert note in card
    assert "TRL" not in card  # not every line has messages
    assert (path.parent / "sorted.csv").read_text() == (
        'file name, index, score\n\'=sub/a.jsonl.gz, 4, 1.0\n"a, ""b"".jsonl", 1, 0.5\nlist.json, 2, 0.333333\n'
        "a.csv, 3, 0.25\n"
    )


def test_less_lines_of_the_real_pool_equal_the_source_lines(tmp_path, shared_data):
    rows = [row for number, row in enumerate(read_rows([shared_data / "pool"])) if number % 50 == 0]
    chosen = [
        pick(*pairs_of(row.messages), rank=rank, raw=row.raw, file=row.file, line=row.line, source=row.source)
        for rank, row in enumerate(rows, 1)
    ]
    path = export(tmp_path, "less", chosen)
    source = {file.name: file.read_bytes().split(b"\n") for file in (shared_data / "pool").iterdir()}
    assert path.read_bytes().split(b"\n")[:-1] == [source[row.file][row.line - 1] for row in rows]
    loaded = load(tmp_path, path)
    assert [row["messages"] for row in loaded] == [records(row.messages) for row in rows]


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
conversation = st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), text), max_size=6).filter(
    lambda result: any(role == "assistant" and content.strip() for role, content in result)
)


@settings(max_examples=60, deadline=None)
@given(conversation, st.sampled_from(["messages", "sharegpt", "less", "prompt-completion"]))
def test_any_conversation_comes_back(messages, format):
    line = preview(format, [pick(*messages)], 5)
    assert line.count("\n") == 1
    again = [tuple(pair) for pair in read_unchecked(json.loads(line))]
    last = max(index for index, (role, _) in enumerate(messages) if role == "assistant")
    assert again == (messages[: last + 1] if format == "prompt-completion" else messages)


def read_unchecked(record):
    """The turns of an exported line, read by the pool's own reader if it can read the line."""
    if "conversations" in record:
        names = {"human": "user", "gpt": "assistant", "system": "system"}
        return [(names[turn["from"]], turn["value"]) for turn in record["conversations"]]
    result = record.get("messages") or [*record["prompt"], *record["completion"]]
    return [(turn["role"], turn["content"]) for turn in result]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(text, text.filter(str.strip)), min_size=1, max_size=4), text)
def test_alternating_conversations_come_back_through_alpaca(pairs, system):
    messages = [turn for user, answer in pairs for turn in (("user", user), ("assistant", answer))]
    messages = [("system", system), *messages] if system else messages
    record = json.loads(preview("alpaca", [pick(*messages)], 1))
    assert pairs_of(read_conversation(record).messages) == messages


@pytest.mark.parametrize("format", FORMATS)
def test_beside_the_data(tmp_path, format):
    manifest = {"method": "less", "budget": "5%", "made": {"by": "gradsift"}}
    path = export(tmp_path, format, manifest=manifest)
    result = json.loads((path.parent / "manifest.json").read_text())
    data = result.pop("data")
    assert result == manifest
    assert data == {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
        "rows": 3,
        "format": format,
    }
    pd.testing.assert_frame_equal(pd.read_parquet(path.parent / "scores.parquet"), SCORES)
    assert {file.name for file in path.parent.iterdir()} == {path.name, *BESIDE, *ALSO[format]}
    if format != "parquet":
        assert path.read_bytes().decode() == preview(format, picks(), 10)


def test_an_export_replaces_the_one_before(tmp_path):
    export(tmp_path, "less")
    export(tmp_path, "parquet")
    expected = {"train.parquet", *BESIDE, *ALSO["parquet"]}
    assert {file.name for file in (tmp_path / "out").iterdir()} == expected


def test_nothing_picked_leaves_the_former_export(tmp_path):
    path = export(tmp_path, "messages")
    before = path.read_bytes()
    with pytest.raises(ExportError, match="no row was picked"):
        export_picks(path.parent, "messages", iter(()), SCORES, {})
    assert path.read_bytes() == before
    assert (path.parent / "manifest.json").exists()


def test_refusals(tmp_path):
    with pytest.raises(UsageError, match="no export format 'csv': choose one of messages"):
        export(tmp_path, "csv")
    with pytest.raises(UsageError, match="no export format"):
        preview("csv", [], 1)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ExportError, match="Cannot write the export to"):
        export(tmp_path, "messages")
