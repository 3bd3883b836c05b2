"""The log's SQLite file: entries, tree nodes, checkpoints, cosignatures.

Invariants
----------
1. A write is one transaction and one fsync (WAL, `synchronous=FULL`): what was acknowledged is there after a
   power cut, and nothing half-written is.
2. Rows are only ever added. Of a checkpoint, only the mark that it is final is set later.
3. Writers of several processes take turns (`BEGIN IMMEDIATE`); each looks at what is new before it writes.
4. A file that is not exactly what this version writes is refused: another schema, another format version,
   pages that SQLite's own check finds damaged, missing or surplus rows.

Not promised: protection from whoever may write to the file. Readers who do not trust the operator replay
what was published. WAL needs a local file system, not one mounted over a network.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from fedhouse.chain_adapters.merkle_log.entry_files import open_lock
from fedhouse.errors import ConfigurationError, FedhouseError, IntegrityError, TimeLimitError
from fedhouse.governance.ledger import Appended, Entry
from fedhouse.governance.merkle import NodeReader
from fedhouse.governance.notes import NoteSignature, SignedNote
from fedhouse.governance.proof_files import Outcome

FORMAT: Final = "fedhouse-merkle-log/1"
ENTRIES: Final = 0
"""The tree over envelopes."""
OUTCOMES: Final = 1
"""The tree over outcomes."""

# So long a writer waits for another process to finish its transaction.
_PATIENCE_SECONDS: Final = 30.0
# SQLite takes so many values in one statement everywhere.
_AT_ONCE: Final = 500
_PRAGMAS: Final = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "trusted_schema=OFF",
    # The index of digests is written all over. With SQLite's own sizes (2 MiB, 4 MiB) a log of 100,000
    # entries writes each of its pages again and again; these are 32 MiB both.
    "cache_size=-32768",
    "wal_autocheckpoint=8192",
)
_RESTORE: Final = "Restore the file from a backup, or rebuild the ledger from its published files."

_SCHEMA: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE entries (idx INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, envelope BLOB NOT NULL, "
    "time INTEGER NOT NULL, verdict TEXT NOT NULL)",
    "CREATE TABLE nodes (tree INTEGER, level INTEGER, idx INTEGER, hash BLOB NOT NULL, "
    "PRIMARY KEY (tree, level, idx)) WITHOUT ROWID",
    "CREATE TABLE checkpoints (number INTEGER PRIMARY KEY, size INTEGER NOT NULL, time INTEGER NOT NULL, "
    "digest BLOB NOT NULL UNIQUE, note BLOB NOT NULL, trust BLOB NOT NULL, final INTEGER NOT NULL)",
    "CREATE TABLE cosignatures (checkpoint INTEGER NOT NULL REFERENCES checkpoints (number), "
    "entity TEXT NOT NULL, name TEXT NOT NULL, key_hash BLOB NOT NULL, signature BLOB NOT NULL, "
    "PRIMARY KEY (checkpoint, entity)) WITHOUT ROWID",
)


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint as the log signed it, without cosignatures, and the trust that its state named."""

    number: int
    size: int
    time: int
    note: bytes = field(repr=False)
    trust: bytes = field(repr=False)
    final: bool


