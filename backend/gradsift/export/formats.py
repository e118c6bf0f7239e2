"""Picks as lines of the files that trainers read: the same keys with the same types in every row.

    messages           {"messages": [{"role", "content"}]}
    prompt-completion  {"prompt": [messages before the last answer], "completion": [the last answer]}; what follows the
                       last answer is left out, and the card says in how many rows
    alpaca             {"instruction", "input", "output", "system", "history"}: the last exchange, the earlier ones as
                       [user, assistant] pairs; turns out of that order are merged, and the card says in how many rows
    sharegpt           {"conversations": [{"from", "value"}]}
    less               the source's line byte for byte if the source is JSON Lines or the record already has LESS's
                       form; otherwise {"dataset", "id", "messages"}
    parquet            a column messages: list<struct<role, content>>

A `prefix` is joined to the last answer with a space, except in copied lines.
"""

import json
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from gradsift.data.records import parse_object
from gradsift.data.streams import data_suffix
from gradsift.export.card import Tally
from gradsift.runtime.errors import UsageError
from gradsift.selection.picks import Pick

FORMATS = ("messages", "prompt-completion", "alpaca", "sharegpt", "less", "parquet")
_FROM = {"user": "human", "assistant": "gpt", "system": "system"}
_TRAILING = "turns after the last assistant turn were left out, because nothing is learned from them"
_NO_PROMPT = "the conversation begins with its only assistant turn, so the prompt is empty"
_MERGED = "turns did not alternate; adjacent turns of one role were merged, and system turns moved to the front"
_COPIED = "written as in the source, byte for byte"
_REWRITTEN = "rewritten as `dataset`, `id`, `messages`, because the source is neither JSON Lines nor in LESS's form"
_OTHER_SCHEMA = "copied, but the line has no `messages`: convert these rows, or export another format"


def check_format(format: str) -> None:
    """Raise `UsageError` if there is no such format."""
    if format not in FORMATS:
        raise UsageError(f"There is no export format {format!r}: choose one of {', '.join(FORMATS)}.")


def preview(format: str, picks: Iterable[Pick], n: int) -> str:
    """The first `n` lines as an export writes them; for `parquet`, rows as JSON."""
    check_format(format)
    line = LINES[format]
    return b"".join(line(pick, Tally()) + b"\n" for pick in islice(picks, n)).decode("utf-8", "replace")


def turns_of(pick: Pick) -> list[dict[str, str]]:
    """Role and content of every turn, the prefix joined to the last answer."""
    turns = [{"role": message.role, "content": message.content} for message in pick.conversation.messages]
    if prefix := pick.conversation.prefix:
        last = _last_answer(turns)
        turns[last]["content"] = f"{prefix} {turns[last]['content']}"
    return turns


def _last_answer(turns: list[dict[str, str]]) -> int:
    return max(index for index, turn in enumerate(turns) if turn["role"] == "assistant")


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _messages_line(pick: Pick, tally: Tally) -> bytes:
    return _dump({"messages": turns_of(pick)})


def _prompt_completion_line(pick: Pick, tally: Tally) -> bytes:
    turns = turns_of(pick)
    last = _last_answer(turns)
    tally.notes.update([_TRAILING] if last < len(turns) - 1 else [])
    tally.notes.update([] if last else [_NO_PROMPT])
    return _dump({"prompt": turns[:last], "completion": [turns[last]]})


def _alpaca_line(pick: Pick, tally: Tally) -> bytes:
    turns = turns_of(pick)
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
    return _dump(
        {"conversations": [{"from": _FROM[turn["role"]], "value": turn["content"]} for turn in turns_of(pick)]}
    )


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
    return _dump({"dataset": pick.source, "id": pick.id, "messages": turns_of(pick)})


def _is_less(value: dict[str, Any]) -> bool:
    """Whether a record has LESS's `messages`, with plain roles and plain text."""
    messages = value.get("messages")
    return isinstance(messages, list) and all(
        isinstance(turn, dict) and turn.get("role") in _FROM and isinstance(turn.get("content"), str)
        for turn in messages
    )


LINES: dict[str, Callable[[Pick, Tally], bytes]] = {
    "messages": _messages_line,
    "prompt-completion": _prompt_completion_line,
    "alpaca": _alpaca_line,
    "sharegpt": _sharegpt_line,
    "less": _less_line,
    "parquet": _messages_line,
}
