"""How to train on an export: the section of its dataset card, and the configuration files beside the data.

What a trainer would leave out of the rows decides whether it is named: TRL reads messages with tools, calls and
reasoning, but no weights; axolotl reads all of these once its configuration names them; LLaMA-Factory reads tools and
calls from `sharegpt` only. LLaMA-Factory reads no compressed files (it goes by the suffix of the name), the others do.
"""

import json
from collections.abc import Mapping
from typing import Any

from gradsift.export.holdings import Holdings

NAME = "gradsift"  # the entry in dataset_info.json

_CHAT = {"column": "messages", "role": "role", "content": "content", "user": "user", "assistant": "assistant"}
_SHARED = {"column": "conversations", "role": "from", "content": "value", "user": "human", "assistant": "gpt"}
_COLUMNS = {"messages": _CHAT, "parquet": _CHAT, "sharegpt": _SHARED}  # of the conversation formats
_TOOL_PARTS = ("tools", "calls", "results")
_ALPACA = {
    "formatting": "alpaca",
    "columns": {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        "system": "system",
        "history": "history",
    },
}
_TRL = """```python
from datasets import {names}
from trl import SFTConfig, SFTTrainer

{features}train = load_dataset("{loader}", data_files="{file}", split="train"{argument}){columns}
{options}trainer = SFTTrainer(model="MODEL", train_dataset=train, args=SFTConfig(output_dir="out"{only}))
trainer.train()
```"""
_TRL_WHOLE = (
    "TRL trains on the whole `messages` sequence, including the user's turns, unless `assistant_only_loss=True`, which "
    "needs a chat template that marks the assistant's tokens with `{% generation %}`."
)
_TRL_PAIR = "TRL learns only the completion, its default for `prompt` and `completion`."
_TRL_TEXT = "TRL learns every token of `text`."
_TRL_FEATURES = (
    "`features` keep every message as it is; `datasets` 4.7 or later has `Json`. Without them, `datasets` guesses the "
    "columns from the first 10 MB and may fail at a message with other keys; a Parquet file has them with it."
)
_TRL_OPTIONS = "The column `chat_template_kwargs` gives the chat template the options that this store was built with."
_TRL_WEIGHTS = (
    "TRL reads no `weight`: with this template it also learns the assistant turns with `weight` 0, in {rows}. Put "
    "`{{% generation %}}` only around turns of which `message.weight` is not 0, or train with axolotl."
)
_TRL_NUMBERS = (
    "In {rows}, tools or calls hold numbers that `datasets` rounds to ten decimals or, beyond 64 bits, refuses when it "
    "reads JSON Lines: choose `parquet`, which keeps the decimals."
)
_FACTORY = "`dataset_info.json` is beside the data: give this folder as `dataset_dir` and `gradsift` as `dataset`."
_FACTORY_PACKED = (
    "LLaMA-Factory cannot read compressed files: unpack `{file}` first, and put this into `dataset_info.json`."
)
_FACTORY_SKIPS = (
    "It skips {rows} in which turns of the user or a tool and turns of the assistant do not alternate, or in which the "
    "assistant does not have the last word."
)
_FACTORY_LOSES = "LLaMA-Factory would leave out part of these rows, so `dataset_info.json` is not written{instead}."
_FACTORY_TEXT = "These rows are for its pre-training stage (`stage: pt`)."
_AXOLOTL = "The part of the configuration that names the data, as in `axolotl.yaml`; run axolotl in this folder."
_AXOLOTL_LOSES = "axolotl would leave out the tools and calls of these rows: export them as `messages` or `parquet`."
_AXOLOTL_PARTS = {  # part of the rows -> what in the configuration switches it on
    "tools": "`field_tools` hands the tools to the chat template, which must have a place for them.",
    "reasoning": "`field_thinking` hands the reasoning to the chat template under the name in `template_thinking_key`.",
    "marks": "`message_field_training: weight` leaves turns with `weight` 0 out of the loss.",
}
_AXOLOTL_SPLIT = "`split_thinking` takes the reasoning out of its `<think>` tags for the chat template."
_AXOLOTL_TEXT = "datasets:\n  - path: {file}\n    ds_type: {loader}\n    type: completion\n    field: text\n"
_LESS = """The file can be given to LESS and open-instruct as `--train_files`:

```bash
./less/scripts/train/lora_train.sh "{file}" "MODEL" "JOB"
```

`sorted.csv` lists the picks by score as LESS's own code does: file name, index of the line in that file from 0, score
(LESS lists every scored row; here `scores.parquet` has those)."""
_LESS_TURNS = (
    "LESS's own code reads system, user and assistant turns of text: it fails at tool results, and it learns calls, "
    "reasoning and `weight` 0 otherwise than this selection did. `messages` is the format for these rows."
)


