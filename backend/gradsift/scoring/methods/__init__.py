"""The selection methods by name: one file for each, or one for several that share their work.

Every file of this package lists its methods in `METHODS` and is found without further registration: they appear on the
command line, in `score`'s table and in the app. `register` adds a method from elsewhere.
"""

from importlib import import_module
from pkgutil import iter_modules

from gradsift.runtime.errors import UsageError
from gradsift.scoring.method import Look, Method, spare_look

_ORDER = ("less", "bm25", "rds", "base", "dsir", "simple", "random")  # of the files; others follow by name

METHODS: dict[str, Method] = {}
DEFAULT_METHODS = ("less", "bm25", "rds", "random")  # scored by default


def register(method: Method) -> None:
    """Add a method after the existing ones.

    Raises:
        ValueError: another method has its name.
    """
    if method.name in METHODS:
        raise ValueError(f"there is already a method {method.name!r}: {METHODS[method.name].label}")
    METHODS[method.name] = method


def discover() -> None:
    """Register all methods of this package that are not registered yet."""
    names = {module.name for module in iter_modules(__path__)}
    for name in [*_ORDER, *sorted(names - set(_ORDER))]:
        for method in import_module(f"{__name__}.{name}").METHODS:
            if METHODS.get(method.name) is not method:
                register(method)


def get_method(name: str) -> Method:
    """The method called `name`.

    Raises:
        UsageError: there is no such method.
    """
    if name not in METHODS:
        raise UsageError(f"There is no method {name!r}; choose among {', '.join(METHODS)}.")
    return METHODS[name]


def look(name: str) -> Look:
    """How the method called `name` looks; a name without a look of its own always gets the same spare one."""
    own = METHODS[name].look if name in METHODS else None
    return own or spare_look(name)


discover()
