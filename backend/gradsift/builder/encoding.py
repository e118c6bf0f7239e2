"""A pool's rows, encoded in their order: a few in this process, many by several.

Rendering a template is Python, so threads would wait for each other. A worker is a fresh Python that imports neither
torch nor the calling program (a fork would inherit torch's threads, and multiprocessing would run the program's main
module again). It reads chunks of rows from its standard input until that ends, and therefore ends when this process
does, however it dies.
"""

import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain
from queue import Empty, SimpleQueue
from typing import BinaryIO

import pyarrow as pa

from gradsift.builder.records import make_table
from gradsift.data.encode import Encoder
from gradsift.data.pool import Row
from gradsift.runtime.errors import GradsiftError

FEW = 2000  # rows that are not worth the seconds in which workers start
_CHUNK_ROWS, _CHUNK_BYTES = 100, 1_000_000  # of what a worker encodes at a time
_WORKER = "import sys; sys.path[:] = sys.argv[1:]; from gradsift.builder.encoding import serve; serve()"

Chunk = list[Row]


class WorkerError(GradsiftError):
    """A process that encodes rows has died."""


def encode_rows(
    rows: Iterable[Row], encoder: Encoder, max_length: int, first: int = 0, workers: int | None = None
) -> Generator[tuple[Chunk, pa.Table], None, None]:
    """Chunks of consecutive rows, each with its records (records.py); the result does not depend on the workers.

    first: number of the first row. workers: processes, by default one for every CPU that this process may use; with
    one, or with fewer than `FEW` rows, all is done here. Memory: two chunks for every worker.

    Raises:
        WorkerError: a worker has died.
    """
    count, chunks = workers or available_cpus(), _chunks(rows)
    begin, size = [], 0
    while size < FEW and count > 1 and (chunk := next(chunks, None)):
        begin.append(chunk)
        size += len(chunk)
    if size < FEW:
        for chunk in chain(begin, chunks):
            yield chunk, make_table(chunk, first, encoder, max_length)
            first += len(chunk)
        return
    waiting: deque[tuple[Chunk, Future[pa.Table]]] = deque()
    with _workers(count, pickle.dumps((encoder, max_length))) as submit:
        for chunk in chain(begin, chunks):
            waiting.append((chunk, submit(chunk, first)))
            first += len(chunk)
            if len(waiting) > 2 * count:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _chunks(rows: Iterable[Row]) -> Iterator[Chunk]:
    chunk: Chunk = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += len(row.raw)
        if len(chunk) == _CHUNK_ROWS or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _result(chunk: Chunk, future: Future[pa.Table]) -> tuple[Chunk, pa.Table]:
    return chunk, future.result()


# -- this process -----------------------------------------------------------------------------------------------------


@contextmanager
def _workers(count: int, setup: bytes) -> Iterator[Callable[[Chunk, int], Future[pa.Table]]]:
    """A function that has a chunk encoded by one of `count` workers, which start as they are needed.

    setup: what a worker reads first. One thread waits for each worker.
    """
    started: list[subprocess.Popen] = []
    idle: SimpleQueue[subprocess.Popen] = SimpleQueue()

    def encode(chunk: Chunk, first: int) -> pa.Table:
        try:
            worker = idle.get_nowait()
        except Empty:
            worker = _start()
            started.append(worker)
            _send(worker, setup)
        _send(worker, pickle.dumps((chunk, first)))
        table = _receive(worker)
        idle.put(worker)
        return table

    threads = ThreadPoolExecutor(count)
    try:
        yield lambda chunk, first: threads.submit(encode, chunk, first)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in started:  # whoever waits for one of them wakes up
            worker.kill()
        threads.shutdown()
        for worker in started:  # also one that was still starting
            _end(worker)


def _start() -> subprocess.Popen:
    """A worker, in a session of its own: what a terminal sends to this process is none of its business."""
    command = [sys.executable, "-c", _WORKER, *sys.path]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)


def _send(worker: subprocess.Popen, message: bytes) -> None:
    assert worker.stdin is not None
    with suppress(BrokenPipeError):  # it has died, which `_receive` reports
        worker.stdin.write(message)
        worker.stdin.flush()


def _receive(worker: subprocess.Popen) -> pa.Table:
    assert worker.stdout is not None
    try:
        answer = pickle.load(worker.stdout)
    except (EOFError, pickle.UnpicklingError) as error:
        raise WorkerError(
            f"A process that encodes rows has died (exit code {worker.wait()}), perhaps for lack of memory: free some "
            "and run the same command again."
        ) from error
    if isinstance(answer, str):
        raise RuntimeError(answer)
    return answer


def _end(worker: subprocess.Popen) -> None:
    worker.kill()
    worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        with suppress(BrokenPipeError):  # of what it was still to read
            pipe.close()  # type: ignore[union-attr]


# -- a worker ---------------------------------------------------------------------------------------------------------


def serve() -> None:
    """Encode the chunks that come from standard input, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    with suppress(EOFError, BrokenPipeError, pickle.UnpicklingError):  # the process that started this one has died
        _answer(requests, answers)
    os._exit(0)  # without another attempt to write what is left


def _answer(requests: BinaryIO, answers: BinaryIO) -> None:
    encoder, max_length = pickle.load(requests)
    while True:
        chunk, first = pickle.load(requests)
        try:
            answer = make_table(chunk, first, encoder, max_length)
        except Exception:
            answer = traceback.format_exc()
        pickle.dump(answer, answers)
        answers.flush()
