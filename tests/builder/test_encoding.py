"""Several processes encode as one does, in the same order, and none of them outlives the build."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from gradsift.builder import encoding, ingest, records
from gradsift.builder.encoding import WorkerError, available_cpus, encode_rows
from gradsift.builder.records import SCHEMA
from gradsift.config import BuildConfig
from gradsift.data.conversation import Message
from gradsift.data.encode import Encoder
from gradsift.data.pool import Row
from gradsift.model.load import load_tokenizer
from gradsift.runtime.progress import Cancelled, Progress


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> Encoder:
    return Encoder(load_tokenizer(str(tiny_model)), "chat")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers also for a handful of rows, in chunks of ten."""
    monkeypatch.setattr(encoding, "FEW", 10)
    monkeypatch.setattr(encoding, "_CHUNK_ROWS", 10)


def row(number: int, answer: str = "the cat", reason: str = "") -> Row:
    messages = () if reason else (Message("user", f"question {number}"), Message("assistant", answer * (number % 7)))
    text = f"line {number}"
    return Row("f.jsonl", number + 1, text.encode(), "f", f"f:{number}", "", "", messages, "", "messages", reason)


def rows(count: int) -> Iterator[Row]:
    return (row(number, reason="bad" if number % 11 == 3 else "") for number in range(count))


def workers_of(process: int) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process).children():
        with suppress(psutil.NoSuchProcess):  # it has ended, perhaps without having been waited for yet
            if "encoding import serve" in " ".join(child.cmdline()):
                found.append(child)
    return found


def joined(chunks: Iterator[tuple[list[Row], pa.Table]]) -> tuple[list[Row], pa.Table]:
    taken, tables = zip(*chunks, strict=True)
    return [one for chunk in taken for one in chunk], pa.concat_tables(tables).combine_chunks()


def test_workers_give_what_one_process_gives(encoder: Encoder, few: None) -> None:
    given, alone = joined(encode_rows(rows(230), encoder, 96, first=7, workers=1))
    taken, together = joined(encode_rows(rows(230), encoder, 96, first=7, workers=3))
    assert together.schema == SCHEMA
    assert together.equals(alone)
    assert taken == given == list(rows(230))
    assert together["row"].to_pylist() == list(range(7, 237))
    assert together["reason"].to_pylist().count("bad") == 21
    assert workers_of(os.getpid()) == []


def test_a_pool_read_by_workers_is_the_same_file(
    encoder: Encoder, few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [{"role": "user", "content": "where?"}, {"role": "assistant", "content": "in box 3"}]
    lines = [json.dumps({"messages": turns, "id": str(n)}) if n % 9 else "{" for n in range(1300)]
    (tmp_path / "pool.jsonl").write_text("\n".join(lines))
    found = []
    for cpus in (1, 2):
        monkeypatch.setattr(encoding, "available_cpus", lambda cpus=cpus: cpus)
        config, out = BuildConfig(model="m"), tmp_path / f"{cpus}.parquet"
        intake = ingest.ingest([tmp_path / "pool.jsonl"], out, encoder, config, 96, Progress(quiet=True))
        found.append((intake, out.read_bytes()))
    (alone, content), (together, same) = found
    assert content == same
    assert alone.fingerprint == together.fingerprint
    assert (together.rows, together.usable, together.excluded.total()) == (1300, 1155, 145)


def test_a_small_pool_needs_no_workers(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_start", lambda: pytest.fail("a worker was started"))
    assert sum(len(chunk) for chunk, _ in encode_rows(rows(encoding.FEW - 1), encoder, 96, workers=8)) == 1999


def test_rows_are_read_no_further_than_the_workers_are(encoder: Encoder, few: None) -> None:
    read = []

    def endless() -> Iterator[Row]:
        for number in range(1_000_000):
            read.append(number)
            yield row(number)

    with closing(encode_rows(endless(), encoder, 96, workers=2)) as chunks:
        next(chunks)
        assert len(read) <= 10 * 2 * (2 + 1)
        (worker, *_) = workers_of(os.getpid())
        assert "libtorch" not in Path(f"/proc/{worker.pid}/maps").read_text()
    assert workers_of(os.getpid()) == []


def test_long_rows_make_small_chunks() -> None:
    long = Row("f", 1, b"x" * 400_000, "f", "i", "", "", (), "", "", "bad")
    assert [len(chunk) for chunk in encoding._chunks([long] * 7)] == [3, 3, 1]


def test_a_stopped_run_ends_its_workers(encoder: Encoder, few: None) -> None:
    progress = Progress(quiet=True)

    def run() -> None:
        with closing(encode_rows(rows(5000), encoder, 96, workers=2)) as chunks:
            for chunk, _ in chunks:
                progress._stop(signal.SIGINT, None)
                progress.advance(len(chunk))

    with pytest.raises(Cancelled):
        run()
    assert workers_of(os.getpid()) == []


def test_a_worker_that_dies_is_reported(encoder: Encoder, few: None) -> None:
    def run() -> None:
        for _ in encode_rows(rows(5000), encoder, 96, workers=2):
            for worker in workers_of(os.getpid()):
                worker.kill()

    with pytest.raises(WorkerError, match=r"has died \(exit code -9\).* run the same command again"):
        run()
    assert workers_of(os.getpid()) == []


def test_a_fault_of_ours_is_not_hidden(few: None) -> None:
    with pytest.raises(RuntimeError, match="'list' object has no attribute 'encode'"):
        list(encode_rows(rows(50), [], 96, workers=2))  # type: ignore[arg-type]


SCRIPT = """
import itertools, sys
from gradsift.builder import encoding
from gradsift.data.conversation import Message
from gradsift.data.encode import Encoder
from gradsift.data.pool import Row
from gradsift.model.load import load_tokenizer

print("started", flush=True)  # once: a worker does not run this program again
turns = (Message("user", "where?"), Message("assistant", "in box 3"))
rows = (Row("f", n, b"", "f", str(n), "", "", turns, "", "messages", "") for n in itertools.count())
for chunk, _ in encoding.encode_rows(rows, Encoder(load_tokenizer(sys.argv[1]), "chat"), 96, workers=2):
    print(len(chunk), flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_a_killed_program(tiny_model: Path, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "program.py").write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(tmp_path / "program.py"), str(tiny_model)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as program:
        assert program.stdout is not None
        assert [program.stdout.readline() for _ in range(3)] == ["started\n", "100\n", "100\n"]
        workers = workers_of(program.pid)
        assert len(workers) == 2
        program.send_signal(number)
        program.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while alive := [one for one in workers if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def test_as_many_as_this_process_may_use() -> None:
    if hasattr(os, "sched_getaffinity"):
        assert available_cpus() == len(os.sched_getaffinity(0))


def test_learned_tokens_are_kept_as_runs(encoder: Encoder) -> None:
    table = records.make_table([row(3), row(4, reason="bad")], 0, encoder, 96)
    encoded = encoder.encode(row(3).conversation, 96)
    assert table["ids"].to_pylist() == [encoded.ids, None]
    ((start, stop), none) = table["learned"].to_pylist()
    assert none is None
    assert encoded.supervised == [start <= position < stop for position in range(len(encoded.ids))]
