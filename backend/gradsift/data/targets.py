"""Target examples, from a file or from pasted text; bad ones are reported with their line, good ones kept.

`read_targets` reads text files and every format of the pool; `parse_targets` reads pasted text: JSON Lines, a JSON
list, separated text with a header, or plain blocks

    Subtask: capitals
    Q: What is the capital of France?
    A: Paris

in which a `Subtask:` line applies to all blocks after it, and questions and answers may span several lines.
"""

import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gradsift.data.conversation import openai_message
from gradsift.data.csv_reader import csv_records
from gradsift.data.json_reader import LIST_NAMES
from gradsift.data.pool import PoolError, Row, make_row, read_rows, unique_ids
from gradsift.data.records import TOO_DEEP, Record, parse_object, syntax_reason, to_record
from gradsift.data.schemas import has_schema
from gradsift.data.streams import FORMATS, data_suffix
from gradsift.runtime import atomic
from gradsift.runtime.errors import GradsiftError

DEFAULT_SUBTASK = "target"
_FENCE = re.compile(r"\s*(```|~~~)[\w+-]*\s*")
_SPACE = re.compile(r"[\s,\[\]]*")
_SPACE_IN_LIST = re.compile(r"[\s,]*")
_SCALAR = r'"[^"\\]*"|[-+\w.]+'
_WRAPPER = re.compile(rf'\s*\{{(?:\s*"[^"\\]*"\s*:\s*(?:{_SCALAR})\s*,)*\s*"(?:{"|".join(LIST_NAMES)})"\s*:\s*\[')
_JSON_LINE = re.compile(r"^[ \t]*[\[{]", re.MULTILINE)
_SUBTASK = re.compile(r"\s*(?:\*\*)?subtask(?:\*\*)?\s*:(?:\*\*)?(.*)", re.IGNORECASE)
_MARKS = tuple(
    (
        re.compile(rf"\s*(?:\*\*)?{question}(?:\*\*)?\s*:(?:\*\*)?(.*)", re.IGNORECASE),
        re.compile(rf"\s*(?:\*\*)?{answer}(?:\*\*)?\s*:(?:\*\*)?(.*)", re.IGNORECASE),
    )
    for question, answer in (("q", "a"), ("question", "answer"))
)


class TargetError(GradsiftError):
    """Target examples cannot be used; the message names them by number or line."""


@dataclass
class TargetSet:
    """Target examples in their original order: the good ones, and the bad ones with their reasons."""

    rows: list[Row] = field(default_factory=list)
    bad: list[Row] = field(default_factory=list)


def read_targets(path: str | Path) -> TargetSet:
    """Read a target file in any format of the pool; any other file is read like pasted text.

    Raises:
        PoolError: the file is missing, empty or unreadable.
    """
    path = Path(path)
    if path.is_dir() or data_suffix(path) in FORMATS:
        return _collect(read_rows([path], whole=True))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PoolError(f"Cannot read {path}: {error.strerror}. Check the path and its permissions.") from error
    except UnicodeDecodeError as error:
        raise PoolError(f"{path} is not UTF-8 text: save it as UTF-8, or as one of {', '.join(FORMATS)}.") from error
    return parse_targets(text, path.name)


def require_targets(path: str | Path) -> list[Row]:
    """The rows of a target file, all of which must be good.

    Raises:
        TargetError: a row cannot be used (the message names its line), or there are no rows.
        PoolError: see `read_targets`.
    """
    targets = read_targets(path)
    if targets.bad:
        first = targets.bad[0]
        more = f" (and {len(targets.bad) - 1} more)" if len(targets.bad) > 1 else ""
        raise TargetError(f"{path}, line {first.line}{more}: {first.reason}; fix or remove it and run again.")
    if not targets.rows:
        raise TargetError(f"{path} holds no example: give at least one row with messages.")
    return targets.rows


