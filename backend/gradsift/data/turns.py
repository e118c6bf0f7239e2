"""One turn of a record: its role, text, reasoning and tool calls, and whether the row wants it learned.

A content that is a list of parts is joined without a separator; parts of thinking become reasoning, parts that use a
tool become calls, and parts with a tool's result become turns of their own. What cannot be kept whole makes the record
unusable.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from gradsift.data.calls import read_calls
from gradsift.data.conversation import Message, ToolCall
from gradsift.data.fields import MEDIA, Fields, parsed, refuse_media
from gradsift.data.reasons import Unusable, kind, shorten

REASONING = ("reasoning_content", "reasoning", "thinking")
ROLE_FIELDS = ("role", "from", "speaker")
_TEXTS = ("content", "value", "text")
_MEDIA = (*MEDIA, "image_url", "video_url", "audio_url", "input_audio")
_NAMES = {
    "system": ("system", "developer"),
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "chatgpt", "bot", "chatbot", "ai", "model"),
    "tool": (
        *("tool", "observation", "ipython", "function"),
        *("tool_response", "tool_result", "tool_output", "function_response", "function_result", "function_output"),
    ),
    "call": ("function_call", "function_calls", "tool_call", "tool_calls"),
}
_ROLES = {name: role for role, names in _NAMES.items() for name in names}
_LEARNED = (
    *("weight", "loss_weight", "loss", "loss_mask", "loss_scale", "compute_loss"),
    *("train", "trainable", "is_trainable", "training", "train_on_turn", "learn", "learnable", "supervised"),
)
_NOT_LEARNED = ("mask", "masked", "is_masked", "ignore", "ignore_loss", "no_loss")
_PARTLY = ("train_detail", "training_detail")  # spans of characters
_KINDS = {"reasoning": "reasoning", "text": "text", "call": "a tool's call", "result": "a tool's result"}
_TRUE_AND_FALSE = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


class _Piece(NamedTuple):
    """A part of a content: text, reasoning, a call of a tool, or a tool's result (a whole turn)."""

    kind: Literal["reasoning", "text", "call", "result"]
    value: Any


def is_turn(value: Any) -> bool:
    """Whether a value is an object with a role."""
    return isinstance(value, dict) and any(isinstance(Fields(value).peek(name), str) for name in ROLE_FIELDS)


def read_turns(items: list[Any], record: Fields, column: str) -> list[Message]:
    """The turns in a column of a record; calls in turns of their own, one after another, are one turn.

    Raises:
        Unusable: one of them cannot be kept whole.
    """
    turns: list[Message] = []
    joinable = False
    for number, item in enumerate(items, 1):
        if (simple := _simple(item)) is not None:
            turns.append(simple)
            joinable = False
            continue
        found, calls = _turn(parsed(item, column), f"message {number} of {column}", record, column)
        if calls and joinable and not found[0].reasoning and turns[-1].learned is found[0].learned:
            turns[-1] = replace(turns[-1], tool_calls=turns[-1].tool_calls + found[0].tool_calls)
        else:
            turns += found
        joinable = calls
    return turns


def _simple(item: Any) -> Message | None:
    """The turn that an item of nothing but a known role and text is: what `_turn` returns, much faster."""
    if type(item) is not dict or len(item) != 2:
        return None
    role, text = (item["role"], item.get("content")) if "role" in item else (item.get("from"), item.get("value"))
    known = _ROLES.get(role) if isinstance(role, str) else None
    return Message(known, text) if known and known != "call" and isinstance(text, str) else None


def read_text(value: Any, what: str, owner: Fields, field: str) -> str:
    """The text in a field of `owner`: a string, unchanged; or a list of text parts, joined.

    Raises:
        Unusable: it is something else.
    """
    owner.use(field)
    pieces = list(_pieces(value, what, owner, field))
    for piece in pieces:
        if piece.kind != "text":
            raise Unusable(f"{what} holds a part that is not text but {_KINDS[piece.kind]}")
    return "".join(piece.value for piece in pieces)


def one_reasoning(found: list[str], where: str) -> str:
    """The reasoning that is written in several places, which have to agree."""
    texts = list(dict.fromkeys(text for text in found if text.strip()))
    if len(texts) > 1:
        raise Unusable(f"{where} has two reasonings that differ")
    return texts[0] if texts else ""


