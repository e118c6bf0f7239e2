"""Exports as TRL reads them: its own SFTTrainer prepares the files, and its masks say what is learned.

The snippets of the dataset card are run as they stand. axolotl and LLaMA-Factory cannot be installed beside the pinned
packages; what the exports say to them is checked against the keys that their documentation and readers name, in
test_trainers.py.
"""

import json
import re
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from picked import export_rows

from gradsift.data.conversation import Conversation, Message, ToolCall, json_text

if find_spec("trl") is None:
    pytest.skip("trl is not installed (extra `test`)", allow_module_level=True)

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "The time", "parameters": {"type": "object"}}}
CALLS = Conversation(
    (
        Message("user", "warm in Bern?"),
        Message(
            "assistant",
            reasoning="I ask.",
            tool_calls=(
                ToolCall("weather", '{"place": "Bern", "to": 1.5}', "c1"),
                ToolCall("clock", '{"zones": [1, "a"]}', "c2"),
            ),
        ),
        Message("tool", "21", name="weather", call_id="c1"),
        Message("tool", "noon", name="clock", call_id="c2"),
        Message("assistant", "Yes, 21.", reasoning="21 is warm."),
    ),
    tools=json_text([WEATHER, CLOCK]),
)
PLAIN = Conversation((Message("user", "q"), Message("assistant", "plain answer")))
WRONG = Conversation(
    (
        Message("user", "2 + 2?"),
        Message("assistant", "wrong", learned=False),
        Message("user", "no"),
        Message("assistant", "four"),
    )
)
ROWS = [PLAIN, CALLS, WRONG]  # the first row has none of the keys of the second


@pytest.fixture(scope="module")
def training_template() -> str:
    import trl

    return (Path(trl.__file__).parent / "chat_templates" / "qwen3_training.jinja").read_text(encoding="utf-8")


def trained(snippet, path, model, template, monkeypatch):
    """The snippet's `train` as the trainer prepared it: (text, learned text) of every row."""
    import trl
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = template
    kept = {}

    class Prepared(trl.SFTTrainer):
        def __init__(self, model, train_dataset, args):
            made = AutoModelForCausalLM.from_pretrained(model)
            super().__init__(made, args, train_dataset=train_dataset, processing_class=tokenizer)
            kept["rows"] = self.train_dataset

        def train(self):
            pass

    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(path.parent / "cache"))
    config = partial(trl.SFTConfig, use_cpu=True, bf16=False, report_to=[], max_length=None)
    monkeypatch.setattr(trl, "SFTConfig", config)
    monkeypatch.setattr(trl, "SFTTrainer", Prepared)
    scope = {}
    exec(snippet.replace('"MODEL"', repr(str(model))), scope)
    return scope["train"], [
        (
            tokenizer.decode(row["input_ids"]),
            tokenizer.decode([label for label in row["labels"] if label != -100]),
        )
        for row in kept["rows"]
    ]


def snippet_of(path: Path) -> str:
    (snippet,) = re.findall(r"```python\n(.*?)```", (path.parent / "README.md").read_text(), re.DOTALL)
    return snippet


@pytest.mark.parametrize("format", ["messages", "parquet"])
def test_trl_learns_calls_and_reasoning_of_messages(tmp_path, tiny_model, training_template, monkeypatch, format):
    path = export_rows(tmp_path / "out", format, ROWS)
    train, rows = trained(snippet_of(path), path, tiny_model, training_template, monkeypatch)
    (plain, plain_learned), (calls, learned), (_, wrong_learned) = rows
    assert "<tools>" not in plain
    assert plain_learned.count("plain answer") == 1
    assert "tool_calls" not in train[0]["messages"][1]  # no key with null: templates ask whether it is there
    assert '{"name": "weather", "arguments": {"place": "Bern", "to": 1.5}}' in learned
    assert '{"name": "clock", "arguments": {"zones": [1, "a"]}}' in learned
    assert "I ask." in learned
    assert "21 is warm." in learned
    assert "Yes, 21." in learned
    assert json.dumps(WEATHER) in calls
    assert "noon" in calls
    assert "noon" not in learned
    assert "warm in Bern?" not in learned
    assert "wrong" in wrong_learned  # as the card says: TRL reads no weight
    assert "also learns the assistant turns with `weight` 0, in 1 row" in (path.parent / "README.md").read_text()


