"""`gradsift masks`: what is learned of a conversation under a model's template, before paying for a build."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradsift.cli.commands import print_json
from gradsift.cli.options import (
    ColumnsOption,
    JsonOption,
    SourceColumnOption,
    TakeOption,
    TemplateOption,
    TemplateOptions,
)
from gradsift.config import BuildConfig, make_config, parse_columns, parse_options
from gradsift.runtime.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from gradsift.data.encode import Encoder
    from gradsift.data.masks import Masked
    from gradsift.data.pool import Row
    from gradsift.data.preview import Preview

_LONGEST = 10_000  # characters of a rendering that are printed
_REASONS = 20  # reasons that are printed; the rest are counted
_STYLES = {"learned": "bold green", "given": "", "template": "dim"}
_MARKS = {"learned": "‹›", "given": ("", ""), "template": "⟦⟧"}  # where there are no colours
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def masks(
    model: Annotated[str, typer.Argument(help=BuildConfig.model_fields["model"].description)],
    pool: Annotated[list[str] | None, typer.Argument(help="as for build [default: a built-in example]")] = None,
    template: TemplateOption = "chat",
    template_option: TemplateOptions = None,
    columns: ColumnsOption = None,
    take: TakeOption = None,
    source_column: SourceColumnOption = None,
    rows: Annotated[int, typer.Option(min=1, help="rows to show of each schema")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Show conversations as the model sees them: what is learned, what is context, what the template adds and drops."""
    from gradsift.data.encode import Encoder, read_template

    if not pool and (columns or take or source_column):
        raise UsageError("--columns, --take and --source-column say how POOL is read: name its files.")
    config = make_config(
        model=model,
        template=read_template(template),
        template_options=parse_options(template_option or ()),
        columns=parse_columns(columns or ()),
        take=tuple(take or ()),
        source_column=source_column or "",
    )
    from gradsift.model.load import load_tokenizer

    encoder = Encoder(load_tokenizer(config.model), config.template, config.template_options)
    if pool:
        _of_pool(encoder, pool, config, rows, as_json)
    else:
        _of_example(encoder, as_json)


def _of_example(encoder: "Encoder", as_json: bool) -> None:
    from gradsift.data.masks import mask_example

    masked = mask_example(encoder)
    if as_json:
        print_json({"rows": [_record(masked)], "lacking": masked.lacking})
        return
    console = _console()
    _legend(console)
    if masked.lacking:
        _line(console, f"The template has no place for: {', '.join(masked.lacking)}. Rows that have them are excluded.")
    _show(console, "A built-in example; name the files of a pool to see its own rows", masked)


def _of_pool(encoder: "Encoder", pool: list[str], config: BuildConfig, rows: int, as_json: bool) -> None:
    from gradsift.data.masks import mask, refusal
    from gradsift.data.preview import preview, shape_of
    from gradsift.data.reading import reading_of

    seen = preview(pool, reading_of(config), each=rows, refuse=lambda row: refusal(encoder, row.conversation))
    shown = [(row, mask(encoder, row.conversation)) for row in seen.first]
    if as_json:
        print_json({"rows": [_record(masked, row) for row, masked in shown], **_counts(seen)})
        return
    console = _console()
    if shown:
        _legend(console)
    for row, masked in shown:
        _show(console, f"{row.file}, line {row.line}: {shape_of(row)}", masked)
    for line in _summary(seen):
        _line(console, line)


def _console() -> "Console":
    from rich.console import Console

    return Console(soft_wrap=True, highlight=False, markup=False, emoji=False)


def _legend(console: "Console") -> None:
    names = {"learned": "learned", "given": "context", "template": "added by the template"}
    legend = _joined(list(names.items()), console.color_system is not None, "  ")
    console.print(legend)