def _turn(item: Any, where: str, record: Fields, column: str) -> tuple[list[Message], bool]:
    """The turns that an item is, usually one, and whether it is nothing but a call."""
    if not isinstance(item, dict):
        raise Unusable(f"{where} is not an object but {kind(item)}")
    turn = Fields(item)
    role = _role(turn, where)
    refuse_media(turn, _MEDIA, f"{where} ")
    learned = _learned(turn, where)
    if role == "call":
        messages = [Message("assistant", "", _reasoning(turn, [], where), _called(turn, where), learned=learned)]
    elif role == "assistant":
        messages = [_assistant(turn, where, learned)]
    else:
        messages = _others(turn, role, where, learned)
    record.leave(column, turn)
    return messages, role == "call"


def _role(turn: Fields, where: str) -> str:
    field = next((field for field in ROLE_FIELDS if turn.peek(field) is not None), "")
    name = turn.get(field) if field else None
    if not isinstance(name, str):
        raise Unusable(f"{where} has no role")
    role = _ROLES.get(name.strip().lower())
    if role is None:
        raise Unusable(f"{where} has the unknown role {shorten(name)}")
    turn.use(*(other for other in ROLE_FIELDS if turn.peek(other) == name))
    return role


def _assistant(turn: Fields, where: str, learned: bool | None) -> Message:
    calls = _tool_calls(turn, where)
    reasoning_alone = any(isinstance(turn.peek(name), str) and turn.peek(name) for name in REASONING)
    field, value = _content(turn)
    pieces = [] if value is None and (calls or reasoning_alone) else list(_pieces(value, _what(where), turn, field))
    order = [list(_KINDS).index(piece.kind) for piece in pieces if piece.value != ""]
    if order != sorted(order) or 3 in order:
        raise Unusable(f"{_what(where)} mixes text, reasoning and tools in an order that a turn cannot keep")
    reasoning = "".join(piece.value for piece in pieces if piece.kind == "reasoning")
    used = tuple(piece.value for piece in pieces if piece.kind == "call")
    if used and calls and used != calls:
        raise Unusable(f"{where} calls tools in two places that differ")
    return Message(
        "assistant",
        "".join(piece.value for piece in pieces if piece.kind == "text"),
        _reasoning(turn, [reasoning], where),
        calls or used,
        _name(turn, "name"),
        learned=learned,
    )


def _others(turn: Fields, role: str, where: str, learned: bool | None) -> list[Message]:
    """The turns of a system, user or tool item: its own text, and a turn for each result of a tool among its parts."""
    for field in ("tool_calls", "function_call"):
        if turn.peek(field) and read_calls(turn.peek(field), where, turn, field):
            raise Unusable(f"{where} calls a tool, but its role is {role}")
    field, value = _content(turn)
    pieces = list(_pieces(value, _what(where), turn, field))
    name = call_id = ""
    kinds = {piece.kind for piece in pieces if piece.kind == "result" or piece.value}
    if kinds != {"result"}:  # it says something of its own, if only that it is empty
        name = _name(turn, "name")
        if role == "tool":
            name, call_id = name or _name(turn, "tool_name"), _name(turn, "tool_call_id") or _name(turn, "call_id")
    messages: list[Message] = []
    text: list[str] = []
    for piece in pieces:
        if piece.kind == "text":
            text.append(piece.value)
        elif piece.kind == "result":
            if "".join(text):
                messages.append(Message(role, "".join(text), name=name, call_id=call_id, learned=learned))
                text = []
            messages.append(replace(piece.value, learned=learned))
        else:
            raise Unusable(f"{_what(where)} holds {_KINDS[piece.kind]}, but its role is {role}")
    if "".join(text) or not messages:
        messages.append(Message(role, "".join(text), name=name, call_id=call_id, learned=learned))
    return messages


def _what(where: str) -> str:
    return f"the content of {where}"


def _content(turn: Fields) -> tuple[str, Any]:
    """The field that holds what the turn says, and its value."""
    field = next((field for field in _TEXTS if turn.peek(field) is not None), "content")
    value = turn.get(field)
    turn.use(*(name for name in _TEXTS if turn.peek(name) == value))
    return field, value


