"""Names of sources: a file's stem, or the folder that tells it from other files of that stem.

Shards (`NAME-00000-of-00002`) are one source, NAME. Where `flan/train.jsonl` and `cot/train.jsonl` are read together,
they are `flan` and `cot`.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from gradsift.data.streams import COMPRESSIONS, FORMATS

_Folders = tuple[str, ...]

_SHARD = re.compile(r"(.+?)[-_.]?\d{3,}-of-\d{3,}")
_SPARK = re.compile(r"(part)-\d{5}(-.*)?")
_NUMBER = re.compile(r"0\d{3,}|\d{3,}-of-\d{3,}")
_HUB_FOLDER = re.compile(r"datasets--(.+)")
_HELD_OUT = frozenset({"test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation"})
_TRAIN = frozenset({"train", "training"})
_WORDS = re.compile(r"[-_.\s]+")
_SAYS_NOTHING = re.compile(
    r"(?i)data|default|main|raw|snapshots|refs|convert|parquet|jsonl?|arrow|processed|train(ing)?|test(ing)?|dev|val(id)?"
    r"|validation|eval(uation)?|v?\d+([._]\d+)*|[0-9a-f]{8,}"
)


class Place(NamedTuple):
    """Where an input stands: its folders from the outermost, and its name there.

    below: how many of the folders lie below the one that was given.
    """

    folders: _Folders
    name: str
    below: int = 0


def label_of(name: str) -> str:
    """A file's stem, without the number of a shard."""
    stem = _stem(name)
    match = _SHARD.fullmatch(stem) or _SPARK.fullmatch(stem)
    return match[1] if match else stem


def split_words(path: str) -> frozenset[str]:
    """The words of a path that make it a test or validation split: a folder's name; a file's first or last word."""
    *folders, file = path.lower().split("/")
    words = [word for word in _WORDS.split(label_of(file)) if word]
    ends = set() if _TRAIN & set(words) else {*words[:1], *words[-1:]}
    return _HELD_OUT & (ends | set(folders))


def name_sources(places: Sequence[Place], taken: Collection[str] = ()) -> list[str]:
    """The source of every place. taken: names that others have."""
    places = [_numbered_by_folder(place) for place in places]
    names = [label_of(place.name) for place in places]
    groups: dict[str, list[int]] = defaultdict(list)
    for at, name in enumerate(names):
        groups[name].append(at)
    alone = {name for name, group in groups.items() if len({_identity(places[at]) for at in group}) == 1}
    used = alone | set(taken)
    # Names are given to test and validation splits last, so that the others' do not depend on whether these are read.
    for name, group in sorted(groups.items(), key=lambda item: bool(split_words(item[0]))):
        if name in alone and name not in taken:
            continue
        ways = _ways([places[at] for at in group])
        chosen = next((way for way in ways if not used & set(way)), ways[-1])
        for at, name in zip(group, chosen, strict=True):
            names[at] = name
        used |= set(chosen)
    return names


def _stem(name: str) -> str:
    while Path(name).suffix.lower() in (*FORMATS, *COMPRESSIONS):
        name = Path(name).stem
    return name


def _numbered_by_folder(place: Place) -> Place:
    """A place whose name is nothing but a shard's number (`train/0000.parquet`) bears its folder's name."""
    while place.folders and _NUMBER.fullmatch(_stem(place.name)):
        *folders, name = place.folders
        place = Place(tuple(folders), f"{name}-000-of-000", max(place.below - 1, 0))
    return place


def _identity(place: Place) -> tuple[_Folders, str]:
    """The same for the shards of one data set, and for nothing else."""
    label = label_of(place.name)
    return place.folders, place.name if label == _stem(place.name) else label


def _ways(places: list[Place]) -> list[list[str]]:
    """Ways to name places of one label so that they differ, the shortest first."""
    roots = {place.folders[: len(place.folders) - place.below] for place in places}
    outermost = len(roots) == 1
    folders = _differing([place.folders for place in places])
    labels = [label_of(place.name) for place in places]
    telling = [[part for part in parts if not _SAYS_NOTHING.fullmatch(part)] for parts in folders]
    picked = [parts[:1] if outermost else parts[-1:] for parts in telling]
    ways = [
        [_joined(parts) or label for parts, label in zip(way, labels, strict=True)]
        for way in (picked, telling, folders)
    ]
    ways.append([_joined((*parts, label)) for parts, label in zip(folders, labels, strict=True)])
    good = [way for way in ways if len(set(way)) == len(set(folders)) and len(set(folders)) > 1]
    ends = [_identity(place)[1] for place in places]
    named = [_joined((*parts, end)) for parts, end in zip(folders, ends, strict=True)]
    full = [_joined((*place.folders, end)) for place, end in zip(places, ends, strict=True)]
    return [*good, named, full]


def _differing(folders: list[_Folders]) -> list[_Folders]:
    """The folders without the outermost and innermost ones that all share."""
    while all(folders) and len({parts[0] for parts in folders}) == 1:
        folders = [parts[1:] for parts in folders]
    while all(folders) and len({parts[-1] for parts in folders}) == 1:
        folders = [parts[:-1] for parts in folders]
    return folders


def _joined(parts: Sequence[str]) -> str:
    return "/".join(match[1].replace("--", "/") if (match := _HUB_FOLDER.fullmatch(part)) else part for part in parts)
