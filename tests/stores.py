"""Inspecting the files of stores, and damaging them."""

from pathlib import Path

NOT_PROMISED = ("job/", "scorings/", "index/", "representations/base/", ".lock")


def contents(store: Path) -> dict[str, bytes]:
    """The contents of every file that a build promises, by name."""
    files = {str(path.relative_to(store)): path for path in store.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(files.items()) if not name.startswith(NOT_PROMISED)}


def assert_same_files(store: Path, unbroken: Path) -> None:
    """Fail with the names of the files that differ."""
    got, expected = contents(store), contents(unbroken)
    differing = [name for name in sorted({*got, *expected}) if got.get(name) != expected.get(name)]
    assert not differing, f"{store} differs from {unbroken} in {differing}"


def shard_files(store: Path) -> dict[Path, tuple[int, int]]:
    """Inode and time of every existing shard."""
    paths = [path for part in ("features", "representations", "metrics") for path in (store / part).rglob("[!.]*.*")]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def flip(path: Path, position: int, bit: int = 0) -> None:
    """Flip one bit of a file; a negative position counts from the end."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)
