"""A question and its answer in columns of their own, with what stands beside them: context, history, reasoning."""

import re
from dataclasses import replace
from typing import Any

from gradsift.data.conversation import Message
from gradsift.data.fields import Fields, holds_text, parsed
from gradsift.data.reasons import Unusable, kind
from gradsift.data.turns import REASONING, is_turn, one_reasoning, read_text, read_turns

CONTEXTS = ("input", "context")
_SWITCHES = frozenset({"on", "off", "true", "false", "yes", "no"})  # how the answer was made, not what was thought
_SPEAKER = re.compile(r"\n\n(Human|Assistant): ?")


def read_pair(record: Fields, question: str, answer: str, contexts: tuple[str, ...], reasoning: str) -> list[Message]:
    """The turns of a record whose question and answer are columns: strings, text parts, or lists of messages.

    contexts: columns that are joined to the question by a blank line. reasoning: the column of the answer's reasoning,
    "" for the usual names.
    """
    asked, listed = _side(record, question, "user", written=True)
    answered, _ = _side(record, answer, "assistant", written=listed)
    for column in contexts:
        if column != question and column in record:
            asked = _with_context(asked, record, column)
    return _history(record) + asked + with_reasoning(answered, record, reasoning)


def read_chosen(record: Fields, question: str, contexts: tuple[str, ...]) -> list[Message]:
    """The conversation that a preference row prefers: `chosen`, after the prompt if it does not hold it itself."""
    chosen = parsed(record.peek("chosen"), "chosen")
    asked = record.peek(question) if question else None
    if isinstance(chosen, str):
        whole = _transcript(chosen)
        if whole:
            record.use("chosen", *([question] if isinstance(asked, str) and asked in chosen else []))
            return whole
        if not question:
            raise Unusable("chosen has no prompt beside it, and is not a list of messages")
        turns = read_pair(record, question, "chosen", contexts, "")
        if isinstance(asked, str) and asked.strip() and chosen.startswith(asked):
            turns[-1] = replace(turns[-1], content=chosen[len(asked) :])
        return turns
    turns, _ = _side(record, "chosen", "assistant", written=True)
    if not question:
        return turns
    prompt, listed = _side(Fields(record.values), question, "user", written=True)
    if turns[: len(prompt)] == prompt or (not listed and prompt[0].content in [turn.content for turn in turns[:-1]]):
        record.use(question)
        return turns
    if listed or (turns[:1] and turns[0].role == "assistant"):
        return read_pair(record, question, "chosen", contexts, "")
    return turns  # a whole conversation of its own, of which the prompt is no part


def with_reasoning(turns: list[Message], record: Fields, column: str) -> list[Message]:
    """The turns, the last answer of which has the reasoning that stands in a column of the record."""
    last = max((index for index, turn in enumerate(turns) if turn.role == "assistant"), default=-1)
    if last < 0:
        return turns
    names = [column] if column else [name for name in REASONING if _is_reasoning(record.peek(name))]
    found = [read_text(record.peek(name), name, record, name) for name in names if record.peek(name) is not None]
    text = one_reasoning([turns[last].reasoning, *found], "the answer")
    return [*turns[:last], replace(turns[last], reasoning=text), *turns[last + 1 :]]


def _is_reasoning(value: Any) -> bool:
    return isinstance(value, str) and value.strip().lower() not in ("", *_SWITCHES)


def _side(record: Fields, column: str, role: str, written: bool) -> tuple[list[Message], bool]:
    """One side of a pair, and whether it is a list of messages; `written`: which may be written as JSON text."""
    value = record.get(column)
    if isinstance(value, str) and written:
        found = parsed(value, column)
        if isinstance(found, list) and found and all(is_turn(item) for item in found):
            return read_turns(found, record, column), True
    if is_turn(value):
        value = [value]
    if isinstance(value, list) and (not value or any(is_turn(item) for item in value)):
        return read_turns(value, record, column), True
    if isinstance(value, str | list):
        return [Message(role, read_text(value, column, record, column))], False
    raise Unusable(f"{column} is neither a string nor a list of messages but {kind(value)}")


def _with_context(asked: list[Message], record: Fields, column: str) -> list[Message]:
    value = record.peek(column)
    if value is None or (isinstance(value, list | dict) and not holds_text(value)):
        return asked
    text = read_text(value, column, record, column)
    if not text.strip():
        return asked
    if not asked or asked[-1].role != "user":
        raise Unusable(f"{column} has no question to which it could be joined")
    question = f"{asked[-1].content}\n\n{text}" if asked[-1].content else text
    return [*asked[:-1], replace(asked[-1], content=question)]


def _history(record: Fields) -> list[Message]:
    value = parsed(record.get("history"), "history")
    if value is None or value == "" or value == {}:
        return []
    if not isinstance(value, list):
        raise Unusable(f"history is not a list but {kind(value)}")
    if any(is_turn(item) for item in value):
        return read_turns(value, record, "history")
    turns = []
    for number, pair in enumerate(value, 1):
        where = f"turn {number} of history"
        if not isinstance(pair, list) or len(pair) != 2:
            raise Unusable(f"{where} is not a pair of user and assistant text")
        for role, text in zip(("user", "assistant"), pair, strict=True):
            turns.append(Message(role, read_text(text, where, record, "history")))
    return turns


def _transcript(text: str) -> list[Message]:
    """The turns of a text whose turns begin with a blank line and "Human:" or "Assistant:"; none if it is another."""
    before, *parts = _SPEAKER.split(text if text.startswith("\n\n") else f"\n\n{text}")
    if before or not parts:
        return []
    roles = {"Human": "user", "Assistant": "assistant"}
    return [Message(roles[who], said) for who, said in zip(parts[::2], parts[1::2], strict=True)]
