"""The pool's words, counted once for BM25, kept beside the pool's index and memory-mapped by every later scoring.

    STORE/index/bm25.safetensors    words (UTF-8, one per line), idf, starts, rows, gains: see `bm25.Bm25Index`

It is rebuilt when the pool, the scored rows or the way of counting changes, or when it is damaged.
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

VERSION = "1"  # of the way words are found, counted and stored
_TEXTS = 4096  # rows whose full text is held at once
_ARRAYS = ("idf", "starts", "rows", "gains")


def words_path(store: Store) -> Path:
    """Path of the index, whether it exists or not."""
    return store.path / "index" / "bm25.safetensors"


def ensure_words(store: Store, progress: Progress) -> Bm25Index:
    """The words of the scored rows, counted if there is no valid index; waits while another process counts them.

    Raises:
        StoreError: the pool is damaged. Cancelled: the run was cancelled.
    """
    path, of, checked = words_path(store), _of(store), Checked(store.path)
    if (index := read_words(path, of, checked)) is None:
        path.parent.mkdir(exist_ok=True)  # without parents: a deleted store must not come back
        label = f"Waiting for the index of {store.path}: another process is making it"
        with waiting(path.parent / ".lock", label, progress):
            if (index := read_words(path, of, checked)) is None:
                atomic.sweep(path.parent)
                progress.stage("index-bm25", "Counting words for BM25", len(store.scored_rows), "rows")
                index = bm25_index(documents(store), progress.advance)
                write_words(path, index, of)
    checked.save()
    return index


def write_words(path: Path, index: Bm25Index, of: str) -> None:
    """Write an index. of: hash of what it was made from."""
    tensors = {name: torch.from_numpy(getattr(index, name)) for name in _ARRAYS}
    tensors["words"] = torch.frombuffer(bytearray("\n".join(index.words).encode() + b"\n"), dtype=torch.uint8)
    write_tensors(path, tensors, {"kind": "bm25-words", "of": of, "documents": index.documents})


def read_words(path: Path, of: str, checked: Checked | None = None) -> Bm25Index | None:
    """Memory-map a stored index; None if it is missing, damaged or was made from something else."""
    try:
        tensors, metadata = read_tensors(path, checked)
        if metadata["of"] != of:
            return None
        arrays = {name: tensors[name].numpy() for name in _ARRAYS}
        words = tensors["words"].numpy().tobytes().decode().split("\n")[:-1]
        return Bm25Index(metadata["documents"], words, **arrays)
    except (ShardError, KeyError):
        return None


def _of(store: Store) -> str:
    files = [store.manifest.files[pool_file(part)] for part in range(len(store.manifest.parts))]
    return hash_parts([f"{VERSION} {' '.join(files)} ".encode(), store.scored_rows.astype(np.int64).tobytes()])


def documents(store: Store) -> Iterator[str]:
    """The full text of every scored row, its turns joined by line breaks, for methods that compare words."""
    rows = store.scored_rows
    for start in range(0, len(rows), _TEXTS):
        yield from (conversation.text for conversation in store.texts(rows[start : start + _TEXTS])["conversation"])
