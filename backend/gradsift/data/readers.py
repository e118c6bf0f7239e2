"""From an input to a stream of records: JSON Lines, JSON, CSV, Parquet, Arrow or a `datasets` folder.

`records_of` chooses the reader by the file's name. A record that cannot be parsed has a reason instead of a value, and
reading continues. Where the file itself breaks off (a truncated archive), all earlier records are kept and a last one
says why. A file that is something else than its name says (a Git LFS pointer, an HTML page, UTF-16 text) is one record
whose reason names it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from gradsift.data.arrow_reader import read_arrow, read_parquet, read_saved_dataset
from gradsift.data.csv_reader import read_csv
from gradsift.data.json_reader import read_json
from gradsift.data.records import PoolError, Record
from gradsift.data.signatures import HEAD, disguise, pointer
from gradsift.data.streams import BREAKS, COMPRESSIONS, break_reason, data_suffix, open_stream, peek

_Reader = Callable[[IO[bytes], Path, list[str]], Iterator[Record]]


def records_of(path: Path, left_out: list[str] | None = None) -> Iterator[Record]:
    """Stream the records of one file or `datasets` folder. The format is what the given name says, links included.

    left_out: gets the names of what is in the file and not read: other splits, lists beside the one with the records.

    Raises:
        PoolError: the file cannot be opened, or is not of the type that its name says.
    """
    notes: list[str] = [] if left_out is None else left_out
    if path.is_dir():
        yield from read_saved_dataset(path, notes)
        return
    if path.is_symlink() and not path.exists():
        yield Record(1, b"", None, "a link to data that is not here; fetch it first, as with git annex get or dvc pull")
        return
    suffix = data_suffix(path)
    tables: dict[str, _Reader] = {".parquet": read_parquet, ".arrow": read_arrow}
    try:
        with open_stream(path) as stream:
            if reason := _disguise(path, stream, suffix):
                yield Record(1, b"", None, reason)
            elif suffix in (".csv", ".tsv"):
                yield from read_csv(stream, path)
            else:
                yield from tables.get(suffix, read_json)(stream, path, notes)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise PoolError(f"Cannot read {path}: {error.strerror}. Check the path and its permissions.") from error


def _disguise(path: Path, stream: IO[bytes], suffix: str) -> str:
    """Why the file as a whole cannot be what its name says, or ""."""
    if path.suffix.lower() in COMPRESSIONS:
        with open(path, "rb") as file:  # a pointer is not compressed, whatever its name
            if reason := pointer(file.read(HEAD)):
                return reason
    try:
        return disguise(peek(stream)[:HEAD], suffix)
    except BREAKS as error:
        return break_reason(error)
