"""Errors for people: every one is a sentence that says what happened, where, and what to do."""

import errno

_FULL_SIGNS = ("No space left", "File too large", "Disk quota", "unexpected pos", "iostream error")  # the last: torch's
_FULL = "make room and run the same command again; what was finished is kept."


class GradsiftError(Exception):
    """Base of every error that gradsift raises on purpose; the command line prints it and exits with 1."""


class UsageError(GradsiftError):
    """The request itself cannot be right (a malformed budget, an unknown format); the command line exits with 2."""


class StoreError(GradsiftError):
    """A store that is absent, incomplete, damaged, or not the one that was asked for."""


def explain(error: BaseException) -> str | None:
    """A sentence for an error that a person can do something about; None for one that is a defect of gradsift.

    Beside our own errors these are the operating system's, and a full disk or memory as torch and safetensors report
    them (by name and text: torch is not imported for this).
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