def test_the_template_that_the_card_describes_leaves_out_weight_0(tmp_path, tiny_model, monkeypatch):
    template = (
        "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
        "{% if message.role == 'assistant' and message.weight != 0 %}"
        "{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}"
        "{% else %}{{ message.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    )
    path = export_rows(tmp_path / "out", "messages", [WRONG, PLAIN])
    _, rows = trained(snippet_of(path), path, tiny_model, template, monkeypatch)
    assert [learned.replace("<|im_end|>", "").strip() for _, learned in rows] == ["four", "plain answer"]


def test_trl_learns_the_completion_after_tools(tmp_path, tiny_model, training_template, monkeypatch):
    path = export_rows(tmp_path / "out", "prompt-completion", ROWS)
    _, rows = trained(snippet_of(path), path, tiny_model, training_template, monkeypatch)
    (_, plain), (calls, learned), (_, four) = rows
    assert json.dumps(CLOCK) in calls
    assert '"to": 1.5' in calls
    assert "Yes, 21." in learned
    assert "21 is warm." in learned
    assert "I ask." not in learned
    assert "plain answer" in plain
    assert "four" in four
    assert "wrong" not in four


def test_the_options_of_the_template_reach_it(tmp_path, tiny_model, training_template, monkeypatch):
    template = "{{ greeting }}" + training_template
    manifest = {"template_options": {"greeting": "hello", "enable_thinking": False}}
    path = export_rows(tmp_path / "out", "messages", ROWS, manifest)
    _, rows = trained(snippet_of(path), path, tiny_model, template, monkeypatch)
    assert all(text.startswith("hello") for text, _ in rows)


def test_trl_learns_every_token_of_plain_text(tmp_path, tiny_model, training_template, monkeypatch):
    path = export_rows(tmp_path / "out", "messages", [Conversation((Message("text", "the cat sat"),))])
    _, rows = trained(snippet_of(path), path, tiny_model, training_template, monkeypatch)
    assert [text == learned and "the cat sat" in text for text, learned in rows] == [True]


def test_a_file_whose_first_ten_megabytes_are_plain_is_read_whole(tmp_path):
    """`datasets` guesses the columns from the first 10 MB, unless the card's `features` say them."""
    import datasets

    long = Conversation((Message("user", "w" * 400_000), Message("assistant", "a")))
    path = export_rows(tmp_path / "out", "messages", [long] * 30 + [CALLS])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    features = datasets.Features({"messages": datasets.List(datasets.Json()), "tools": datasets.List(datasets.Json())})
    loaded = datasets.load_dataset(
        "json", data_files=str(path), split="train", features=features, cache_dir=str(tmp_path / "cache")
    )
    assert loaded.to_list() == lines


def test_parquet_keeps_numbers_that_datasets_rounds_in_json_lines(tmp_path):
    import datasets

    call = ToolCall("f", '{"x": 1e-12, "y": 3.141592653589793}')
    row = Conversation((Message("user", "q"), Message("assistant", tool_calls=(call,))))
    for format, exact in (("messages", False), ("parquet", True)):
        path = export_rows(tmp_path / format, format, [row, PLAIN])
        loader = "parquet" if format == "parquet" else "json"
        cache = str(tmp_path / "cache")
        loaded = datasets.load_dataset(loader, data_files=str(path), split="train", cache_dir=cache)
        arguments = loaded[0]["messages"][1]["tool_calls"][0]["function"]["arguments"]
        assert (arguments == json.loads(call.arguments)) == exact
        assert ("rounds to ten decimals" in (path.parent / "README.md").read_text()) == (not exact)
