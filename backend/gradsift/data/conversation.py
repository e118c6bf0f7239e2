"""What a row says: its turns with everything they hold, and the tools it offers.

The same types serve the pool, the targets, the store's Parquet files, the pages and the exports.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """An assistant's call of a tool. arguments: JSON text, or whatever text the row gave."""

    name: str
    arguments: str = "{}"
    id: str = ""

    @property
    def text(self) -> str:
        """The call as people read it: `name(arguments)`."""
        return f"{self.name}({self.arguments})"

    @property
    def value(self) -> Any:
        """The arguments as an object, or their text if it is not JSON of one."""
        try:
            value = json.loads(self.arguments)
        except (ValueError, RecursionError):
            return self.arguments
        return value if isinstance(value, dict) else self.arguments


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. role: one of `ROLES`.

    reasoning: what an assistant thought before it answered. name, call_id: of a tool's result, the tool and the call
    it answers; `name` of other turns is the speaker's. learned: what the row says about learning this turn, None if it
    says nothing. Only assistant turns are ever learned.
    """

    role: str
    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    name: str = ""
    call_id: str = ""
    learned: bool | None = None

    @property
    def is_learned(self) -> bool:
        """Whether this turn is trained on."""
        return self.role == "assistant" and self.learned is not False

    @property
    def text(self) -> str:
        """All that the turn says, as search, BM25 and the other methods that read words see it."""
        calls = (call.text for call in self.tool_calls)
        return "\n".join(part for part in (self.reasoning, self.content, *calls) if part)

    def record(self) -> dict[str, Any]:
        """The message as a row of the store's Parquet files."""
        calls = [{"name": call.name, "arguments": call.arguments, "id": call.id} for call in self.tool_calls]
        return {
            "role": self.role,
            "content": self.content,
            "reasoning": self.reasoning or None,
            "tool_calls": calls or None,
            "name": self.name or None,
            "call_id": self.call_id or None,
            "learned": self.learned,
        }


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns of a row. tools: JSON text of the list of tools that it offers, "" if none.

    prefix: text at the start of the last assistant turn that is given, not learned; the encoder joins it to the answer
    by one space.
    """

    messages: tuple[Message, ...]
    tools: str = ""
    prefix: str = ""

    @property
    def text(self) -> str:
        """What its turns say, one after another."""
        return "\n".join(message.text for message in self.messages)

    @property
    def last_answer(self) -> int:
        """Index of the last assistant turn, -1 if there is none."""
        return max((at for at, message in enumerate(self.messages) if message.role == "assistant"), default=-1)


def read_messages(records: Iterable[Mapping[str, Any]]) -> tuple[Message, ...]:
    """The messages that `Message.record` wrote."""
    return tuple(
        Message(
            role=record["role"],
            content=record["content"],
            reasoning=record["reasoning"] or "",
            tool_calls=tuple(ToolCall(**call) for call in record["tool_calls"] or ()),
            name=record["name"] or "",
            call_id=record["call_id"] or "",
            learned=record["learned"],
        )
        for record in records
    )


def openai_message(message: Message) -> dict[str, Any]:
    """The message as files for people and trainers hold it: an OpenAI-style record that `read_conversation` reads back.

    What the message does not have is absent; `content` is always there. Arguments that are a JSON object are written as
    one, other arguments as text. `weight` is 0 for a turn that the row says not to learn, 1 for one that it says to.
    """
    value: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        value["reasoning_content"] = message.reasoning
    if message.tool_calls:
        value["tool_calls"] = [_openai_call(call) for call in message.tool_calls]
    if message.name:
        value["name"] = message.name
    if message.call_id:
        value["tool_call_id"] = message.call_id
    if message.learned is not None:
        value["weight"] = int(message.learned)
    return value


def json_text(value: Any) -> str:
    """A value as JSON text. Keys whose value is null are left out: `datasets` gives every row the keys of all others.

    Raises:
        TypeError, ValueError: JSON has no such value; NaN is one.
    """
    return json.dumps(_without_nulls(value), ensure_ascii=False, allow_nan=False)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _openai_call(call: ToolCall) -> dict[str, Any]:
    value: dict[str, Any] = {"id": call.id} if call.id else {}
    return value | {"type": "function", "function": {"name": call.name, "arguments": _arguments(call)}}


def _arguments(call: ToolCall) -> Any:
    """The object that the arguments are, or their text: an object only if it is read back as the same text."""
    value = call.value
    try:
        same = isinstance(value, dict) and json_text(value) == call.arguments
    except ValueError:  # NaN
        same = False
    return value if same else call.arguments
