"""Files as people have them: links, pointers, encodings, layouts of JSON, damaged tables, saved data sets, hub names."""

import gzip
import io
import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradsift.data.hub_reader import HubName, hub_name, read_hub
from gradsift.data.pool import PoolError, input_hashes, read_rows
from gradsift.data.readers import records_of
from gradsift.data.targets import require_targets

PLACES = ("river", "lake", "hill", "bay")
ROWS = [{"messages": [{"role": "user", "content": p}, {"role": "assistant", "content": f"A {p}é."}]} for p in PLACES]
LINES = [json.dumps(row, ensure_ascii=False) for row in ROWS]


def read(path, data=None):
    if data is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return list(read_rows([path]))


def reasons(rows):
    return [row.reason for row in rows if row.reason]


def answers(rows):
    return [row.messages[-1].content for row in rows if not row.reason]


ALL = [f"A {place}é." for place in PLACES]


# -- names and links -----------------------------------------------------------------------------------------------------


def table(rows=ROWS):
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def arrow(rows=ROWS, new=pa.ipc.new_stream):
    sink = io.BytesIO()
    data = pa.Table.from_pylist(rows)
    with new(sink, data.schema) as writer:
        writer.write_table(data, max_chunksize=3)
    return sink.getvalue()


def test_the_format_is_that_of_the_given_name_not_of_what_a_link_leads_to(tmp_path):
    contents = {
        "train-00000-of-00001.parquet": table(),
        "list.json": json.dumps(ROWS, indent=1).encode(),
        "extra.jsonl.gz": gzip.compress("\n".join(LINES).encode()),
        "plain.jsonl": "\n".join(LINES).encode(),
        "t.csv": b"prompt,completion\nq,a\n",
    }
    data = tmp_path / "snapshots" / "abc" / "data"
    data.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    for number, (name, content) in enumerate(contents.items()):
        (tmp_path / "blobs" / f"{number:040x}").write_bytes(content)
        (data / name).symlink_to(f"../../../blobs/{number:040x}")
    rows = list(read_rows([data]))
    assert reasons(rows) == []
    assert Counter(row.file for row in rows) == {name: 1 if name == "t.csv" else 4 for name in contents}
    assert {row.source for row in rows} == {"train", "list", "extra", "plain", "t"}
    assert [line.split()[0] for line in input_hashes([data])] == sorted(contents)
    for name in contents:
        assert len(require_targets(data / name)) == (1 if name == "t.csv" else 4)
    (tmp_path / "again.jsonl").symlink_to(data / "plain.jsonl")
    assert len(list(read_rows([data / "plain.jsonl", tmp_path / "again.jsonl"]))) == 4
    assert len(input_hashes([data / "plain.jsonl", tmp_path / "again.jsonl"])) == 1


def test_a_link_that_leads_nowhere_is_told(tmp_path):
    (tmp_path / "a.jsonl").symlink_to(".git/annex/objects/x.jsonl")
    (tmp_path / "b.jsonl").write_text(LINES[0])
    rows = list(read_rows([tmp_path]))
    assert reasons(rows) == ["a link to data that is not here; fetch it first, as with git annex get or dvc pull"]
    assert len(input_hashes([tmp_path])) == 2
    with pytest.raises(PoolError, match=r"a\.jsonl is a link to \.git/annex/objects/x\.jsonl, which does not exist"):
        read_rows([tmp_path / "a.jsonl"])


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12\n"


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.parquet", "x.arrow", "x.jsonl.gz", "x.parquet.zst"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (LFS, "a Git LFS pointer, not the data; run git lfs pull"),
        (b"/annex/objects/SHA256E-s12--00ab.jsonl\n", "a git-annex pointer, not the data; run git annex get"),
    ],
)
def test_pointers_are_named(tmp_path, name, content, reason):
    assert reasons(read(tmp_path / name, content)) == [reason]


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.parquet"])
def test_a_page_is_named(tmp_path, name):
    page = "\n <!DOCTYPE html>\n<html><body>404</body></html>\n"
    assert reasons(read(tmp_path / name, page)) == ["an HTML page, not data; download the file again"]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("x.zip", "Unpack it first"),
        ("x.jsonl.bz2", "gzip or Zstandard"),
        ("x.jsonl.xz", ""),
        ("x.jsonl.dvc", "dvc pull"),
    ],
)
def test_types_that_are_not_read_say_what_to_do(tmp_path, name, advice):
    with pytest.raises(PoolError, match=f"is of an unknown type.*{advice}"):
        read(tmp_path / name, b"x")


