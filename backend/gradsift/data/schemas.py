"""From a record to a conversation: the schemas in which instruction data comes.

`read_conversation` recognizes each record by its own fields, in any case, so a file may mix schemas:

    messages     messages, conversations or conversation: a list of turns with `role` or `from` and `content` or `value`,
                 also as JSON text, or as an object of lists
    pairs        a question and its answer in two columns (`PAIRS`, the first complete one), with `input`, `context`,
                 `system` or `system_prompt`, `history` and reasoning where present
    text         a column `text` alone, all of it learned: only when asked for
    preferences  `chosen` and `rejected`: the chosen side, only when asked for
    labels       a `label` that is true or false (KTO): the true ones, only when asked for

Texts are not trimmed. A question and its input (or context) are joined by a blank line. `tools` (or `functions`) are
kept with the row. What cannot be kept whole, such as an image, makes the record unusable; columns that hold text and
were not used are named in `Found.unused`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from gradsift.data.calls import read_tools
from gradsift.data.conversation import Message
from gradsift.data.fields import MEDIA, Fields, parsed, refuse_media
from gradsift.data.reasons import Unusable, kind, shorten
from gradsift.data.turns import REASONING, is_turn, one_reasoning, read_text, read_turns

PARTS = ("user", "assistant", "system", "context", "reasoning", "tools", "messages", "text")  # that --columns can map
CHATS = ("messages", "conversations", "conversation")
PAIRS = {
    ("prompt", "completion"): "prompt-completion",
    ("prompt", "response"): "prompt-completion",
    ("instruction", "output"): "alpaca",
    ("instruction", "response"): "dolly",
    **{
        (question, answer): f"{question}-{answer}"
        for question, answers in (
            ("prompt", ("output", "answer", "solution")),
            ("instruction", ("completion", "answer", "solution")),
            ("question", ("answer", "response", "output", "completion", "solution")),
            ("query", ("response", "answer", "output", "completion", "solution")),
            ("problem", ("solution", "answer", "response", "output", "completion")),
            ("user", ("assistant",)),
            ("human", ("assistant", "gpt")),
            ("input", ("output", "response", "answer", "completion")),
            ("inputs", ("targets", "outputs", "output")),
        )
        for answer in answers
    },
}
_SYSTEMS = ("system", "system_prompt")
_CONTEXTS = ("input", "context")
_ABOUT = ("id", "dataset", "source", "task", "category", "subtask", "prefix")  # used by `make_row`
_SWITCHES = frozenset({"on", "off", "true", "false", "yes", "no", "none", "low", "medium", "high"})  # not a reasoning


@dataclass(frozen=True, slots=True)
class Reading:
    """How records are read where their own fields do not say it.

    columns: (part, column) pairs, such as ("user", "question"). take: kinds of rows that are read only when asked for.
    source_column: the column that names a row's source.
    """

    columns: tuple[tuple[str, str], ...] = ()
    take: tuple[Literal["text", "chosen", "label"], ...] = ()
    source_column: str = ""


class Found(NamedTuple):
    """A record's schema, turns and tools (JSON text), and the columns that held text and were not used."""

    schema: str
    messages: tuple[Message, ...]
    tools: str = ""
    unused: tuple[str, ...] = ()


def read_conversation(record: Mapping[str, Any], reading: Reading | None = None) -> Found:
    """The conversation of a record.

    Raises:
        Unusable: the schema is unknown, a part cannot be kept whole, or there is nothing to learn.
    """
    reading, fields = reading or Reading(), Fields(record)
    fields.use(*_ABOUT, reading.source_column)
    mapped = dict(reading.columns)
    refuse_media(fields, MEDIA, "the row")
    schema, turns = _mapped(fields, mapped) if mapped else _detected(fields, reading)
    if schema == "nested":
        return _nested(fields, reading)
    turns = _with_system(fields, turns, mapped)
    tools = next((name for name in (mapped.get("tools", "tools"), "functions") if fields.peek(name)), "")
    text = read_tools(fields.get(tools), tools) if tools else ""
    _require_answer(turns)
    return Found(schema, tuple(turns), text, fields.unused())


def has_schema(names: frozenset[str]) -> bool:
    """Whether records with these fields would be recognized; it distinguishes a header line from text."""
    fields = {name.strip().lower() for name in names}
    return any(name in fields for name in CHATS) or any(
        fields >= set(pair) for pair in (*PAIRS, ("chosen", "rejected"))
    )


