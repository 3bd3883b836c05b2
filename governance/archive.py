"""A zip archive with one encoding: the same files give the same bytes, and other bytes are refused.

Zip has room for bytes that nobody reads: gaps, comments, extra fields, attributes, a second directory, times.
Of 4,000 single bits flipped in an archive, `zipfile` did not notice 390. So an archive here is a function of
its files, and whoever reads it writes it again in the mind and compares every byte.

Invariants
----------
1. Entries are stored, never deflated: deflate gives other bytes with other versions of its library, and what
   is stored cannot unpack to more than the archive holds.
2. Entries are sorted by name, stand back to back from the first byte, and the directory follows. Times,
   attributes, versions and flags are constants; there are no comments and no extra fields.
3. A name is a relative path of visible ASCII whose parts begin with a letter, digit or underscore: it leads
   nowhere but below the folder that it is unpacked in.
4. `unpack_archive` gives files only if `pack_archive` of them gives the bytes that it was given.

Any unzip program reads it. More than 65,534 entries take the zip64 end of directory.

Source: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (directory), 4.3.14 to 4.3.16 (end).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Final
from zlib import crc32

from fedhouse.errors import IntegrityError

MAX_ARCHIVE_BYTES: Final = 256 * 2**20
MAX_FILES: Final = 1_000_000
MAX_NAME: Final = 512

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR = struct.Struct("<4sIQI")

# Zip has no time before 1980-01-01; that day is written as 0x21.
_NEEDED, _DATE = 20, 0x21
_MADE_BY = 3 << 8 | _NEEDED  # Unix, so that the attributes below are read as a file's mode
_ATTRIBUTES = 0o100644 << 16
_MANY = 0xFFFF


def pack_archive(files: Mapping[str, bytes]) -> bytes:
    """The archive of `files`, by name.

    Raises
    ------
    IntegrityError
        If a name may not stand in an archive, or there are too many files or bytes.
    """
    names = sorted(files)
    for name in names:
        _require_name(name)
    size = sum(_LOCAL.size + _CENTRAL.size + 2 * len(name) + len(files[name]) for name in names)
    if len(names) > MAX_FILES or size + _tail_bytes(len(names)) > MAX_ARCHIVE_BYTES:
        raise IntegrityError(
            f"{len(names):,} files of {size >> 20:,} MiB together are more than an archive may hold "
            f"({MAX_FILES:,} files, {MAX_ARCHIVE_BYTES >> 20} MiB).",
            mend="Leave something out: pack one job instead of the whole ledger.",
        )
    parts: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for name in names:
        data = files[name]
        header, listed = _headers(name.encode("ascii"), data, offset)
        parts += (header, data)
        directory.append(listed)
        offset += len(header) + len(data)
    return b"".join((*parts, *directory, _tail(len(names), offset, sum(map(len, directory)))))


def unpack_archive(data: bytes) -> dict[str, bytes]:
    """The files in a hostile archive, sorted by name.

    Raises
    ------
    IntegrityError
        If it is not exactly what `pack_archive` gives for them; says at which file or byte it differs.
    """
    if len(data) > MAX_ARCHIVE_BYTES:
        raise _refused(f"is larger than {MAX_ARCHIVE_BYTES >> 20} MiB")
    files: dict[str, bytes] = {}
    directory: list[bytes] = []
    offset, last = 0, ""
    while data.startswith(b"PK\x03\x04", offset):
        name, content, end, listed = _entry(data, offset)
        if name <= last or len(files) == MAX_FILES:
            raise _refused(f"has {name} out of order, twice, or as one of too many files")
        files[name] = content
        directory.append(listed)
        offset, last = end, name
    listing = b"".join(directory)
    _require_directory(data, offset, directory, list(files))
    if data[offset + len(listing) :] != _tail(len(files), offset, len(listing)):
        raise _refused(
            f"does not end as an archive of its {len(files)} files does, from byte {offset + len(listing)} on"
        )
    return files


def _entry(data: bytes, offset: int) -> tuple[str, bytes, int, bytes]:
    """Name and content of the entry at `offset`, where it ends, and its line in the directory."""
    start = offset + _LOCAL.size
    if start > len(data):
        raise _refused(f"is cut off at byte {offset}")
    told = _LOCAL.unpack_from(data, offset)
    size, length = told[8], told[9]
    begin = start + length
    if length > MAX_NAME or begin + size > len(data):
        raise _refused(f"has an entry at byte {offset} that is longer than the archive, or its name too long")
    try:
        name = data[start:begin].decode("ascii")
        _require_name(name)
    except (UnicodeDecodeError, IntegrityError):
        raise _refused(f"has a name at byte {start} that may not stand in one") from None
    content = data[begin : begin + size]
    header, listed = _headers(data[start:begin], content, offset)
    if data[offset:begin] != header:
        raise _refused(f"has {name} with another checksum or header than its bytes give")
    return name, content, begin + size, listed


def _require_directory(data: bytes, offset: int, directory: list[bytes], names: list[str]) -> None:
    for name, listed in zip(names, directory, strict=True):
        if data[offset : offset + len(listed)] != listed:
            raise _refused(f"has a directory that does not list {name} as it is, at byte {offset}")
        offset += len(listed)


def _headers(name: bytes, data: bytes, offset: int) -> tuple[bytes, bytes]:
    """The header before an entry's bytes, and its line in the directory."""
    check, size = crc32(data), len(data)
    shared = (_NEEDED, 0, 0, 0, _DATE, check, size, size, len(name), 0)
    header = _LOCAL.pack(b"PK\x03\x04", *shared) + name
    return header, _CENTRAL.pack(b"PK\x01\x02", _MADE_BY, *shared, 0, 0, 0, _ATTRIBUTES, offset) + name


def _tail(count: int, offset: int, size: int) -> bytes:
    """What ends an archive of `count` files whose directory of `size` bytes begins at `offset`."""
    shown = min(count, _MANY)
    end = _END.pack(b"PK\x05\x06", 0, 0, shown, shown, size, offset, 0)
    if count < _MANY:
        return end
    rest = _END64.size - 12  # the record does not count its first two fields
    end64 = _END64.pack(b"PK\x06\x06", rest, _MADE_BY, 45, 0, 0, count, count, size, offset)
    return end64 + _LOCATOR.pack(b"PK\x06\x07", 0, offset + size, 1) + end


def _tail_bytes(count: int) -> int:
    return _END.size + (_END64.size + _LOCATOR.size if count >= _MANY else 0)


def _require_name(name: str) -> None:
    if len(name) > MAX_NAME or _NAME.fullmatch(name) is None:
        raise IntegrityError(
            f"{name[:80]!r} may not name a file of an archive.",
            mend="Use relative paths whose parts begin with a letter, digit or underscore.",
        )


def _refused(how: str) -> IntegrityError:
    return IntegrityError(
        f"The archive {how}.", mend="Get it again, as it was written; re-packing it makes another archive."
    )
