"""The pool's index, which the app's pages filter by and search in; derived from the pool, rebuilt when stale.

    STORE/index/rows.parquet    every row of the pool, including excluded ones
        row         pool row number: 0, 1, 2, ...
        script      of most of the conversation's letters, see `script_of`
        near        first row of its group of near-duplicates (see near_duplicates.py), itself if it has none
        user, assistant, system, tool, text    lower-cased text of that role's turns, joined by newlines: what is said,
                    an assistant's reasoning and calls, a tool's results; `text` is that of rows without turns

The index is not part of a build's reproducible output. Readers need no lock: the file appears complete, by renaming.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import regex

from gradsift.data.conversation import Conversation
from gradsift.datastore.store import Store
from gradsift.runtime import atomic
from gradsift.runtime.errors import StoreError
from gradsift.runtime.locks import waiting
from gradsift.runtime.progress import Progress
from gradsift.text.near_duplicates import near_duplicates

VERSION = "2"  # of the columns and how they are computed
ROLES = ("user", "assistant", "system", "tool", "text")
SAMPLE = 2000  # characters of a turn that decide its script
SCRIPTS = (
    *("Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "Bengali", "Han", "Hiragana", "Katakana"),
    *("Hangul", "Thai", "Tamil", "Telugu", "Kannada", "Malayalam", "Gujarati", "Gurmukhi", "Oriya", "Sinhala"),
    *("Lao", "Khmer", "Myanmar", "Tibetan", "Georgian", "Armenian", "Ethiopic", "Mongolian", "Syriac", "Thaana"),
    *("Cherokee", "Tifinagh", "Javanese", "Yi"),
)
_SCRIPT = regex.compile("|".join(rf"(?P<{name}>\p{{Script={name}}})" for name in SCRIPTS))
_ROW_GROUP = 8000
_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("script", pa.dictionary(pa.int32(), pa.string())),
        ("near", pa.int64()),
        *((role, pa.string()) for role in ROLES),
    ]
)


def index_path(store: Store) -> Path:
    """Path of the index, whether or not it exists."""
    return store.path / "index" / "rows.parquet"


def has_index(store: Store) -> bool:
    """Whether the index exists and matches this pool and version."""
    path = index_path(store)
    try:
        stat = path.stat()
        metadata = _read_metadata(path, (stat.st_mtime_ns, stat.st_ino))
    except (OSError, pa.ArrowException):
        return False
    return all(metadata.get(key.encode()) == value.encode() for key, value in _metadata(store).items())


@lru_cache(maxsize=64)
def _read_metadata(path: Path, changed: tuple[int, int]) -> dict[bytes, bytes]:
    """The index's own metadata, cached because a page reads it often. changed: the file's time and inode."""
    return pq.read_schema(path).metadata or {}


def require_index(store: Store) -> Path:
    """The path of the index.

    Raises:
        StoreError: the index is missing or stale.
    """
    if not has_index(store):
        raise StoreError(f"{store.path} has no index of its texts yet: run gradsift score, or repeat the build.")
    return index_path(store)


def ensure_index(store: Store, progress: Progress | None = None) -> None:
    """Build the index if it is missing or stale; wait if another process is building it.

    Raises:
        StoreError: the pool is damaged. Cancelled: the run was cancelled.
    """
    if has_index(store):
        return
    progress, folder = progress or Progress(quiet=True), index_path(store).parent
    folder.mkdir(exist_ok=True)
    with waiting(folder / ".lock", f"Waiting for the index of {store.path}: another process is building it", progress):
        if has_index(store):
            return
        atomic.sweep(folder)
        store.check_pool()
        groups = _groups(store, folder, progress)
        progress.stage("index", "Indexing the texts", store.manifest.rows, "rows")
        with (
            atomic.open_for_write(index_path(store)) as file,
            pq.ParquetWriter(file, _SCHEMA.with_metadata(_metadata(store)), compression="lz4") as writer,
        ):
            for start, conversations in _conversations(store):
                stop = start + len(conversations)
                columns = [np.arange(start, stop), list(map(script_of, conversations)), groups[start:stop]]
                columns += [[_text(conversation, role) for conversation in conversations] for role in ROLES]
                arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
                writer.write_table(pa.Table.from_arrays(arrays, schema=writer.schema))
                progress.advance(stop - start)


def scripts(store: Store) -> np.ndarray:
    """(rows in pool,) the script of every row, by pool row number.

    Raises:
        StoreError: the index is missing or damaged.
    """
    return _column(store, "script").astype(str)


def near(store: Store) -> np.ndarray:
    """(rows in pool,) int64: the first row of each row's group of near-duplicates, by pool row number.

    Raises:
        StoreError: the index is missing or damaged.
    """
    return _column(store, "near")


def script_of(conversation: Conversation) -> str:
    """The Unicode script of most letters among the first characters of every turn.

    "Japanese" if Hiragana and Katakana make up at least a tenth of Hiragana, Katakana and Han; "Other" for a script
    that is not in `SCRIPTS`; "None" if there are no letters. Ties go to the first in `SCRIPTS`.
    """
    sample = "".join(message.content[:SAMPLE] for message in conversation.messages)
    if sample.isascii():
        return "Latin" if any(map(str.isalpha, sample)) else "None"
    counts: Counter[str] = Counter()
    for character, count in Counter(sample).items():
        counts[_script(character)] += count
    kana = counts["Hiragana"] + counts["Katakana"]
    if kana and 10 * kana >= kana + counts["Han"]:
        counts["Japanese"] = kana + counts["Han"]
        counts["Han"] = counts["Hiragana"] = counts["Katakana"] = 0
    del counts[""]
    return max(("Japanese", *SCRIPTS, "Other"), key=counts.__getitem__) if counts.total() else "None"


@cache
def _script(character: str) -> str:
    """A character's script, "Other", or "" if it is not a letter or belongs to all scripts alike."""
    if not character.isalpha():
        return ""
    match = _SCRIPT.match(character)
    return str(match.lastgroup) if match else "" if regex.match(r"\p{Script=Common}", character) else "Other"


def _groups(store: Store, folder: Path, progress: Progress) -> np.ndarray:
    progress.stage("near", "Finding near-duplicates", store.manifest.rows, "rows")
    texts = (conversation.text for _, part in _conversations(store) for conversation in part)
    with tempfile.TemporaryFile(dir=folder) as scratch:
        return near_duplicates(texts, scratch, progress.advance)


def _conversations(store: Store) -> Iterator[tuple[int, list[Conversation]]]:
    """The whole pool in blocks: the first row number and every row's conversation."""
    for start in range(0, store.manifest.rows, _ROW_GROUP):
        stop = min(start + _ROW_GROUP, store.manifest.rows)
        yield start, store.texts(np.arange(start, stop))["conversation"].tolist()


def _text(conversation: Conversation, role: str) -> str:
    return "\n".join(message.text for message in conversation.messages if message.role == role).lower()


def _metadata(store: Store) -> dict[str, str]:
    hashes = (store.manifest.files[name] for name in store.pool_names)
    return {"gradsift_index": VERSION, "pool": " ".join(hashes)}


def _column(store: Store, name: str) -> np.ndarray:
    path = require_index(store)
    try:
        return pq.read_table(path, columns=[name])[name].combine_chunks().to_numpy(zero_copy_only=False)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path} is damaged ({error}); delete it and run gradsift score again.") from error
