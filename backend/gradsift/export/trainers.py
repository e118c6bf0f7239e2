"""How to train on an export: the section of its dataset card, and the configuration files beside the data.

TRL reads every format but alpaca, sharegpt and mixed `less` lines; LLaMA-Factory and axolotl read the formats that they
have a name for. LLaMA-Factory reads no compressed files (it goes by the suffix of the name), the others do.
"""

import json
from typing import Any

NAME = "gradsift"  # the entry in dataset_info.json

_CHAT = {"column": "messages", "role": "role", "content": "content", "user": "user", "assistant": "assistant"}
_SHARED = {"column": "conversations", "role": "from", "content": "value", "user": "human", "assistant": "gpt"}
_COLUMNS = {"messages": _CHAT, "parquet": _CHAT, "sharegpt": _SHARED}  # of the conversation formats
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
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

train = load_dataset("{loader}", data_files="{file}", split="train"){columns}
trainer = SFTTrainer(model="MODEL", train_dataset=train, args=SFTConfig(output_dir="out"{argument}))
trainer.train()
```"""
_TRL_WHOLE = (
    "TRL trains on the whole `messages` sequence, including the user's turns, unless `assistant_only_loss=True`, which "
    "needs a chat template that marks the assistant's tokens with `{% generation %}`."
)
_TRL_PAIR = "TRL learns only the completion, its default for `prompt` and `completion`."
_FACTORY = "`dataset_info.json` is beside the data: give this folder as `dataset_dir` and `gradsift` as `dataset`."
_FACTORY_PACKED = (
    "LLaMA-Factory cannot read compressed files: unpack `{file}` first, and put this into `dataset_info.json`."
)
_AXOLOTL = "The part of the configuration that names the data, as in `axolotl.yaml`; run axolotl in this folder."
_AXOLOTL_FILE = """chat_template: tokenizer_default
datasets:
  - path: {file}
    ds_type: {loader}
    type: chat_template
    field_messages: {column}{mapping}
    roles_to_train: ["assistant"]
"""
_LESS = """The file can be given to LESS and open-instruct as `--train_files`:

```bash
./less/scripts/train/lora_train.sh "{file}" "MODEL" "JOB"
```

`sorted.csv` lists the picks by score as LESS's own code does: file name, index of the line in that file from 0, score
(LESS lists every scored row; here `scores.parquet` has those)."""


def configurations(format: str, file: str) -> dict[str, str]:
    """The files beside the data by name: dataset_info.json and axolotl.yaml, each if the trainer reads `file`."""
    files = {}
    entry = _factory_entry(format, file)
    if entry and not _is_packed(file):
        files["dataset_info.json"] = json.dumps(entry, indent=2) + "\n"
    if format in _COLUMNS:
        files["axolotl.yaml"] = _axolotl_yaml(format, file)
    return files


def training(format: str, file: str, only_messages: bool) -> str:
    """The card's section on training, in Markdown. only_messages: every line of a `less` file has `messages`."""
    if format == "prompt-completion":
        snippet = _TRL.format(loader=_loader(file), file=file, columns="", argument="")
        return f"### TRL\n\n{_TRL_PAIR}\n\n{snippet}"
    if format == "less":
        trl = _trl(file, '.select_columns("messages")') if only_messages else ""
        return f"### LESS and open-instruct\n\n{_LESS.format(file=file)}" + (f"\n\n{trl}" if trl else "")
    parts = [_trl(file, "")] if format in ("messages", "parquet") else []
    packed = _is_packed(file)
    advice = _FACTORY_PACKED.format(file=file) if packed else _FACTORY
    entry = json.dumps(_factory_entry(format, file.rpartition(".")[0] if packed else file), indent=2)
    parts.append(f"### LLaMA-Factory\n\n{advice}\n\n```json\n{entry}\n```")
    if format in _COLUMNS:
        parts.append(f"### axolotl\n\n{_AXOLOTL}\n\n```yaml\n{_axolotl_yaml(format, file)}```")
    return "\n\n".join(parts)


def _factory_entry(format: str, file: str) -> dict[str, Any]:
    if format == "alpaca":
        return {NAME: {"file_name": file, **_ALPACA}}
    if format not in _COLUMNS:
        return {}
    names = _COLUMNS[format]
    tags = {
        "role_tag": names["role"],
        "content_tag": names["content"],
        "user_tag": names["user"],
        "assistant_tag": names["assistant"],
        "system_tag": "system",
    }
    layout = {"formatting": "sharegpt", "columns": {"messages": names["column"]}, "tags": tags}
    return {NAME: {"file_name": file, **layout}}


def _axolotl_yaml(format: str, file: str) -> str:
    names = _COLUMNS[format]
    other = names["role"] != "role"
    mapping = (
        f"\n    message_property_mappings: {{role: {names['role']}, content: {names['content']}}}" if other else ""
    )
    return _AXOLOTL_FILE.format(file=file, loader=_loader(file), column=names["column"], mapping=mapping)


def _trl(file: str, columns: str) -> str:
    snippet = _TRL.format(loader=_loader(file), file=file, columns=columns, argument=", assistant_only_loss=True")
    return f"### TRL\n\n{_TRL_WHOLE}\n\n{snippet}"


def _loader(file: str) -> str:
    return "parquet" if file.endswith(".parquet") else "json"


def _is_packed(file: str) -> bool:
    return file.endswith((".gz", ".zst"))