def test_a_name_that_lies_about_its_compression(tmp_path):
    assert reasons(read(tmp_path / "x.jsonl.gz", LINES[0])) == ["the file breaks off here: Not a gzipped file (b'{\"')"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_files_without_a_row(tmp_path, name):
    for content in ("", "\n\n", "[]" if name == "a.json" else "", "prompt,completion\n" if name == "a.csv" else ""):
        with pytest.raises(PoolError, match="There is no row in"):
            read(tmp_path / name, content)


# -- encodings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz"])
def test_wide_text_is_named_once(tmp_path, encoding, name):
    text = "prompt,completion\nq,a\n" if "csv" in name else "\n".join(LINES)
    data = text.encode(encoding)
    bits = encoding.split("-")[1]
    rows = read(tmp_path / name, gzip.compress(data) if name.endswith("gz") else data)
    assert reasons(rows) == [f"UTF-{bits} text; save it as UTF-8"]


def test_wide_text_in_chinese_without_a_mark(tmp_path):
    text = json.dumps({"prompt": "中文问题" * 9, "completion": "答案"}, ensure_ascii=False)
    assert reasons(read(tmp_path / "a.jsonl", text.encode("utf-16-le"))) == ["UTF-16 text; save it as UTF-8"]
    assert reasons(read(tmp_path / "a.jsonl", text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + "\n".join(LINES),
        "\ufeff" + "\r\n".join(LINES),
        "\n".join("\ufeff" + line for line in LINES),
        "\r".join(LINES) + "\r",
        "\r\r".join(LINES),
        "\0\0" + "\n".join(LINES),
    ],
)
def test_marks_and_line_ends(tmp_path, text):
    rows = read(tmp_path / "a.jsonl", text)
    assert (answers(rows), reasons(rows)) == (ALL, [])
    assert [json.loads(row.raw) for row in rows] == ROWS
    assert all(b"\r" not in row.raw and b"\n" not in row.raw for row in rows)


def test_nul_bytes_between_lines_are_one_bad_row(tmp_path):
    rows = read(tmp_path / "a.jsonl", f"{LINES[0]}\n{chr(0) * 64}\n{LINES[1]}\n")
    assert answers(rows) == ALL[:2]
    assert reasons(rows) == ["nothing but NUL bytes, as an interrupted write leaves them"]


def test_latin_1_costs_its_line(tmp_path):
    rows = read(tmp_path / "a.jsonl", b'{"prompt":"caf\xe9","completion":"a"}\n' + LINES[1].encode())
    assert (answers(rows), reasons(rows)) == (ALL[1:2], ["not valid UTF-8 at byte 15"])
    rows = read(tmp_path / "a.json", b'[\n{"prompt":"caf\xe9","completion":"a"},\n' + LINES[1].encode() + b"\n]")
    assert (answers(rows), reasons(rows)) == (ALL[1:2], ["not valid UTF-8"])


# -- layouts of JSON -----------------------------------------------------------------------------------------------------

LAYOUTS = {
    "a list on one line": json.dumps(ROWS),
    "a pretty list": json.dumps(ROWS, indent=2),
    "a list with an item a line": "[\n" + ",\n".join(LINES) + "\n]",
    "a list without indentation": json.dumps(ROWS, indent=0),
    "a list that begins on its bracket's line": "[" + ",\n".join(LINES) + "]\n",
    "concatenated": "".join(LINES),
    "side by side with commas": ", ".join(LINES),
    "pretty objects": "\n".join(json.dumps(row, indent=2) for row in ROWS),
    "pretty objects with commas": ",\n".join(json.dumps(row, indent=2) for row in ROWS),
    "commas at line ends": ",\n".join(LINES) + ",\n",
    "two a line": f"{LINES[0]}{LINES[1]}\n{LINES[2]} {LINES[3]}",
    "wrapped": json.dumps({"version": 1, "data": ROWS}),
    "wrapped and pretty": json.dumps({"version": "1", "meta": [{"a": 1}], "data": ROWS}, indent=1),
    "by id": json.dumps({f"q_{at}": row for at, row in enumerate(ROWS)}),
    "by id, pretty": json.dumps({f"q_{at}": row for at, row in enumerate(ROWS)}, indent=1),
    "columns of lists": json.dumps({"messages": [row["messages"] for row in ROWS]}),
    "columns by index": json.dumps({"messages": {str(at): row["messages"] for at, row in enumerate(ROWS)}}),
    "pandas split": json.dumps({"columns": ["messages"], "index": [0], "data": [[row["messages"]] for row in ROWS]}),
    "pandas table": json.dumps({"schema": {"fields": [{"name": "index"}]}, "data": ROWS}),
}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read(tmp_path, layout, name):
    rows = read(tmp_path / name, LAYOUTS[layout])
    assert (answers(rows), reasons(rows)) == (ALL, [])
    assert all(b"\n" not in row.raw and json.loads(row.raw)["messages"] for row in rows)


def test_a_record_keeps_its_bytes_where_it_is_a_line(tmp_path):
    for layout in ("concatenated", "commas at line ends", "two a line", "side by side with commas"):
        assert [row.raw.decode() for row in read(tmp_path / "a.jsonl", LAYOUTS[layout])] == LINES


def test_columns_of_text(tmp_path):
    lists = {"instruction": ["q", "r"], "output": ["a", "b"]}
    for value in (lists, {name: {"0": cells[0], "1": cells[1]} for name, cells in lists.items()}):
        rows = read(tmp_path / "a.json", json.dumps(value))
        assert (answers(rows), reasons(rows)) == (["a", "b"], [])
    both_lists = {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]}
    assert answers(read(tmp_path / "a.json", json.dumps(both_lists))) == ["a"]


