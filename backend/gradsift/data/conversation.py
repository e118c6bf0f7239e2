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
