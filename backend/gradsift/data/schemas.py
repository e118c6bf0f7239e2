"""From a record to a conversation: the schemas in which instruction data comes.

`read_conversation` recognizes each record by its own fields, so a file may mix schemas:

    messages           messages (or conversation): [{role, content}], as in LESS and open-instruct
    sharegpt           conversations: [{from, value}]
    prompt-completion  prompt with completion or response: strings, or lists of messages
    alpaca             instruction, output, and input, system, history where present
    dolly              instruction, response, and context where present

Texts are not trimmed. A `content` that is a list of text parts is joined without a separator; an instruction and its
input (or context) are joined by a blank line. A part that cannot be represented, such as an image or a tool call, makes
the whole record unusable; it is never left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Messages = tuple[tuple[str, str], ...]

_CHATS = ("messages", "conversations", "conversation")
_PROMPTS = (("prompt", "completion"), ("prompt", "response"))
_INSTRUCTIONS = (("alpaca", "output", "input"), ("dolly", "response", "context"))
_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
_TOOL_ROLES = frozenset({"tool", "function", "function_call", "function_response", "observation", "ipython"})
_TOOL_FIELDS = ("tool_calls", "function_call")


class Unusable(Exception):
    """A record cannot be used; the message is one clause that says why."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How records are read where their own fields do not say it.

    columns: (part, column) pairs, such as ("user", "question"). take: kinds of rows that are read only when asked for.
    source_column: the column that names a row's source.
    """

    columns: tuple[tuple[str, str], ...] = ()
    take: tuple[Literal["text", "chosen", "label"], ...] = ()
    source_column: str = ""


class Conversation(NamedTuple):
    """A record's turns as (role, content) pairs with the roles system, user and assistant, and the record's schema."""

    schema: str
    messages: Messages


def read_conversation(record: Mapping[str, Any]) -> Conversation:
    """Return the conversation of a record.

    Raises:
        Unusable: the schema is unknown, a part cannot be read, or no assistant turn has text.
    """
    schema, messages = _detect(record)
    system = record.get("system")
    if system is not None and not (messages and messages[0][0] == "system"):
        text = _text(system, "system")
        messages = [("system", text), *messages] if text else messages
    _require_answer(messages)
    return Conversation(schema, tuple(messages))


def has_schema(fields: frozenset[str]) -> bool:
    """Whether records with these fields would be recognized; it distinguishes a header line from text."""
    pairs = [*_PROMPTS, *(("instruction", answer) for _, answer, _ in _INSTRUCTIONS)]
    return any(name in fields for name in _CHATS) or any(fields >= set(pair) for pair in pairs)


def kind(value: object) -> str:
    """The JSON type of a value, in words: "a list", "null", ..."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), f"of type {type(value).__name__}")


def shorten(text: str, limit: int = 40) -> str:
    """Quote untrusted text: printable, on one line, about `limit` characters at most."""
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def _detect(record: Mapping[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    for name in _CHATS:
        if isinstance(record.get(name), list):
            return _chat(record[name], name)
    for prompt, completion in _PROMPTS:
        if record.get(prompt) is not None and record.get(completion) is not None:
            turns = [*_side(record[prompt], prompt, "user"), *_side(record[completion], completion, "assistant")]
            return "prompt-completion", turns
    for schema, answer, extra in _INSTRUCTIONS:
        if record.get("instruction") is not None and record.get(answer) is not None:
            return schema, _instruction(record, answer, extra)
    for name in _CHATS:
        if record.get(name) is not None:
            raise Unusable(f"{name} is not a list but {kind(record[name])}")
    raise Unusable(_unknown(record))


def _unknown(record: Mapping[str, Any]) -> str:
    if not record:
        return "no known schema: the object is empty"
    names = [shorten(str(name)) for name in list(record)[:8]]
    more = f" and {len(record) - 8} more" if len(record) > 8 else ""
    return f"no known schema among the fields {', '.join(names)}{more}"


def _chat(items: list[Any], field: str) -> tuple[str, list[tuple[str, str]]]:
    if not items:
        raise Unusable(f"{field} is empty")
    schema = "sharegpt" if isinstance(items[0], dict) and items[0].get("from") is not None else "messages"
    return schema, [_message(item, f"message {number} of {field}") for number, item in enumerate(items, 1)]


def _side(value: Any, field: str, role: str) -> list[tuple[str, str]]:
    """One side of a prompt/completion pair: a string (one turn of `role`) or a list of messages."""
    if isinstance(value, str):
        return [(role, value)]
    if isinstance(value, list):
        return [_message(item, f"message {number} of {field}") for number, item in enumerate(value, 1)]
    raise Unusable(f"{field} is neither a string nor a list of messages but {kind(value)}")


def _instruction(record: Mapping[str, Any], answer: str, extra: str) -> list[tuple[str, str]]:
    turns, history = [], record.get("history") or []
    if not isinstance(history, list):
        raise Unusable(f"history is not a list but {kind(history)}")
    for number, pair in enumerate(history, 1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise Unusable(f"turn {number} of history is not a pair of user and assistant text")
        turns += [("user", _text(pair[0], f"turn {number} of history"))]
        turns += [("assistant", _text(pair[1], f"turn {number} of history"))]
    question = _text(record["instruction"], "instruction")
    context = _text(record.get(extra) or "", extra)
    if context.strip():
        question = f"{question}\n\n{context}" if question else context
    return [*turns, ("user", question), ("assistant", _text(record[answer], answer))]


def _message(item: Any, where: str) -> tuple[str, str]:
    if not isinstance(item, dict):
        raise Unusable(f"{where} is not an object but {kind(item)}")
    if any(item.get(field) for field in _TOOL_FIELDS):
        raise Unusable(f"{where} calls a tool, which is not supported")
    name = item.get("role") if item.get("role") is not None else item.get("from")
    if not isinstance(name, str):
        raise Unusable(f"{where} has no role")
    role = name.strip().lower()
    if role in _TOOL_ROLES:
        raise Unusable(f"{where} has the role {shorten(name)}, which is not supported")
    if role not in _ROLES:
        raise Unusable(f"{where} has the unknown role {shorten(name)}")
    content = item.get("content") if item.get("content") is not None else item.get("value")
    return _ROLES[role], _text(content, f"the content of {where}")


def _text(value: Any, what: str) -> str:
    """A string, unchanged; or a list of {"type": "text", "text": ...} parts, joined."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_part(part, what) for part in value)
    raise Unusable(f"{what} is not text but {kind(value)}")


def _part(part: Any, what: str) -> str:
    if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    actual = f"of type {shorten(str(part.get('type')))}" if isinstance(part, dict) else kind(part)
    raise Unusable(f"{what} holds a part that is not text but {actual}")


def _require_answer(messages: list[tuple[str, str]]) -> None:
    answers = [content for role, content in messages if role == "assistant"]
    if not answers:
        raise Unusable("no assistant turn")
    if not any(answer.strip() for answer in answers):
        raise Unusable("no assistant turn with text")