def test_lists_by_split_read_train_and_name_the_others(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"train": ROWS, "test": ROWS[:1]}))
    rows = read_rows([tmp_path / "a.json"])
    assert answers(rows) == ALL
    assert rows.left_out == ["a.json: the list test (1)"]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize(
    "text",
    [
        "[\n" + ",\n".join([*LINES[:2], '{"messages": [bad]}', *LINES[2:]]) + "\n]",
        "[" + ", ".join([*LINES[:2], '{"messages": [bad]}', *LINES[2:]]) + "]",
        json.dumps([*ROWS[:2], {"messages": ["BAD"]}, *ROWS[2:]], indent=2).replace('"BAD"', "bad"),
        "\n".join([*LINES[:2], '{"messages": [bad]}', *LINES[2:]]),
        json.dumps({"data": [*ROWS[:2], {"messages": ["BAD"]}, *ROWS[2:]]}, indent=1).replace('"BAD"', "bad"),
        json.dumps({"data": [*ROWS[:2], {"messages": ["BAD"]}, *ROWS[2:]]}).replace('"BAD"', "bad"),
        "\n".join(json.dumps(row, indent=2) for row in [*ROWS[:2], {"a": "BAD"}, *ROWS[2:]]).replace('"BAD"', "bad"),
    ],
)
def test_a_bad_item_costs_one_row(tmp_path, name, text):
    rows = read(tmp_path / name, text)
    assert answers(rows) == ALL
    assert [reason.startswith("not valid JSON: Expecting value at column") for reason in reasons(rows)] == [True]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_what_is_cut_off_keeps_what_came_before(tmp_path, name):
    for text in (LAYOUTS["a pretty list"], LAYOUTS["pretty objects"], LAYOUTS["a list on one line"]):
        rows = read(tmp_path / name, text[:-20])
        assert (answers(rows), len(reasons(rows))) == (ALL[:3], 1)