def configurations(format: str, file: str, holdings: Holdings, options: Mapping[str, Any]) -> dict[str, str]:
    """The files beside the data by name: dataset_info.json and axolotl.yaml, each if the trainer reads all of `file`.

    holdings: what its rows hold. options: the keywords of the chat template.
    """
    files = {}
    entry = _factory_entry(format, file, holdings)
    if entry and not _is_packed(file):
        files["dataset_info.json"] = json.dumps(entry, indent=2) + "\n"
    if text := _axolotl_yaml(format, file, holdings, options):
        files["axolotl.yaml"] = text
    return files


def training(format: str, file: str, holdings: Holdings, options: Mapping[str, Any], only_messages: bool = True) -> str:
    """The card's section on training, in Markdown. only_messages: every line of a `less` file has `messages`."""
    if format == "less":
        parts = [f"### LESS and open-instruct\n\n{_LESS.format(file=file)}"]
        plain = holdings.are_plain
        parts += [] if plain or holdings.are_text else [_LESS_TURNS]
        parts += [_trl(format, file, holdings, options)] if plain and only_messages else []
        return "\n\n".join(parts)
    parts = [_trl(format, file, holdings, options)] if format in ("messages", "parquet", "prompt-completion") else []
    if format != "prompt-completion":
        parts.append(_factory(format, file, holdings))
    if format in _COLUMNS:
        parts.append(_axolotl(format, file, holdings, options))
    return "\n\n".join(parts)


# -- TRL ---------------------------------------------------------------------------------------------------------------


def _trl(format: str, file: str, holdings: Holdings, options: Mapping[str, Any]) -> str:
    pair, parquet = format == "prompt-completion", file.endswith(".parquet")
    columns = ["prompt", "completion"] if pair else ["messages"]
    typed = not (holdings.are_plain or holdings.are_text or parquet)
    named = "".join(f'"{column}": List(Json()), ' for column in columns + ["tools"] * holdings.has("tools"))
    told = options and not holdings.are_text
    snippet = _TRL.format(
        names="Features, Json, List, load_dataset" if typed else "load_dataset",
        features=f"features = Features({{{named[:-2]}}})\n" if typed else "",
        argument=", features=features" if typed else "",
        loader=_loader(file),
        file=file,
        columns='.select_columns("messages")' if format == "less" else "",
        options=f'train = train.add_column("chat_template_kwargs", [{dict(options)!r}] * len(train))\n' if told else "",
        only="" if pair or holdings.are_text else ", assistant_only_loss=True",
    )
    notes = [_TRL_TEXT if holdings.are_text else _TRL_PAIR if pair else _TRL_WHOLE]
    notes += [_TRL_FEATURES] if typed else []
    notes += [_TRL_OPTIONS] if told else []
    notes += [_TRL_WEIGHTS.format(rows=_rows(holdings, "unlearned"))] if holdings.has("unlearned") and not pair else []
    notes += [_TRL_NUMBERS.format(rows=_rows(holdings, "numbers"))] if holdings.has("numbers") and not parquet else []
    return "### TRL\n\n" + "\n\n".join([*notes, snippet])


# -- LLaMA-Factory -----------------------------------------------------------------------------------------------------


