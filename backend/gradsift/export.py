"""Picks to files that trainers read: the data, the scores beside it, a manifest and a dataset card.

One row a pick, in rank order; the same keys with the same types in every row; UTF-8 and "\\n":

    messages           {"messages": [{"role", "content"}]}
    prompt-completion  {"prompt": [messages before the last answer], "completion": [the last answer]}; what comes after
                       the last answer is left out, and the card says of how many rows
    alpaca             {"instruction", "input", "output", "system", "history"}: the last exchange, the earlier ones as
                       [user, assistant] pairs; turns out of that order are merged, and the card says of how many rows
    sharegpt           {"conversations": [{"from", "value"}]}
    less               the source's line byte for byte where the source is JSON Lines or the record already has LESS's
                       form; otherwise {"dataset", "id", "messages"}; and sorted.csv
    parquet            a column messages: list<struct<role, content>>

A `prefix` is joined to the last answer by one space, except in lines that are copied.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from gradsift import atomic
from gradsift.cards import Tally, dataset_card
from gradsift.errors import GradsiftError, UsageError
from gradsift.readers import data_suffix, parse_object
from gradsift.streams import clause

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("messages", "prompt-completion", "alpaca", "sharegpt", "less", "parquet")
_GROUP = 1000  # rows of a Parquet row group
_FROM = {"user": "human", "assistant": "gpt", "system": "system"}
_TRAILING = "turns after the last assistant turn were left out, since nothing is learned from them"
_NO_PROMPT = "the conversation begins with its only assistant turn, so the prompt is empty"
_MERGED = "turns did not alternate; neighbors of one role were merged, and system turns moved to the front"
_COPIED = "written as in the source, byte for byte"
_REWRITTEN = "written anew as `dataset`, `id`, `messages`, because the source is neither JSON Lines nor of LESS's form"
_OTHER_SCHEMA = "of the copied rows, those whose line holds no `messages`: convert them, or export another format"


class ExportError(GradsiftError):
    """An export that cannot be written, or has nothing in it."""


@dataclass(frozen=True, slots=True)
class Pick:
    """One selected row."""

    rank: int  # from 1
    score: float
    id: str
    source: str
    task: str
    messages: list[dict[str, str]]  # role, content
    prefix: str
    raw: bytes  # the source's line, or the record as JSON
    file: str
    line: int  # from 1


def export_picks(
    out: Path, format: str, picks: Iterable[Pick], scores: "pd.DataFrame", manifest: Mapping[str, Any]
) -> Path:
    """Write OUT/train.jsonl (or train.parquet), scores.parquet, manifest.json, README.md; `less` also sorted.csv.

    `picks` come in rank order and are streamed. `scores` is written as it is. The manifest gets `data`: file, sha256,
    bytes, rows, format; it is written last, so a folder with a manifest is complete. An export that lies in `out` is
    replaced.

    Returns:
        The path of the data file.

    Raises:
        UsageError: an unknown format.
        ExportError: there is no pick, or the folder cannot be written.
    """
    _check(format)
    tally = Tally()
    try:
        out.mkdir(parents=True, exist_ok=True)
        path = out / ("train.parquet" if format == "parquet" else "train.jsonl")
        with atomic.open_for_write(path) as file:
            (_write_parquet if format == "parquet" else _write_lines)(file, format, picks, tally)
            if not tally.rows:
                raise ExportError(
                    "There is nothing to export: no row was picked. Raise the budget or accept some rows."
                )
            (out / "manifest.json").unlink(missing_ok=True)
        for stale in {"train.parquet", "train.jsonl", "sorted.csv"} - {path.name}:
            (out / stale).unlink(missing_ok=True)
        _write_scores(out / "scores.parquet", scores)
        if format == "less":
            atomic.write_text(out / "sorted.csv", _sorted_csv(tally))
        data = _describe(path, format, tally.rows)
        atomic.write_text(out / "README.md", dataset_card(format, data, tally, manifest))
        atomic.write_json(out / "manifest.json", {**manifest, "data": data})
    except OSError as error:
        raise ExportError(
            f"Cannot write the export to {out}: {clause(error)}. Check the folder and the disk."
        ) from error
    return path


def preview(format: str, picks: Iterable[Pick], n: int) -> str:
    """The first `n` lines as `export_picks` writes them; for `parquet`, its rows as JSON."""
    _check(format)
    line = _LINES[format]
    return b"".join(line(pick, Tally()) + b"\n" for pick in islice(picks, n)).decode("utf-8", "replace")


def _check(format: str) -> None:
    if format not in FORMATS:
        raise UsageError(f"There is no export format {format!r}: choose one of {', '.join(FORMATS)}.")


def _write_lines(file: IO[bytes], format: str, picks: Iterable[Pick], tally: Tally) -> None:
    line = _LINES[format]
    for pick in picks:
        _count(pick, tally)
        file.write(line(pick, tally) + b"\n")


def _write_parquet(file: IO[bytes], format: str, picks: Iterable[Pick], tally: Tally) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    schema = pa.schema([("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))])
    stream = iter(picks)
    with ParquetWriter(file, schema) as writer:
        while group := list(islice(stream, _GROUP)):
            for pick in group:
                _count(pick, tally)
            writer.write_table(pa.Table.from_pylist([{"messages": _turns(pick)} for pick in group], schema))


def _count(pick: Pick, tally: Tally) -> None:
    tally.rows += 1
    tally.by_source[pick.source] += 1
    tally.places.append((pick.file, pick.line, pick.score))


def _write_scores(path: Path, scores: "pd.DataFrame") -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic.open_for_write(path) as file:
        pq.write_table(pa.Table.from_pandas(scores), file)


def _sorted_csv(tally: Tally) -> str:
    rows = [f"{_cell(file)}, {line - 1}, {round(score, 6)}\n" for file, line, score in tally.places]
    return "file name, index, score\n" + "".join(rows)


def _cell(name: str) -> str:
    """A CSV cell that a spreadsheet takes for text: quoted where needed, never a formula."""
    if name.lstrip().startswith(("=", "+", "-", "@")) or name.startswith(("\t", "\r", "\n")):
        name = "'" + name
    if any(character in name for character in ',"\r\n') or name != name.strip():
        return '"' + name.replace('"', '""') + '"'
    return name


def _describe(path: Path, format: str, rows: int) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": path.name, "sha256": digest, "bytes": path.stat().st_size, "rows": rows, "format": format}


def _turns(pick: Pick) -> list[dict[str, str]]:
    """Role and content of every turn, the prefix joined to the last answer."""
    turns = [{"role": message["role"], "content": message["content"]} for message in pick.messages]
    if pick.prefix:
        last = _last_answer(turns)
        turns[last]["content"] = f"{pick.prefix} {turns[last]['content']}"
    return turns


def _last_answer(turns: list[dict[str, str]]) -> int:
    return max(index for index, turn in enumerate(turns) if turn["role"] == "assistant")


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _messages_line(pick: Pick, tally: Tally) -> bytes:
    return _dump({"messages": _turns(pick)})


def _prompt_completion_line(pick: Pick, tally: Tally) -> bytes:
    turns = _turns(pick)
    last = _last_answer(turns)
    tally.notes.update([_TRAILING] if last < len(turns) - 1 else [])
    tally.notes.update([] if last else [_NO_PROMPT])
    return _dump({"prompt": turns[:last], "completion": [turns[last]]})


def _alpaca_line(pick: Pick, tally: Tally) -> bytes:
    turns = _turns(pick)
    last = _last_answer(turns)
    tally.notes.update([_TRAILING] if last < len(turns) - 1 else [])
    system = [turn["content"] for turn in turns[: last + 1] if turn["role"] == "system"]
    talk = [turn for turn in turns[: last + 1] if turn["role"] != "system"]
    pairs: list[tuple[list[str], list[str]]] = []
    for turn in talk:
        if turn["role"] == "user":
            if not pairs or pairs[-1][1]:
                pairs.append(([], []))
            pairs[-1][0].append(turn["content"])
        else:
            if not pairs:
                pairs.append(([], []))
            pairs[-1][1].append(turn["content"])
    regular = all(len(user) == len(answer) == 1 for user, answer in pairs)
    if not regular or len(system) > 1 or any(turn["role"] == "system" for turn in turns[1 : last + 1]):
        tally.notes[_MERGED] += 1
    history = [["\n\n".join(user), "\n\n".join(answer)] for user, answer in pairs]
    question, answer = history.pop()
    row = {"instruction": question, "input": "", "output": answer, "system": "\n\n".join(system), "history": history}
    return _dump(row)


def _sharegpt_line(pick: Pick, tally: Tally) -> bytes:
    return _dump({"conversations": [{"from": _FROM[turn["role"]], "value": turn["content"]} for turn in _turns(pick)]})


def _less_line(pick: Pick, tally: Tally) -> bytes:
    value, _ = parse_object(pick.raw)
    fits = value is not None and _is_less(value)
    if fits or data_suffix(Path(pick.file)) in (".jsonl", ".ndjson"):
        tally.notes[_COPIED] += 1
        if not fits:
            tally.only_messages = False
            tally.notes[_OTHER_SCHEMA] += 1
        return pick.raw
    tally.notes[_REWRITTEN] += 1
    return _dump({"dataset": pick.source, "id": pick.id, "messages": _turns(pick)})


def _is_less(value: dict[str, Any]) -> bool:
    """Whether a record has LESS's `messages`, with plain roles and plain text."""
    messages = value.get("messages")
    return isinstance(messages, list) and all(
        isinstance(turn, dict) and turn.get("role") in _FROM and isinstance(turn.get("content"), str)
        for turn in messages
    )


_LINES: dict[str, Callable[[Pick, Tally], bytes]] = {
    "messages": _messages_line,
    "prompt-completion": _prompt_completion_line,
    "alpaca": _alpaca_line,
    "sharegpt": _sharegpt_line,
    "less": _less_line,
    "parquet": _messages_line,
}