def test_a_broken_first_line_of_json_lines(tmp_path):
    for first in ('{"messages": [', '{"prompt": "q",', '{"a": ', "garbage", "[1, 2]", '"text"'):
        rows = read(tmp_path / "a.jsonl", "\n".join([first, *LINES]))
        assert (answers(rows), len(rows)) == (ALL, 5), first


def test_lines_that_are_lists_are_one_bad_row_each(tmp_path):
    rows = read(tmp_path / "a.jsonl", "\n".join(json.dumps(row["messages"]) for row in ROWS))
    assert reasons(rows) == ["not a JSON object but a list"] * 4


def test_python_and_comments_are_named(tmp_path):
    rows = read(tmp_path / "a.jsonl", "\n".join(map(repr, ROWS)))
    assert len(reasons(rows)) == 4
    assert all(reason.startswith("not valid JSON: written with single quotes") for reason in reasons(rows))
    for text in (LAYOUTS["a pretty list"], "\n".join(LINES)):
        rows = read(tmp_path / "a.json", f"// my data\n{text}")
        assert (answers(rows), reasons(rows)) == (ALL, ["a comment, which JSON does not have; remove the line"])


def test_literals_survive(tmp_path):
    extras = ["NaN", "-Infinity", "9" * 400, "1e999", '"\\u0000"', '{"a": 1, "a": 2}']
    text = "\n".join(f'{{"prompt": "q", "completion": "a", "x": {extra}}}' for extra in extras)
    rows = read(tmp_path / "a.jsonl", text)
    assert reasons(rows) == []
    assert b"\n".join(row.raw for row in rows) == text.encode()


def test_a_large_list_streams(tmp_path):
    """Items beyond the scanner's chunk, one of them larger than it, one broken."""
    items = [json.dumps({"prompt": f"q{at}", "completion": "a" * 500}, indent=1) for at in range(5000)]
    items[2500] = json.dumps({"prompt": "long", "completion": "a" * 3_000_000}, indent=1)
    items[3000] = items[3000].replace('"prompt":', '"prompt"')
    rows = read(tmp_path / "a.jsonl", "[\n" + ",\n".join(items) + "\n]")
    assert len(rows) == 5000
    assert [(row.line, row.reason) for row in rows if row.reason] == [
        (3001, f"not valid JSON: Expecting ':' delimiter at column 11 of line {3000 * 4 + 3}")
    ]


# -- separated text ------------------------------------------------------------------------------------------------------


def test_an_unclosed_quote_costs_its_own_row(tmp_path):
    lines = [f"q{at},a{at}" for at in range(300)]
    lines[10] = '"q10,a10'
    rows = read(tmp_path / "a.csv", "prompt,completion\n" + "\n".join(lines))
    assert [row.line for row in rows if row.reason] == [11]
    assert len(rows) == 300
    lines[200], lines[250] = '"q, 200",a200', 'q250,"a250'
    rows = read(tmp_path / "a.csv", "prompt,completion\n" + "\n".join(lines))
    assert [row.line for row in rows if row.reason] == [11, 251]
    assert len(rows) == 300


def test_lines_inside_a_quote_that_are_no_rows_are_counted(tmp_path):
    text = (
        "prompt,completion\nq,a\n" + 'q,"an answer\nof several lines, as people, write them\nand more\n' + "one\n" * 5
    )
    rows = read(tmp_path / "a.csv", text)
    assert reasons(rows) == ["not valid CSV: unexpected end of data, and 7 more lines were read as part of this row"]


