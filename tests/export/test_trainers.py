"""What an export says to trainers that cannot be installed here: axolotl and LLaMA-Factory, by their documented keys.

axolotl: `type: chat_template` with `message_field_training`, `field_tools`, `field_thinking`, `template_thinking_key`
and `split_thinking`, `type: completion` with `field`, and `chat_template_kwargs`. LLaMA-Factory: `function_call` and
`observation` turns, `tools` as a JSON string, and `<think>` in the answer, in an entry of dataset_info.json.
"""

import json

import pytest
import yaml
from picked import export_rows

from gradsift.data.conversation import Conversation, Message, ToolCall, json_text

TOOLS = json_text([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}])
TOOL_ROW = Conversation(
    (
        Message("user", "q"),
        Message("assistant", tool_calls=(ToolCall("f", '{"x": 1}', "c1"),)),
        Message("tool", "r", name="f", call_id="c1"),
        Message("assistant", "a", reasoning="so"),
    ),
    TOOLS,
)
PLAIN = Conversation((Message("user", "q"), Message("assistant", "a")))
WEIGHTED = Conversation((*PLAIN.messages, Message("user", "r"), Message("assistant", "b", learned=False)))
TEXT = Conversation((Message("text", "t"),))


def axolotl(path):
    (entry,) = yaml.safe_load((path.parent / "axolotl.yaml").read_text())["datasets"]
    return entry


@pytest.mark.parametrize("format", ["messages", "parquet"])
def test_axolotl_is_told_of_tools_reasoning_and_weights(tmp_path, format):
    path = export_rows(tmp_path / "out", format, [TOOL_ROW, WEIGHTED])
    entry = axolotl(path)
    assert (entry["type"], entry["field_messages"], entry["field_tools"]) == ("chat_template", "messages", "tools")
    assert (entry["field_thinking"], entry["template_thinking_key"]) == ("reasoning_content", "reasoning_content")
    assert (entry["message_field_training"], entry["roles_to_train"]) == ("weight", ["assistant"])
    card = (path.parent / "README.md").read_text()
    assert "`message_field_training: weight` leaves turns with `weight` 0 out of the loss." in card
    assert not (path.parent / "dataset_info.json").exists()
    assert "LLaMA-Factory would leave out part of these rows" in card


def test_plain_rows_switch_nothing_on(tmp_path):
    path = export_rows(tmp_path / "out", "messages", [PLAIN])
    keys = {"path", "ds_type", "type", "field_messages", "roles_to_train"}
    assert axolotl(path).keys() == keys
    assert "What the rows hold" not in (path.parent / "README.md").read_text()


def test_axolotl_gets_the_templates_options(tmp_path):
    path = export_rows(tmp_path / "out", "messages", [PLAIN], {"template_options": {"enable_thinking": False}})
    assert yaml.safe_load((path.parent / "axolotl.yaml").read_text())["chat_template_kwargs"] == {
        "enable_thinking": False
    }


def test_llama_factory_reads_calls_results_tools_and_reasoning(tmp_path):
    path = export_rows(tmp_path / "out", "sharegpt", [TOOL_ROW, PLAIN])
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert [turn["from"] for turn in first["conversations"]] == ["human", "function_call", "observation", "gpt"]
    assert json.loads(first["conversations"][1]["value"]) == {"name": "f", "arguments": {"x": 1}, "id": "c1"}
    assert first["conversations"][2] == {"from": "observation", "value": "r", "name": "f", "tool_call_id": "c1"}
    assert first["conversations"][3]["value"] == "<think>\nso\n</think>\n\na"
    assert (first["tools"], second["tools"]) == (TOOLS, "")
    assert second["conversations"][0] == {"from": "human", "value": "q", "name": "", "tool_call_id": ""}
    entry = json.loads((path.parent / "dataset_info.json").read_text())["gradsift"]
    assert entry["formatting"] == "sharegpt"
    assert entry["columns"] == {"messages": "conversations", "tools": "tools"}
    tags = entry["tags"]
    assert (tags["function_tag"], tags["observation_tag"]) == ("function_call", "observation")
    assert not (path.parent / "axolotl.yaml").exists()
    assert "axolotl would leave out the tools" in (path.parent / "README.md").read_text()


def test_axolotl_splits_the_reasoning_of_sharegpt(tmp_path):
    row = Conversation((Message("user", "q"), Message("assistant", "a", reasoning="r")))
    assert axolotl(export_rows(tmp_path / "out", "sharegpt", [row]))["split_thinking"] is True


def test_rows_that_llama_factory_skips_are_counted(tmp_path):
    rows = [PLAIN, Conversation((*PLAIN.messages, Message("user", "thanks")))]
    for format in ("messages", "sharegpt"):
        path = export_rows(tmp_path / format, format, rows)
        assert "It skips 1 row in which" in (path.parent / "README.md").read_text()


def test_plain_text_goes_where_trainers_learn_every_token(tmp_path):
    path = export_rows(tmp_path / "out", "messages", [TEXT])
    assert json.loads(path.read_text()) == {"text": "t"}
    assert axolotl(path) == {"path": "train.jsonl", "ds_type": "json", "type": "completion", "field": "text"}
    entry = json.loads((path.parent / "dataset_info.json").read_text())["gradsift"]
    assert entry == {"file_name": "train.jsonl", "formatting": "alpaca", "columns": {"prompt": "text"}}


def test_the_card_counts_what_the_rows_hold(tmp_path):
    path = export_rows(tmp_path / "out", "messages", [TOOL_ROW, PLAIN, WEIGHTED])
    card = (path.parent / "README.md").read_text()
    for line in ("| tools that the assistant may call | 1 |", "| tool calls | 1 |", "| tool results | 1 |"):
        assert line in card
    assert "| assistant turns that are not to be learned | 1 |" in card


def test_less_rewrites_rows_with_all_that_they_hold(tmp_path):
    path = export_rows(tmp_path / "out", "less", [TOOL_ROW, PLAIN])
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first["messages"][3] == {"role": "assistant", "content": "a", "reasoning_content": "so"}
    assert (first["tools"], second["tools"]) == (json.loads(TOOLS), None)
    card = (path.parent / "README.md").read_text()
    assert "it fails at tool results" in card
    assert "### TRL" not in card
