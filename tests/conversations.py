"""Conversations in short, for tests: from (role, content) pairs, and back to what a record holds."""

from collections.abc import Iterable

from gradsift.data.conversation import Conversation, Message


def talk(*turns: tuple[str, str], prefix: str = "") -> Conversation:
    """A conversation of (role, content) pairs."""
    return Conversation(tuple(Message(role, content) for role, content in turns), prefix=prefix)


def pairs(messages: Iterable[Message]) -> list[tuple[str, str]]:
    """The messages as (role, content) pairs; they must hold nothing else."""
    result = [(message.role, message.content) for message in messages]
    assert tuple(messages) == talk(*result).messages
    return result


def records(messages: Iterable[Message]) -> list[dict[str, str]]:
    """The messages as a record holds them; they must hold nothing but role and content."""
    return [{"role": role, "content": content} for role, content in pairs(messages)]
