"""Errors for people: every one is a sentence that says what happened, where, and what to do."""


class GradsiftError(Exception):
    """Base of every error that gradsift raises on purpose; the command line prints it and exits with 1."""


class UsageError(GradsiftError):
    """The request itself cannot be right (a malformed budget, an unknown format); the command line exits with 2."""
