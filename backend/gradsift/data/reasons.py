"""Why a record cannot be used, in words: one clause, printable and short whatever the record holds."""


class Unusable(Exception):
    """A record cannot be used; the message is one clause that says why."""


def kind(value: object) -> str:
    """The JSON type of a value, in words: "a list", "null", ..."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), f"of type {type(value).__name__}")


def shorten(text: str, limit: int = 40) -> str:
    """Quote untrusted text: printable, on one line, about `limit` characters at most."""
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
