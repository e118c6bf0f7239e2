"""The fields of one object of a record: found by name in any case, and remembered once used.

What was not used and holds text is told to the person, so a reader takes a value with `get` only if the row keeps it,
and looks at it with `peek` before.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from gradsift.data.media import Media
from gradsift.data.reasons import Unusable

MEDIA = tuple(
    f"{kind}{ending}"
    for kind in ("image", "video", "audio")
    for ending in ("", "s", "_path", "_paths", "_url", "_urls")
)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class Fields:
    """An object's fields. A name in lower case finds a field in any case; the field written just so comes first."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self._names = {str(name).strip().lower(): name for name in values}
        self._names.update((name, name) for name in values if name in self._names)
        self._used: set[str] = set()
        self._left: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return self._name(name) is not None

    def among(self, names: Iterable[str]) -> list[str]:
        """Those of some names, in lower case, for which there is a field."""
        return [name for name in names if name in self._names]

    def peek(self, name: str) -> Any:
        """A field's value, None if there is none."""
        found = self._name(name)
        return None if found is None else self.values[found]

    def get(self, name: str) -> Any:
        """A field's value, which the row keeps."""
        self.use(name)
        return self.peek(name)

    def use(self, *names: str) -> None:
        """Note that the row keeps these fields, where there are any."""
        for name in names:
            if (found := self._name(name)) is not None:
                self._used.add(found)

    def leave(self, name: str, inner: "Fields") -> None:
        """Note what an object inside of the field `name` holds and the row does not keep."""
        self._left.update(f"{self._name(name) or name}.{key}" for key in inner.unused())

    def unused(self) -> tuple[str, ...]:
        """The names of fields that hold text and were not used, sorted; those of inner objects as OUTER.INNER."""
        names = {str(name) for name, value in self.values.items() if name not in self._used and holds_text(value)}
        return tuple(sorted(names | self._left))

    def _name(self, name: str) -> str | None:
        found = self._names.get(name)
        if found is None and not name.islower():  # a column that a person named as it is written
            found = name if name in self.values else self._names.get(name.strip().lower())
        return found


def holds_text(value: Any) -> bool:
    """Whether a value is text that is not blank, or a list or object that holds some."""
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, Mapping):
        return any(holds_text(item) for item in value.values())
    return isinstance(value, list | tuple) and any(holds_text(item) for item in value)


def holds_media(value: Any) -> bool:
    """Whether the value of a column of images, films or recordings is more than a blank."""
    if isinstance(value, list | tuple):
        return any(holds_media(item) for item in value)
    if isinstance(value, Mapping):
        return any(holds_media(item) for item in value.values())
    return bool(value.strip()) if isinstance(value, str) else bool(value)


def refuse_media(fields: Fields, names: Iterable[str], where: str) -> None:
    """Raise `Unusable` if one of these fields holds something: the text is only a part of the example.

    where: the words before "holds images", with a blank after them; "" for a record.
    """
    read = [name for name, value in fields.values.items() if isinstance(value, Media)]
    for name in (*fields.among(names), *read):
        if name in read or holds_media(fields.peek(name)):
            raise Unusable(f"{where}holds {name}, and its text alone is not the example")


def parsed(value: Any, what: str) -> Any:
    """The list or object that a string holds as JSON; any other value as it is.

    Raises:
        Unusable: the JSON holds half of a surrogate pair.
    """
    if not isinstance(value, str) or value.strip()[:1] not in ("[", "{"):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    if _SURROGATE.search(value) and not encodable(found):
        raise Unusable(f"{what} holds half of a surrogate pair, which UTF-8 cannot write")
    return found


def encodable(value: Any) -> bool:
    """Whether all text of a JSON value can be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True
