"""Entries as files: what the operator publishes, and what followers keep for themselves.

A folder holds files `<first index, 12 digits>-<count>.bundle` that follow each other without a gap. A file
is whole or absent and never changes. Its bytes:

    fedhouse-entries/1 <newline>
    for each entry:  2 bytes  length of the envelope, big-endian
                     the envelope
                     2 bytes  length of the outcome, big-endian
                     the outcome: time, a space, verdict, newline; the leaf of the tree of outcomes

Nothing in such a file is believed before it was hashed up to a root that the log has signed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from fedhouse.encoding import write_atomic
from fedhouse.errors import ConfigurationError, FedhouseError, HistoryError, IntegrityError
from fedhouse.governance.envelope import MAX_ENVELOPE_BYTES
from fedhouse.governance.ledger import Entry
from fedhouse.governance.proof_files import Outcome

HEADER: Final = b"fedhouse-entries/1\n"
MAX_ENTRIES: Final = 1000
MAX_OUTCOME_BYTES: Final = 256
MAX_FILE_BYTES: Final = len(HEADER) + MAX_ENTRIES * (4 + MAX_ENVELOPE_BYTES + MAX_OUTCOME_BYTES)
MAX_FILES: Final = 1_000_000

_NAME = re.compile(r"([0-9]{12})-([1-9][0-9]{0,3})\.bundle")
_OUTCOME = re.compile(rb"(0|[1-9][0-9]{0,15}) ([a-z][a-z0-9_.:()-]{0,127})\n")
_MEND: Final = "Fetch it again; if it stays so, ask the operator to publish it anew."


def render_entries(entries: Sequence[Entry]) -> bytes:
    """A file of these entries, which follow each other."""
    parts = [HEADER]
    for entry in entries:
        for data in (entry.envelope, entry.outcome.leaf):
            parts += (len(data).to_bytes(2, "big"), data)
    return b"".join(parts)


def parse_entries(data: bytes, first: int, count: int, what: str) -> list[Entry]:
    """The entries in a hostile file, whose name says that there are `count` from index `first` on.

    Raises
    ------
    IntegrityError
        If it is anything else than exactly these; `what` names it.
    """
    if not data.startswith(HEADER):
        raise IntegrityError(f"{what} is no file of entries of this version.", mend=_MEND)
    entries, place = [], len(HEADER)
    for index in range(first, first + count):
        envelope, place = _part(data, place, MAX_ENVELOPE_BYTES, what)
        leaf, place = _part(data, place, MAX_OUTCOME_BYTES, what)
        found = _OUTCOME.fullmatch(leaf)
        if found is None:
            raise IntegrityError(f"{what} has a malformed outcome for entry {index}.", mend=_MEND)
        entries.append(Entry(index, envelope, Outcome(int(found[1]), found[2].decode("ascii"))))
    if place != len(data):
        raise IntegrityError(f"{what} has more bytes than its {count} entries.", mend=_MEND)
    return entries


def _part(data: bytes, place: int, longest: int, what: str) -> tuple[bytes, int]:
    end = place + 2 + int.from_bytes(data[place : place + 2], "big")
    part = data[place + 2 : end]
    # Data that is cut off gives a part that is too short, or no length at all.
    if len(data) < end or not 1 <= len(part) <= longest:
        raise IntegrityError(f"{what} is cut off, or has a part that is too long.", mend=_MEND)
    return part, end


def read_bounded(path: Path, longest: int) -> bytes | None:
    """A regular file of at most `longest` bytes, from a folder that others write to; None if there is none.

    Raises
    ------
    IntegrityError
        If it is longer, a link, a device or a pipe, or cannot be read.
    """
    try:
        # Neither follow a link to somewhere else, nor wait for the other end of a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read ({error.strerror}).", mend=_MEND) from error
    try:
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise IntegrityError(f"{path} is no regular file.", mend=_MEND)
            data = file.read(longest + 1)
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read ({error.strerror}).", mend=_MEND) from error
    if len(data) > longest:
        raise IntegrityError(f"{path} is longer than {longest} bytes.", mend=_MEND)
    return data


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that it is whole or absent.

    Raises
    ------
    ConfigurationError
        If the folder does not allow it.
    FedhouseError
        If it fails otherwise, for example on a full disk.
    """
    try:
        write_atomic(path, data)
    except (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError) as error:
        raise ConfigurationError(
            f"{path} cannot be written ({error.strerror}).", mend="Check the folder's owner and mode."
        ) from error
    except OSError as error:
        raise FedhouseError(
            f"{path} cannot be written ({error.strerror}).", mend="Check the disk."
        ) from error