def test_backslashes_before_quotes(tmp_path):
    lines = [f'"Question {at}?","","Answer {at}."' for at in range(20)]
    lines[5] = '"Question 5?","","He said \\"hi, there\\" and left."'
    lines[8] = '"Question 8?","","Size is 20\\" wide"'
    rows = read(tmp_path / "a.csv", "instruction,input,output\n" + "\n".join(lines))
    assert [row.line for row in rows if row.reason] == [6, 9]
    assert len(rows) == 20


# -- tables --------------------------------------------------------------------------------------------------------------


def chats(count):
    return pa.array([[{"role": "assistant", "content": f"a{at}"}] for at in range(count)])


def bad_text(count, at):
    """A column of strings of which one is not UTF-8."""
    cells = [b"caf\xe9" if number == at else b"fine" for number in range(count)]
    return pa.Array.from_buffers(pa.string(), count, pa.array(cells, pa.binary()).buffers())


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_one_bad_cell_costs_one_row(tmp_path, kind):
    data = pa.table({"messages": chats(200), "note": bad_text(200, 5)})
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(data, path)
    else:
        with pa.ipc.new_file(path, data.schema) as writer:
            writer.write_table(data)
    rows = list(read_rows([path]))
    assert len(rows) == 200
    assert [(row.line, row.reason) for row in rows if row.reason] == [(6, "not valid UTF-8 in the column 'note'")]


def test_a_cell_that_python_cannot_hold_is_kept_as_text(tmp_path):
    far = pa.array([2**60, 0, 0], pa.int64()).cast(pa.timestamp("us"))
    pq.write_table(pa.table({"messages": chats(3), "day": far}), tmp_path / "a.parquet")
    assert reasons(list(read_rows([tmp_path / "a.parquet"]))) == []


def test_a_damaged_row_group_costs_its_rows_and_every_row_is_counted(tmp_path):
    text = pa.array([f"answer {at * 7919 % 1000}" * 20 for at in range(1000)])
    sink = io.BytesIO()
    data = pa.table({"prompt": text, "completion": text})
    pq.write_table(data, sink, row_group_size=250, compression="none", use_dictionary=False)
    content = bytearray(sink.getvalue())
    start = pq.ParquetFile(sink).metadata.row_group(1).column(0).data_page_offset
    content[start : start + 40] = b"\xff" * 40
    rows = read(tmp_path / "a.parquet", bytes(content))
    assert [row.line for row in rows] == list(range(1, 1001))
    assert [row.line for row in rows if row.reason] == list(range(251, 501))
    assert all(reason.startswith("the file is damaged here") for reason in reasons(rows))


def test_types_of_columns_that_no_schema_uses(tmp_path):
    data = pa.table(
        {
            "messages": chats(2),
            "ns": pa.array([1, 2], pa.timestamp("ns")),
            "dec": pa.array([1, 2], pa.decimal128(12, 2)),
            "cat": pa.array(["a", "b"]).dictionary_encode(),
            "bin": pa.array([b"\xff\x00", None]),
            "dur": pa.array([5, 6], pa.duration("ns")),
            "ls": pa.array(["x", "y"], pa.large_string()),
            "m": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
        }
    )
    pq.write_table(data, tmp_path / "a.parquet")
    rows = list(read_rows([tmp_path / "a.parquet"]))
    assert reasons(rows) == []
    assert list(json.loads(rows[0].raw)) == data.column_names


def test_text_that_a_writer_stored_as_bytes(tmp_path):
    pq.write_table(pa.table({"prompt": [b"q"], "completion": ["é".encode()]}), tmp_path / "a.parquet")
    assert answers(list(read_rows([tmp_path / "a.parquet"]))) == ["é"]


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("image", pa.array([{"bytes": b"not an image", "path": None}, None], IMAGE)),
        ("pictures", pa.array([[{"bytes": b"x", "path": "p"}], []], pa.list_(IMAGE))),
        ("audio", pa.array([b"\x00\x01", None])),
        ("blob", pa.array([b"\x89PNG\r\n", None])),
    ],
)
def test_media_are_not_read_and_leave_a_mark(tmp_path, name, column):
    pq.write_table(pa.table({"messages": chats(2), name: column}), tmp_path / "a.parquet")
    first, second = records_of(tmp_path / "a.parquet")
    assert (str(first.value[name]), json.dumps(first.value[name], default=str)) == ("<media>", '"<media>"')
    assert second.value.get(name) is None
    assert json.loads(first.raw) == {"messages": [{"role": "assistant", "content": "a0"}]}