def parse_targets(text: str, file: str = "pasted") -> TargetSet:
    """Read pasted text; `Row.line` is the line on which an example starts. Text without examples gives an empty set."""
    text = _without_fence(text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"))
    try:
        records = list(_records(text))
    except PoolError as error:  # a header that names a column twice
        records = [Record(1, b"", None, str(error).rstrip("."))]
    return _collect(unique_ids(make_row(record, file, DEFAULT_SUBTASK) for record in records))


def write_targets(path: Path, rows: Iterable[Row]) -> None:
    """Write target examples as JSON Lines: subtask, id, prefix (if any), messages, tools (if any)."""
    with atomic.open_for_write(path) as file:
        for row in rows:
            value: dict[str, Any] = {"subtask": row.subtask or DEFAULT_SUBTASK, "id": row.id}
            if row.prefix:
                value["prefix"] = row.prefix
            value["messages"] = [openai_message(message) for message in row.messages]
            if row.tools:
                value["tools"] = json.loads(row.tools)
            file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")


def _collect(rows: Iterable[Row]) -> TargetSet:
    targets = TargetSet()
    for row in rows:
        row = row if row.subtask else replace(row, subtask=DEFAULT_SUBTASK)
        (targets.bad if row.reason else targets.rows).append(row)
    return targets


def _without_fence(text: str) -> str:
    """Blank out a code fence around the whole text; lines keep their numbers."""
    lines = text.split("\n")
    numbers = [number for number, line in enumerate(lines) if line.strip()]  # not blank
    if numbers and _FENCE.fullmatch(lines[numbers[0]]):
        for number in {numbers[0], numbers[-1]}:
            if _FENCE.fullmatch(lines[number]):
                lines[number] = ""
    return "\n".join(lines)


def _records(text: str) -> Iterator[Record]:
    first = next((line for line in text.split("\n") if line.strip()), "")
    if not first:
        return iter(())
    if first.lstrip()[0] in "{[":
        return _json_records(text)
    if _is_header(first):
        return csv_records(io.StringIO(text), "the pasted text", by_line=True)
    marks = next((marks for line in text.split("\n") for marks in _MARKS if marks[0].match(line)), None)
    if marks:
        return _blocks(text, *marks)
    if _JSON_LINE.search(text):
        return _json_records(text)
    reason = "neither JSON, nor separated columns with a header, nor blocks of Q: and A: lines"
    return iter([Record(text[: text.index(first)].count("\n") + 1, _bytes(text.strip("\n")), None, reason)])


def _is_header(line: str) -> bool:
    cells = line.split(max(",\t;", key=line.count))
    return has_schema(frozenset(cell.strip().strip('"').lower() for cell in cells))


def _json_records(text: str) -> Iterator[Record]:
    """Every JSON value of the text: one per line, spread over lines, in a list, or in a list in an object.

    After a broken value, reading resumes at the next line that begins a value and is not indented more deeply.
    """
    decoder = json.JSONDecoder()
    wrapper = _WRAPPER.match(text)
    space, position = (_SPACE_IN_LIST, wrapper.end()) if wrapper else (_SPACE, 0)
    line, start = 1, 0
    while True:
        position = space.match(text, position).end()  # type: ignore[union-attr]  # also matches the empty string
        if position == len(text) or (wrapper and text[position] == "]"):
            return
        line, start = line + text.count("\n", start, position), position
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            end = _next_value(text, position)
            yield Record(line, _bytes(text[position:end].strip()), None, _json_reason(text, position, error))
        else:
            yield to_record(line, value)
        position = end


def _next_value(text: str, position: int) -> int:
    """Where reading resumes after the broken value at `position`."""
    before = text[text.rfind("\n", 0, position) + 1 : position]
    indent = len(before) if not before.strip(" \t[") else len(before) - len(before.lstrip(" \t"))
    match = re.compile(rf"\n[ \t]{{0,{indent}}}[\[{{]").search(text, position)
    return match.start() if match else len(text)


def _json_reason(text: str, position: int, error: Exception) -> str:
    if not isinstance(error, json.JSONDecodeError):
        return TOO_DEEP
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position) % (len(text) + 1)
    line = text[start:end]
    if error.pos <= end:
        rest = "; what follows on this line is not read" if line[: position - start].strip() else ""
        return f"{syntax_reason(error, error.pos - start + 1)}{rest}"
    if line.rstrip(" \t,").endswith(("}", "]")) and not line[: position - start].strip():  # meant as a whole value
        return parse_object(_bytes(line.rstrip(" \t,")))[1]
    return f"{syntax_reason(error, error.colno)} of line {error.lineno}"


@dataclass
class _Block:
    """A `Q:` block being read."""

    line: int
    subtask: str
    question: list[str]
    answers: list[list[str]] = field(default_factory=list)

    def record(self) -> Record:
        question = "\n".join(self.question).strip()
        answers = ["\n".join(answer).strip() for answer in self.answers]
        reason = ""
        if not question:
            reason = "the question after Q: is empty"
        elif not answers:
            reason = "the question has no A: line after it"
        elif len(answers) > 1:
            reason = f"{len(answers)} A: lines after one Q: (start each example with Q:, write options as (A) or A.)"
        elif not answers[0]:
            reason = "the answer after A: is empty"
        if reason:
            raw = "\n".join([f"Q: {question}", *(f"A: {answer}" for answer in answers)])
            return Record(self.line, _bytes(raw), None, reason)
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answers[0]}]
        return to_record(self.line, {"subtask": self.subtask, "messages": turns})


def _blocks(text: str, question: re.Pattern[str], answer: re.Pattern[str]) -> Iterator[Record]:
    subtask = ""
    block: _Block | None = None
    for number, line in enumerate(text.split("\n"), 1):
        subtask_match, question_match, answer_match = _SUBTASK.match(line), question.match(line), answer.match(line)
        if block and (subtask_match or question_match):
            yield block.record()
            block = None
        if subtask_match:
            subtask = subtask_match[1].strip()
        elif question_match:
            block = _Block(number, subtask, [question_match[1]])
        elif block and answer_match:
            block.answers.append([answer_match[1]])
        elif block:
            (block.answers[-1] if block.answers else block.question).append(line)
        elif line.strip():
            reason = "an answer without a Q: line before it" if answer_match else "text outside of a Q: block"
            yield Record(number, _bytes(line), None, reason)
    if block:
        yield block.record()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
