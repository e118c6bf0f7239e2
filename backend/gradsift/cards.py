"""The dataset card of an export: what was selected, from what, how, and how to train on it.

Names out of the data (sources, settings) are hostile: they are put on one line, shortened and escaped, so that no
Markdown, HTML, link or table cell of theirs takes effect. The YAML at the top holds constants and numbers only.
"""

import html
import re
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_MOST_SOURCES = 50
_MARKDOWN = re.compile(r"([\\`*_{}\[\]#|~$:@!])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_NOT_SETTINGS = frozenset({"command", "data"})

_TRL = """```python
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

train = load_dataset("{loader}", data_files="{file}", split="train"){columns}
trainer = SFTTrainer(model="MODEL", train_dataset=train, args=SFTConfig(output_dir="out"{argument}))
trainer.train()
```"""
_TRL_WHOLE = (
    "TRL trains on the whole `messages` sequence, the user's turns too, unless `assistant_only_loss=True`; that needs "
    "a chat template which marks the assistant's tokens with `{% generation %}`."
)
_TRL_PAIR = "TRL learns the completion only, which is its default for `prompt` and `completion`."
_FACTORY = """An entry of `dataset_info.json`, with the data file in the same folder:

```json
{{
  "gradsift": {{
    "file_name": "{file}",
{body}
  }}
}}
```"""
_FACTORY_CHAT = """    "formatting": "sharegpt",
    "columns": {{"messages": "{column}"}},
    "tags": {{
      "role_tag": "{role}", "content_tag": "{content}",
      "user_tag": "{user}", "assistant_tag": "{assistant}", "system_tag": "system"
    }}"""
_FACTORY_ALPACA = """    "formatting": "alpaca",
    "columns": {
      "prompt": "instruction", "query": "input", "response": "output", "system": "system", "history": "history"
    }"""
_AXOLOTL = """```yaml
chat_template: tokenizer_default
datasets:
  - path: {file}
    ds_type: {loader}
    type: chat_template
    field_messages: {column}{mapping}
    roles_to_train: ["assistant"]
```"""
_AXOLOTL_SHAREGPT = """
    message_property_mappings: {role: from, content: value}"""
_LESS = """The file is what `--train_files` of LESS and open-instruct takes:

```bash
./less/scripts/train/lora_train.sh "train.jsonl" "MODEL" "JOB"
```

`sorted.csv` lists the picks by score as LESS's own code does: file name, index of the line in that file from 0, score
(LESS lists every scored row; here `scores.parquet` has those)."""


@dataclass
class Tally:
    """What writing the picks found out."""

    rows: int = 0
    by_source: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)  # a sentence about rows written differently -> how many
    places: list[tuple[str, int, float]] = field(default_factory=list)  # file, line, score, in rank order
    only_messages: bool = True  # every line of a `less` file has `messages`


