"""From a file to its bytes and lines, through gzip or Zstandard, in bounded memory.

`open_stream` opens a file; `split_lines` yields numbered lines. Where the file breaks off (a truncated archive), the
last line comes as far as it could be read, with the reason.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
COMPRESSIONS = (".gz", ".zst")
BREAKS = (EOFError, OSError, zlib.error)  # raised when a damaged file is read
LONGEST_LINE = 128 * 2**20  # bytes; a longer line is reported and skipped, so that a small archive cannot fill memory
_CHUNK = 2**18
_EXCERPT = 2**16  # bytes kept of an overlong line


def data_suffix(path: Path) -> str:
    """The suffix of the format, compression aside: `.jsonl` for `a.jsonl.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


@contextmanager
def open_stream(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed if its name ends with .gz or .zst."""
    suffix = path.suffix.lower()
    with open(path, "rb", buffering=_CHUNK) as file:
        if suffix == ".gz":
            yield cast(IO[bytes], gzip.GzipFile(fileobj=file))
        elif suffix == ".zst":
            yield io.BufferedReader(_Zstandard(file), _CHUNK)
        else:
            yield file


def peek(stream: IO[bytes]) -> bytes:
    """The next bytes of a stream, some thousand at least if it has them, without reading past them.

    Raises:
        One of `BREAKS` if there are none because the file is damaged.
    """
    return stream.peek(_CHUNK)  # type: ignore[attr-defined]  # every stream of `open_stream` has it


def split_lines(
    stream: IO[bytes], longest: int = LONGEST_LINE, returns: bool = False
) -> Iterator[tuple[int, bytes, str]]:
    """Yield (line number from 1, line without its newline, why it is incomplete or ""); blank lines are skipped.

    A byte order mark is not part of the first line. Memory: one line and a chunk.

    returns: a carriage return alone ends a line, too.
    """
    number = 1
    pending = bytearray()
    problem = broken = ""
    while not broken:
        try:
            chunk = stream.read1(_CHUNK)  # type: ignore[attr-defined]  # every stream of `open_stream` has it
        except BREAKS as error:
            broken = break_reason(error)
            break
        if not chunk:
            break
        if returns:
            chunk = chunk.replace(b"\r", b"\n")
        for index, piece in enumerate(chunk.split(b"\n")):
            if index:
                yield from _line(number, pending, problem)
                number, pending, problem = number + 1, bytearray(), ""
            if not problem:
                pending += piece
            if len(pending) > longest:
                problem = f"longer than {longest >> 20} MiB, of which the first {_EXCERPT >> 10} KiB are kept here"
                del pending[_EXCERPT:]
    if broken:
        yield number, bytes(pending), broken
    else:
        yield from _line(number, pending, problem)


def break_reason(error: BaseException) -> str:
    """The reason, as a clause, that a file cannot be read to its end."""
    return f"the file breaks off here: {clause(error)}"


def clause(error: BaseException) -> str:
    """An error's message as a clause: on one line, without a full stop."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300].rstrip(".")


def _line(number: int, line: bytearray, problem: str) -> Iterator[tuple[int, bytes, str]]:
    data = bytes(line).removeprefix(b"\xef\xbb\xbf") if number == 1 else bytes(line)
    if problem or data.strip():
        yield number, data.removesuffix(b"\r"), problem


class _Zstandard(io.RawIOBase):
    """Decompress frame after frame; unlike the library's own reader, a truncated file raises EOFError."""

    def __init__(self, file: IO[bytes]) -> None:
        import zstandard

        self._file = file
        self._error = zstandard.ZstdError
        self._new = lambda: zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()
        self._frame = self._new()
        self._started = False
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            data = self._frame.unused_data if self._frame.eof else b""
            # A few KiB of zeros expand to many MiB: small reads bound the memory.
            data = data or self._file.read(4096)
            if not data:
                if self._started and not self._frame.eof:
                    raise EOFError("Compressed file ended before the end of its last frame")
                return 0
            if self._frame.eof:
                self._frame = self._new()
            self._started = True
            try:
                self._output = memoryview(self._frame.decompress(data))
            except self._error as error:
                raise OSError(str(error)) from error
        size = min(len(buffer), len(self._output))
        buffer[:size] = self._output[:size]
        self._output = self._output[size:]
        return size
