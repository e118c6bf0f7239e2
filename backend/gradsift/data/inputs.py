"""What the inputs of a pool are: each file, saved data set or hub id, with its printed name and its source.

    data.jsonl   a file, in the format that its own name says, links included
    folder/      every readable file below it, sorted
    x/*.parquet  what a pattern matches
    org/name     a data set on the Hugging Face hub, as org/name@revision:configuration:split
    code=PATH    any of these, with the name of its source

Of a folder or pattern, files that are a test or validation split by their name or folder are left out; a path or a
pattern that names them has them read. A file that is named twice is read once.
"""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gradsift.data.arrow_reader import is_saved_dataset
from gradsift.data.hub_reader import NOTATION, hub_name
from gradsift.data.records import PoolError
from gradsift.data.signatures import refusal
from gradsift.data.sources import Place, name_sources, split_words
from gradsift.data.streams import FORMATS, data_suffix

_NO_DATA = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "_delta_log"})
_CACHED = re.compile(r"cache-[0-9a-f]+.*\.arrow|tmp\w+\.arrow")  # what `datasets` derives from a data set
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://?(.*)")
_HUB_PAGE = re.compile(r"(?:(?:www\.)?(?:huggingface\.co|hf\.co)/)?datasets/([^/@]+/[^/@]+?)(?:@([^/]+))?(?:/.*)?")


@dataclass(frozen=True, slots=True)
class Input:
    """One thing to read. path: as it was given, not what a link leads to; None for a hub id."""

    name: str  # base name; path relative to the folder or pattern; or hub id
    path: Path | None
    source: str = ""  # rows that name none are of this one
    given: bool = False  # whether a person gave the source's name


@dataclass
class Inputs:
    """What is read, in this order, and the names of the files that were left out."""

    read: list[Input] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def find_inputs(paths: Sequence[str | Path], whole: bool = False) -> Inputs:
    """The inputs that paths, patterns and hub ids stand for.

    whole: also read the test and validation files of folders and patterns.

    Raises:
        PoolError: a path does not exist or has an unknown type, or there is nothing to read.
    """
    found: dict[Path | str, Input] = {}
    left_out: dict[Path | str, str] = {}
    try:
        for given in paths:
            source, path = _named(given)
            entries = list(_expand(path))
            spared = frozenset() if whole else _held_out(entries, str(path))
            for entry in entries:
                key = entry.path.resolve() if entry.path else entry.name
                if entry in spared:
                    left_out.setdefault(key, entry.name)
                else:
                    found.setdefault(key, Input(entry.name, entry.path, source, bool(source)))
    except OSError as error:
        raise PoolError(f"Cannot access {error.filename}: {error.strerror}. Check the path.") from error
    if not found:
        raise PoolError("No input: give a file, a folder, a pattern or a data set on the Hugging Face hub.")
    return Inputs(_with_sources(list(found.values())), [name for key, name in left_out.items() if key not in found])


def _named(given: str | Path) -> tuple[str, str | Path]:
    """The source and the path of NAME=PATH; no source if a path of that name exists, or none is given."""
    name, _, path = str(given).partition("=")
    if not name.strip() or not path or "/" in name or _exists(str(given)):
        return "", given
    return name.strip(), path


def _exists(text: str) -> bool:
    path = Path(text).expanduser()
    return os.path.lexists(path) or (glob.has_magic(text) and next(glob.iglob(str(path), recursive=True), "") != "")


def _expand(pattern: str | Path) -> Iterator[Input]:
    path, text = Path(pattern).expanduser(), str(pattern)
    if path.is_dir():
        files = list(_inside(path))
        if not files:
            raise PoolError(f"The folder {path} holds no readable file; the formats are {_formats()}.")
        yield from files
    elif path.exists():
        if data_suffix(path) not in FORMATS:
            raise PoolError(f"{path} is of an unknown type; the formats are {_formats()}.{refusal(path)}")
        yield Input(_printable(path.name), path)
    elif path.is_symlink():
        raise PoolError(f"{path} is a link to {os.readlink(path)}, which does not exist: {_FETCH}.")
    elif glob.has_magic(text) and not _URL.match(text):
        yield from _matching(path)
    elif hub_name(text) and data_suffix(path) not in FORMATS:
        yield Input(text, None)
    else:
        raise PoolError(_not_there(text))


_FETCH = "fetch the data first (git annex get, dvc pull, or download the data set again)"


