"""The pool's words, counted once for BM25 and kept beside the pool's index, to be memory-mapped by every later scoring.

    STORE/index/bm25.safetensors    words (UTF-8, a line each), idf, starts, rows, gains: see `bm25.Bm25Index`

It is made again when the pool, the scored rows or the way of counting is another, or where it is damaged.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from gradsift.datastore.pool_files import pool_file
from gradsift.datastore.shards import ShardError, read_tensors, write_tensors
from gradsift.datastore.store import Store
from gradsift.datastore.verified import Checked
from gradsift.runtime import atomic
from gradsift.runtime.hashing import hash_parts
from gradsift.runtime.locks import waiting
from gradsift.runtime.progress import Progress
from gradsift.scoring.bm25 import Bm25Index, bm25_index

VERSION = "1"  # of how words are found, counted and kept
_TEXTS = 4096  # rows whose whole text is held at once
_ARRAYS = ("idf", "starts", "rows", "gains")


def words_path(store: Store) -> Path:
    """Where the words lie, or would."""
    return store.path / "index" / "bm25.safetensors"


def ensure_words(store: Store, progress: Progress) -> Bm25Index:
    """The words of the scored rows, counted where they are not kept; waits where another process is counting.

    Raises:
        StoreError: the pool is damaged. Cancelled: the run was asked to stop.
    """
    path, of, checked = words_path(store), _of(store), Checked(store.path)
    if (kept := read_words(path, of, checked)) is None:
        path.parent.mkdir(exist_ok=True)  # in a store that is there
        label = f"Waiting for the index of {store.path}: another process is making it"
        with waiting(path.parent / ".lock", label, progress):
            if (kept := read_words(path, of, checked)) is None:
                atomic.sweep(path.parent)
                progress.stage("index-bm25", "Counting words for BM25", len(store.scored_rows), "rows")
                kept = bm25_index(documents(store), progress.advance)
                write_words(path, kept, of)
    checked.save()
    return kept


def write_words(path: Path, index: Bm25Index, of: str) -> None:
    """Keep an index. of: what it was made of."""
    tensors = {name: torch.from_numpy(getattr(index, name)) for name in _ARRAYS}
    tensors["words"] = torch.frombuffer(bytearray("\n".join(index.words).encode() + b"\n"), dtype=torch.uint8)
    write_tensors(path, tensors, {"kind": "bm25-words", "of": of, "documents": index.documents})


def read_words(path: Path, of: str, checked: Checked | None = None) -> Bm25Index | None:
    """Map a kept index; None where there is none, it is damaged, or it was made of something else."""
    try:
        tensors, about = read_tensors(path, checked)
        if about["of"] != of:
            return None
        arrays = {name: tensors[name].numpy() for name in _ARRAYS}
        words = tensors["words"].numpy().tobytes().decode().split("\n")[:-1]
        return Bm25Index(about["documents"], words, **arrays)
    except (ShardError, KeyError):
        return None


def _of(store: Store) -> str:
    files = [store.manifest.files[pool_file(part)] for part in range(len(store.manifest.parts))]
    return hash_parts([f"{VERSION} {' '.join(files)} ".encode(), store.scored_rows.astype(np.int64).tobytes()])


def documents(store: Store) -> Iterator[str]:
    """The whole text of every scored row, its turns joined by line ends, for methods that compare words."""
    rows = store.scored_rows
    for start in range(0, len(rows), _TEXTS):
        for turns in store.texts(rows[start : start + _TEXTS])["messages"]:
            yield "\n".join(turn["content"] for turn in turns)
