"""Data sets on the Hugging Face hub, streamed.

A data set is named `org/name@revision:configuration:split`, of which only `org/name` must be there: `org/name::test` is
its split `test`, `org/name:code` its configuration `code`. Without a split, `train` is read.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from gradsift.data.records import PoolError, Record, to_record
from gradsift.data.streams import clause

NOTATION = "org/name@revision:configuration:split"
_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([^:\s]+))?(?::([^:\s]*))?(?::([^:\s]+))?")
_CONFIGURATIONS = re.compile(r"[Aa]vailable(?: configs)?[^\[]*\[([^\]]*)\]")
_SPLITS = re.compile(r"(?:Bad|Unknown) split.*?\[([^\]]*)\]", re.DOTALL)


class HubName(NamedTuple):
    """The parts of a data set's name on the hub, "" where one is not given."""

    repository: str
    revision: str = ""
    configuration: str = ""
    split: str = ""


def hub_name(text: str) -> HubName | None:
    """The parts of a name, or None if the text is none."""
    match = _ID.fullmatch(text)
    return HubName(*(part or "" for part in match.groups())) if match else None


def read_hub(text: str) -> Iterator[Record]:
    """Stream a data set on the Hugging Face hub; images and recordings are not decoded.

    Raises:
        PoolError: no such data set, configuration or split, or no connection.
    """
    from datasets import load_dataset

    from gradsift.data.columns import without_media

    name = hub_name(text) or HubName(text)
    more: dict[str, Any] = {"revision": name.revision} if name.revision else {}
    configuration = [name.configuration] if name.configuration else []
    try:
        rows = load_dataset(name.repository, *configuration, split=name.split or "train", streaming=True, **more)
        rows = rows.decode(False) if hasattr(rows, "decode") else rows
        for number, value in enumerate(rows, 1):
            yield to_record(number, *without_media(value))
    except Exception as error:  # the hub client raises many types: no network, missing, gated, unreadable
        raise PoolError(_advice(name, error)) from error


def _advice(name: HubName, error: Exception) -> str:
    """What is wrong and what to do, as a sentence."""
    start = f"{name.repository}@{name.revision}" if name.revision else name.repository
    message = str(error)
    if found := _SPLITS.search(message):
        splits = _listed(found[1])
        split = next((split for split in splits if "train" in split), (splits or ["SPLIT"])[0])
        return (
            f"{start} has no split {name.split or 'train'}; it has {', '.join(splits)}. "
            f"Name one, as {start}:{name.configuration}:{split} ({NOTATION})."
        )
    if "onfig" in message and (found := _CONFIGURATIONS.search(message)):
        names = _listed(found[1])
        wrong = f"has no configuration {name.configuration}; it has" if name.configuration else "has the configurations"
        rest = f":{name.split}" if name.split else ""
        return f"{start} {wrong} {', '.join(names)}. Name one, as {start}:{(names or ['NAME'])[0]}{rest} ({NOTATION})."
    return (
        f"{start} is not a local file or folder, and the Hugging Face hub did not stream its "
        f"{name.split or 'train'} split: {clause(error)}. Check the name and the connection, or give a downloaded file."
    )


def _listed(text: str) -> list[str]:
    return [part.strip(" '\"\n") for part in text.split(",") if part.strip(" '\"\n")]
