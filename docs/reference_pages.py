"""The reference part of the documentation site, made from the code: commands, Python, the store's format, schemas.

`write(folder)` writes one Markdown page for each. The command line is walked as click sees it, and modules are looked
up by what they define: nothing here names a file of the package, so moved code needs no change here.
"""

import ast
import importlib
import inspect
import json
import pkgutil
import re
import tempfile
import types
import typing
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import gradsift

PACKAGE = Path(gradsift.__file__).parent
_DEFAULT = re.compile(r"\s*\[default: (.*)\]")

_COMMANDS = """# Commands

Results go to standard output; progress and warnings go to standard error. Every command exits with 0 when it is done, 1
when it failed and 2 when it was called wrongly. `gradsift COMMAND --help` prints what is on this page, and `python -m
gradsift` is the same program.
"""
_PYTHON = """# Python

Everything you need is a name of the package itself; names are imported on first use, so that `import gradsift` costs
nothing.
"""
_STORE = """# The store's format

A store is a folder of plain files: JSON, Parquet and safetensors. Nothing in it is ever unpickled. A file is whole or
absent, because it is written under a temporary name, synced and renamed, and the feature shards carry their own hashes.
`gradsift verify` checks every hash and every row.
"""
_SCHEMAS = """# Schemas and formats

What gradsift reads (pools, target examples, held-out rows) and what it writes (picks).
"""
_EXAMPLES: tuple[dict[str, Any], ...] = (
    {"messages": [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4"}]},
    {"conversations": [{"from": "human", "value": "What is 2 + 2?"}, {"from": "gpt", "value": "4"}]},
    {"prompt": "What is 2 + 2?", "completion": "4"},
    {"instruction": "Add the numbers.", "input": "2 and 2", "output": "4"},
    {"instruction": "Add the numbers.", "context": "2 and 2", "response": "4"},
)


def write(folder: Path) -> None:
    """Write the reference pages into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"commands": commands(), "python": python(), "store": store(), "schemas": schemas()}
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


# -- commands ----------------------------------------------------------------------------------------------------------


def command_line() -> Any:
    """The command line as a click group."""
    (script,) = entry_points(group="console_scripts", name="gradsift")
    apps = [value for value in vars(importlib.import_module(script.module)).values() if isinstance(value, typer.Typer)]
    return typer.main.get_command(next(app for app in apps if app.info.name == "gradsift"))


def walk(command: Any, path: str = "gradsift") -> Iterator[tuple[str, Any]]:
    """Every command below `command` with its full name, without the groups."""
    for name, below in getattr(command, "commands", {}).items():
        full = f"{path} {name}"
        if getattr(below, "commands", None):
            yield from walk(below, full)
        else:
            yield full, below


def commands() -> str:
    """The page of commands."""
    every = sorted(walk(command_line()), key=lambda item: (item[0].count(" "), item[0]))
    head = [[f"[`{name}`](#{name.replace(' ', '-')})", _cell(_first_sentence(one.help))] for name, one in every]
    parts = [_COMMANDS, _table(["command", "what it does"], head)]
    for name, command in every:
        parts.append(_command(name, command))
    return "\n\n".join(parts) + "\n"


def _command(name: str, command: Any) -> str:
    shown = [param for param in command.params if param.name != "help"]
    arguments = [param for param in shown if param.param_type_name == "argument"]
    words = [_metavar(param) for param in arguments]
    declared = inspect.signature(command.callback).parameters
    options = [param for param in shown if param not in arguments and param.required]
    required = [f"{param.opts[0]} {_value(_innermost(declared[param.name].annotation))}" for param in options]
    usage = " ".join([name, *words, *required, "[OPTIONS]"])
    parts = [f"## {name}", inspect.cleandoc(command.help or ""), f"```text\n{usage}\n```"]
    if shown:
        lines = [_parameter(command, param) for param in shown]
        parts.append(_table(["argument or option", "default", "meaning"], lines))
    if command.epilog:
        parts += [_example(sentence) for sentence in _examples(command.epilog)]
    return "\n\n".join(part for part in parts if part)


def _metavar(param: Any) -> str:
    word = (param.metavar or param.name).upper() + ("..." if param.nargs == -1 else "")
    return word if param.required else f"[{word}]"


def _parameter(command: Any, param: Any) -> list[str]:
    text = getattr(param, "help", "") or ""
    match = _DEFAULT.search(text)
    default, text = match[1] if match else _default(param), _DEFAULT.sub("", text)
    kind = _innermost(inspect.signature(command.callback).parameters[param.name].annotation)
    if typing.get_origin(kind) is typing.Literal:
        names = [str(name) for name in typing.get_args(kind)]
        text = f"{', '.join(names[:-1])} or {names[-1]}: {text}"
    if param.param_type_name == "argument":
        name = _metavar(param).strip("[]")
    else:
        name = " / ".join([*param.opts, *param.secondary_opts]) + ("" if param.is_flag else f" {_value(kind)}")
    return [f"`{name}`", _cell(default), _cell(text)]


def _innermost(kind: Any) -> Any:
    """The X of Annotated[list[X] | None, ...] that an option's function declares (typer's own types are private)."""
    while typing.get_origin(kind) is not typing.Literal:
        inner = [one for one in typing.get_args(kind) if one is not type(None)]
        if not inner:
            return kind
        kind = inner[0]
    return kind


def _value(kind: Any) -> str:
    """The placeholder for an option's value in a usage line."""
    if typing.get_origin(kind) is typing.Literal:
        return "NAME"
    return {int: "N", float: "X", Path: "PATH"}.get(kind, "TEXT")


def _default(param: Any) -> str:
    if param.required:
        return "required"
    default = param.default
    if callable(default) or default is None or default is False or default == "" or default == []:
        return ""
    return ", ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)


def _examples(epilog: str) -> Iterator[tuple[str, str]]:
    """(the words before it, the command line) of every example in an epilog."""
    for match in re.finditer(r"(?:^|\s)([^.:]*): (gradsift .*?)(?=\.\s+[A-Z]|$)", " ".join(epilog.split())):
        yield match[1].strip(), match[2].strip()


def _example(example: tuple[str, str]) -> str:
    return f"{example[0]}:\n\n```bash\n{example[1]}\n```"


# -- Python ------------------------------------------------------------------------------------------------------------


def python() -> str:
    """The page of public names."""
    public = {name: getattr(gradsift, name) for name in sorted(gradsift.__all__)}
    errors = {n: v for n, v in public.items() if inspect.isclass(v) and issubclass(v, Exception)}
    classes = {n: v for n, v in public.items() if inspect.isclass(v) and n not in errors}
    functions = {n: v for n, v in public.items() if inspect.isroutine(v)}
    rest = {n: v for n, v in public.items() if n not in {**errors, **classes, **functions}}
    parts = [_PYTHON]
    for title, members in (("Functions", functions), ("Classes", classes), ("Errors", errors), ("Constants", rest)):
        if members:
            parts.append(f"## {title}")
            parts += [_member(name, value) for name, value in members.items()]
    if met := _met(functions.values(), set(public.values())):
        parts += ["## Types you meet", "Taken or returned by these functions, without being public names themselves."]
        parts += [_member(kind.__name__, kind) for kind in met]
    return "\n\n".join(parts) + "\n"


def _met(functions: Iterable[Any], known: set[Any]) -> list[type]:
    """gradsift's own classes in the signatures of `functions`, except `known` ones, by name."""
    open_kinds = [kind for function in functions for kind in inspect.get_annotations(function).values()]
    met = set()
    while open_kinds:
        kind = open_kinds.pop()
        open_kinds += typing.get_args(kind)
        if inspect.isclass(kind) and kind.__module__.startswith("gradsift.") and kind not in known:
            met.add(kind)
    return sorted(met, key=lambda kind: kind.__name__)


def _member(name: str, value: Any) -> str:
    if inspect.isroutine(value):
        return f"### `{name}`\n\n{_signature(name, value)}\n\n{_prose(value)}"
    if not inspect.isclass(value):
        return f"### `{name}`\n\n`{value!r}`, a `{type(value).__name__}`."
    parts = [f"### `{name}`"]
    if issubclass(value, Exception):
        parts.append(f"Derived from `{value.__bases__[0].__name__}`. {_prose(value)}")
        return "\n\n".join(parts)
    parts.append(_prose(value))
    if issubclass(value, BaseModel):
        parts.append(_fields(value))
    elif inspect.getdoc(value.__init__) or "__init__" in vars(value):
        parts.append(_signature(name, value))
    for attribute, raw in _attributes(value).items():
        if not attribute.startswith("_") and (text := _method(name, attribute, raw)):
            parts.append(text)
    return "\n\n".join(parts)


def _attributes(value: type) -> dict[str, Any]:
    """The attributes that a class and its bases define in this package."""
    own = [kind for kind in reversed(value.__mro__) if kind.__module__.startswith("gradsift.")]
    return {attribute: raw for kind in own for attribute, raw in vars(kind).items()}


def _method(name: str, attribute: str, raw: Any) -> str:
    function = getattr(raw, "fget", None) or getattr(raw, "func", None) or getattr(raw, "__func__", raw)
    if not inspect.isfunction(function) or not inspect.getdoc(function):
        return ""
    if function is raw or isinstance(raw, classmethod | staticmethod):
        return f"#### `{name}.{attribute}`\n\n{_signature(f'{name}.{attribute}', function)}\n\n{_prose(function)}"
    kind = function.__annotations__.get("return")
    return f"#### `{name}.{attribute}`\n\nA property" + (f", `{_type(kind)}`" if kind else "") + f". {_prose(function)}"


def _signature(name: str, value: Any) -> str:
    signature = inspect.signature(value)
    kinds = inspect.Parameter
    words: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is kinds.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        star = {kinds.VAR_POSITIONAL: "*", kinds.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        kind = "" if parameter.annotation is kinds.empty else f": {_type(parameter.annotation)}"
        default = "" if parameter.default is kinds.empty else f" = {parameter.default!r}"
        words.append(f"{star}{parameter.name}{kind}{default}")
    result = "" if signature.return_annotation is kinds.empty else f" -> {_type(signature.return_annotation)}"
    line = f"{name}({', '.join(words)}){result}"
    if len(line) > 90:
        line = f"{name}(\n" + "".join(f"    {word},\n" for word in words) + f"){result}"
    return f"```python\n{line}\n```"


def _type(annotation: Any) -> str:
    """A type as a person would write it, without module names and validators."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "None"
    if annotation is Ellipsis:
        return "..."
    if isinstance(annotation, str | typing.ForwardRef):
        return str(getattr(annotation, "__forward_arg__", annotation)).rpartition(".")[2]
    if origin is typing.Annotated:
        return _type(inner[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_type, inner))
    if origin is typing.Literal:
        return " | ".join(map(repr, inner))
    if isinstance(annotation, list):
        return f"[{', '.join(map(_type, annotation))}]"
    name = getattr(origin or annotation, "__name__", str(annotation))
    return f"{name}[{', '.join(map(_type, inner))}]" if inner else name


def _fields(model: type[BaseModel]) -> str:
    lines = []
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else ""
        if not field.is_required():
            value = field.default if field.default is not PydanticUndefined else field.default_factory()  # type: ignore[misc,call-arg]
            default = f"`{value!r}`"
        kind = " or ".join(f"`{part}`" for part in _type(field.annotation).split(" | "))
        lines.append([f"`{name}`", kind, default, _cell(field.description)])
    if not any(line[3] for line in lines):
        return _table(["field", "type", "default"], [line[:3] for line in lines])
    return _table(["field", "type", "default", "meaning"], lines)


# -- the store ---------------------------------------------------------------------------------------------------------


def store() -> str:
    """The page of the store's format."""
    parts = [_STORE, "## The folder", _prose(_defining("Store"))]
    package = importlib.import_module(gradsift.Store.__module__.rpartition(".")[0])
    shown = {gradsift.Store.__module__, _defining("Manifest").__name__}
    for name in ("Checkpoint", "Scoring"):
        module = _defining(name)
        shown.add(module.__name__)
        parts += [f"## {_title(module)}", _prose(module)]
    manifest = _defining("Manifest")
    parts += [f"## {_title(manifest)}", _prose(manifest)]
    parts += [f"### {model.__name__}\n\n{_prose(model)}\n\n{_fields(model)}" for model in _models(manifest)]
    for module in sorted(_modules(package), key=lambda module: module.__name__):
        if module.__name__ not in shown and module.__doc__:
            parts += [f"## {_title(module)}", _prose(module)]
    for name, schema in _arrow_schemas():
        parts.append(f"## Columns of {name}")
        parts.append(_table(["column", "type"], [[f"`{field.name}`", f"`{field.type}`"] for field in schema]))
    parts += ["## The parameters", "The manifest's `config` is a [`BuildConfig`](python.md#buildconfig)."]
    return "\n\n".join(parts) + "\n"


def _title(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2].replace("_", " ").capitalize()


def _models(module: ModuleType) -> list[type[BaseModel]]:
    """The public records of a module, the one that holds the others first."""
    own = [v for n, v in vars(module).items() if inspect.isclass(v) and v.__module__ == module.__name__ and n[0] != "_"]
    return [model for model in reversed(own) if issubclass(model, BaseModel)]


def _arrow_schemas() -> Iterator[tuple[str, pa.Schema]]:
    """The Parquet files of a store whose columns the code declares: the pool's, the index's."""
    for file, module in (("pool.parquet", _defining("ingest")), ("the index", _defining("ensure_index"))):
        for value in vars(module).values():
            if isinstance(value, pa.Schema):
                yield file, value


# -- schemas -----------------------------------------------------------------------------------------------------------


def schemas() -> str:
    """The page of the schemas that are read and the formats that are written."""
    reading = _defining("read_conversation")
    parts = [_SCHEMAS, "## Records that are read", _prose(reading)]
    for record in _EXAMPLES:
        conversation = reading.read_conversation(record)
        turns = [_defining("openai_message").openai_message(turn) for turn in conversation.messages]
        parts += [f"### {conversation.schema}", f"```json\n{json.dumps(record)}\n```", "is read as"]
        parts.append(f"```json\n{json.dumps(turns)}\n```")
    for title, name in (("Files", "records_of"), ("Fields of a row", "read_rows"), ("Target examples", "read_targets")):
        parts += [f"## {title}", _prose(_defining(name))]
        if name == "read_rows":
            parts.append(f"```python\n{_fields_in_source(_defining(name), 'Row')}\n```")
    parts += ["## Held-out rows", _prose(_defining("read_heldout"))]
    parts += ["## Lines that are written", _prose(_defining("preview")), *_written()]
    return "\n\n".join(parts) + "\n"


def _fields_in_source(module: ModuleType, name: str) -> str:
    """The fields of a class with the comments beside them."""
    lines = inspect.getsource(getattr(module, name)).splitlines()
    return "\n".join(re.sub(r"^    ", "", line) for line in lines if re.match(r"    \w+: ", line))


def _written() -> Iterator[str]:
    """One conversation in every export format."""
    formats = _defining("preview")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "facts.jsonl"
        path.write_text(json.dumps(_EXAMPLES[0]) + "\n")
        row = next(iter(_defining("read_rows").read_rows([path])))
    values = {"rank": 1, "score": 0.2, "tokens": 20, "best_subtask": "sums", "raw": row.raw}
    kind = _defining("Pick").Pick
    pick = kind(**{**{name: getattr(row, name, None) for name in kind.__dataclass_fields__}, **values})
    for name in formats.FORMATS:
        yield f"### As {name}"
        yield f"```json\n{formats.preview(name, [pick], 1).strip()}\n```"


# -- helpers -----------------------------------------------------------------------------------------------------------


def _defining(name: str) -> ModuleType:
    """The module of the package that defines a class or function of this name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        if any(isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name for node in body):
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            if "cli" not in parts:
                return importlib.import_module(".".join(parts))
    raise LookupError(f"No module of gradsift defines {name}, which docs/reference_pages.py names: update it.")


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    for info in pkgutil.iter_modules(package.__path__):
        yield importlib.import_module(f"{package.__name__}.{info.name}")


def _prose(value: Any) -> str:
    """A docstring as Markdown: indented listings become code, `Raises:` and the like become lists."""
    lines, blocks = (inspect.getdoc(value) or "").splitlines(), []
    section: str | None = None
    for line in [*lines, ""]:
        if match := re.fullmatch(r"(Raises|Returns|Yields|Args):", line):
            section = match[1]
            blocks += ["", f"**{section}**", ""]
        elif section and line.startswith("    "):
            text = line.strip()
            starts = section != "Raises" or re.match(r"[A-Z]\w+(, [A-Z]\w+)*: ", text)
            begun = blocks[-1].startswith(("* ", "  ")) and (section != "Raises" or blocks[-1].endswith(","))
            blocks.append(f"* {_escape(text)}" if starts and not begun else f"  {_escape(text)}")
        elif line.startswith("    "):
            blocks.append(line)
        else:
            section = None if line else section
            if blocks and blocks[-1].startswith("    ") and line:
                blocks.append("")
            blocks.append(_escape(line))
    return "\n".join(blocks).strip()


def _escape(text: str) -> str:
    """Text in which nothing but backticks is markup."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(p if p.startswith("`") else re.sub(r"([*<\[\]])", r"\\\1", p) for p in parts)


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    rows = [list(head), *map(list, lines)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (rows[0], ["---"] * len(rows[0]), *rows[1:]))


def _first_sentence(text: str | None) -> str:
    return re.split(r"(?<=\.)\s", inspect.cleandoc(text or ""))[0]