def _factory(format: str, file: str, holdings: Holdings) -> str:
    packed = _is_packed(file)
    entry = _factory_entry(format, file.rpartition(".")[0] if packed else file, holdings)
    if not entry:
        instead = "" if holdings.has("unlearned") else ": export `sharegpt`, if it has a place for them"
        return f"### LLaMA-Factory\n\n{_FACTORY_LOSES.format(instead=instead)}"
    notes = [_FACTORY_PACKED.format(file=file) if packed else _FACTORY]
    notes += [_FACTORY_TEXT] if holdings.are_text else []
    skips = format in _COLUMNS and holdings.has("out of turn") and not holdings.are_text
    notes += [_FACTORY_SKIPS.format(rows=_rows(holdings, "out of turn"))] if skips else []
    return "### LLaMA-Factory\n\n" + "\n\n".join([*notes, f"```json\n{json.dumps(entry, indent=2)}\n```"])


def _factory_entry(format: str, file: str, holdings: Holdings) -> dict[str, Any]:
    """The entry of dataset_info.json; empty if LLaMA-Factory does not read the format or all that the rows hold."""
    if format == "alpaca":
        return {NAME: {"file_name": file, **_ALPACA}}
    if format not in _COLUMNS:
        return {}
    if holdings.are_text:
        return {NAME: {"file_name": file, "formatting": "alpaca", "columns": {"prompt": "text"}}}
    if format != "sharegpt" and not holdings.are_plain:
        return {}
    names = _COLUMNS[format]
    tags = {
        "role_tag": names["role"],
        "content_tag": names["content"],
        "user_tag": names["user"],
        "assistant_tag": names["assistant"],
        "system_tag": "system",
    }
    if holdings.has("calls", "results"):
        tags |= {"function_tag": "function_call", "observation_tag": "observation"}
    columns = {"messages": names["column"]} | ({"tools": "tools"} if holdings.has("tools") else {})
    return {NAME: {"file_name": file, "formatting": "sharegpt", "columns": columns, "tags": tags}}


# -- axolotl -----------------------------------------------------------------------------------------------------------


def _axolotl(format: str, file: str, holdings: Holdings, options: Mapping[str, Any]) -> str:
    text = _axolotl_yaml(format, file, holdings, options)
    if not text:
        return f"### axolotl\n\n{_AXOLOTL_LOSES}"
    shared = format == "sharegpt"
    notes = [_AXOLOTL_SPLIT] if shared and holdings.has("reasoning") else []
    notes += [] if shared else [note for part, note in _AXOLOTL_PARTS.items() if holdings.has(part)]
    return "### axolotl\n\n" + "\n\n".join([_AXOLOTL, *notes, f"```yaml\n{text}```"])


def _axolotl_yaml(format: str, file: str, holdings: Holdings, options: Mapping[str, Any]) -> str:
    """The part of axolotl's configuration that names the data; "" if axolotl would not read all that the rows hold."""
    shared = format == "sharegpt"
    if format not in _COLUMNS or (shared and holdings.has(*_TOOL_PARTS)):
        return ""
    if holdings.are_text:
        return _AXOLOTL_TEXT.format(file=file, loader=_loader(file))
    names = _COLUMNS[format]
    lines = ["chat_template: tokenizer_default"]
    lines += [f"chat_template_kwargs: {json.dumps(dict(options), ensure_ascii=False)}"] if options else []
    lines += ["datasets:", f"  - path: {file}"]
    entry = {"ds_type": _loader(file), "type": "chat_template", "field_messages": names["column"]}
    if shared:
        entry["message_property_mappings"] = f"{{role: {names['role']}, content: {names['content']}}}"
    entry["roles_to_train"] = '["assistant"]'
    if shared and holdings.has("reasoning"):
        entry["split_thinking"] = "true"
    if not shared and holdings.has("tools"):
        entry["field_tools"] = "tools"
    if not shared and holdings.has("reasoning"):
        entry |= {"field_thinking": "reasoning_content", "template_thinking_key": "reasoning_content"}
    if holdings.has("marks"):
        entry["message_field_training"] = "weight"
    return "\n".join([*lines, *(f"    {key}: {value}" for key, value in entry.items())]) + "\n"


# -- helpers -----------------------------------------------------------------------------------------------------------


def _rows(holdings: Holdings, part: str) -> str:
    count = holdings.counts[part]
    return f"{count:,} {'row' if count == 1 else 'rows'}"


def _loader(file: str) -> str:
    return "parquet" if file.endswith(".parquet") else "json"


def _is_packed(file: str) -> bool:
    return file.endswith((".gz", ".zst"))
