"""JSON values one after another, in a text that arrives line by line, in memory for the largest of them."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from gradsift.data.records import TOO_DEEP, PoolError, syntax_reason

LARGEST = 2 * 2**30  # characters of one value

Line = tuple[int, bytes, str]  # as `streams.split_lines` yields them

_CHUNK = 2**20
_SPACE = re.compile(r"[\s,\x00\ufeff]*")
_ITEM_END = re.compile(r"[,\[\]{}\n]")
_INDENT = 1000  # characters of a line that are looked at for its indentation
_BYTES = re.compile("[\udc80-\udcff]")
_ADVICE = "convert it to JSON Lines"
_PAIRS = {"]": "[", "}": "{"}


class Found(NamedTuple):
    """A value and its text, or the text that is none and the `reason`. listed: it stands in the outermost list."""

    line: int
    text: str
    value: Any
    reason: str
    listed: bool


class Scanner:
    """Finds the values; an outermost list is opened, and its items are the values.

    After a broken value, reading resumes where its brackets close, or at the next line that begins a value and is not
    indented more deeply, whichever comes first.

    A method raises PoolError if a value is larger than `LARGEST`.
    """

    def __init__(self, lines: Iterable[Line], path: Path) -> None:
        self._lines = iter(lines)
        self._path = path
        self._decoder = json.JSONDecoder()
        self._text = ""  # what has been read and is still needed
        self._position = 0
        self._line = 1  # number of the line at the position
        self._read = 1  # number of the line after the last one that was read
        self._before = ""  # the start of the first line of the text, as far as it has been dropped
        self._broken = ""  # why the lines end early
        self._ended = self._started = self._listed = self._wrapped = False
        self.rest = False  # whether something follows the wrapped list

    def next(self) -> Found | None:
        """The next value, or None at the end."""
        while self._skip_space():
            here = self._text[self._position]
            if self._listed and here == "]":
                self._listed = False
                self._move(self._position + 1)
                if self._wrapped:
                    self._skip_space()
                    self.rest = self._text[self._position :].strip() not in ("", "}")
                    return None
            elif here == "[" and not self._started:
                self._started = self._listed = True
                self._move(self._position + 1)
            else:
                self._started = True
                return self._value()
        if not self._broken:
            return None
        reason, self._broken = self._broken, ""
        return Found(self._line, "", None, reason, self._listed)

    def enter(self, found: Found, offset: int) -> None:
        """Go back into the value just found, to the list that begins at an offset of its text, and read only that."""
        self._position -= len(found.text) - offset
        self._line = found.line + found.text.count("\n", 0, offset)
        self._listed = self._wrapped = True

    def _value(self) -> Found:
        line, wanted = self._line, _CHUNK
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                if self._at_end(error.pos) and self._more(wanted):
                    wanted *= 2
                    continue
                return self._bad(line, self._reason(error))
            except (ValueError, RecursionError):
                return self._bad(line, TOO_DEEP)
            if end == len(self._text) and self._text[self._position] not in '{["' and self._more(wanted):
                continue
            break
        text = self._text[self._position : end]
        listed = self._listed
        self._move(end)
        reason = "not valid UTF-8" if _BYTES.search(text) else ""
        return Found(line, text, value, reason, listed)

    def _at_end(self, position: int) -> bool:
        """Whether nothing but white space follows the position, so that more text may complete the value."""
        return position + _INDENT > len(self._text) and not self._text[position + 1 :].strip()

    def _bad(self, line: int, reason: str) -> Found:
        end = self._resume()
        text = self._text[self._position : end]
        if end == len(self._text) and self._broken:
            reason, self._broken = self._broken, ""
        elif _BYTES.search(text):
            reason = "not valid UTF-8"
        self._move(end)
        return Found(line, text, None, reason, self._listed)

    def _resume(self) -> int:
        """Where reading resumes after the broken value at the position."""
        if self._listed and self._text[self._position] not in "[{":
            match = _ITEM_END.search(self._text, self._position + 1)
            return match.start() if match else len(self._text)
        before = self._column_text(_INDENT)
        indent = len(before) if not before.strip(" \t[") else len(before) - len(before.lstrip(" \t"))
        marks = re.compile(rf'\n[ \t]{{0,{indent}}}(?=[\[\]{{])|"(?:[^"\\\n]|\\.)*"|[\[\]{{}}]')
        wanted = _CHUNK
        while not (end := self._end(marks)) and self._more(wanted):
            wanted *= 2
        return end or len(self._text)

    def _end(self, marks: re.Pattern[str]) -> int:
        """The first place where the brackets opened at the position close, or a line begins a value; 0 if none."""
        opened: list[str] | None = []
        for mark in marks.finditer(self._text, self._position):
            text = mark[0]
            if text[0] == "\n":
                return mark.start()
            if opened is None or text[0] == '"':
                continue
            if text in "[{":
                opened.append(text)
            elif not opened or opened.pop() != _PAIRS[text]:
                opened = None  # they do not match: only a line can help
            elif not opened:
                return mark.end()
        return 0

    def _column_text(self, most: int) -> str:
        """The text of the current line before the position, or that many characters of it."""
        start = self._text.rfind("\n", 0, self._position) + 1
        return (self._before if start == 0 else "") + self._text[start : min(self._position, start + most)]

    def _reason(self, error: json.JSONDecodeError) -> str:
        start = self._text.rfind("\n", 0, error.pos) + 1
        column = error.pos - start + 1 + (len(self._before) if start == 0 else 0)
        line = self._line + self._text.count("\n", self._position, error.pos)
        return syntax_reason(error, column) + (f" of line {line}" if self._listed or line != self._line else "")

    def _skip_space(self) -> bool:
        """Move to the next character that may belong to a value; whether there is one."""
        while True:
            self._move(_SPACE.match(self._text, self._position).end())  # type: ignore[union-attr]
            if self._position < len(self._text):
                return True
            if not self._more(_CHUNK):
                return False

    def _move(self, position: int) -> None:
        self._line += self._text.count("\n", self._position, position)
        self._position = position

    def _more(self, size: int) -> bool:
        """Append lines of at least so many characters; whether there were any. Text before the position is dropped."""
        parts: list[str] = []
        while size > 0 and not self._ended:
            found = next(self._lines, None)
            if found is None:
                self._ended = True
                break
            number, raw, problem = found
            if len(self._text) - self._position > LARGEST:
                raise PoolError(f"{self._path} holds a JSON value of more than {LARGEST >> 30} GiB: {_ADVICE}.")
            self._broken = "" if problem.startswith("longer") else problem
            parts.append("\n" * (number - self._read) + raw.decode("utf-8", "surrogateescape") + "\n")
            self._read = number + 1
            size -= len(parts[-1])
        if parts:
            self._before = self._column_text(len(self._text))
            self._text = self._text[self._position :] + "".join(parts)
            self._position = 0
        return bool(parts)