def _mapped(fields: Fields, mapped: dict[str, str]) -> tuple[str, list[Message]]:
    """The turns in the columns that the person named."""
    for part, column in mapped.items():
        if part in ("user", "assistant", "messages", "text") and column not in fields:
            raise Unusable(f"there is no column {shorten(column)}, which --columns names as {part}")
    if "messages" in mapped:
        return "messages", _chat(fields, mapped["messages"])
    if "text" in mapped:
        return "text", [_whole_text(fields, mapped["text"])]
    contexts = (mapped["context"],) if "context" in mapped else ()
    reasoning = (mapped["reasoning"],) if "reasoning" in mapped else ()
    return "columns", _pair(fields, mapped["user"], mapped["assistant"], contexts, reasoning)


def _detected(fields: Fields, reading: Reading) -> tuple[str, list[Message]]:
    for name in CHATS:
        value = _list(fields.peek(name), name)
        if isinstance(value, list):
            return _labelled(fields, reading, _schema(value), _chat(fields, name))
    for (question, answer), schema in PAIRS.items():
        if fields.peek(question) is not None and fields.peek(answer) is not None:
            return _labelled(fields, reading, schema, _pair(fields, question, answer, _CONTEXTS, REASONING))
    if fields.peek("chosen") is not None and "rejected" in fields:
        return "preferences", _chosen(fields, reading)
    if _inner(fields):
        return "nested", []
    _refuse_nulls(fields)
    if isinstance(fields.peek("text"), str) and not any(fields.peek(question) for question, _ in PAIRS):
        if "text" not in reading.take:
            raise Unusable("plain text: add --take text to learn every token of it")
        return "text", [_whole_text(fields, "text")]
    raise Unusable(_unknown(fields.values))


def _labelled(fields: Fields, reading: Reading, schema: str, turns: list[Message]) -> tuple[str, list[Message]]:
    """The turns, unless a label that is true or false asks for a decision (KTO)."""
    label = fields.peek("label")
    if isinstance(label, str) and label.strip().lower() in ("true", "false"):
        label = label.strip().lower() == "true"
    if isinstance(label, bool):
        fields.use("label")
        if "label" not in reading.take:
            raise Unusable("a label says whether the answer is good (KTO): add --take label to learn the good ones")
        if not label:
            raise Unusable("its label is false")
    return schema, turns


def _schema(turns: list[Any]) -> str:
    first = turns[0] if turns else None
    return "sharegpt" if isinstance(first, dict) and Fields(first).peek("from") is not None else "messages"


def _list(value: Any, column: str) -> Any:
    """The list of turns that a column holds: a list, JSON text of one, or an object of lists."""
    found = parsed(value, column)
    if isinstance(found, Mapping) and found and all(isinstance(item, list) for item in found.values()):
        lengths = {len(item) for item in found.values()}
        if any(Fields(found).peek(name) for name in ("role", "from")):
            if len(lengths) > 1:
                raise Unusable(f"the lists of {column} have different lengths")
            return [dict(zip(found, turn, strict=True)) for turn in zip(*found.values(), strict=True)]
    return found


def _chat(fields: Fields, column: str) -> list[Message]:
    items = _list(fields.get(column), column)
    if not isinstance(items, list):
        raise Unusable(f"{column} is not a list but {kind(items)}")
    if not items:
        raise Unusable(f"{column} is empty")
    return read_turns(items, fields, column)


def _pair(
    fields: Fields, question: str, answer: str, contexts: tuple[str, ...], reasoning: tuple[str, ...]
) -> list[Message]:
    """A question and its answer in two columns, with what belongs to them in others."""
    asked, answered = _side(fields, question, "user"), _side(fields, answer, "assistant")
    texts = [read_text(fields.get(name), name) for name in contexts if name != question and fields.peek(name)]
    if extra := [text for text in texts if text.strip()]:
        at = max((at for at, turn in enumerate(asked) if turn.role == "user"), default=None)
        if at is None:
            raise Unusable(f"there is no question in {question} for what {contexts[0]} holds")
        asked[at] = replace(asked[at], content="\n\n".join([asked[at].content, *extra] if asked[at].content else extra))
    found = [fields.get(name) for name in reasoning if _is_reasoning(fields.peek(name))]
    if found:
        last = max((at for at, turn in enumerate(answered) if turn.role == "assistant"), default=None)
        if last is None:
            raise Unusable(f"there is no answer in {answer} for the row's reasoning")
        thought = one_reasoning([*found, answered[last].reasoning], "the row")
        answered[last] = replace(answered[last], reasoning=thought)
    return [*_history(fields), *asked, *answered]


