"""Saved sessions of the app, in one SQLite file: views, accepted and rejected rows, and notes.

A decision belongs to a session, a store's fingerprint and a pool row: a session may cover several stores, and
interchangeable stores share their decisions. Every call opens the file, runs one short transaction and closes it, so
threads, tabs and several app servers may use one file at once, and callers have nothing to close.

Every call raises `GradsiftError` with one sentence if the file is damaged, belongs to another program or a newer
gradsift, is locked for more than `session_file.WAIT` seconds, or cannot be written; the file then stays as it is.
"""

import builtins
import json
import secrets
import sqlite3
import string
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradsift.runtime.errors import UsageError
from gradsift.workspace.session_file import open_file, transaction

STEPS_KEPT = 100  # undo steps per session and store
NAME_LENGTH = 80
KEEP_EMPTY = 24 * 3600.0  # seconds that an unnamed session without decisions is kept

_VERDICTS = {"accept": 1, "reject": -1, "": 0}
_DONE = {"accept": "accepted", "reject": "rejected", "": "reset to undecided"}
_RECORDS = """
    SELECT id, name, created, changed, page, address, COALESCE(SUM(verdict = 1), 0), COALESCE(SUM(verdict = -1), 0),
        COALESCE(SUM(note <> ''), 0)
    FROM sessions LEFT JOIN boards ON session = id LEFT JOIN decisions ON board = key
    {where} GROUP BY sessions.rowid ORDER BY changed DESC, sessions.rowid DESC"""


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session, with times in seconds since the epoch and counts over all its stores.

    page: stem of the page last viewed; address: its query parameters.
    """

    id: str
    name: str
    created: float
    changed: float
    page: str
    address: dict[str, str]
    accepted: int
    rejected: int
    notes: int

    @property
    def kept(self) -> bool:
        """Whether it has a name, a decision or a note, and so is not deleted automatically."""
        return bool(self.name or self.accepted or self.rejected or self.notes)


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session without its counts, which need a scan of its decisions: cheap enough for every run of a page."""

    id: str
    name: str
    created: float
    page: str
    address: dict[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """What a session decided on one store: pool row numbers, int64, ascending.

    accepted: (a,); rejected: (r,); notes: text by pool row number.
    version: grows with every decision, note and undo, so that caches can tell; 0: none so far.
    """

    accepted: np.ndarray
    rejected: np.ndarray
    notes: dict[int, str]
    version: int


class Sessions:
    """The sessions in the file `path`, which appears with the first session.

    `id` is that of a `SessionRecord`; ids cannot be guessed, so an address works like a key. `store` is a store's
    fingerprint. For an unknown session, calls that change something raise `UsageError`, and calls that read return
    nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path).absolute()

    def create(self, name: str = "", page: str = "", address: Mapping[str, str] | None = None) -> SessionRecord:
        """Create a session. This also deletes unnamed sessions without decisions that did not change for a day.

        Raises:
            UsageError: the name has more than `NAME_LENGTH` characters.
        """
        name, now = _name(name), time.time()
        alphabet = string.ascii_lowercase + string.digits
        record = SessionRecord(
            "".join(secrets.choice(alphabet) for _ in range(10)), name, now, now, page, dict(address or {}), 0, 0, 0
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open_file(self.path, make=True) as db, transaction(db):
            db.execute(
                """DELETE FROM sessions WHERE name = '' AND changed < ? AND NOT EXISTS
                (SELECT 1 FROM boards JOIN decisions ON board = key WHERE session = id)""",
                (now - KEEP_EMPTY,),
            )
            values = (record.id, name, now, now, page, json.dumps(record.address))
            db.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?)", values)
        return record

    def get(self, id: str) -> SessionRecord | None:
        """The session `id`, or None; `id` may be any text, for instance from the address bar."""
        if not self.path.exists():
            return None
        with open_file(self.path) as db:
            values = db.execute(_RECORDS.format(where="WHERE id = ?"), (_clean(id),)).fetchone()
            return _record(values) if values else None

    def view(self, id: str) -> SessionView | None:
        """The session `id` without counts, or None; `id` may be any text."""
        if not self.path.exists():
            return None
        with open_file(self.path) as db:
            cursor = db.execute("SELECT id, name, created, page, address FROM sessions WHERE id = ?", (_clean(id),))
            values = cursor.fetchone()
            if values is None:
                return None
            id, name, created, page, address = values
            return SessionView(id, name, created, page, json.loads(address))

    def list(self) -> builtins.list[SessionRecord]:
        """All sessions, the most recently changed first."""
        if not self.path.exists():
            return []
        with open_file(self.path) as db:
            return [_record(values) for values in db.execute(_RECORDS.format(where=""))]

    def rename(self, id: str, name: str) -> None:
        """Rename the session (to any text; surrounding spaces are removed).

        Raises:
            UsageError: the name has more than `NAME_LENGTH` characters.
        """
        name = _name(name)
        with self._changing(id) as db:
            db.execute("UPDATE sessions SET name = ? WHERE id = ?", (name, id))

    def delete(self, id: str) -> None:
        """Delete the session with its decisions and notes."""
        with self._changing(id) as db:
            db.execute("DELETE FROM sessions WHERE id = ?", (id,))

    def save_view(self, id: str, page: str, address: Mapping[str, str]) -> None:
        """Save the page and its query parameters; writes nothing if they are saved already."""
        if self.path.exists():
            with open_file(self.path) as db:
                view = db.execute("SELECT page, address FROM sessions WHERE id = ?", (_clean(id),)).fetchone()
                if view and view[0] == page and json.loads(view[1]) == dict(address):
                    return
        with self._changing(id) as db:
            values = (page, json.dumps(dict(address)), id)
            db.execute("UPDATE sessions SET page = ?, address = ? WHERE id = ?", values)

    def decide(self, id: str, store: str, rows: Sequence[int] | np.ndarray, verdict: str) -> int:
        """Accept, reject or (verdict "") reset pool rows, in one undo step; their notes stay.

        rows: (k,) pool row numbers in any order. Returns the number of rows that changed.
        """
        code = _VERDICTS[verdict]
        numbers = np.unique(np.asarray(rows, dtype=np.int64))
        with self._changing(id) as db:
            board = _board(db, id, store)
            changes = db.execute(
                """SELECT value, COALESCE(verdict, 0) FROM json_each(?) LEFT JOIN decisions ON board = ? AND row = value
                WHERE COALESCE(verdict, 0) <> ?""",
                (_json(numbers), board, code),
            ).fetchall()
            if changes:
                changed, before = np.array(changes, dtype=np.int64).T
                _put(db, board, changed, code)
                count = f"{len(changes):,} row{'s' if len(changes) > 1 else ''}"
                _add_step(db, board, f"{count} {_DONE[verdict]}", _packed(changed, before), None)
        return len(changes)

    def note(self, id: str, store: str, row: int, text: str) -> None:
        """Save a note on a pool row (without surrounding spaces; "" removes it), in one undo step."""
        row, text = int(row), _clean(text).strip()
        with self._changing(id) as db:
            board = _board(db, id, store)
            current = db.execute("SELECT verdict, note FROM decisions WHERE board = ? AND row = ?", (board, row))
            verdict, before = current.fetchone() or (0, "")
            if text != before:
                _put_note(db, board, row, text)
                packed = _packed(np.array([row], dtype=np.int64), np.array([verdict]))
                _add_step(db, board, f"the note on row {row:,}", packed, before)

    def undo(self, id: str, store: str) -> str:
        """Undo the session's latest step on this store, whichever tab made it.

        Returns a sentence for the user ("Undone: 12 rows accepted"), or "" if no step is left.
        """
        with self._changing(id) as db:
            board = _board(db, id, store)
            step = db.execute(
                "SELECT version, said, before, note FROM steps WHERE board = ? ORDER BY version DESC LIMIT 1", (board,)
            ).fetchone()
            if step is None:
                return ""
            version, step_text, packed, note = step
            rows, before = _unpacked(packed)
            if note is None:
                for code in np.unique(before):
                    _put(db, board, rows[before == code], int(code))
            else:
                _put_note(db, board, int(rows[0]), note)
            db.execute("DELETE FROM steps WHERE board = ? AND version = ?", (board, version))
            db.execute("UPDATE boards SET version = version + 1 WHERE key = ?", (board,))
        return f"Undone: {step_text}"

    def last_step(self, id: str, store: str) -> str:
        """The step that `undo` would undo ("12 rows accepted"), or ""."""
        if not self.path.exists():
            return ""
        with open_file(self.path) as db:
            step = db.execute(
                """SELECT said FROM boards JOIN steps ON board = key WHERE session = ? AND store = ?
                ORDER BY steps.version DESC LIMIT 1""",
                (_clean(id), store),
            ).fetchone()
        return step[0] if step else ""

    def version(self, id: str, store: str) -> int:
        """The version of `decisions`, without reading them; 0 for an unknown session."""
        if not self.path.exists():
            return 0
        with open_file(self.path) as db:
            values = (_clean(id), store)
            board = db.execute("SELECT version FROM boards WHERE session = ? AND store = ?", values).fetchone()
            return int(board[0]) if board else 0

    def decisions(self, id: str, store: str) -> Decisions:
        """The session's decisions on the store with this fingerprint; empty for an unknown session."""
        nothing = np.zeros(0, dtype=np.int64)
        if not self.path.exists():
            return Decisions(nothing, nothing, {}, 0)
        with open_file(self.path) as db, transaction(db, "DEFERRED"):  # one snapshot for the version and the rows
            board = db.execute(
                "SELECT key, version FROM boards WHERE session = ? AND store = ?", (_clean(id), store)
            ).fetchone()
            if not board:
                return Decisions(nothing, nothing, {}, 0)
            key, version = board
            notes = dict(db.execute("SELECT row, note FROM decisions WHERE board = ? AND note <> ''", (key,)))
            return Decisions(_decided(db, key, "accept"), _decided(db, key, "reject"), notes, version)

    @contextmanager
    def _changing(self, id: str) -> Iterator[sqlite3.Connection]:
        """A write transaction on an existing session, which it marks as changed now."""
        gone = UsageError("This session is gone, perhaps deleted in another tab: open another one or start a new one.")
        if not self.path.exists():
            raise gone
        with open_file(self.path) as db, transaction(db):
            update = db.execute("UPDATE sessions SET changed = ? WHERE id = ?", (time.time(), _clean(id)))
            if not update.rowcount:
                raise gone
            yield db


def _board(db: sqlite3.Connection, session: str, store: str) -> int:
    """The key of a session's decisions on a store: a small number instead of two long texts in every row."""
    db.execute("INSERT OR IGNORE INTO boards (session, store) VALUES (?, ?)", (session, store))
    key: int = db.execute("SELECT key FROM boards WHERE session = ? AND store = ?", (session, store)).fetchone()[0]
    return key


def _decided(db: sqlite3.Connection, board: int, verdict: str) -> np.ndarray:
    encoded = db.execute(
        "SELECT json_group_array(row) FROM decisions WHERE board = ? AND verdict = ?", (board, _VERDICTS[verdict])
    ).fetchone()
    return np.sort(np.array(json.loads(encoded[0]), dtype=np.int64))


def _put(db: sqlite3.Connection, board: int, rows: np.ndarray, code: int) -> None:
    numbers = _json(rows)
    db.execute(
        """INSERT INTO decisions (board, row, verdict) SELECT ?, value, ? FROM json_each(?) WHERE true
        ON CONFLICT DO UPDATE SET verdict = excluded.verdict""",
        (board, code, numbers),
    )
    if code == 0:
        _drop_empty(db, board, numbers)


def _put_note(db: sqlite3.Connection, board: int, row: int, text: str) -> None:
    db.execute(
        """INSERT INTO decisions (board, row, note) VALUES (?, ?, ?)
        ON CONFLICT DO UPDATE SET note = excluded.note""",
        (board, row, text),
    )
    _drop_empty(db, board, json.dumps([row]))


def _drop_empty(db: sqlite3.Connection, board: int, numbers: str) -> None:
    db.execute(
        """DELETE FROM decisions WHERE board = ? AND row IN (SELECT value FROM json_each(?))
        AND verdict = 0 AND note = ''""",
        (board, numbers),
    )


def _add_step(db: sqlite3.Connection, board: int, text: str, before: bytes, note: str | None) -> None:
    """Append to the journal; a step is numbered by the version it creates, so both have the same order."""
    db.execute("UPDATE boards SET version = version + 1 WHERE key = ?", (board,))
    db.execute(
        "INSERT INTO steps SELECT key, version, ?, ?, ? FROM boards WHERE key = ?",
        (text, before, note, board),
    )
    db.execute(
        """DELETE FROM steps WHERE board = ?1 AND version <=
        (SELECT version FROM steps WHERE board = ?1 ORDER BY version DESC LIMIT 1 OFFSET ?2)""",
        (board, STEPS_KEPT),
    )


def _packed(rows: np.ndarray, verdicts: np.ndarray) -> bytes:
    """Ascending rows and their earlier verdicts: about a byte per row, so that a hundred bulk steps stay small."""
    return zlib.compress(np.diff(rows, prepend=0).astype("<i8").tobytes() + verdicts.astype("i1").tobytes(), 1)


def _unpacked(packed: bytes) -> tuple[np.ndarray, np.ndarray]:
    data = zlib.decompress(packed)
    count = len(data) // 9
    return np.cumsum(np.frombuffer(data, "<i8", count)), np.frombuffer(data, "i1", offset=8 * count)


def _json(rows: np.ndarray) -> str:
    return json.dumps(rows.tolist())


def _record(values: tuple) -> SessionRecord:
    id, name, created, changed, page, address, *counts = values
    return SessionRecord(id, name, created, changed, page, json.loads(address), *counts)


def _clean(text: str) -> str:
    """Replace half surrogates, which UTF-8 cannot encode, with question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _name(text: str) -> str:
    text = _clean(text).strip()
    if len(text) > NAME_LENGTH:
        raise UsageError(f"This name has {len(text)} characters: choose one of at most {NAME_LENGTH}.")
    return text
