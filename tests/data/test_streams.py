"""Lines and compression: complete lines are kept byte for byte, and breaks are reported."""

import gzip
import io

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gradsift.data.streams import open_stream, split_lines


@given(st.lists(st.binary().map(lambda data: data.replace(b"\n", b"").strip())))
def test_lines_come_back_byte_for_byte(lines):
    stream = io.BytesIO(b"\n".join(lines))
    expected = [(number, line, "") for number, line in enumerate(lines, 1) if line]
    if lines and lines[0].startswith(b"\xef\xbb\xbf"):
        return
    assert list(split_lines(stream)) == expected


def test_newlines_blank_lines_and_byte_order_mark():
    stream = io.BytesIO(b"\xef\xbb\xbf a\r\n\n  \r\nb \x0b\r\rc\x85")
    assert list(split_lines(stream)) == [(1, b" a", ""), (4, b"b \x0b\r\rc\x85", "")]


def test_lines_of_many_mebibytes_cross_chunks():
    long = b"x" * (5 * 2**20)
    assert [line for _, line, _ in split_lines(io.BytesIO(b"a\n" + long + b"\n\nb\n"))] == [b"a", long, b"b"]


def test_a_line_beyond_the_limit_is_told_and_skipped():
    lines = list(split_lines(io.BytesIO(b"a\n" + b"x" * 2**21 + b"\nb"), longest=2**20))
    assert [(number, problem[:17]) for number, _, problem in lines] == [(1, ""), (2, "longer than 1 MiB"), (3, "")]
    assert len(lines[1][1]) == 2**16


def _write(path, data):
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(data))
    elif path.suffix == ".zst":
        half = len(data) // 2  # two frames, as parallel compressors write them
        path.write_bytes(b"".join(zstandard.compress(part) for part in (data[:half], data[half:])))
    return path


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed(tmp_path, suffix):
    data = b"".join(b"%d\n" % number for number in range(100_000))
    with open_stream(_write(tmp_path / f"a.jsonl{suffix}", data)) as stream:
        assert b"".join(line + b"\n" for _, line, _ in split_lines(stream)) == data


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_truncated_keeps_what_came_before_and_tells_the_line(tmp_path, suffix):
    data = b"".join(b'{"n": %d, "hash": %d}\n' % (number, hash((number, "x"))) for number in range(100_000))
    path = _write(tmp_path / f"a.jsonl{suffix}", data)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with open_stream(path) as stream:
        *lines, (number, part, problem) = split_lines(stream)
    assert len(lines) > 1000
    assert (
        b"".join(line + b"\n" for _, line, _ in lines) + part == data[: sum(len(x[1]) + 1 for x in lines) + len(part)]
    )
    assert number == len(lines) + 1
    assert problem.startswith("the file breaks off here: Compressed file ended")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_not_compressed_at_all(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b'{"a": 1}\n')
    with open_stream(path) as stream:
        ((number, _, problem),) = split_lines(stream)
    assert number == 1
    assert "breaks off" in problem
