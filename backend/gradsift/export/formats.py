"""Picks as lines of the files that trainers read.

    messages           {"messages": [{"role", "content"}]}, OpenAI's form as TRL and axolotl read it
    prompt-completion  {"prompt": [messages before the last answer], "completion": [the last answer]}; what follows the
                       last answer is left out, and the card says in how many rows
    alpaca             {"instruction", "input", "output", "system", "history"}: the last exchange, the earlier ones as
                       [user, assistant] pairs; turns out of that order are merged, and the card says in how many rows
    sharegpt           {"conversations": [{"from", "value"}]}, as LLaMA-Factory reads it
    less               the source's line byte for byte if the source is JSON Lines or the record already has LESS's
                       form; otherwise {"dataset", "id", "messages"}
    parquet            a column messages: list<struct<role, content>>

Lines of one file have the same keys with the same types. What rows hold beside turns of text goes where the format has
a place for it, and a format without one is refused (see holdings.py):

    messages, prompt-completion, less, parquet
                       a message has `reasoning_content`, `tool_calls` (arguments as an object where they are one),
                       `name`, `tool_call_id` and `weight` (0: not learned, 1: learned) where the row has them and is
                       without these keys elsewhere, since templates ask whether a key is there; if any row of the file
                       offers tools, every row has `tools`, which is null where there are none. In Parquet each message
                       is then JSON text of Arrow's JSON type, which `datasets` reads as objects, and `tools` JSON text
    messages, parquet  {"text"} if all rows are plain text
    sharegpt           turns from `function_call` (a call, or a list of calls, as JSON text) and `observation`;
                       reasoning as `<think>` before the answer; if any row of the file offers tools, every row has
                       `tools`, JSON text that is empty where there are none; `name` and `tool_call_id` likewise

A `prefix` is joined to the last answer with a space, except in copied lines.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from gradsift.data.conversation import Conversation, Message, openai_message
from gradsift.data.records import parse_object
from gradsift.data.streams import data_suffix
from gradsift.export.card import Tally
from gradsift.export.holdings import LACKS, Holdings, is_text, json_value, survey
from gradsift.runtime.errors import UsageError
from gradsift.selection.picks import Pick

FORMATS = tuple(LACKS)
_FROM = {"user": "human", "assistant": "gpt", "system": "system", "tool": "observation"}
_LESS_ROLES = frozenset({"system", "user", "assistant", "tool"})
_INTEGERS = range(-(2**63), 2**64)
_TRAILING = "turns after the last assistant turn were left out, because nothing is learned from them"
_UNLEARNED = "turns after the last learned answer were left out, because the row says not to learn them"
_NO_PROMPT = "the conversation begins with its only assistant turn, so the prompt is empty"
_MERGED = "turns did not alternate; adjacent turns of one role were merged, and system turns moved to the front"
_COPIED = "written as in the source, byte for byte"
_REWRITTEN = "rewritten as `dataset`, `id`, `messages`, because the source is neither JSON Lines nor in LESS's form"
_OTHER_SCHEMA = "copied, but the line has no `messages`: convert these rows, or export another format"
_JOINED = "the row's `prefix` was joined to its last answer with a space, so it is learned with it"


def check_format(format: str) -> None:
    """Raise `UsageError` if there is no such format."""
    if format not in FORMATS:
        raise UsageError(f"There is no export format {format!r}: choose one of {', '.join(FORMATS)}.")


def preview(format: str, picks: Iterable[Pick], n: int, holdings: Holdings | None = None) -> str:
    """The first `n` lines as an export writes them; for `parquet`, rows as JSON.

    holdings: of all rows of the file, which decide its keys; by default, of these rows.
    """
    check_format(format)
    shown = list(islice(picks, n))
    tally = Tally(holdings=holdings or survey((pick.id, pick.conversation) for pick in shown))
    return b"".join(LINES[format](pick, tally) + b"\n" for pick in shown).decode("utf-8", "replace")


def record_of(pick: Pick, tally: Tally) -> dict[str, Any]:
    """The row of the formats `messages` and `parquet`: {"messages"}, with "tools" if the file has them; or {"text"}."""
    if is_text(pick.conversation):
        return {"text": pick.conversation.messages[0].content}
    messages = [_message(message) for message in _joined(pick.conversation, tally)]
    return {"messages": messages, **_tools(pick, tally)}


def _joined(conversation: Conversation, tally: Tally) -> list[Message]:
    """The messages, the prefix joined to the last answer."""
    messages = list(conversation.messages)
    if conversation.prefix:
        tally.notes[_JOINED] += 1
        last = _last_answer(messages)
        messages[last] = replace(messages[last], content=f"{conversation.prefix} {messages[last].content}")
    return messages


def _message(message: Message) -> dict[str, Any]:
    value = openai_message(message)
    for call in value.get("tool_calls", ()):
        arguments = call["function"]["arguments"]
        if not _is_readable(arguments):
            call["function"]["arguments"] = json.dumps(arguments, ensure_ascii=False)
    return value


def _is_readable(value: Any) -> bool:
    """Whether `datasets` can read a JSON value: it fails at whole numbers beyond 64 bits, and the file with it."""
    if isinstance(value, dict | list):
        return all(map(_is_readable, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, int) or value in _INTEGERS


def _tools(pick: Pick, tally: Tally) -> dict[str, Any]:
    tools = pick.conversation.tools
    return {"tools": json_value(tools) if tools else None} if tally.holdings.has("tools") else {}


def _last_answer(messages: list[Message]) -> int:
    return max(index for index, message in enumerate(messages) if message.role == "assistant")


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _messages_line(pick: Pick, tally: Tally) -> bytes:
    return _dump(record_of(pick, tally))


def _prompt_completion_line(pick: Pick, tally: Tally) -> bytes:
    messages = _joined(pick.conversation, tally)
    learned = [index for index, message in enumerate(messages) if message.is_learned]
    last = learned[-1] if learned else _last_answer(messages)
    rest = [message.role for message in messages[last + 1 :]]
    tally.notes.update([_UNLEARNED if "assistant" in rest else _TRAILING] if rest else [])
    tally.notes.update([] if last else [_NO_PROMPT])
    records = [_message(message) for message in messages[: last + 1]]
    return _dump({"prompt": records[:last], "completion": records[last:], **_tools(pick, tally)})


def _alpaca_line(pick: Pick, tally: Tally) -> bytes:
    turns = _joined(pick.conversation, tally)
    last = _last_answer(turns)
    tally.notes.update([_TRAILING] if last < len(turns) - 1 else [])
    system = [turn.content for turn in turns[: last + 1] if turn.role == "system"]
    talk = [turn for turn in turns[: last + 1] if turn.role != "system"]
    pairs: list[tuple[list[str], list[str]]] = []
    for turn in talk:
        if turn.role == "user":
            if not pairs or pairs[-1][1]:
                pairs.append(([], []))
            pairs[-1][0].append(turn.content)
        else:
            if not pairs:
                pairs.append(([], []))
            pairs[-1][1].append(turn.content)
    regular = all(len(user) == len(answer) == 1 for user, answer in pairs)
    if not regular or len(system) > 1 or any(turn.role == "system" for turn in turns[1 : last + 1]):
        tally.notes[_MERGED] += 1
    history = [["\n\n".join(user), "\n\n".join(answer)] for user, answer in pairs]
    question, answer = history.pop()
    row = {"instruction": question, "input": "", "output": answer, "system": "\n\n".join(system), "history": history}
    return _dump(row)


def _sharegpt_line(pick: Pick, tally: Tally) -> bytes:
    turns = [_shared(message, tally.holdings) for message in _joined(pick.conversation, tally)]
    tools = {"tools": pick.conversation.tools} if tally.holdings.has("tools") else {}
    return _dump({"conversations": turns, **tools})


def _shared(message: Message, holdings: Holdings) -> dict[str, str]:
    role, value = _FROM[message.role], message.content
    if message.tool_calls:
        calls = [_shared_call(call) for call in _message(message)["tool_calls"]]
        role, value = "function_call", json.dumps(calls if len(calls) > 1 else calls[0], ensure_ascii=False)
    elif message.reasoning:
        value = f"<think>\n{message.reasoning}\n</think>\n\n{value}"  # LLaMA-Factory looks for these line breaks
    turn = {"from": role, "value": value}
    return turn | {"name": message.name, "tool_call_id": message.call_id} if holdings.has("ids") else turn


def _shared_call(call: dict[str, Any]) -> dict[str, Any]:
    return call["function"] | ({"id": call["id"]} if "id" in call else {})


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
    record = record_of(pick, tally)
    tally.only_messages = tally.only_messages and "messages" in record
    return _dump({"dataset": pick.source, "id": pick.id, **record})


def _is_less(value: dict[str, Any]) -> bool:
    """Whether a record has LESS's `messages`, with plain roles and plain text."""
    messages = value.get("messages")
    return isinstance(messages, list) and all(
        isinstance(turn, dict) and turn.get("role") in _LESS_ROLES and isinstance(turn.get("content"), str)
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
