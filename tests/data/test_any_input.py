"""Whatever the bytes: each row is good or has a reason, ids are unique, and nothing but `PoolError` is raised.

Where it is known how many records a file has, as many rows come out.
"""

import gzip
import io
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradsift.data.pool import PoolError, read_rows
from gradsift.data.streams import FORMATS

EVERY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

NAMES = [f"a{suffix}{pack}" for suffix in FORMATS for pack in ("", ".gz", ".zst")]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)
RECORDS = st.lists(
    st.fixed_dictionaries(
        {"prompt": TEXT, "completion": TEXT.filter(str.strip)}, optional={"id": TEXT | st.integers(), "extra": JSON}
    ),
    min_size=2,
    max_size=8,
)


def rows_of(name, data):
    """The rows of a file of these bytes, each of which is checked; None if it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        try:
            rows = list(read_rows([path]))
        except PoolError as error:
            assert str(error).endswith(".")
            return None
    for row in rows:
        assert bool(row.messages) != bool(row.reason)
        assert "\n" not in row.reason
        row.id.encode()
    assert len({row.id for row in rows}) == len(rows)
    return rows


def pack(name, data):
    return gzip.compress(data) if name.endswith(".gz") else zstandard.compress(data) if name.endswith(".zst") else data


@EVERY
@given(st.sampled_from(NAMES), st.binary(max_size=300), st.booleans())
def test_any_bytes(name, data, packed):
    rows_of(name, pack(name, data) if packed else data)


@EVERY
@given(
    st.sampled_from(["a.jsonl", "a.json", "a.csv"]),
    st.text(st.sampled_from('{}[]",:\\\n\r\t\0 a1é;\ufeff'), max_size=60),
)
def test_any_text_of_marks(name, text):
    rows_of(name, text.encode())


@EVERY
@given(st.sampled_from(["a.jsonl", "a.json"]), JSON, st.sampled_from([None, 0, 2]))
def test_any_json(name, value, indent):
    rows_of(name, json.dumps(value, indent=indent).encode())


LAYOUTS = {
    "lines": lambda items: "\n".join(items),
    "carriage returns": lambda items: "\r".join(items),
    "a list": lambda items: f"[{', '.join(items)}]",
    "a list by lines": lambda items: "[\n" + ",\n".join(items) + "\n]",
    "commas": lambda items: ",\n".join(items),
    "side by side": lambda items: "".join(items),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@EVERY
@given(RECORDS, st.sampled_from(["a.jsonl", "a.json", "a.jsonl.gz"]), st.booleans())
def test_every_record_of_json_comes_out(layout, records, name, ascii_only):
    items = [json.dumps(record, ensure_ascii=ascii_only) for record in records]
    rows = rows_of(name, pack(name, LAYOUTS[layout](items).encode()))
    assert [row.messages[-1].content for row in rows if not row.reason] == [record["completion"] for record in records]
    assert len(rows) == len(records)
    if layout not in ("a list", "a list by lines"):
        assert [row.raw.decode() for row in rows] == items


@pytest.mark.parametrize("indent", [1, 4])
@EVERY
@given(RECORDS, st.sampled_from(["a.jsonl", "a.json"]), st.booleans())
def test_every_record_of_pretty_json_comes_out(indent, records, name, listed):
    text = json.dumps(records, indent=indent) if listed else "\n".join(json.dumps(r, indent=indent) for r in records)
    rows = rows_of(name, text.encode())
    assert [row.messages[-1].content for row in rows if not row.reason] == [record["completion"] for record in records]


BAD = [
    '{"prompt": bad}',
    '{"prompt" 1}',
    '{"prompt": "q", "completion": "a",, "x": 1}',
    "7",
    "null",
    '{"a": 01}',
    "[1]",
]


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in ("commas", "side by side")])
@EVERY
@given(RECORDS, st.sampled_from(BAD), st.data())
def test_a_damaged_record_costs_only_itself(layout, records, bad, data):
    items = [json.dumps(record) for record in records]
    at = data.draw(st.integers(1, len(items) - 1))
    items[at] = bad
    name = data.draw(st.sampled_from(["a.json", "a.jsonl"]))
    rows = rows_of(name, LAYOUTS[layout](items).encode())
    assert [bool(row.reason) for row in rows] == [number == at for number in range(len(records))]


@EVERY
@given(st.lists(st.tuples(TEXT, TEXT.filter(str.strip)), min_size=1, max_size=8), st.sampled_from([",", ";", "\t"]))
def test_every_row_of_csv_comes_out(cells, delimiter):
    import csv

    sink = io.StringIO()
    writer = csv.writer(sink, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("prompt", "completion"), *cells])
    rows = rows_of("a.csv", sink.getvalue().encode())
    assert [row.reason for row in rows] == [""] * len(cells)
    assert [row.messages[-1].content for row in rows] == [answer for _, answer in cells]


@EVERY
@given(st.integers(3, 40), st.data())
def test_csv_with_a_stray_quote_loses_only_the_rows_that_have_one(count, data):
    lines = [f"q{at},a{at}" for at in range(count)]
    at = data.draw(st.integers(0, count - 3))
    lines[at] = data.draw(st.sampled_from([f'"q{at},a{at}', f'q{at},"a{at}', f'q{at},"a"{at}', f'"q{at}" x,a']))
    rows = rows_of("a.csv", ("prompt,completion\n" + "\n".join(lines)).encode())
    assert [bool(row.reason) for row in rows] == [number == at for number in range(count)]


@EVERY
@given(st.text(st.sampled_from('",\n\rab;\t'), max_size=80))
def test_any_csv(text):
    rows_of("a.csv", ("prompt,completion\n" + text).encode())


def table(count, group):
    sink = io.BytesIO()
    data = pa.table(
        {"prompt": [f"q{at}" for at in range(count)], "completion": [f"a{at * 7919}" for at in range(count)]}
    )
    pq.write_table(data, sink, row_group_size=group, compression="none")
    return sink.getvalue()


def arrow(count, new):
    sink = io.BytesIO()
    data = pa.table({"prompt": [f"q{at}" for at in range(count)], "completion": ["a"] * count})
    with new(sink, data.schema) as writer:
        writer.write_table(data, max_chunksize=7)
    return sink.getvalue()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_page_of_parquet_loses_no_row_from_the_count(data):
    count = 60
    content = bytearray(table(count, 20))
    footer = int.from_bytes(content[-8:-4], "little") + 8
    at = data.draw(st.integers(4, len(content) - footer - 1))
    content[at] = data.draw(st.integers(0, 255))
    rows = rows_of("a.parquet", bytes(content))
    assert [row.line for row in rows] == list(range(1, count + 1))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["parquet", "stream", "file"]), st.data())
def test_tables_that_are_cut_or_changed_anywhere(kind, data):
    content = bytearray(
        table(30, 10) if kind == "parquet" else arrow(30, pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file)
    )
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[at:]
    else:
        content[at] ^= data.draw(st.integers(1, 255))
    rows_of("a.parquet" if kind == "parquet" else "a.arrow", bytes(content))


@EVERY
@given(st.sampled_from([".gz", ".zst"]), st.sampled_from(["jsonl", "json", "csv", "parquet", "arrow"]), st.data())
def test_archives_that_are_cut_keep_what_came_before(suffix, kind, data):
    lines = [json.dumps({"prompt": f"q{at}", "completion": str(at * 7919)}) for at in range(200)]
    plain = {
        "jsonl": "\n".join(lines).encode(),
        "json": f"[{', '.join(lines)}]".encode(),
        "csv": b"prompt,completion\n" + b"".join(b"q%d,a%d\n" % (at, at * 7919) for at in range(200)),
        "parquet": table(200, 50),
        "arrow": arrow(200, pa.ipc.new_stream),
    }[kind]
    content = pack(suffix, plain)
    rows = rows_of(f"a.{kind}{suffix}", content[: data.draw(st.integers(1, len(content) - 1))])
    if kind in ("jsonl", "json", "csv") and rows is not None:
        assert not any(row.reason for row in rows[:-1])
