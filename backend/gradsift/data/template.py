"""Chat templates, rendered so that every character of the result says where it comes from.

A template is compiled as Hugging Face does (a sandbox, whitespace rules, `tojson`, `raise_exception`,
`{% generation %}`), with three additions to its syntax tree: whatever it writes is marked with the message that it is
writing, the joins of `~` keep their origin, and each loop over messages says which message it is at.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context

from gradsift.data.tracked import MESSAGE, NOWHERE, Tracked, TrackedDict, join, runs_of, to_json, tracked

_NOW = datetime(2024, 7, 26)  # the fallback in Llama's templates, so that a row is the same every day
_CURRENT = ("message", "msg", "m", "turn")  # what templates call the message of an index that they loop over
_STATE = "gradsift's state"  # no name in a template, so that no template can reach it


class TemplateSyntaxError(Exception):
    """A template cannot be compiled."""


class _State:
    """The message being rendered, and those of the loops around it."""

    def __init__(self) -> None:
        self.turn = NOWHERE
        self.outer: list[int] = []


def check_syntax(template: str) -> None:
    """Raise `TemplateSyntaxError` with the reason and line if it is not a chat template."""
    _compiled(template)


def render(template: str, messages: list[TrackedDict], values: Mapping[str, Any]) -> Tracked:
    """Render a conversation. values: the template's other variables, such as `tools` and `bos_token`.

    Raises:
        Exception: whatever the template raises; it is a program.
    """
    return join([_compiled(template).render({**values, "messages": messages, _STATE: _State()})])


@lru_cache(maxsize=32)
def _compiled(template: str) -> jinja2.Template:
    environment = _Environment()
    try:
        tree = environment.parse(template)
        _instrument(tree)
        return jinja2.Template.from_code(environment, environment.compile(tree), environment.make_globals(None))
    except jinja2.TemplateSyntaxError as error:
        raise TemplateSyntaxError(f"{error.message}, line {error.lineno}") from error


def _instrument(tree: nodes.Template) -> None:
    """Mark outputs, joins and loops of a syntax tree."""
    for output in list(tree.find_all(nodes.Output)):
        output.nodes = [_call("emit", _constant(child)) for child in output.nodes]
    for loop in list(tree.find_all(nodes.For)):
        if isinstance(loop.target, nodes.Name):
            loop.body.insert(0, _entering(loop.target.name))
    _rewrite(tree)
    tree.set_lineno(1)


def _rewrite(node: nodes.Node) -> None:
    """Replace `~`, and put a mark before and after every loop."""
    for name, value in list(node.iter_fields()):
        if isinstance(value, list):
            changed: list[Any] = []
            for item in value:
                if isinstance(item, nodes.Node):
                    _rewrite(item)
                    changed += _around(item)
                else:
                    changed.append(item)
            setattr(node, name, changed)
        elif isinstance(value, nodes.Node):
            _rewrite(value)
            setattr(node, name, _around(value)[-1] if isinstance(value, nodes.Concat) else value)


def _around(node: nodes.Node) -> list[nodes.Node]:
    if isinstance(node, nodes.Concat):
        return [_call("concatenate", *node.nodes)]
    if isinstance(node, nodes.Assign) and isinstance(node.target, nodes.Name) and node.target.name in _CURRENT:
        return [node, _entering(node.target.name)]
    if isinstance(node, nodes.For):
        return [nodes.Output([_call("enter_loop")]), node, nodes.Output([_call("leave_loop")])]
    return [node]


def _entering(name: str) -> nodes.Output:
    return nodes.Output([_call("enter", nodes.Name(name, "load"))])


def _constant(node: nodes.Expr) -> nodes.Expr:
    return nodes.Const(node.data) if isinstance(node, nodes.TemplateData) else node


def _call(name: str, *arguments: nodes.Expr) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), list(arguments), [], None, None)


class _Generation(Extension):
    """{% generation %}: what a template's author says is learned."""

    tags = {"generation"}  # noqa: RUF012  (as the base class declares it)

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("mark"), [], [], body).set_lineno(line)

    def mark(self, caller: Callable[[], str]) -> str:
        text = caller()
        return tracked(text, (run._replace(generation=True) for run in runs_of(text)))


class _Environment(ImmutableSandboxedEnvironment):
    concat = staticmethod(join)

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.filters |= {"tojson": to_json, "join": _join_filter}
        self.globals |= {
            "raise_exception": _raise,
            "strftime_now": _NOW.strftime,
            "namespace": _Namespace,
            "dict": _new_dict,
        }

    @pass_context
    def emit(self, context: Any, value: Any) -> str:
        """What the template writes, marked with the message it is writing."""
        if isinstance(value, TrackedDict):
            raise TypeError("it writes an object as it is; it wants text")
        text, state = value if isinstance(value, str) else str(value), context.parent[_STATE]
        runs = runs_of(text)
        ahead = {run.turn for run in runs if run.turn > state.turn and run.part}
        # A result of a tool may be written with its caller's turn, and with the name by which it was called.
        own = any(run.turn == state.turn and not run.part.startswith("call") for run in runs)
        host = ahead.pop() if len(ahead) == 1 and not own else state.turn
        if host == state.turn or state.turn == NOWHERE:
            return tracked(text, (run if run.host is not None else run._replace(host=state.turn) for run in runs))
        return tracked(text, (run._replace(host=host) for run in runs))

    @pass_context
    def enter_loop(self, context: Any) -> str:
        state = context.parent[_STATE]
        state.outer.append(state.turn)
        return ""

    @pass_context
    def enter(self, context: Any, item: Any) -> str:
        if isinstance(item, TrackedDict) and item._part == MESSAGE:
            context.parent[_STATE].turn = item._turn
        return ""

    @pass_context
    def leave_loop(self, context: Any) -> str:
        state = context.parent[_STATE]
        state.turn = state.outer.pop()
        return ""

    def concatenate(self, *values: Any) -> str:
        return join(values)

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        between = getattr(function, "__self__", None)
        if type(between) is str and getattr(function, "__name__", "") == "join" and len(args) == 1:
            return join(args[0], between)
        return super().call(context, function, *args, **kwargs)


class _Namespace(Namespace):
    """As Hugging Face's: attributes that begin with an underscore would reach into Python."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace has no attribute {name!r}; rename it")


def _new_dict(*args: Any, **kwargs: Any) -> dict:
    return dict(*args, **kwargs)


def _join_filter(values: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
    return join((value[attribute] for value in values) if attribute else values, d)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