def test_images_are_never_decoded(tmp_path, monkeypatch):
    import datasets

    def decode(*_, **__):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(datasets.Image, "decode_example", decode)
    features = datasets.Features({"prompt": datasets.Value("string"), "image": datasets.Image()})
    data = datasets.Dataset.from_dict({"prompt": ["q"], "image": [{"bytes": b"\x89PNG", "path": None}]}, features)
    data.save_to_disk(tmp_path / "saved")
    data.to_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: data.to_iterable_dataset())
    for records in (records_of(tmp_path / "saved"), records_of(tmp_path / "a.parquet"), read_hub("acme/images")):
        (record,) = records
        assert str(record.value["image"]) == "<media>"
        assert json.loads(record.raw) == {"prompt": "q"}


def test_embeddings_are_not_kept_and_told(tmp_path):
    vectors = pa.array([[0.5, 0.5]] * 2, pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"messages": chats(2), "vector": vectors}), tmp_path / "a.parquet")
    rows = read_rows([tmp_path / "a.parquet"])
    assert [list(json.loads(row.raw)) for row in rows] == [["messages"]] * 2
    assert rows.left_out == ["a.parquet: the column vector (numbers)"]


def test_two_columns_of_one_name_are_refused(tmp_path):
    data = pa.Table.from_arrays([pa.array(["q"]), pa.array(["a"])], names=["prompt", "prompt"])
    with pa.ipc.new_stream(tmp_path / "a.arrow", data.schema) as writer:
        writer.write_table(data)
    with pytest.raises(PoolError, match="two columns named 'prompt'"):
        list(read_rows([tmp_path / "a.arrow"]))


@pytest.mark.parametrize("new", [pa.ipc.new_stream, pa.ipc.new_file])
def test_arrow_files(tmp_path, new):
    assert answers(read(tmp_path / "a.arrow", arrow(new=new))) == ALL
    assert answers(read(tmp_path / "a.arrow.gz", gzip.compress(arrow(new=new)))) == ALL
    with pytest.raises(PoolError, match="not a readable Arrow file"):
        read(tmp_path / "a.arrow", b"ARROW1 not really")
    rows = read(tmp_path / "b.arrow", arrow()[:-300])
    assert answers(rows) == ALL[:3]
    assert ["breaks off" in reason for reason in reasons(rows)] == [True]


# -- folders of other tools ----------------------------------------------------------------------------------------------


def test_the_cache_of_datasets(tmp_path):
    folder = tmp_path / "acme___chat" / "default" / "0.0.0" / "abc"
    assert answers(read(folder / "chat-train.arrow", arrow())) == ALL
    (folder / "chat-test.arrow").write_bytes(arrow())
    (folder / "cache-1f2e3d4c.arrow").write_bytes(arrow())
    (folder / "dataset_info.json").write_text('{"builder_name": "json", "splits": {}}')
    rows = read_rows([tmp_path])
    assert {row.file for row in rows} == {"acme___chat/default/0.0.0/abc/chat-train.arrow"}
    assert rows.left_out == ["acme___chat/default/0.0.0/abc/chat-test.arrow"]


def test_a_folder_as_llama_factory_has_it(tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"my": {"file_name": "my.json"}}')
    (tmp_path / "my.json").write_text('[{"instruction": "q", "input": "", "output": "a"}]')
    assert [row.file for row in read_rows([tmp_path])] == ["my.json"]
    assert len(read(tmp_path / "dataset_info.json")) == 1  # given by its own path, it is read


