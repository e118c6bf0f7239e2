"""A hashed file is not hashed again unless anything about it has changed; `verify` always hashes."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from stores import flip

from gradsift.datastore import shards, verified
from gradsift.datastore.shards import ShardError
from gradsift.datastore.store import Store
from gradsift.datastore.verified import Checked
from gradsift.datastore.verify import verify


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list whose only entry counts the payloads hashed; files need no time to settle."""
    count, digest = [0], shards._digest

    def counting(*given):
        count[0] += 1
        return digest(*given)

    monkeypatch.setattr(shards, "_digest", counting)
    monkeypatch.setattr(verified, "_SETTLED", -(10**12))
    return count


def opened(store: Store, hashed: list[int]) -> int:
    """How many payloads a process that knows only what is on disk hashes to read a checkpoint's shards."""
    before = hashed[0]
    list(Store.open(store.path).shards("adam", 0))
    time.sleep(0.02)  # a disk's clock ticks in milliseconds, and what comes next must be later
    return hashed[0] - before


def test_a_shard_is_hashed_once(tiny_copy: Store, hashed: list[int]) -> None:
    assert [opened(tiny_copy, hashed) for _ in range(3)] == [5, 0, 0]


def test_verify_hashes_everything_every_time(tiny_copy: Store, hashed: list[int]) -> None:
    opened(tiny_copy, hashed)
    before = hashed[0]
    assert verify(tiny_copy.path) == []
    assert hashed[0] - before == 2 * 5 * len(tiny_copy.kinds)


@pytest.mark.parametrize("position", [0, 300, -1])
def test_damage_after_the_check_is_refused(tiny_copy: Store, hashed: list[int], position: int) -> None:
    opened(tiny_copy, hashed)
    flip(tiny_copy.shard_path("adam", 0, 2), position)
    for _ in range(2):
        with pytest.raises(ShardError, match=r"adam-00002\.safetensors is damaged"):
            opened(tiny_copy, hashed)


def test_damage_with_the_old_time_put_back_is_refused(tiny_copy: Store, hashed: list[int]) -> None:
    path = tiny_copy.shard_path("adam", 0, 2)
    opened(tiny_copy, hashed)
    before = path.stat()
    flip(path, -1)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(ShardError, match="damaged"):
        opened(tiny_copy, hashed)


def test_another_whole_shard_in_its_place_is_hashed_and_refused(tiny_copy: Store, hashed: list[int]) -> None:
    opened(tiny_copy, hashed)
    shutil.copy(tiny_copy.shard_path("adam", 0, 0), tiny_copy.shard_path("adam", 0, 2))
    with pytest.raises(ShardError, match="covers other rows"):
        opened(tiny_copy, hashed)
    shutil.copy(tiny_copy.shard_path("adam", 1, 2), tiny_copy.shard_path("adam", 0, 2))
    with pytest.raises(ShardError, match="other parameters"):
        opened(tiny_copy, hashed)


def test_a_copied_store_is_hashed_anew(tiny_copy: Store, hashed: list[int], tmp_path: Path) -> None:
    opened(tiny_copy, hashed)
    shutil.copytree(tiny_copy.path, tmp_path / "twin")  # with the note, and the files' own times
    assert opened(Store.open(tmp_path / "twin"), hashed) == 5
    shutil.move(tmp_path / "twin", tmp_path / "moved")  # the same files under another name
    assert opened(Store.open(tmp_path / "moved"), hashed) == 0


def test_a_damaged_shard_is_not_remembered_and_the_others_are(tiny_copy: Store, hashed: list[int]) -> None:
    path = tiny_copy.shard_path("adam", 0, 3)
    whole = path.read_bytes()
    flip(path, -1)
    with pytest.raises(ShardError):
        opened(tiny_copy, hashed)
    path.write_bytes(whole)
    assert opened(tiny_copy, hashed) == 2  # it and the next one


def test_what_was_just_written_is_hashed_again(tiny_copy: Store, hashed: list[int], monkeypatch) -> None:
    """It may change again within the same tick of the disk's clock."""
    monkeypatch.setattr(verified, "_SETTLED", 60 * 10**9)
    assert [opened(tiny_copy, hashed) for _ in range(2)] == [5, 5]


def test_a_file_that_changes_while_it_is_read_is_not_remembered(tmp_path: Path, hashed: list[int]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    before = path.stat()
    path.write_bytes(b"longer")
    note = Checked(tmp_path)
    note.add(path, before)
    assert path not in note
    note.add(path, path.stat())
    assert path in note


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b'{"features": 3}', b"[" * 100_000])
def test_a_damaged_note_is_no_note(tiny_copy: Store, hashed: list[int], content: bytes) -> None:
    opened(tiny_copy, hashed)
    (tiny_copy.path / "index" / "checked.json").write_bytes(content)
    assert [opened(tiny_copy, hashed) for _ in range(2)] == [5, 0]


def test_the_note_forgets_what_is_gone(tiny_copy: Store, hashed: list[int]) -> None:
    opened(tiny_copy, hashed)
    list(tiny_copy.shards("rds", 0))
    gone = tiny_copy.shard_path("adam", 0, 0)
    shards.write_tensors(tiny_copy.path / "other", {"x": torch.ones(1)}, {})
    gone.unlink()
    note = Checked(tiny_copy.path)
    note.add(tiny_copy.path / "other", (tiny_copy.path / "other").stat())
    note.save()
    names = set(json.loads((tiny_copy.path / "index" / "checked.json").read_text()))
    assert len(names) == 5 + 5 - 1 + 1
    assert gone.relative_to(tiny_copy.path).as_posix() not in names


def test_a_store_that_cannot_be_written_is_read(tiny_copy: Store, hashed: list[int], monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("gradsift.runtime.atomic.write_json", refuse)
    assert [opened(tiny_copy, hashed) for _ in range(2)] == [5, 5]