def open_lock(path: Path) -> int:
    """A descriptor of a file to lock, which is made with its folder if need be; for the caller to close.

    Raises
    ------
    ConfigurationError
        If that is not allowed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be used ({error.strerror}).", mend="Check the folder's owner and mode."
        ) from error


@dataclass(frozen=True, slots=True)
class EntryFile:
    """A file of a folder of entries, by what its name says."""

    first: int
    count: int
    path: Path

    @property
    def stop(self) -> int:
        """The index after its last entry."""
        return self.first + self.count

    def read(self) -> list[Entry]:
        """Its entries, unverified.

        Raises
        ------
        IntegrityError
            If it is damaged.
        """
        data = read_bounded(self.path, MAX_FILE_BYTES)
        if data is None:
            raise IntegrityError(f"{self.path} is missing.", mend=_MEND)
        return parse_entries(data, self.first, self.count, str(self.path))


class EntryFolder:
    """A folder of entry files, whose contents may be hostile."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def files(self) -> list[EntryFile]:
        """The files by their first index; what is named otherwise is not looked at.

        Raises
        ------
        IntegrityError
            If two of them overlap, or there are more than a million.
        """
        found = []
        try:
            with os.scandir(self._folder) as listing:
                for number, item in enumerate(listing):
                    name = _NAME.fullmatch(item.name)
                    if name is not None and int(name[2]) <= MAX_ENTRIES:
                        found.append(EntryFile(int(name[1]), int(name[2]), self._folder / item.name))
                    if number >= MAX_FILES:
                        raise IntegrityError(f"{self._folder} has more than {MAX_FILES} files.", mend=_MEND)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise IntegrityError(f"{self._folder} cannot be read ({error.strerror}).", mend=_MEND) from error
        found.sort(key=lambda file: (file.first, file.count))
        for before, after in pairwise(found):
            if after.first < before.stop:
                raise IntegrityError(f"{before.path} and {after.path} overlap.", mend=_MEND)
        return found

    def stream(self, start: int, stop: int) -> Iterator[list[Entry]]:
        """The entries from `start` up to `stop`, a file at a time, unverified.

        Raises
        ------
        IntegrityError
            If some are missing, or a file is damaged.
        """
        due = start
        for file in self.files():
            if due >= stop or file.stop <= due:
                continue
            if file.first > due:
                break
            yield [entry for entry in file.read() if due <= entry.index < stop]
            due = min(file.stop, stop)
        if due < stop:
            raise IntegrityError(f"Entries from {due} on are missing in {self._folder}.", mend=_MEND)

    def write(self, entries: Sequence[Entry]) -> None:
        """Write entries that follow each other, in files of at most a thousand.

        Raises
        ------
        ConfigurationError, FedhouseError
            If that fails.
        """
        for start in range(0, len(entries), MAX_ENTRIES):
            part = entries[start : start + MAX_ENTRIES]
            name = f"{part[0].index:012d}-{len(part)}.bundle"
            write_file(self._folder / name, render_entries(part))

    def gaps(self, size: int) -> Iterator[tuple[int, int]]:
        """The ranges up to `size` that no file covers.

        Raises
        ------
        HistoryError
            If there are files beyond `size`.
        """
        due = 0
        for file in self.files():
            if file.stop > size:
                raise HistoryError(
                    f"{file.path} has entries that this ledger of {size} does not have.",
                    mend="The ledger's file was restored from too old a backup, or the folder is another's.",
                )
            if file.first > due:
                yield due, file.first
            due = file.stop
        if due < size:
            yield due, size

    def discard_from(self, size: int) -> None:
        """Delete files of entries from `size` on: one's own, that were never verified.

        Raises
        ------
        ConfigurationError
            If the folder does not allow it.
        """
        for file in self.files():
            if file.first >= size:
                try:
                    file.path.unlink(missing_ok=True)
                except OSError as error:
                    raise ConfigurationError(
                        f"{file.path} cannot be deleted ({error.strerror}).",
                        mend="Check the folder's owner and mode.",
                    ) from error
