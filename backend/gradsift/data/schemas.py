"""From a record to a conversation: the schemas in which instruction data comes.

`read_conversation` recognizes each record by its own columns, whatever their case, so a file may mix schemas. The first
of these that a record has is taken:

    messages           messages, conversations or conversation: turns {role, content}, as in LESS and open-instruct
    sharegpt           the same columns: turns {from, value}
    prompt-completion  prompt with completion or response: strings, or lists of messages
    alpaca             instruction and output
    dolly              instruction and response
    QUESTION-ANSWER    the other pairs of columns, in the order of `PAIRS`: question and answer, query and response, ...
    messages           dialogue, dialog, chat or turns: a list of turns
                       one of these below body, data, conversation or request, as in files of requests

Any pair takes `input` and `context`, joined to the question by a blank line, `history`, and the answer's `reasoning`,
`thinking` or `reasoning_content`; any schema takes `system` or `system_prompt`, and `tools` or `functions`. Turns,
tools and prompts may be written as JSON strings, turns also as an object of lists. Texts are not trimmed.

`Reading` maps other columns, and asks for rows that are not read otherwise: plain text, the chosen side of a
preference, rows with a label. A part that cannot be kept, such as an image, makes the whole record unusable; it is
never left out. Columns that held text and were not used are named.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from gradsift.data.calls import read_tools
from gradsift.data.conversation import Message
from gradsift.data.fields import MEDIA, Fields, holds_text, parsed, refuse_media
from gradsift.data.pairs import CONTEXTS, read_chosen, read_pair, with_reasoning
from gradsift.data.reasons import Unusable, kind, shorten
from gradsift.data.turns import ROLE_FIELDS, is_turn, read_text, read_turns

PAIRS = (
    *(("prompt", "completion"), ("prompt", "response"), ("instruction", "output"), ("instruction", "response")),
    *(("question", "answer"), ("query", "response"), ("problem", "solution"), ("question", "response")),
    *(("user", "assistant"), ("inputs", "targets"), ("prompt", "output"), ("prompt", "answer")),
    *(("instruction", "completion"), ("instruction", "answer"), ("input", "output"), ("query", "answer")),
    *(("problem", "answer"), ("question", "solution"), ("question", "output"), ("question", "completion")),
    *(("prompt", "solution"), ("problem", "response"), ("query", "output"), ("input", "response"), ("input", "answer")),
)
_SCHEMAS = {
    ("prompt", "completion"): "prompt-completion",
    ("prompt", "response"): "prompt-completion",
    ("instruction", "output"): "alpaca",
    ("instruction", "response"): "dolly",
}
_CHATS = ("messages", "conversations", "conversation")
_MORE_CHATS = ("dialogue", "dialog", "chat", "turns")
_AROUND = ("body", "data", "conversation", "request")
_QUESTIONS = tuple(dict.fromkeys(question for question, _ in PAIRS))
_ANSWERS = tuple(dict.fromkeys(answer for _, answer in PAIRS))
_METADATA = ("id", "source", "dataset", "task", "category", "subtask", "prefix")
_ASKERS = ("user", "human", "prompter", "tool", "observation", "system")
_LABELS = ("label", "kto_tag")
_MARKS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Reading:
    """How records are read where their own fields do not say it.

    columns: (part, column) pairs, such as ("user", "question"); parts are system, user, assistant, reasoning, tools,
    messages, text and context. A record without a column that is named here is unusable. take: kinds of rows that are
    read only when asked for. source_column: the column that names a row's source.
    """

    columns: tuple[tuple[str, str], ...] = ()
    take: tuple[Literal["text", "chosen", "label"], ...] = ()
    source_column: str = ""


class Recognized(NamedTuple):
    """What a record says. tools: JSON text, "" if none. unused: columns that held text and were not used, sorted."""

    schema: str
    messages: tuple[Message, ...]
    tools: str = ""
    unused: tuple[str, ...] = ()


class _Draft(NamedTuple):
    schema: str
    messages: list[Message]
    tools: str = ""


def read_conversation(record: Mapping[str, Any], reading: Reading | None = None) -> Recognized:
    """Return the conversation of a record.

    Raises:
        Unusable: the schema is unknown, a part cannot be kept, or no assistant turn with text is to be learned.
    """
    fields, reading = Fields(record), reading or Reading()
    fields.use(*_METADATA, reading.source_column)
    try:
        draft = _recognize(fields, reading, dict(reading.columns))
        return Recognized(draft.schema, tuple(draft.messages), draft.tools, fields.unused())
    except RecursionError:
        raise Unusable("nested too deeply to be read") from None


def has_schema(fields: frozenset[str]) -> bool:
    """Whether records with these fields would be recognized; it distinguishes a header line from text."""
    names = {name.strip().lower() for name in fields}
    return (
        any(name in names for name in (*_CHATS, *_MORE_CHATS))
        or any(names >= set(pair) for pair in PAIRS)
        or names >= {"chosen", "rejected"}
    )


def _recognize(fields: Fields, reading: Reading, columns: dict[str, str]) -> _Draft:
    for part, column in columns.items():
        if column not in fields:
            raise Unusable(f"has no column {shorten(column)}, which is to be the {part}")
    refuse_media(fields, (name for name in MEDIA if name not in columns.values()), "")
    draft = _mapped(fields, columns) or _known(fields, reading, columns)
    if draft is None:
        raise Unusable(_why_unknown(fields))
    if draft.schema == "text":
        return draft
    _require_good(fields, reading, draft.schema)
    messages = _with_system(draft.messages, fields, columns.get("system", ""))
    _require_answer(messages)
    return draft._replace(messages=messages, tools=_tools(draft.tools, fields, columns))


def _mapped(fields: Fields, columns: dict[str, str]) -> _Draft | None:
    """What the columns say that a person has named, None if they name neither turns nor text."""
    if "text" in columns:
        return _plain(fields, columns["text"])
    if "messages" in columns:
        return _with_parts(_chat(fields, columns["messages"]), fields, columns)
    if "user" not in columns and "assistant" not in columns:
        return None
    question = columns.get("user") or next((name for name in _QUESTIONS if fields.peek(name) is not None), "")
    answer = columns.get("assistant") or next((name for name in _ANSWERS if fields.peek(name) is not None), "")
    for part, column in (("user", question), ("assistant", answer)):
        if not column:
            raise Unusable(f"no known column is the {part}: name it with --columns {part}=COLUMN")
        if fields.peek(column) is None:
            raise Unusable(f"{column} is null")
    return _Draft("columns", read_pair(fields, question, answer, _contexts(columns), columns.get("reasoning", "")))


def _known(fields: Fields, reading: Reading, columns: dict[str, str]) -> _Draft | None:
    """What the usual columns say, in a fixed order."""
    chosen = holds_text(fields.peek("chosen"))
    preference = chosen and holds_text(fields.peek("rejected"))
    if preference and "chosen" in reading.take:
        return _preference(fields, reading, columns)
    for name in _CHATS:
        turns = _turns(fields, name)
        if turns and not (preference and _asks(turns)):
            return _with_parts(_chat(fields, name), fields, columns)
    if preference:
        return _preference(fields, reading, columns)
    pair = _pair(fields)
    if pair:
        messages = read_pair(fields, *pair, _contexts(columns), columns.get("reasoning", ""))
        return _Draft(_SCHEMAS.get(pair, "-".join(pair)), messages)
    if chosen:
        return _preference(fields, reading, columns)
    for name in _MORE_CHATS:
        turns = _turns(fields, name)
        if turns and all(is_turn(turn) for turn in turns):
            return _with_parts(_chat(fields, name), fields, columns)
    inner = _inner(fields, reading)
    if inner or any(isinstance(fields.peek(name), list) for name in _CHATS):
        return inner or _chat(fields, next(name for name in _CHATS if isinstance(fields.peek(name), list)))
    if isinstance(fields.peek("text"), str) and not any(name in fields for name in (*_QUESTIONS, *_ANSWERS)):
        if "text" not in reading.take:
            raise Unusable("plain text; add --take text to learn every token of it")
        return _plain(fields, "text")
    return None


def _plain(fields: Fields, column: str) -> _Draft:
    text = fields.get(column)
    if not isinstance(text, str):
        raise Unusable(f"{column} is not text but {kind(text)}")
    if not text.strip():
        raise Unusable(f"{column} is empty")
    return _Draft("text", [Message("text", text)])


def _pair(fields: Fields) -> tuple[str, str] | None:
    """The first pair with a question and an answer that is not blank, else the first without a null."""
    pairs = [pair for pair in PAIRS if all(fields.peek(name) is not None for name in pair)]
    return next((pair for pair in pairs if fields.peek(pair[1]) not in ("", [])), pairs[0] if pairs else None)


def _preference(fields: Fields, reading: Reading, columns: dict[str, str]) -> _Draft:
    if "chosen" not in reading.take:
        raise Unusable("a preference (chosen, rejected); add --take chosen to learn the chosen side")
    question = next((name for name in _QUESTIONS if fields.peek(name) is not None), "")
    chat = next((name for name in (*_CHATS, "context") if _asks(_turns(fields, name))), "")
    if not question and chat:  # the turns before the answer
        before = _chat(fields, chat).messages
        chosen = parsed(fields.get("chosen"), "chosen")
        turns = chosen if isinstance(chosen, list) else [chosen if is_turn(chosen) else _answer(chosen)]
        after = read_turns(turns, fields, "chosen")
        return _Draft("chosen", after if after[: len(before)] == before else [*before, *after])
    return _Draft("chosen", read_chosen(fields, question, _contexts(columns)))


def _answer(text: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _asks(turns: list[Any]) -> bool:
    """Whether turns end with somebody other than the assistant, so that an answer is to follow."""
    last = turns[-1] if turns and isinstance(turns[-1], dict) else {}
    return any(str(last.get(name, "")).lower() in _ASKERS for name in ROLE_FIELDS)


def _contexts(columns: dict[str, str]) -> tuple[str, ...]:
    return (columns["context"],) if "context" in columns else CONTEXTS


def _turns(fields: Fields, name: str) -> list[Any]:
    """The turns in a column: a list, JSON text of one, or an object of lists; none if it holds something else."""
    value = parsed(fields.peek(name), name)
    if not isinstance(value, dict):
        return value if isinstance(value, list) else []
    lists = {key: items for key, items in value.items() if items is not None}
    if not any(role in Fields(lists) for role in ROLE_FIELDS):
        return []
    if not all(isinstance(items, list) for items in lists.values()):
        return []
    if len({len(items) for items in lists.values()}) > 1:
        raise Unusable(f"the lists in {name} are of different lengths")
    return [dict(zip(lists, items, strict=True)) for items in zip(*lists.values(), strict=True)]


def _chat(fields: Fields, name: str) -> _Draft:
    turns = _turns(fields, name)
    if not turns:
        value = fields.peek(name)
        raise Unusable(f"{name} is empty" if value in ([], {}) else f"{name} is not a list but {kind(value)}")
    fields.use(name)
    first = turns[0] if isinstance(turns[0], dict) else {}
    schema = "sharegpt" if first.get("from") is not None else "messages"
    return _Draft(schema, read_turns(turns, fields, name))


def _with_parts(draft: _Draft, fields: Fields, columns: dict[str, str]) -> _Draft:
    """A chat with the reasoning that a person has mapped, where it is clear to which answer it belongs."""
    if "context" in columns:
        raise Unusable(
            f"{columns['context']} is to be the context, but the row has turns and no question to join it to"
        )
    if "reasoning" not in columns:
        return draft
    if sum(message.role == "assistant" for message in draft.messages) != 1:
        raise Unusable(f"{columns['reasoning']} is to be the reasoning, but the row has not one answer")
    return draft._replace(messages=with_reasoning(draft.messages, fields, columns["reasoning"]))


def _inner(fields: Fields, reading: Reading) -> _Draft | None:
    """The conversation of an object inside of the record, as in files of requests."""
    for name in _AROUND:
        value = parsed(fields.peek(name), name)
        if isinstance(value, dict) and has_schema(frozenset(map(str, value))):
            inner = Fields(value)
            draft = _recognize(inner, replace(reading, columns=()), {})
            fields.use(name)
            fields.leave(name, inner)
            return draft
    return None


def _require_good(fields: Fields, reading: Reading, schema: str) -> None:
    """Refuse a row that a label marks as bad, and every labelled row unless it was asked for.

    A label beside a prompt and its completion may be a number or text; elsewhere, only true and false are one.
    """
    for name in _LABELS:
        value = fields.peek(name)
        loose = schema == "prompt-completion" or name == "kto_tag"
        good = _MARKS.get(str(value).strip().lower()) if loose and isinstance(value, bool | int | str) else value
        if not isinstance(good, bool) or (name == "label" and schema == "chosen"):
            continue
        if "label" not in reading.take:
            raise Unusable(f"{name} says whether the answer is good; add --take label to learn rows where it is true")
        if not good:
            raise Unusable(f"its {name} is false")
        fields.use(name)


def _with_system(messages: list[Message], fields: Fields, column: str) -> list[Message]:
    """The turns after the text of `system` or `system_prompt`, unless they begin with a system turn of their own."""
    present = bool(messages) and messages[0].role == "system"
    for name in [column] if column else ["system", "system_prompt"]:
        value = fields.peek(name)
        if value is None or value == "":
            continue
        if not present:
            text = read_text(value, name, fields, name)
            messages = [Message("system", text), *messages] if text else messages
            present = bool(text)
        elif messages[0].content == value:
            fields.use(name)
    return messages


def _tools(inner: str, fields: Fields, columns: dict[str, str]) -> str:
    names = [columns["tools"]] if "tools" in columns else ["tools", "functions"]
    found = [inner, *(read_tools(fields.get(name), name) for name in names)]
    texts = list(dict.fromkeys(text for text in found if text))
    if len(texts) > 1:
        raise Unusable("it offers two lists of tools that differ")
    return texts[0] if texts else ""


def _require_answer(messages: list[Message]) -> None:
    answers = [message for message in messages if message.role == "assistant"]
    if not answers:
        raise Unusable("no assistant turn")
    answers = [message for message in answers if message.text.strip()]
    if not answers:
        raise Unusable("no assistant turn with text")
    if not any(message.is_learned for message in answers):
        raise Unusable("no assistant turn is to be learned: the row marks each as not learned")


def _why_unknown(fields: Fields) -> str:
    if not fields.values:
        return "no known schema: the object is empty"
    for name in _CHATS:
        if fields.peek(name) is not None:
            return f"{name} is not a list but {kind(fields.peek(name))}"
    for pair in PAIRS:
        if all(name in fields for name in pair):
            nulls = [name for name in pair if fields.peek(name) is None]
            return f"{' and '.join(nulls)} {'are' if len(nulls) > 1 else 'is'} null"
    null = next((name for name in _CHATS if name in fields), "")
    if null:
        return f"{null} is null"
    names = [shorten(str(name), 24) for name in list(fields.values)[:8]]
    more = f" and {len(fields.values) - 8} more" if len(fields.values) > 8 else ""
    return f"no known schema among the fields {', '.join(names)}{more}; map them with --columns user=…,assistant=…"