def _is_reasoning(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.strip().lower() not in _SWITCHES


def _side(fields: Fields, column: str, role: str) -> list[Message]:
    """One side of a pair: text (one turn of `role`) or a list of turns."""
    value = fields.get(column)
    turns = parsed(value, column)
    if isinstance(turns, list) and turns and all(map(is_turn, turns)):
        return read_turns(turns, fields, column)
    if isinstance(value, str | list):
        return [Message(role, read_text(value, column))]
    raise Unusable(f"{column} is neither a string nor a list of messages but {kind(value)}")


def _history(fields: Fields) -> list[Message]:
    """Earlier exchanges in `history`, as [question, answer] pairs."""
    history = parsed(fields.get("history"), "history") or []
    if not isinstance(history, list):
        raise Unusable(f"history is not a list but {kind(history)}")
    if history and all(map(is_turn, history)):
        return read_turns(history, fields, "history")
    turns = []
    for number, pair in enumerate(history, 1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise Unusable(f"turn {number} of history is not a pair of user and assistant text")
        turns.append(Message("user", read_text(pair[0], f"turn {number} of history")))
        turns.append(Message("assistant", read_text(pair[1], f"turn {number} of history")))
    return turns


def _with_system(fields: Fields, turns: list[Message], mapped: dict[str, str]) -> list[Message]:
    names = (mapped["system"],) if "system" in mapped else _SYSTEMS
    if turns and turns[0].role in ("system", "text"):
        return turns
    name = next((name for name in names if fields.peek(name) is not None), "")
    text = read_text(fields.get(name), name) if name else ""
    return [Message("system", text), *turns] if text else turns


def _chosen(fields: Fields, reading: Reading) -> list[Message]:
    if "chosen" not in reading.take:
        raise Unusable("a preference row (chosen, rejected): add --take chosen to learn the chosen side")
    chosen = _side(fields, "chosen", "assistant")
    names = ("prompt", "question", "instruction", "query", "input")
    name = next((name for name in names if fields.peek(name) is not None), "")
    if len(chosen) > 1 and chosen[0].role != "assistant":
        if any(turn.content == fields.peek(name) for turn in chosen):
            fields.use(name)
        return chosen
    if not name:
        raise Unusable("chosen is an answer, and there is no prompt beside it")
    return [*_side(fields, name, "user"), *chosen]


def _whole_text(fields: Fields, column: str) -> Message:
    text = read_text(fields.get(column), column)
    if not text.strip():
        raise Unusable(f"{column} is empty")
    return Message("text", text)


def _inner(fields: Fields) -> str:
    """The only field that is an object with a known schema."""
    inner = [
        str(name)
        for name, value in fields.values.items()
        if isinstance(value, Mapping) and has_schema(frozenset(map(str, value)))
    ]
    return inner[0] if len(inner) == 1 else ""


def _nested(fields: Fields, reading: Reading) -> Found:
    name = _inner(fields)
    found = read_conversation(fields.get(name), reading)
    unused = {*fields.unused(), *(f"{name}.{column}" for column in found.unused)}
    return found._replace(unused=tuple(sorted(unused)))


def _refuse_nulls(fields: Fields) -> None:
    """Name what is null in a record that would have a schema, and a chat that is none."""
    for name in CHATS:
        if name in fields:
            value = fields.peek(name)
            raise Unusable(f"{name} is null" if value is None else f"{name} is not a list but {kind(value)}")
    for pair in PAIRS:
        if all(name in fields for name in pair):
            missing = next(name for name in reversed(pair) if fields.peek(name) is None)
            raise Unusable(f"{missing} is null")


def _unknown(record: Mapping[str, Any]) -> str:
    if not record:
        return "no known schema: the object is empty"
    names = [shorten(str(name)) for name in list(record)[:8]]
    more = f" and {len(record) - 8} more" if len(record) > 8 else ""
    return (
        f"no known schema among the fields {', '.join(names)}{more}: name the columns with --columns "
        "user=COLUMN,assistant=COLUMN, or messages=COLUMN"
    )


def _require_answer(turns: list[Message]) -> None:
    if turns and turns[0].role == "text":
        return
    answers = [turn for turn in turns if turn.role == "assistant"]
    if not answers:
        raise Unusable("no assistant turn")
    answers = [turn for turn in answers if turn.content.strip() or turn.reasoning.strip() or turn.tool_calls]
    if not answers:
        raise Unusable("no assistant turn with text")
    if not any(turn.is_learned for turn in answers):
        raise Unusable("every assistant turn is marked as not learned")
