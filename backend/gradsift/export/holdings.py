"""What rows hold beside plain turns, which formats have a place for it, and the sentence that refuses the others.

`survey` looks at every pick before anything is written. A format that cannot carry what a row holds is refused: nothing
is left out of a file without a word.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from gradsift.data.conversation import Conversation, Message
from gradsift.data.reasons import shorten

PARTS = {
    "text": "plain text without turns",
    "tools": "tools",
    "calls": "tool calls",
    "results": "tool results",
    "reasoning": "reasoning",
    "unlearned": "assistant turns that are not to be learned",
    "names": "names of speakers",
    "spoken calls": "text beside a tool call",
    "reasoned calls": "reasoning before a tool call",
    "runs of results": "several tool results in a row",
}
LACKS: dict[str, frozenset[str]] = {  # format -> parts that it has no place for
    "messages": frozenset(),
    "prompt-completion": frozenset({"text"}),
    "alpaca": frozenset({"text", "tools", "calls", "results", "reasoning", "unlearned", "names"}),
    "sharegpt": frozenset({"text", "unlearned", "spoken calls", "reasoned calls", "runs of results"}),
    "less": frozenset(),
    "parquet": frozenset(),
}
_ONE_KIND = ("messages", "parquet")  # of these files, every row is text or every row is a conversation
_BEYOND_TURNS = frozenset({"tools", "calls", "results", "reasoning", "unlearned", "names", "marks"})
_DECIMALS, _BITS = 10, 64  # what the JSON reader of `datasets` keeps of a number


@dataclass
class Holdings:
    """How many rows hold each part, and the first of them.

    counts, first: by the names of `PARTS`, and by "chat" (a conversation), "marks" (a turn says whether it is learned),
    "ids" (a call or a result has an id or a name), "prefix", "numbers" (longer in a call or a tool than `datasets`
    keeps when it reads JSON Lines) and "out of turn" (LLaMA-Factory skips the row). first: the row's id.
    """

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def has(self, *parts: str) -> bool:
        """Whether any row holds one of these parts."""
        return any(self.counts[part] for part in parts)

    @property
    def are_plain(self) -> bool:
        """Whether every row is turns of role and content, and nothing else."""
        return not self.has("text", *_BEYOND_TURNS)

    @property
    def are_text(self) -> bool:
        """Whether every row is plain text."""
        return self.has("text") and not self.has("chat")


def survey(rows: Iterable[tuple[str, Conversation]]) -> Holdings:
    """What rows hold, given as (id, conversation)."""
    holdings = Holdings()
    for id, conversation in rows:
        holdings.rows += 1
        for part in set(_held(conversation)):
            holdings.counts[part] += 1
            holdings.first.setdefault(part, id)
    return holdings


def fits(format: str, holdings: Holdings) -> bool:
    """Whether a format has a place for all that these rows hold."""
    mixed = format in _ONE_KIND and holdings.has("text") and holdings.has("chat")
    return not mixed and not holdings.has(*LACKS[format])


def refusal(format: str, holdings: Holdings) -> str:
    """Why these rows cannot be written in a format, and which formats can; "" if they can."""
    if fits(format, holdings):
        return ""
    lacking = [part for part in PARTS if part in LACKS[format] and holdings.has(part)]
    if lacking:
        named = _listed([f"{PARTS[part]} ({_where(holdings, part)})" for part in lacking], "and")
        return f"The format {format} has no place for {named}: choose {_fitting(holdings)}."
    return (
        f"A file of the format {format} holds either plain text or conversations, and these rows are both: text in "
        f"{_where(holdings, 'text')}; turns in {_where(holdings, 'chat')}. Choose {_fitting(holdings)}, or pick one "
        "kind at a time."
    )


def is_text(conversation: Conversation) -> bool:
    """Whether a row is plain text, to which no chat template is applied."""
    return len(conversation.messages) == 1 and conversation.messages[0].role == "text"


def json_value(text: str) -> Any:
    """What JSON text says, or the text itself if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _held(conversation: Conversation) -> Iterator[str]:
    messages = conversation.messages
    yield "text" if is_text(conversation) else "chat"
    if conversation.tools:
        yield "tools"
    if conversation.prefix:
        yield "prefix"
    if any(one.role == two.role == "tool" for one, two in pairwise(messages)):
        yield "runs of results"
    if _out_of_turn(messages):
        yield "out of turn"
    for message in messages:
        yield from _held_by(message)
    values = [conversation.tools, *(call.arguments for message in messages for call in message.tool_calls)]
    if any(_has_long_number(json_value(value)) for value in values if value):
        yield "numbers"


def _held_by(message: Message) -> Iterator[str]:
    if message.role == "tool":
        yield "results"
    elif message.name:
        yield "names"
    if message.reasoning:
        yield "reasoning"
    if message.tool_calls:
        yield "calls"
        if message.content:
            yield "spoken calls"
        if message.reasoning:
            yield "reasoned calls"
    if message.name or message.call_id or any(call.id for call in message.tool_calls):
        yield "ids"
    if message.learned is not None:
        yield "marks"
    if message.role == "assistant" and not message.is_learned:
        yield "unlearned"


def _out_of_turn(messages: Sequence[Message]) -> bool:
    """Whether LLaMA-Factory skips the row: after the system turn, others and the assistant must take turns."""
    talk = messages[1:] if messages[0].role == "system" else messages
    asked = [message.role in ("user", "tool") for message in talk]
    answered = [message.role == "assistant" for message in talk]
    return len(talk) % 2 != 0 or not all(asked[::2]) or not all(answered[1::2])


def _has_long_number(value: Any) -> bool:
    """Whether a number in a JSON value has more decimals or bits than `datasets` keeps when it reads JSON Lines."""
    if isinstance(value, dict | list):
        return any(map(_has_long_number, value.values() if isinstance(value, dict) else value))
    if isinstance(value, float):
        return round(value, _DECIMALS) != value
    return isinstance(value, int) and value.bit_length() >= _BITS


def _where(holdings: Holdings, part: str) -> str:
    count = holdings.counts[part]
    return f"{count:,} {'row' if count == 1 else 'rows'}, first {shorten(holdings.first[part])}"


def _fitting(holdings: Holdings) -> str:
    return _listed([format for format in LACKS if fits(format, holdings)], "or")


def _listed(words: list[str], last: str) -> str:
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else words[0]
