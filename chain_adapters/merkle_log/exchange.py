"""The published folder: how operator, witnesses and replicas hand each other files.

    PUBLIC/checkpoint                                  the newest checkpoint, with the cosignatures so far
    PUBLIC/final                                       the newest one that is final
    PUBLIC/entries/<first, 12 digits>-<count>.bundle   see `entry_files`
    PUBLIC/cosignatures/<size>/<key>.note              a witness's answer; <key> is 16 hexadecimal digits

The operator writes the first three, each witness its own file in the fourth: the checkpoint's text with its
line. Every file comes by a rename, so that a reader sees all of it or nothing. Entry files never change once
published; `checkpoint` and `final` are replaced by newer ones, and a witness's answer by its answer to a
newer checkpoint of the same size.

A folder is shared by all members (or copied between them) and is trusted by nobody: whatever is read here
has a limit of size, is no link and no pipe, and is verified before it counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fedhouse.chain_adapters.merkle_log.entry_files import EntryFolder, read_bounded, write_file
from fedhouse.encoding import sha256
from fedhouse.errors import IntegrityError
from fedhouse.governance.ledger import Entry
from fedhouse.governance.notes import NoteKey

# A hundred signatures with the longest names take less.
MAX_CHECKPOINT_BYTES: Final = 2**16
MAX_COSIGNATURE_BYTES: Final = 2**13


class PublicLog:
    """A published folder, as its readers see it: nothing of it is verified here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = EntryFolder(folder / "entries")

    def checkpoint(self) -> bytes:
        """The newest checkpoint.

        Raises
        ------
        IntegrityError
            If nothing is published, or the file is unfit to be read.
        """
        data = self.newest()
        if data is None:
            raise IntegrityError(
                f"No checkpoint is published in {self.folder}.",
                mend="Check the folder's name, or wait for the operator.",
            )
        return data

    def newest(self) -> bytes | None:
        """The newest checkpoint; None if nothing is published."""
        return read_bounded(self.folder / "checkpoint", MAX_CHECKPOINT_BYTES)

    def final(self) -> bytes | None:
        """The newest checkpoint that the operator calls final; None if there is none yet."""
        return read_bounded(self.folder / "final", MAX_CHECKPOINT_BYTES)

    def entries(self, start: int, stop: int) -> list[Entry]:
        """The entries from `start` up to, and not including, `stop`.

        Raises
        ------
        IntegrityError
            If some are missing, or a file is damaged.
        """
        return [entry for chunk in self.files.stream(start, stop) for entry in chunk]

    def cosignature(self, size: int, key: NoteKey) -> bytes | None:
        """A witness's answer to the checkpoint of `size` entries; None if there is none."""
        return read_bounded(self.cosignature_path(size, key), MAX_COSIGNATURE_BYTES)

    def cosignature_path(self, size: int, key: NoteKey) -> Path:
        """Where a witness's answer stands."""
        return self.folder / "cosignatures" / str(size) / f"{sha256(key.text.encode())[:16]}.note"

    def write_cosignature(self, size: int, key: NoteKey, note: bytes) -> None:
        """A witness's answer."""
        write_file(self.cosignature_path(size, key), note)

    def write_checkpoint(self, note: bytes, *, final: bool = False) -> None:
        """Replace the newest checkpoint, or the newest final one, if it is another."""
        if self._present(final=final) != note:
            write_file(self.folder / ("final" if final else "checkpoint"), note)

    def _present(self, *, final: bool) -> bytes | None:
        try:
            return self.final() if final else self.newest()
        except IntegrityError:
            return None  # whatever stands there is replaced