def _called(turn: Fields, where: str) -> tuple[ToolCall, ...]:
    """The calls of a turn that is nothing else: its text is JSON."""
    calls = _tool_calls(turn, where)
    if calls and not turn.peek("content") and not turn.peek("value"):
        return calls
    field = next((field for field in _TEXTS if turn.peek(field) is not None), "content")
    value = parsed(turn.get(field), where)
    if not isinstance(value, dict | list) or not value:
        raise Unusable(f"{where} is not a call of a tool: JSON with a name and arguments is expected")
    return read_calls(value, where, turn, field)


def _tool_calls(turn: Fields, where: str) -> tuple[ToolCall, ...]:
    fields = turn.among(("tool_calls", "function_call"))
    found = [calls for field in fields if (calls := read_calls(turn.get(field), where, turn, field))]
    if len(set(found)) > 1:
        raise Unusable(f"{where} calls tools in two places that differ")
    return found[0] if found else ()


def _reasoning(turn: Fields, found: list[str], where: str) -> str:
    for name in turn.among(REASONING):
        value = turn.peek(name)
        if isinstance(value, str):
            found.append(turn.get(name))
        elif value and not isinstance(value, bool):  # true and false say how the answer was made
            found.append(read_text(value, f"{name} of {where}", turn, name))
    return one_reasoning(found, where)


def _name(turn: Fields, field: str) -> str:
    value = turn.peek(field)
    return str(turn.get(field)) if isinstance(value, str) else ""


def _learned(turn: Fields, where: str) -> bool | None:
    """Whether the row says that the turn is learned; None if it says nothing."""
    for field in turn.among(_PARTLY):
        if turn.peek(field):
            raise Unusable(f"{where} is to be learned in part ({field}), which is not supported")
    found = set()
    for field in turn.among((*_LEARNED, *_NOT_LEARNED)):
        value = turn.get(field)
        if value is None or value == "":
            continue
        mark = _TRUE_AND_FALSE.get(str(value).strip().lower()) if isinstance(value, bool | int | float | str) else None
        if mark is None:
            said = shorten(str(value)) if isinstance(value, bool | int | float | str) else kind(value)
            raise Unusable(f"{field} of {where} is {said}: 0, 1, true or false is expected")
        found.add(mark is (field in _LEARNED))
    if len(found) > 1:
        raise Unusable(f"{where} says both that it is learned and that it is not")
    return found.pop() if found else None


def _pieces(value: Any, what: str, owner: Fields, field: str) -> Iterator[_Piece]:
    if isinstance(value, str):
        yield _Piece("text", value)
    elif isinstance(value, list):
        for part in value:
            yield _piece(part, what, owner, field)
    else:
        raise Unusable(f"{what} is not text but {kind(value)}")


def _piece(value: Any, what: str, owner: Fields, field: str) -> _Piece:
    """A part of a content; what it holds beside its text is noted on the owner of the field."""
    if not isinstance(value, dict):
        raise Unusable(f"{what} holds a part that is not text but {kind(value)}")
    part = Fields(value)
    type_ = part.get("type")
    refuse_media(part, _MEDIA, f"{what} ")
    if type_ == "tool_use":
        return _Piece("call", read_calls(value, what, owner, field)[0])
    found = None
    if type_ in (None, "text", "input_text", "output_text"):
        found = _part_text(part, "text", ("text", "content"))
    elif type_ in ("thinking", "reasoning"):
        found = _part_text(part, "reasoning", ("thinking", "reasoning", "text", "content", "summary"))
    elif type_ == "tool_result":
        text = read_text(part.peek("content") or "", f"a tool's result in {what}", part, "content")
        found = _Piece("result", Message("tool", text, name=_name(part, "name"), call_id=_name(part, "tool_use_id")))
    if found is None:
        raise Unusable(f"{what} holds a part that is not text but of type {shorten(str(type_))}")
    owner.leave(field, part)
    return found


def _part_text(part: Fields, piece: Literal["reasoning", "text"], names: tuple[str, ...]) -> _Piece | None:
    for name in names:
        value = part.peek(name)
        if isinstance(value, str):
            return _Piece(piece, part.get(name))
        if isinstance(value, list) and value and piece == "reasoning":
            return _Piece(piece, "".join(_summary(item, part, name) for item in value))
    return None


def _summary(item: Any, part: Fields, name: str) -> str:
    if not isinstance(item, dict) or not isinstance(item.get("text"), str):
        raise Unusable(f"{name} of a part holds something that is not text but {kind(item)}")
    part.use(name)
    inner = Fields(item)
    inner.use("type")
    text = str(inner.get("text"))
    part.leave(name, inner)
    return text
