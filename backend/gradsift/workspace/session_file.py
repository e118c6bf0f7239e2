"""The SQLite file of saved sessions: its tables, opening and checking it, and its errors as sentences."""

import json
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gradsift.runtime.errors import GradsiftError

WAIT = 10.0  # seconds to wait for another writer

_OWNER = 0x67736966  # PRAGMA application_id: "gsif"
_VERSION = 1
_SCHEMA = (
    """CREATE TABLE sessions (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, created REAL NOT NULL, changed REAL NOT NULL,
        page TEXT NOT NULL, address TEXT NOT NULL)""",
    """CREATE TABLE boards (
        key INTEGER PRIMARY KEY, session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, store TEXT NOT NULL,
        version INTEGER NOT NULL DEFAULT 0, UNIQUE (session, store))""",
    """CREATE TABLE decisions (
        board INTEGER NOT NULL REFERENCES boards ON DELETE CASCADE, row INTEGER NOT NULL,
        verdict INTEGER NOT NULL DEFAULT 0, note TEXT NOT NULL DEFAULT '', PRIMARY KEY (board, row)) WITHOUT ROWID""",
    """CREATE TABLE steps (
        board INTEGER NOT NULL REFERENCES boards ON DELETE CASCADE, version INTEGER NOT NULL, said TEXT NOT NULL,
        before BLOB NOT NULL, note TEXT, PRIMARY KEY (board, version))""",
    f"PRAGMA application_id = {_OWNER}",
    f"PRAGMA user_version = {_VERSION}",
)


@contextmanager
def open_file(path: Path, make: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection to our file for one call. path: absolute. make: create the file if it does not exist.

    Raises:
        GradsiftError: the file is damaged, belongs to another program or a newer gradsift, is locked for more than
            `WAIT` seconds, or cannot be written; also if that shows only inside the `with`.
    """
    db = None
    try:
        # A URI with a mode: reading a file that has just vanished must not create an empty one.
        address = f"{path.as_uri()}?mode={'rwc' if make else 'rw'}"
        db = sqlite3.connect(address, uri=True, timeout=WAIT, isolation_level=None)
        db.execute("PRAGMA foreign_keys = ON")
        _check(db, path)
        if make:
            # In this mode readers do not wait for a writer. If it is refused (another process is busy, some network
            # drives), the plain journal will do.
            with suppress(sqlite3.OperationalError):
                db.execute("PRAGMA journal_mode = WAL")
        yield db
    except (sqlite3.Error, zlib.error, json.JSONDecodeError) as error:
        sentence = _sentence(error, path)
        if sentence is None:
            raise
        raise GradsiftError(sentence) from error
    finally:
        if db is not None:
            db.close()


def _check(db: sqlite3.Connection, path: Path) -> None:
    if _pragma(db, "schema_version") == 0:  # empty: new, or its creator is not done yet
        with transaction(db):
            if _pragma(db, "schema_version") == 0:  # no other process was faster
                for statement in _SCHEMA:
                    db.execute(statement)
    if _pragma(db, "application_id") != _OWNER:
        raise GradsiftError(f"{path} belongs to another program: move it away, and gradsift creates its own.")
    version = _pragma(db, "user_version")
    if version > _VERSION:
        raise GradsiftError(
            f"{path} was written by a newer gradsift (format {version}; this one reads {_VERSION}): "
            "update gradsift, or move the file away to start afresh."
        )


@contextmanager
def transaction(db: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """IMMEDIATE takes the write lock at once: a reader that starts to write later would be refused without waiting."""
    db.execute(f"BEGIN {kind}")
    try:
        yield
    except BaseException:
        if db.in_transaction:  # not after a full disk, which rolls back by itself
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _pragma(db: sqlite3.Connection, name: str) -> int:
    value: int = db.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _sentence(error: Exception, path: Path) -> str | None:
    """SQLite's error as a sentence; None if it is a bug of ours. Codes: https://www.sqlite.org/rescode.html"""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None and isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError):
        return None
    kind = sqlite3.SQLITE_CORRUPT if code is None else code & 0xFF  # no code: undecodable text, blob or JSON
    if kind in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return f"{path} is damaged or not a session file ({error}): move it away, and gradsift creates a new one."
    if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"{path} has been locked by another program for over {WAIT:g} seconds: close that program and try again."
    if kind == sqlite3.SQLITE_FULL:
        return f"The disk is full at {path}: make room and try again; earlier changes are safe."
    if kind in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
        return (
            f"{path} cannot be read or written ({error}): check that it is a file, its folder is writable and "
            "the disk is not full."
        )
    return None