def _show(console: "Console", title: str, masked: "Masked") -> None:
    """Print a conversation with its marks, what the template left out of it, and its tokens."""
    from rich.text import Text

    text, turns = masked.rendering.text, masked.conversation.messages
    pieces = [(s.kind, text[s.start : min(s.stop, _LONGEST)]) for s in masked.rendering.stretches if s.start < _LONGEST]
    console.print()
    console.print(Text(_visible(title), style="bold"))
    console.print(_joined(pieces, console.color_system is not None))
    if len(text) > _LONGEST:
        _line(console, f"[{len(text) - _LONGEST:,} more characters are not shown; --json has them]")
    for dropped in masked.rendering.dropped:
        where = (
            f"left out by the template: the {dropped.part} of message {dropped.turn + 1} ({turns[dropped.turn].role}): "
        )
        console.print(Text(where, style="yellow").append(_visible(_clipped(dropped.text)), style="strike dim"))
    own = f"{masked.template:,} of them the template's own"
    _line(console, f"tokens: {masked.prompt:,} in the prompt ({own}), {masked.learned:,} learned")


def _joined(pieces: Sequence[tuple[str, str]], colours: bool, between: str = "") -> "Text":
    """Pieces of text by kind, in colours or between marks; neighbours of one kind are one."""
    from rich.text import Text

    result = Text()
    for kind, group in groupby(pieces, lambda piece: piece[0]):
        start, end = ("", "") if colours else _MARKS[kind]
        style = _STYLES[kind] if colours else ""
        if len(result):
            result.append(between)
        result.append(start + "".join(_visible(text) for _, text in group) + end, style=style)
    return result


def _summary(seen: "Preview") -> Iterator[str]:
    """What was read, why rows are excluded, and which columns were not used, one line each."""
    yield ""
    which = "All" if seen.whole else "The first"
    yield f"{which} {seen.rows:,} rows: {seen.usable:,} usable, {seen.rows - seen.usable:,} excluded"
    yield from (f"  {shape}: {count:,}" for shape, count in seen.shapes.most_common())
    yield from (f"excluded {count:,}: {reason}" for reason, count in seen.excluded.most_common(_REASONS))
    if len(seen.excluded) > _REASONS:
        yield f"and {len(seen.excluded) - _REASONS:,} more reasons"
    yield from (
        f"not used: the column {column}, with text in {count:,} rows" for column, count in seen.unused.most_common()
    )
    yield from (f"left out: {clause}" for clause in seen.left_out)
    yield from seen.problems


def _counts(seen: "Preview") -> dict[str, Any]:
    return {
        "read": seen.rows,
        "whole": seen.whole,
        "usable": seen.usable,
        "schemas": dict(seen.shapes),
        "excluded": dict(seen.excluded.most_common()),
        "unused": dict(seen.unused.most_common()),
        "left_out": seen.left_out,
        "problems": seen.problems,
    }


def _record(masked: "Masked", row: "Row | None" = None) -> dict[str, Any]:
    """A conversation as plain JSON values; start and stop count the characters of `text`."""
    messages = masked.conversation.messages
    where = {"id": row.id, "file": row.file, "line": row.line, "schema": row.schema} if row else {}
    return {
        **where,
        "text": masked.rendering.text,
        "stretches": [
            {
                "start": s.start,
                "stop": s.stop,
                "kind": s.kind,
                "turn": s.turn,
                "role": messages[s.turn].role if s.turn >= 0 else "",
            }
            for s in masked.rendering.stretches
        ],
        "dropped": [{"turn": d.turn, "part": d.part, "text": d.text} for d in masked.rendering.dropped],
        "tokens": {"prompt": masked.prompt, "learned": masked.learned, "template": masked.template},
    }


def _line(console: "Console", text: str) -> None:
    console.print(_visible(text))


def _visible(text: str) -> str:
    """Text from data without characters that could control the terminal, each of them by its number."""
    return _UNSEEN.sub(lambda match: f"[U+{ord(match[0]):04X}]", text)


def _clipped(text: str, length: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
