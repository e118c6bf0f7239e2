"""The first rows of a pool as a build would read them, and what is learned of a conversation. Draws nothing.

Only tokenizers are loaded here, never weights.
"""

import glob
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from app.views.targets import encoder_of
from gradsift.config import BuildConfig
from gradsift.data.conversation import Conversation
from gradsift.data.preview import Preview, preview
from gradsift.data.reading import reading_of
from gradsift.datastore.store import Store
from gradsift.model.bundled import is_converted
from gradsift.runtime.errors import UsageError
from gradsift.runtime.hashing import hash_bytes, hash_json

if TYPE_CHECKING:
    from gradsift.data.encode import Encoder
    from gradsift.data.masks import Masked

BUNDLED = "smollm2"  # `gradsift.model.load.BUNDLED`, not imported here because it loads torch
FIRST = 200  # rows of a pool that a page reads
EACH = 3  # rows of each shape that it shows
LARGE = 50_000_000  # bytes of a file that a page does not read unasked
STAYS = 60  # seconds that a reading is kept: a folder may change without a change of its time
NOT_CONVERTED = (
    "The bundled model is not prepared on this machine yet, which takes half a minute: estimate the cost once, and "
    "what is learned can be shown here."
)


@dataclass(frozen=True, slots=True)
class Files:
    """What a person gave as a pool: paths, or uploaded files (name, bytes)."""

    paths: tuple[str, ...] = ()
    uploads: tuple[tuple[str, bytes], ...] = ()

    @property
    def key(self) -> str:
        """Changes with the files, as far as that can be seen without reading them."""
        stamps = [(path, *_stamp(path)) for path in self.paths]
        return hash_json([stamps, [(name, hash_bytes(data)) for name, data in self.uploads]])


def why_unasked(files: Files) -> str:
    """Why a page should not read these files until it is asked to, as a clause; "" if it should."""
    for path in files.paths:
        if not os.path.lexists(path) and not glob.has_magic(path) and "/" in path and path[0] not in "/.":
            return f"{path} is not on this machine, so its first rows have to be fetched"
        if os.path.isfile(path) and os.path.getsize(path) > LARGE and not path.endswith((".jsonl", ".parquet")):
            return f"{path} is large"
    return ""


def first_rows(files: Files, config: BuildConfig, encoder: "Encoder | None" = None) -> Preview:
    """The first rows, read as a build with `config` would read them; with an encoder, as its template takes them.

    Raises:
        PoolError: the files cannot be read.
    """
    reading = (config.columns, config.take, config.source_column)
    return _first(files.key, reading, encoder.fingerprint if encoder else "", files, config, encoder)


def encoder_for(config: BuildConfig) -> "Encoder":
    """The encoder of a build with `config`.

    Raises:
        GradsiftError: the model's tokenizer cannot be loaded, or does not fit the template.
    """
    if config.model == BUNDLED and not is_converted():
        raise UsageError(NOT_CONVERTED)
    folder = Path(config.model)
    stamps = [_stamp(str(folder / name)) for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")]
    return _load(config.model, config.template, hash_json([config.template_options, stamps]), config)


def mask_of(encoder: "Encoder", conversation: Conversation, max_length: int | None = None) -> "Masked":
    """What is learned of a conversation.

    Raises:
        RenderError: the template refuses it.
    """
    from gradsift.data.masks import mask

    return mask(encoder, conversation, max_length)


def mask_in(store: Store, conversation: Conversation, max_length: int | None = None) -> "Masked":
    """What is learned of a conversation under the store's model and template.

    Raises:
        GradsiftError: the store's model cannot be loaded here, or its template refuses the conversation.
    """
    return mask_of(encoder_of(store)[0], conversation, max_length)


@st.cache_resource(max_entries=8, ttl=STAYS, show_spinner=False)
def _first(
    key: str,
    reading: tuple[object, ...],
    fingerprint: str,
    _files: Files,
    _config: BuildConfig,
    _encoder: "Encoder | None",
) -> Preview:
    with tempfile.TemporaryDirectory() as folder:
        paths: Sequence[str | Path] = _files.paths or _written(Path(folder), _files.uploads)
        if _encoder is None:
            return preview(paths, reading_of(_config), FIRST, EACH)
        from gradsift.data.masks import refusal

        return preview(paths, reading_of(_config), FIRST, EACH, lambda row: refusal(_encoder, row.conversation))


def _written(folder: Path, uploads: Sequence[tuple[str, bytes]]) -> list[Path]:
    """Uploaded files under their own names, each in a folder of its own."""
    paths = []
    for number, (name, data) in enumerate(uploads):
        path = folder / str(number) / Path(name).name
        path.parent.mkdir()
        path.write_bytes(data)
        paths.append(path)
    return paths


@st.cache_resource(max_entries=4, show_spinner=False)
def _load(model: str, template: str, rest: str, _config: BuildConfig) -> "Encoder":
    from gradsift.data.encode import Encoder
    from gradsift.model.load import load_tokenizer

    return Encoder(load_tokenizer(model), template, _config.template_options)


def _stamp(path: str) -> tuple[int, int]:
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        return 0, 0
    return about.st_mtime_ns, about.st_size