class Store:
    """One connection to a log's file. Not for use by two threads at once."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    @classmethod
    def create(cls, path: Path) -> Store:
        """A connection to a file that has no log yet; `make` begins one.

        Raises
        ------
        ConfigurationError
            If there is a log already, or the file cannot be made.
        """
        store = cls(path, _connect(path, "rwc"))
        try:
            with store._wrapped():
                if store._all("SELECT 1 FROM sqlite_master LIMIT 1"):
                    raise ConfigurationError(
                        f"{path} holds a ledger already.", mend="Open it, or name another folder."
                    )
                store._prepare()
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def open(cls, path: Path) -> Store:
        """A connection to a log's file, after checking its form.

        Raises
        ------
        ConfigurationError
            If there is none, or it is of another format version.
        IntegrityError
            If it is damaged.
        """
        if not path.is_file():
            raise ConfigurationError(f"There is no ledger at {path}.", mend="Create it, or name its folder.")
        store = cls(path, _connect(path, "rw"))
        try:
            with store._wrapped():
                store._prepare()
                store._check_form()
        except BaseException:
            store.close()
            raise
        return store

    def _prepare(self) -> None:
        for pragma in _PRAGMAS:
            self._connection.execute(f"PRAGMA {pragma}")

    def _check_form(self) -> None:
        schema = {sql for (sql,) in self._all("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
        if schema != set(_SCHEMA):
            raise IntegrityError(f"{self._path} has not the tables of a ledger.", mend=_RESTORE)
        found = self.meta("format")
        if found != FORMAT:
            raise ConfigurationError(
                f"{self._path} is a ledger of format {found!r}, and this version reads {FORMAT!r}.",
                mend="Use the version of fedhouse that wrote it.",
            )
        answer = self._all("PRAGMA quick_check(1)")
        if answer != [("ok",)]:
            raise IntegrityError(f"{self._path} is damaged.", mend=_RESTORE)
        count, size = self._all("SELECT count(*), coalesce(max(idx) + 1, 0) FROM entries")[0]
        if count != size or size == 0:
            raise IntegrityError(f"{self._path} has {count} entries up to number {size}.", mend=_RESTORE)

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        self._connection.close()

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """A lock between processes that publish: an older checkpoint must not replace a newer one."""
        descriptor = open_lock(self._path.with_name("publishing.lock"))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction that is written as a whole or not at all."""
        with self._transaction("BEGIN IMMEDIATE"):
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        """A transaction that sees one state of the file."""
        with self._transaction("BEGIN"):
            yield

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        with self._wrapped():
            self._connection.execute(begin)
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # Some errors have ended the transaction already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _wrapped(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _translated(error, self._path) from error

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        return self._connection.execute(sql, values).fetchall()

    def make(self, consortium: str) -> None:
        """Make the tables, within a transaction."""
        if self._all("SELECT 1 FROM sqlite_master LIMIT 1"):
            raise ConfigurationError(
                f"Another process has made a ledger at {self._path}.", mend="Open it, or name another folder."
            )
        for statement in _SCHEMA:
            self._connection.execute(statement)
        self._connection.executemany(
            "INSERT INTO meta VALUES (?, ?)", [("format", FORMAT), ("consortium", consortium)]
        )

    def meta(self, name: str) -> str:
        """A line about the file itself: `format` or `consortium`; empty if there is none."""
        with self._wrapped():
            found = self._all("SELECT value FROM meta WHERE name = ?", (name,))
        return str(found[0][0]) if found else ""

    def version(self) -> int:
        """Another number whenever another connection has written."""
        with self._wrapped():
            return int(self._all("PRAGMA data_version")[0][0])

    def add(self, rows: Iterable[tuple[Any, ...]], nodes: Iterable[tuple[int, int, int, bytes]]) -> None:
        """Add entries (index, digest, envelope, time, verdict) and nodes (tree, level, index, hash)."""
        self._connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", rows)
        self._connection.executemany("INSERT INTO nodes VALUES (?, ?, ?, ?)", nodes)

    def entries(self, start: int, stop: int) -> list[Entry]:
        """The entries from `start` up to, and not including, `stop`, as far as there are any."""
        sql = "SELECT idx, envelope, time, verdict FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx"
        with self._wrapped():
            rows = self._all(sql, (start, stop))
        if any(type(row[1]) is not bytes for row in rows):
            raise IntegrityError(f"{self._path} has entries that are not bytes.", mend=_RESTORE)
        return [Entry(index, envelope, Outcome(time, verdict)) for index, envelope, time, verdict in rows]

    def find(self, digests: Sequence[str]) -> dict[str, Appended]:
        """The answers that envelopes with these digests got; those that are not recorded are left out."""
        found = {}
        for start in range(0, len(digests), _AT_ONCE):
            part = [bytes.fromhex(digest) for digest in digests[start : start + _AT_ONCE]]
            marks = ",".join("?" * len(part))
            sql = f"SELECT digest, idx, time, verdict FROM entries WHERE digest IN ({marks})"  # noqa: S608
            with self._wrapped():
                rows = self._all(sql, part)
            for digest, index, time, verdict in rows:
                name = digest.hex()
                found[name] = Appended(index, name, Outcome(time, verdict), known=True)
        return found

    def reader(self, tree: int) -> NodeReader:
        """Reads the nodes of one of the trees; a missing one is damage."""

        def read(level: int, index: int) -> bytes:
            sql = "SELECT hash FROM nodes WHERE tree = ? AND level = ? AND idx = ?"
            with self._wrapped():
                rows = self._all(sql, (tree, level, index))
            if not rows or type(rows[0][0]) is not bytes:
                raise IntegrityError(
                    f"{self._path} lacks node ({level}, {index}) of tree {tree}.", mend=_RESTORE
                )
            return bytes(rows[0][0])

        return read

    def add_checkpoint(self, size: int, time: int, note: SignedNote, trust: bytes) -> None:
        """Add a checkpoint, which is not final yet."""
        self._connection.execute(
            "INSERT INTO checkpoints VALUES (NULL, ?, ?, ?, ?, ?, 0)",
            (size, time, _text_digest(note.text), note.render(), trust),
        )

    def newest_checkpoint(self, covering: int = 0, *, final: bool = False) -> StoredCheckpoint | None:
        """The newest checkpoint of at least `covering` entries; with `final`, of those that are final."""
        return self._checkpoint(
            "size >= ? AND final >= ? ORDER BY number DESC LIMIT 1", (covering, int(final))
        )

    def checkpoint_of(self, text: str) -> StoredCheckpoint | None:
        """The checkpoint with exactly this text."""
        return self._checkpoint("digest = ?", (_text_digest(text),))

    def _checkpoint(self, where: str, values: Sequence[Any]) -> StoredCheckpoint | None:
        # `where` is one of the two above; what comes from outside is in `values`.
        sql = f"SELECT number, size, time, note, trust, final FROM checkpoints WHERE {where}"  # noqa: S608
        with self._wrapped():
            rows = self._all(sql, values)
        if not rows:
            return None
        number, size, time, note, trust, final = rows[0]
        if type(note) is not bytes or type(trust) is not bytes:
            raise IntegrityError(f"{self._path} has checkpoints that are not bytes.", mend=_RESTORE)
        return StoredCheckpoint(number, size, time, note, trust, bool(final))

    def add_cosignature(self, number: int, entity: str, signature: NoteSignature) -> None:
        """Add an entity's cosignature to a checkpoint, unless the entity has one there."""
        self._connection.execute(
            "INSERT OR IGNORE INTO cosignatures VALUES (?, ?, ?, ?, ?)",
            (number, entity, signature.name, signature.key_hash, signature.signature),
        )

    def mark_final(self, number: int) -> None:
        """Note that enough entities have cosigned a checkpoint."""
        self._connection.execute("UPDATE checkpoints SET final = 1 WHERE number = ?", (number,))

    def cosignatures(self, number: int) -> tuple[NoteSignature, ...]:
        """The cosignatures of a checkpoint, by entity."""
        sql = "SELECT name, key_hash, signature FROM cosignatures WHERE checkpoint = ? ORDER BY entity"
        with self._wrapped():
            return tuple(NoteSignature(*row) for row in self._all(sql, (number,)))

    def check_nodes(self, tree: int, expected: Iterable[bytes]) -> None:
        """Compare all nodes of a tree, level by level, with what they must be.

        Raises
        ------
        IntegrityError
            If one differs, is missing or is too many.
        """
        sql = "SELECT hash FROM nodes WHERE tree = ? ORDER BY level, idx"
        with self._wrapped():
            rows = self._connection.execute(sql, (tree,))
            for stored, node in zip_longest(rows, expected):
                if stored is None or node is None or stored[0] != node:
                    raise IntegrityError(
                        f"{self._path} has nodes in tree {tree} that its entries do not give.", mend=_RESTORE
                    )


def _text_digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    try:
        # No thread check: the log holds a lock of its own. No implicit transactions.
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=_PATIENCE_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
    except sqlite3.Error as error:
        raise _translated(error, path) from error


def _translated(error: sqlite3.Error, path: Path) -> FedhouseError:
    """The error of this project for one of SQLite, by its code."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    kind, extended = code & 0xFF, code
    if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return TimeLimitError(
            f"Another process has been writing to {path} for more than {_PATIENCE_SECONDS:.0f} s.",
            mend="Try again; if it stays so, find the process that holds the file.",
        )
    if kind == sqlite3.SQLITE_FULL:
        return FedhouseError(
            f"The disk that holds {path} is full; nothing of this call was recorded.",
            mend="Make room, and send the same events again.",
        )
    if kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or extended == sqlite3.SQLITE_IOERR_SHORT_READ:
        return IntegrityError(f"{path} is damaged or cut off.", mend=_RESTORE)
    if kind in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return ConfigurationError(
            f"{path} cannot be opened for writing.", mend="Check the folder's owner, mode and file system."
        )
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return FedhouseError(f"SQLite failed at {path} ({name}).", mend="Check the disk; nothing was recorded.")
