"""The dataset card of an export: what was selected, from what and how, what leaks, and how to train on it.

Names from the data (sources, settings) may be hostile: they are put on one line, shortened and escaped, so that no
Markdown, HTML, link or table cell in them takes effect. The YAML at the top holds only constants and numbers.
"""

import html
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gradsift.export.holdings import Holdings
from gradsift.export.trainers import training

_MOST_SOURCES = 50
_MARKDOWN = re.compile(r"([\\`*_{}\[\]#|~$:@!])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_ABOUT = {
    "scores.parquet": "the score and rank of every scored row",
    "picks.csv": "the picks for a spreadsheet: rank, id, source, task, score, tokens, best subtask",
    "sorted.csv": "the picks by score, as LESS writes them",
    "leakage.json": "picks that share text with the targets or an evaluation",
    "choices.json": "the choices, for `--choices`",
    "report.html": "what was selected and how, with charts; opens offline",
    "dataset_info.json": "for LLaMA-Factory",
    "axolotl.yaml": "for axolotl",
    "manifest.json": "all settings",
    "SHA256SUMS": "for `sha256sum -c SHA256SUMS`",
}
_HELD = {  # part of the rows -> what the card says of them
    "text": "plain text, to which no chat template is applied",
    "tools": "tools that the assistant may call",
    "calls": "tool calls",
    "results": "tool results",
    "reasoning": "reasoning before an answer",
    "unlearned": "assistant turns that are not to be learned",
}
_NOT_SETTINGS = frozenset({"command", "data", "leakage"})


@dataclass
class Tally:
    """Counts collected while the picks are written."""

    rows: int = 0
    by_source: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)  # a sentence about how rows were written -> how many rows
    places: list[tuple[str, int, float]] = field(default_factory=list)  # file, line, score, in rank order
    only_messages: bool = True  # every line of a `less` file has `messages`
    holdings: Holdings = field(default_factory=Holdings)  # what all the rows hold


def dataset_card(
    format: str, data: Mapping[str, Any], tally: Tally, manifest: Mapping[str, Any], files: Iterable[str] = ()
) -> str:
    """The card in Markdown. `data` describes the data file: file, sha256, bytes, rows, format; `files` are beside it.

    Of the manifest, `method` and `budget` go into the first sentence, `command` (a string or an argument list) shows
    how to reproduce the selection, `template_options` (keywords of the chat template) go into the snippets, `leakage`
    (see `leakage.Leakage`) has its own section, and every other plain value is listed in the table of settings.
    """
    parts = [
        _front_matter(str(data["file"]), tally.rows),
        "# Selected instruction data",
        _summary(tally.rows, manifest),
        _files(data, files),
        "## Sources\n\n" + _sources(tally),
        _held(tally.holdings),
        _notes(tally),
        _leakage(manifest.get("leakage")),
        _reproduce(manifest),
        "## Training\n\n" + _training(format, data, tally, manifest),
        "## License\n\nEvery row keeps the license of its source; this selection adds no terms. Check the sources "
        "above before you share it.",
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
    return f"{rows:,} {'row' if rows == 1 else 'rows'} picked{by}{under} with gradsift, in rank order, best first."


def _files(data: Mapping[str, Any], files: Iterable[str]) -> str:
    content = f"{data['rows']:,} rows, {data['bytes']:,} bytes, format `{data['format']}`; SHA-256 `{data['sha256']}`"
    lines = ["| file | content |", "|---|---|", f"| `{data['file']}` | {content} |"]
    return "\n".join([*lines, *(f"| `{name}` | {_ABOUT[name]} |" for name in files)])


def _leakage(summary: Mapping[str, Any] | None) -> str:
    if not summary:
        return ""
    against = [f"the {summary['targets']:,} target examples"]
    against += [f"{part['examples']:,} of {escape(part['file'])}" for part in summary["evaluation"]]
    lines = [f"{summary['checked_rows']:,} rows were compared with {' and '.join(against)}. {summary['rule']}"]
    if dropped := summary["dropped_rows"]:
        were = "row was" if dropped == 1 else "rows were"
        lines.append(f"{dropped:,} flagged {were} dropped, and the next ones took their places.")
    if flagged := summary["flagged_rows"]:
        are = "row in the file is" if flagged == 1 else "rows in the file are"
        lines.append(f"{flagged:,} {are} flagged: `leakage.json` lists them with the shared text.")
    else:
        lines.append("No row in the file is flagged.")
    return "## Leakage\n\n" + "\n\n".join(lines)


def _sources(tally: Tally) -> str:
    lines = ["| source | rows | share |", "|---|--:|--:|"]
    for source, rows in tally.by_source.most_common(_MOST_SOURCES):
        lines.append(f"| {escape(source)} | {rows:,} | {rows / tally.rows:.1%} |")
    rest = len(tally.by_source) - _MOST_SOURCES
    if rest > 0:
        rows = tally.rows - sum(count for _, count in tally.by_source.most_common(_MOST_SOURCES))
        lines.append(f"| {rest:,} more | {rows:,} | {rows / tally.rows:.1%} |")
    return "\n".join(lines)


def _held(holdings: Holdings) -> str:
    lines = [f"| {about} | {holdings.counts[part]:,} |" for part, about in _HELD.items() if holdings.has(part)]
    return "\n".join(["## What the rows hold\n", "| part | rows |", "|---|--:|", *lines]) if lines else ""


def _training(format: str, data: Mapping[str, Any], tally: Tally, manifest: Mapping[str, Any]) -> str:
    options = manifest.get("template_options") or {}
    return training(format, str(data["file"]), tally.holdings, options, tally.only_messages)


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
    return "## How to reproduce it\n\n" + "\n".join(lines) if lines else ""


def _flat(value: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Plain values by dotted name; lists of plain values are joined, larger values stay in the manifest only."""
    plain: dict[str, str] = {}
    for name, item in value.items():
        if isinstance(item, Mapping):
            plain |= _flat(item, f"{before}{name}.")
        elif isinstance(item, str | int | float):
            plain[f"{before}{name}"] = str(item)
        elif isinstance(item, list | tuple) and all(isinstance(part, str | int | float) for part in item):
            plain[f"{before}{name}"] = ", ".join(map(str, item))
    return plain
