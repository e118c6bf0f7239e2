"""Fixtures for all tests: the bundled model, a toy model with a real tokenizer, real data, a clean home."""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may access a model hub
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same everywhere, so that sums have the same order
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads sleep: spinning takes four times as long

import pytest

if TYPE_CHECKING:
    from gradsift.config import BuildConfig
    from gradsift.datastore.store import Store

pytest_plugins = ["toy"]

ROOT = Path(__file__).resolve().parents[1]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

TOY_TEXT = [
    "the cat sat on the mat and the dog sat on the cat",
    "what is the capital of the country? the answer is in the text",
    "user assistant system the question and the answer",
]

TOY_THINGS = ["cat", "dog", "capital", "country", "text"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that this machine cannot run, with a readable reason."""
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not _cuda():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))
    if not _chromium():
        for item in items:
            if item.get_closest_marker("browser"):
                item.add_marker(pytest.mark.skip(reason="no chromium on this machine: `apt-get install chromium`"))


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty `XDG_DATA_HOME` for each test; the cache stays, so that the bundled model is converted only once."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium to drive with playwright (`executable_path`)."""
    path = _chromium()
    if path is None:
        pytest.skip("no chromium on this machine: `apt-get install chromium`")
    return path


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of the bundled model, converted on first use."""
    from gradsift.model.bundled import BundledModelError, ensure_smollm2

    try:
        return ensure_smollm2()
    except BundledModelError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real pools and targets next to the checkout, for measurements; absent on most machines."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the measuring data (../shared/data) is not on this machine")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a two-layer Llama (hidden 32, window 512) and a byte-level BPE tokenizer with a ChatML template.

    The weights and vocabulary are the same in every run. The weights are large enough (0.2) for gradients above noise.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny") / "tiny-llama"
    tokenizer = _toy_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 42 lines in two JSON Lines files (sources `facts` and `talk`), two of which cannot be used."""
    folder = tmp_path_factory.mktemp("pool")
    facts = [
        _line(f"what is in box {n}?", f"in box {n} is the {TOY_THINGS[n % 5]} of the {TOY_THINGS[n // 5]}")
        for n in range(25)
    ]
    talk = [_line(f"tell me of the {TOY_THINGS[n % 5]}, {n}", "the cat sat " * (n + 1)) for n in range(15)]
    facts[6:6] = ['{"messages": [{"role": "user", "content": "half a line']
    talk[3:3] = [json.dumps({"messages": [{"role": "user", "content": "and no answer"}]})]
    (folder / "facts.jsonl").write_text("\n".join(facts) + "\n")
    (folder / "talk.jsonl").write_text("\n".join(talk) + "\n")
    return folder


@pytest.fixture(scope="session")
def tiny_targets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three target examples in two subtasks, the last with a prefix."""
    path = tmp_path_factory.mktemp("targets") / "targets.jsonl"
    prefix = {"prefix": "The answer is:"}
    rows = [_line("where is the cat?", "in box 3", subtask="boxes"), _line("and the dog?", "in box 4", subtask="boxes")]
    path.write_text("\n".join([*rows, _line("say it", "the cat sat", subtask="cats", **prefix)]) + "\n")
    return path


@pytest.fixture(scope="session")
def tiny_config(tiny_model: Path) -> "BuildConfig":
    """A build of the tiny model: two checkpoints, shards of eight rows, two kinds of gradient."""
    from gradsift.config import BuildConfig

    return BuildConfig(
        model=str(tiny_model),
        max_length=96,
        warmup_fraction=0.5,
        epochs=2,
        batch_size=4,
        lr=2e-3,
        lora_rank=4,
        dim=256,
        gradients=("adam", "sgd"),
    )


@pytest.fixture(scope="session")
def tiny_store(tiny_pool: Path, tiny_config: "BuildConfig", tmp_path_factory: pytest.TempPathFactory) -> "Store":
    """The finished store of `tiny_pool` and `tiny_config`. Tests that change a store use `tiny_copy`."""
    from gradsift.builder.build import build
    from gradsift.runtime.progress import Progress

    out = tmp_path_factory.mktemp("store") / "tiny"
    return build([tiny_pool], out, tiny_config, progress=Progress(quiet=True))


@pytest.fixture
def tiny_copy(tiny_store: "Store", tmp_path: Path) -> "Store":
    """A copy of `tiny_store`, without scorings, that the test may change."""
    from gradsift.datastore.store import Store

    left_out = shutil.ignore_patterns("scorings", "base", "bm25.safetensors", "checked.json")
    shutil.copytree(tiny_store.path, tmp_path / "copy", ignore=left_out)
    return Store.open(tmp_path / "copy")


def _line(question: str, answer: str, **fields: str) -> str:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({**fields, "messages": turns})


def _toy_tokenizer():
    """Byte-level BPE over all 256 bytes plus a few merges: every text survives encoding and decoding."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rules = Tokenizer(models.BPE())
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rules.train_from_iterator(TOY_TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=rules,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>",
        model_max_length=512,
        chat_template=CHATML,
    )
