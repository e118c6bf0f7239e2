"""Errors written for people: every one says what happened, where, and what to do."""

import errno

_FULL_SIGNS = ("No space left", "File too large", "Disk quota", "unexpected pos", "iostream error")  # the last: torch's
_FULL = "make room and run the same command again; finished work is kept."


class GradsiftError(Exception):
    """Base of every error that gradsift raises on purpose; the command line prints it and exits with 1."""


class UsageError(GradsiftError):
    """The request itself is invalid (a malformed budget, an unknown format); the command line exits with 2."""


class StoreError(GradsiftError):
    """A store that is missing, incomplete, damaged, or not the requested one."""


def explain(error: BaseException) -> str | None:
    """A sentence for an error that the user can act on; None for a defect of gradsift.

    Besides our own errors this covers those of the operating system, and a full disk or memory as torch and safetensors
    report them (recognised by name and text, so that torch need not be imported).
    """
    if isinstance(error, GradsiftError):
        return str(error)
    if isinstance(error, OSError):
        where = f" at {error.filename}" if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return f"The disk is full{where}: {_FULL}"
        return f"{error.strerror or error}{where}."
    text = str(error)
    if any(sign in text for sign in _FULL_SIGNS):
        return f"The disk is full: {_FULL}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        return "Memory ran out: use a smaller --max-length or --dtype bf16 for the build, or free the device."
    return None