def dataset_card(format: str, data: Mapping[str, Any], tally: Tally, manifest: Mapping[str, Any]) -> str:
    """The card in Markdown. `data` describes the file: file, sha256, bytes, rows, format.

    Of the manifest, `method` and `budget` go into the first sentence, `command` (a string or an argument list) is the
    way to reproduce it, and every other plain value stands in the table of settings.
    """
    parts = [
        _front_matter(str(data["file"]), tally.rows),
        "# Selected instruction data",
        _summary(tally.rows, manifest),
        _files(data, format),
        "## Sources\n\n" + _sources(tally),
        _notes(tally),
        _reproduce(manifest),
        "## Training\n\n" + _training(format, str(data["file"]), tally),
        "## License\n\nEvery row keeps the license of the source it comes from; this selection adds none. Check the "
        "sources above before you share it.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(value: object, limit: int = 200) -> str:
    """Text from data as inert Markdown on one line."""
    text = " ".join(_CONTROL.sub(" ", str(value)).split())
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    text = _MARKDOWN.sub(r"\\\1", html.escape(text, quote=False))
    return re.sub(r"(?i)\bwww\.", r"www\\.", text)


def _front_matter(file: str, rows: int) -> str:
    size = next((name for limit, name in _SIZES if rows < limit), "n>1M")
    return f"""---
license: other
license_name: as-in-the-sources
pretty_name: Instruction data selected with gradsift
size_categories:
- {size}
task_categories:
- text-generation
tags:
- gradsift
- data-selection
- instruction-tuning
configs:
- config_name: default
  data_files:
  - split: train
    path: {file}
---"""


def _summary(rows: int, manifest: Mapping[str, Any]) -> str:
    by = f" by {escape(manifest['method'])}" if manifest.get("method") else ""
    under = f" under a budget of {escape(manifest['budget'])}" if manifest.get("budget") else ""
    return f"{rows:,} {'row' if rows == 1 else 'rows'} picked{by}{under} with gradsift, in rank order, the best first."


def _files(data: Mapping[str, Any], format: str) -> str:
    table = f"""| file | content |
|---|---|
| `{data["file"]}` | {data["rows"]:,} rows, {data["bytes"]:,} bytes, format `{format}`; SHA-256 `{data["sha256"]}` |
| `scores.parquet` | the scores behind the selection |
| `manifest.json` | every setting |"""
    return table + ("\n| `sorted.csv` | the picks by score, as LESS writes them |" if format == "less" else "")


def _sources(tally: Tally) -> str:
    lines = ["| source | rows | share |", "|---|--:|--:|"]
    for source, rows in tally.by_source.most_common(_MOST_SOURCES):
        lines.append(f"| {escape(source)} | {rows:,} | {rows / tally.rows:.1%} |")
    rest = len(tally.by_source) - _MOST_SOURCES
    if rest > 0:
        rows = tally.rows - sum(count for _, count in tally.by_source.most_common(_MOST_SOURCES))
        lines.append(f"| {rest:,} more | {rows:,} | {rows / tally.rows:.1%} |")
    return "\n".join(lines)


def _notes(tally: Tally) -> str:
    if not tally.notes:
        return ""
    lines = [f"- {rows:,} {'row' if rows == 1 else 'rows'}: {note}" for note, rows in tally.notes.items()]
    return "## How the rows were written\n\n" + "\n".join(lines)


def _reproduce(manifest: Mapping[str, Any]) -> str:
    command = manifest.get("command")
    text = shlex.join(map(str, command)) if isinstance(command, list | tuple) else str(command or "")
    text = _CONTROL.sub(" ", text.replace("\n", " ")).strip()
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    lines = [f"{fence}bash\n{text}\n{fence}\n"] if text else []
    settings = sorted(_flat({name: value for name, value in manifest.items() if name not in _NOT_SETTINGS}).items())
    if settings:
        lines += ["| setting | value |", "|---|---|"]
        lines += [f"| {escape(name)} | {escape(value)} |" for name, value in settings]
    return "## How to make it again\n\n" + "\n".join(lines) if lines else ""


def _flat(value: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Plain values by dotted name; lists of plain values joined, larger things left to the manifest."""
    found: dict[str, str] = {}
    for name, item in value.items():
        if isinstance(item, Mapping):
            found |= _flat(item, f"{before}{name}.")
        elif isinstance(item, str | int | float):
            found[f"{before}{name}"] = str(item)
        elif isinstance(item, list | tuple) and all(isinstance(part, str | int | float) for part in item):
            found[f"{before}{name}"] = ", ".join(map(str, item))
    return found


def _training(format: str, file: str, tally: Tally) -> str:
    loader = "parquet" if format == "parquet" else "json"
    chat = {"column": "messages", "role": "role", "content": "content", "user": "user", "assistant": "assistant"}
    shared = {"column": "conversations", "role": "from", "content": "value", "user": "human", "assistant": "gpt"}
    if format in ("messages", "parquet"):
        return "\n\n".join([_trl(file, loader, ""), _factory_chat(file, chat), _axolotl(file, loader, "messages", "")])
    if format == "prompt-completion":
        snippet = _TRL.format(loader=loader, file=file, columns="", argument="")
        return f"### TRL\n\n{_TRL_PAIR}\n\n{snippet}"
    if format == "alpaca":
        return "### LLaMA-Factory\n\n" + _FACTORY.format(file=file, body=_FACTORY_ALPACA)
    if format == "sharegpt":
        return f"{_factory_chat(file, shared)}\n\n{_axolotl(file, loader, 'conversations', _AXOLOTL_SHAREGPT)}"
    trl = _trl(file, loader, '.select_columns("messages")') if tally.only_messages else ""
    return f"### LESS and open-instruct\n\n{_LESS}" + (f"\n\n{trl}" if trl else "")


def _trl(file: str, loader: str, columns: str) -> str:
    argument = ", assistant_only_loss=True"
    return f"### TRL\n\n{_TRL_WHOLE}\n\n" + _TRL.format(loader=loader, file=file, columns=columns, argument=argument)


def _factory_chat(file: str, names: dict[str, str]) -> str:
    return "### LLaMA-Factory\n\n" + _FACTORY.format(file=file, body=_FACTORY_CHAT.format(**names))


def _axolotl(file: str, loader: str, column: str, mapping: str) -> str:
    return "### axolotl\n\n" + _AXOLOTL.format(file=file, loader=loader, column=column, mapping=mapping)
