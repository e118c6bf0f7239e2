"""Tool calls and the tools that a row offers, in the forms in which data sets write them.

A call is `{id, type, function: {name, arguments}}` as OpenAI has it, or `{name, arguments}`; a value may be written as
a JSON string. Arguments become JSON text. Keys that are null in an object are left out, since `datasets` fills the keys
that a row lacks with null; a null inside of a JSON string stays, since a person or a model wrote it.
"""

import json
from typing import Any

from gradsift.data.conversation import ToolCall, json_text
from gradsift.data.fields import Fields, parsed
from gradsift.data.reasons import Unusable, kind, shorten

_ARGUMENTS = ("arguments", "parameters", "args", "input")


def read_tools(value: Any, column: str) -> str:
    """The tools that a row offers, as JSON text; "" if it offers none.

    Raises:
        Unusable: the value is not a list of objects.
    """
    found = parsed(value, column)
    if isinstance(found, str) and found.strip() in ("", "null"):
        return ""
    if found is None or found == []:
        return ""
    if not isinstance(found, list):
        raise Unusable(f"{column} is not a list of tools but {kind(found)}")
    tools = [parsed(item, column) for item in found]
    for number, tool in enumerate(tools, 1):
        if not isinstance(tool, dict):
            raise Unusable(f"tool {number} of {column} is not an object but {kind(tool)}")
    return _text(tools, column)


def read_calls(value: Any, where: str, turn: Fields, field: str) -> tuple[ToolCall, ...]:
    """The call or list of calls in the field of a turn; none if the value is null or empty.

    Raises:
        Unusable: it is not a call, or holds something that a call cannot keep.
    """
    found = parsed(value, where)
    if found is None or found in ([], {}, ""):
        return ()
    calls = found if isinstance(found, list) else [found]
    return tuple(_call(call, f"call {number} of {where}", turn, field) for number, call in enumerate(calls, 1))


def _call(value: Any, where: str, turn: Fields, field: str) -> ToolCall:
    found = parsed(value, where)
    if not isinstance(found, dict):
        raise Unusable(f"{where} is not an object with a name and arguments but {kind(found)}")
    call = Fields(found)
    type_ = call.get("type")
    if type_ not in (None, "", "function", "tool_use", "tool_call"):
        raise Unusable(f"{where} is of the unknown type {shorten(str(type_))}")
    function = call
    if isinstance(call.peek("function"), dict):
        function = Fields(call.get("function"))
    name = function.get("name")
    if not isinstance(name, str) or not name.strip():
        raise Unusable(f"{where} has no name")
    result = ToolCall(name, _arguments(function, where), _id(call))
    if function is not call:
        call.leave("function", function)
    turn.leave(field, call)
    return result


def _id(call: Fields) -> str:
    value = call.get("id")
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _arguments(function: Fields, where: str) -> str:
    name = next((name for name in _ARGUMENTS if function.peek(name) is not None), "")
    value = function.get(name) if name else {}
    if isinstance(value, str):
        return _normal(value)
    if isinstance(value, dict):
        return _text(value, f"{name} of {where}")
    raise Unusable(f"{name} of {where} is neither an object nor text but {kind(value)}")


def _normal(text: str) -> str:
    """The text that the object would have which the text is; other text stays as it is."""
    try:
        value = json.loads(text, object_pairs_hook=_once)
        normal = json.dumps(value, ensure_ascii=False, allow_nan=False)
        normal.encode()
    except (ValueError, RecursionError):
        return text
    return normal if isinstance(value, dict) else text


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name comes twice, and an object would keep only one of its values")
    return dict(pairs)


def _text(value: Any, what: str) -> str:
    try:
        text = json_text(value)
        text.encode()
    except UnicodeEncodeError:
        raise Unusable(f"{what} holds half of a surrogate pair, which UTF-8 cannot write") from None
    except (TypeError, ValueError):
        raise Unusable(f"{what} holds a value that JSON does not have") from None
    return text
