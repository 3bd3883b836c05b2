"""Archives with one encoding: every other archive of the same files is refused; `zipfile` reads ours."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedhouse.errors import IntegrityError
from fedhouse.governance import archive
from fedhouse.governance.archive import pack_archive, unpack_archive

FILES = {
    "a": b"",
    "entries/0.json": b"{}",
    "entries/1.json": b"\x00" * 300,
    "keys/AA/1": b"PK\x03\x04PK\x01\x02",
}

segments = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,8}", fullmatch=True)
names = st.lists(segments, min_size=1, max_size=4).map("/".join)


@given(st.dictionaries(names, st.binary(max_size=60), max_size=12))
@example({})
def test_files_come_back_sorted_and_zipfile_reads_them(files: dict[str, bytes]) -> None:
    data = pack_archive(files)
    assert list(unpack_archive(data).items()) == sorted(files.items())
    assert pack_archive(dict(reversed(files.items()))) == data
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.testzip() is None
        assert {name: opened.read(name) for name in opened.namelist()} == files


def test_every_single_bit_counts() -> None:
    data = pack_archive(FILES)
    for place in range(8 * len(data)):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(IntegrityError, match="The archive"):
            unpack_archive(bytes(changed))


def test_every_shorter_and_longer_one_is_refused() -> None:
    data = pack_archive(FILES)
    for length in range(len(data)):
        with pytest.raises(IntegrityError):
            unpack_archive(data[:length])
    for other in (b"\0" + data, data + b"\0", data + data, b"#!/bin/sh\n" + data):
        with pytest.raises(IntegrityError):
            unpack_archive(other)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        unpack_archive(data)


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 4), st.binary(max_size=4)), min_size=1, max_size=4)
)
def test_what_reads_back_is_what_was_written(edits: list[tuple[int, int, bytes]]) -> None:
    changed = pack_archive(FILES)
    for start, length, new in edits:
        changed = changed[:start] + new + changed[start + length :]
    try:
        files = unpack_archive(changed)
    except IntegrityError:
        return
    assert pack_archive(files) == changed


def _by_zipfile(change: Callable[[zipfile.ZipFile], None], files: dict[str, bytes] | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as opened:
        for name, data in (FILES if files is None else files).items():
            opened.writestr(_entry(name), data)
        change(opened)
    return out.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o100644 << 16
    return info


def _comment(opened: zipfile.ZipFile) -> None:
    opened.comment = b"hello"


def _deflated(opened: zipfile.ZipFile) -> None:
    opened.writestr(_entry("z"), b"0" * 1000, compress_type=zipfile.ZIP_DEFLATED)


def _twice(opened: zipfile.ZipFile) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        opened.writestr(_entry("keys/AA/1"), b"other")


def _extra_field(opened: zipfile.ZipFile) -> None:
    info = _entry("z")
    info.extra = struct.pack("<HH", 0x6666, 2) + b"hi"
    opened.writestr(info, b"")


def _entry_comment(opened: zipfile.ZipFile) -> None:
    info = _entry("z")
    info.comment = b"hi"
    opened.writestr(info, b"")


def _another_time(opened: zipfile.ZipFile) -> None:
    info = _entry("z")
    info.date_time = (2026, 9, 21, 0, 0, 0)
    opened.writestr(info, b"")


def _another_mode(opened: zipfile.ZipFile) -> None:
    info = _entry("z")
    info.external_attr = 0o120777 << 16  # a symbolic link
    opened.writestr(info, b"/etc/passwd")


def _out_of_order(opened: zipfile.ZipFile) -> None:
    opened.writestr(_entry("b"), b"")


def test_the_same_bytes_by_zipfile_are_taken() -> None:
    """So that the refusals below are of what they change, and of nothing else."""
    assert unpack_archive(_by_zipfile(lambda _: None)) == FILES


@pytest.mark.parametrize(
    "change",
    [
        _comment,
        _deflated,
        _twice,
        _extra_field,
        _entry_comment,
        _another_time,
        _another_mode,
        _out_of_order,
    ],
)
def test_other_archives_of_good_files_are_refused(change: Callable[[zipfile.ZipFile], None]) -> None:
    with pytest.raises(IntegrityError):
        unpack_archive(_by_zipfile(change))


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/x",
        "a/../x",
        "a//b",
        "a/",
        ".hidden",
        "a/.git",
        "a\\b",
        "c:x",
        "ä",
        "a b",
        "",
        "x" * 513,
        "a\n",
    ],
)
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(IntegrityError, match="may not name a file"):
        pack_archive({name: b""})
    if name:
        with pytest.raises(IntegrityError):
            unpack_archive(_by_zipfile(lambda _: None, {name: b""}))


def test_a_bomb_is_refused_by_its_size_in_the_archive() -> None:
    """A deflated gigabyte, and one that only claims to be."""
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as opened, opened.open("a", "w") as file:
        for _ in range(64):
            file.write(bytes(2**20))
    assert len(bomb.getvalue()) < 2**20
    with pytest.raises(IntegrityError):
        unpack_archive(bomb.getvalue())
    claim = bytearray(pack_archive({"a": b"0"}))
    claim[18:26] = struct.pack("<II", 2**32 - 1, 2**32 - 1)
    with pytest.raises(IntegrityError, match="longer than the archive"):
        unpack_archive(bytes(claim))


def test_an_entry_behind_the_directory_is_not_an_entry() -> None:
    """Two directories, each of which some program would read."""
    first, second = pack_archive({"a": b"good"}), pack_archive({"a": b"evil"})
    for joined in (first + second, second + first, first[:-22] + second):
        with pytest.raises(IntegrityError):
            unpack_archive(joined)


def test_limits_hold_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pack_archive(FILES)
    monkeypatch.setattr(archive, "MAX_ARCHIVE_BYTES", len(data))
    assert pack_archive(FILES) == data
    monkeypatch.setattr(archive, "MAX_ARCHIVE_BYTES", len(data) - 1)
    with pytest.raises(IntegrityError, match="more than an archive may hold"):
        pack_archive(FILES)
    with pytest.raises(IntegrityError, match="larger than"):
        unpack_archive(data)
    monkeypatch.undo()
    monkeypatch.setattr(archive, "MAX_FILES", 3)
    with pytest.raises(IntegrityError, match="more than an archive may hold"):
        pack_archive(FILES)
    with pytest.raises(IntegrityError, match="too many files"):
        unpack_archive(data)


@pytest.mark.parametrize("count", [65_534, 65_535, 65_536])
def test_many_files_take_the_zip64_end(count: int) -> None:
    data = pack_archive({f"e/{number:05}": b"" for number in range(count)})
    assert len(unpack_archive(data)) == count
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert len(opened.namelist()) == count
    assert (b"PK\x06\x06" in data[-200:]) == (count >= 65_535)
