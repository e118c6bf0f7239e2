"""A pool with tools and reasoning under the templates of Qwen3 and gpt-oss: from the build to the exported files.

The tokenizer is the bundled model's, the weights are a small Llama's.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest
from tools_pool import write_pool

from gradsift.builder.build import build
from gradsift.config import BuildConfig
from gradsift.data.encode import read_template
from gradsift.data.pool import read_rows
from gradsift.data.targets import parse_targets
from gradsift.datastore.store import Store
from gradsift.export.selection import select
from gradsift.gradients.store_model import StoreModel
from gradsift.model.load import load_tokenizer
from gradsift.runtime.errors import UsageError
from gradsift.runtime.progress import Progress
from gradsift.scoring.score_targets import score_targets

QUIET = Progress(quiet=True)


def template(name: str) -> str:
    spec = find_spec("trl")
    assert spec is not None
    assert spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / "chat_templates" / f"{name}.jinja")


@pytest.fixture(scope="module")
def model(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundled model's tokenizer and a two-layer Llama of random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = load_tokenizer(str(smollm2))
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=2048, initializer_range=0.2, tie_word_embeddings=True,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("small") / "llama"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["qwen3", "gptoss"])
def store(request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp(request.param)
    config = BuildConfig(
        model=str(model), template=read_template(template(request.param)), warmup_fraction=0.2, epochs=1, batch_size=4,
        lr=1e-3, lora_rank=2, dim=64, max_length=1024,
    )  # fmt: skip
    return build([write_pool(folder / "tools.jsonl")], folder / "store", config, progress=QUIET)


def test_every_row_is_usable_and_kept_whole(store: Store, tmp_path: Path) -> None:
    assert (store.manifest.rows, store.manifest.usable, store.manifest.unused) == (60, 60, {})
    rows = list(read_rows([write_pool(tmp_path / "tools.jsonl")]))
    assert list(store.texts(range(60))["conversation"]) == [row.conversation for row in rows]


def test_what_is_learned(store: Store) -> None:
    """Answers, calls and real reasoning; no question, no tool's result, no empty think block, no wrong answer."""
    model = StoreModel(store)
    encoder = model.encoder
    encoded, pieces = model.encode(range(60)), model.pieces(range(60))
    said = store.texts(range(60))["conversation"]
    for row, (tokens, spelled, one) in enumerate(zip(encoded, pieces, said, strict=True)):
        text = "".join(piece.text for piece in spelled)
        assert sum(piece.n_tokens for piece in spelled) == tokens.n_answer
        for turn, message in enumerate(one.messages):
            inside = "".join(piece.text for piece in spelled if piece.turn == turn)
            assert bool(inside) == message.is_learned
            if message.is_learned:
                assert message.content in inside
                assert all(call.name in inside for call in message.tool_calls)
        assert "<think>\n\n</think>" not in text
        if row < 10:  # the weather: the call is learned, its result is not
            assert "get_weather" in text
            assert "celsius" not in text
    last = encoder.render(store.texts([30])["conversation"][0])
    kept = "".join(last.text[span.start : span.stop] for span in last.spans)
    assert "I look for a, e, i, o, u and ü among them." in kept
    assert [dropped.part for dropped in last.dropped] == ["reasoning"]  # of the first exchange


@pytest.mark.parametrize("format", ["messages", "parquet", "less"])
def test_from_targets_to_files_and_back(store: Store, tmp_path: Path, format: str) -> None:
    lines = write_pool(tmp_path / "tools.jsonl").read_text(encoding="utf-8").splitlines()
    targets = parse_targets("\n".join([lines[3], lines[17], lines[34]])).rows
    assert len(targets) == 3
    score_targets(store, targets, ["less", "bm25"])
    select(store, targets, "60", tmp_path / "out", format=format)
    written = {row.conversation for row in read_rows([next((tmp_path / "out").glob("train.*"))])}
    assert written == set(store.texts(range(60))["conversation"])


def test_a_format_without_a_place_refuses(store: Store, tmp_path: Path) -> None:
    targets = parse_targets("Q: What is the weather like in Oslo?\nA: Clear.").rows
    score_targets(store, targets, ["less"])
    with pytest.raises(UsageError, match="alpaca"):
        select(store, targets, "60", tmp_path / "out", format="alpaca")
    assert not (tmp_path / "out").exists()