def test_a_folder_as_spark_writes_it(tmp_path):
    for number in range(2):
        (tmp_path / f"part-{number:05}-aa.c000.snappy.parquet").write_bytes(table())
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".part-00000-aa.c000.snappy.parquet.crc").write_bytes(b"x")
    assert [row.source for row in read_rows([tmp_path])] == ["part"] * 8


def test_splits_of_a_saved_data_set(tmp_path):
    from datasets import Dataset, DatasetDict

    data = Dataset.from_list(ROWS)
    DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(tmp_path / "both")
    rows = read_rows([tmp_path / "both"])
    assert answers(rows) == ALL
    assert rows.left_out == ["both: the split test (1)"]
    assert len(list(read_rows([tmp_path / "both" / "test"]))) == 1
    DatasetDict({"train_sft": data, "test_sft": data}).save_to_disk(tmp_path / "sft")
    with pytest.raises(PoolError, match="has the splits train_sft, test_sft; name one of them"):
        list(read_rows([tmp_path / "sft"]))


# -- the hub and addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("acme/chat", HubName("acme/chat")),
        ("acme/chat@v1.0", HubName("acme/chat", "v1.0")),
        ("acme/chat:code", HubName("acme/chat", "", "code")),
        ("acme/chat::train_sft", HubName("acme/chat", "", "", "train_sft")),
        ("acme/chat@refs/pr/1:code:test", HubName("acme/chat", "refs/pr/1", "code", "test")),
        ("chat:code", None),
        ("a/b/c", None),
    ],
)
def test_names_on_the_hub(text, parts):
    assert hub_name(text) == parts


def test_configuration_split_and_revision_are_passed_on(monkeypatch):
    import datasets

    calls = []

    def load(*args, **options):
        calls.append((args, options))
        return iter(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert {row.file for row in read_rows(["acme/chat@v1:code:train_sft"])} == {"acme/chat@v1:code:train_sft"}
    assert calls == [(("acme/chat", "code"), {"split": "train_sft", "revision": "v1", "streaming": True})]


@pytest.mark.parametrize(
    ("text", "problem", "message"),
    [
        (
            "acme/chat",
            "Bad split: train. Available splits: ['test_sft', 'train_sft']",
            r"acme/chat has no split train; it has test_sft, train_sft\. Name one, as acme/chat::train_sft",
        ),
        (
            "acme/chat@v1:code:x",
            "Bad split: x. Available splits: ['train']",
            r"acme/chat@v1 has no split x; it has train\. Name one, as acme/chat@v1:code:train",
        ),
        (
            "acme/chat",
            "Config name is missing.\nPlease pick one among the available configs: ['all', 'code']\nExample: x",
            r"acme/chat has the configurations all, code\. Name one, as acme/chat:all ",
        ),
        (
            "acme/chat:cod",
            "BuilderConfig 'cod' not found. Available: ['all', 'code']",
            r"acme/chat has no configuration cod; it has all, code\. Name one, as acme/chat:all ",
        ),
    ],
)
def test_what_the_hub_has_is_listed(monkeypatch, text, problem, message):
    import datasets

    def load(*_, **__):
        raise ValueError(problem)

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(PoolError, match=message):
        list(read_rows([text]))


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("https://example.org/a.jsonl?x=1", "download it first"),
        ("s3://bucket/a.jsonl", "aws s3 cp"),
        ("hf://datasets/acme/chat@v1/a.jsonl", "give the data set as acme/chat@v1 "),
        ("https://huggingface.co/datasets/acme/chat/blob/main/a.jsonl", "give the data set as acme/chat "),
        ("file:///tmp/a.jsonl", "give the path, as /tmp/a.jsonl"),
        ("gsm8k:main", "org/name@revision:configuration:split"),
    ],
)
def test_addresses_say_what_to_do(text, advice):
    with pytest.raises(PoolError) as error:
        read_rows([text])
    assert advice in str(error.value)