def _inside(folder: Path, root: Path | None = None, above: tuple[Path, ...] = ()) -> Iterator[Input]:
    """The readable files below a folder, sorted; a saved data set counts as one file; hidden files are skipped."""
    root = root or folder
    if folder.resolve() in above:  # a link to a folder above it
        return
    above = (*above, folder.resolve())
    if is_saved_dataset(folder):
        name = str(folder.relative_to(root)) if folder != root else Path(os.path.abspath(folder)).name
        yield Input(_printable(name), folder)
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in _NO_DATA or _CACHED.fullmatch(path.name):
            continue
        if path.is_dir():
            yield from _inside(path, root, above)
        elif data_suffix(path) in FORMATS and (path.is_file() or path.is_symlink()):
            yield Input(_printable(str(path.relative_to(root))), path)


def _matching(pattern: Path) -> Iterator[Input]:
    root = _root(pattern)
    matched = False
    for path in sorted(Path(name) for name in glob.glob(str(pattern), recursive=True)):
        below = list(_inside(path, root)) if path.is_dir() else []
        if not path.is_dir() and data_suffix(path) in FORMATS:
            below = [Input(_printable(str(path.relative_to(root))), path)]
        matched = matched or bool(below)
        yield from below
    if not matched:
        raise PoolError(f"No readable file matches {pattern}; the formats are {_formats()}.")


def _root(pattern: Path) -> Path:
    magic = [glob.has_magic(part) for part in pattern.parts].index(True)
    return Path(*pattern.parts[:magic])


def _held_out(entries: list[Input], given: str) -> frozenset[Input]:
    """The test and validation files among what a folder or pattern stands for, unless it asks for them.

    Raises:
        PoolError: there is nothing else.
    """
    path = Path(given).expanduser()
    if path.is_dir():
        root, asked = path, frozenset[str]()
    elif glob.has_magic(given) and not path.exists():
        root = _root(path)
        asked = split_words(re.sub(r"[*?]", "", str(path.relative_to(root))))
    else:
        return frozenset()
    files = [entry for entry in entries if entry.path and entry.path != path]
    held_out = [entry for entry in files if split_words(entry.name) - asked]
    if held_out and len(held_out) == len(entries):
        if split_words(f"{root.name}/"):
            return frozenset()
        names = ", ".join(entry.name for entry in held_out[:3]) + (", ..." if len(held_out) > 3 else "")
        raise PoolError(
            f"{given} holds only test or validation files ({names}): if they are meant, give their own paths, as "
            f"{held_out[0].path}."
        )
    return frozenset(held_out)


def _with_sources(inputs: list[Input]) -> list[Input]:
    """The inputs with the names of their sources; those that a person named keep them."""
    taken = {entry.source for entry in inputs if entry.given}
    names = iter(name_sources([_place(entry) for entry in inputs if not entry.given], taken))
    return [entry if entry.given else replace(entry, source=_printable(next(names))) for entry in inputs]


def _place(entry: Input) -> Place:
    if entry.path is None:
        repository, _, more = entry.name.partition("@" if "@" in entry.name else ":")
        organisation, _, name = repository.partition("/")
        return Place((organisation,), f"{name}:{more}" if more else name)
    *folders, name = Path(os.path.abspath(entry.path)).parts[1:]
    return Place(tuple(folders), name, entry.name.count("/"))


def _not_there(text: str) -> str:
    """What to do about an input that is no path, as a sentence."""
    match = _URL.match(text)
    if not match or len(match[1]) < 2:
        return f"{text} does not exist: check the path. A data set on the hub is named {NOTATION}."
    scheme, rest = match[1].lower(), match[2].lstrip("/")
    if page := _HUB_PAGE.fullmatch(rest.partition("?")[0]) if scheme in ("hf", "http", "https") else None:
        revision = f"@{page[2]}" if page[2] else ""
        return f"{text} is an address on the Hugging Face hub: give the data set as {page[1]}{revision} ({NOTATION})."
    if scheme == "file":
        return f"{text} is an address: give the path, as /{rest}."
    tool = {"s3": " (aws s3 cp)", "gs": " (gcloud storage cp)", "az": " (az storage blob download)"}.get(scheme, "")
    return (
        f"{text} is an address, and only local files and the hub are read: download it first{tool}, then give the file."
    )


def _formats() -> str:
    return f"{', '.join(FORMATS)}, each also with .gz or .zst"


def _printable(name: str) -> str:
    """A file name as valid UTF-8 text, whatever bytes it has."""
    return os.fsencode(name).decode("utf-8", "replace")
