"""Files of entries: one spelling, nothing hostile gets through, nothing half-written is seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedhouse.chain_adapters.merkle_log.entry_files import (
    HEADER,
    MAX_ENTRIES,
    EntryFolder,
    parse_entries,
    read_bounded,
    render_entries,
    write_file,
)
from fedhouse.errors import ConfigurationError, HistoryError, IntegrityError
from fedhouse.governance.envelope import MAX_ENVELOPE_BYTES
from fedhouse.governance.ledger import Entry
from fedhouse.governance.proof_files import Outcome

outcomes = st.builds(
    Outcome, st.integers(0, 2**53 - 1), st.sampled_from(["accepted", "sequence", "four-eyes", "a" * 128])
)
contents = st.lists(st.tuples(st.binary(min_size=1, max_size=60), outcomes), max_size=8)


def entries_of(content: list[tuple[bytes, Outcome]], first: int = 0) -> list[Entry]:
    """Entries that follow each other from `first` on."""
    return [Entry(first + place, data, outcome) for place, (data, outcome) in enumerate(content)]


def some(count: int, first: int = 0) -> list[Entry]:
    """`count` entries from `first` on."""
    return [
        Entry(index, b"envelope %d" % index, Outcome(index, "accepted"))
        for index in range(first, first + count)
    ]


@given(contents, st.integers(0, 10**11))
def test_what_is_written_is_read(content: list[tuple[bytes, Outcome]], first: int) -> None:
    entries = entries_of(content, first)
    assert parse_entries(render_entries(entries), first, len(entries), "a file") == entries


@given(st.binary(max_size=300), st.integers(0, 5))
@settings(max_examples=200)
def test_random_bytes_are_refused_or_are_the_only_spelling(data: bytes, count: int) -> None:
    for hostile in (data, HEADER + data):
        try:
            entries = parse_entries(hostile, 7, count, "a file")
        except IntegrityError:
            continue
        assert render_entries(entries) == hostile


@given(contents.filter(bool), st.data())
@settings(max_examples=200)
def test_changed_bytes_are_refused_or_are_the_only_spelling(
    content: list[tuple[bytes, Outcome]], data: st.DataObject
) -> None:
    whole = render_entries(entries_of(content))
    place = data.draw(st.integers(0, len(whole) - 1))
    change = data.draw(st.sampled_from(["flip", "cut", "drop", "double"]))
    hostile = {
        "flip": whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :],
        "cut": whole[:place],
        "drop": whole[:place] + whole[place + 1 :],
        "double": whole[:place] + whole[place : place + 1] + whole[place:],
    }[change]
    try:
        entries = parse_entries(hostile, 0, len(content), "a file")
    except IntegrityError:
        return
    assert render_entries(entries) == hostile


@pytest.mark.parametrize(
    "leaf",
    [
        b"01 accepted\n",
        b"1  accepted\n",
        b"1 accepted",
        b"1 Accepted\n",
        b"-1 accepted\n",
        b"9007199254740992 accepted\n",
        b"1 accepted\n\n",
        b"\n",
        b"\xff",
    ],
)
def test_an_outcome_has_one_spelling(leaf: bytes) -> None:
    data = HEADER + b"\0\1x" + len(leaf).to_bytes(2, "big") + leaf
    with pytest.raises(IntegrityError):
        parse_entries(data, 0, 1, "a file")


def test_no_part_is_empty_or_too_long() -> None:
    leaf = b"\0\x0b1 accepted\n"
    for part in (b"\0\0", b"\xff\xff" + b"x" * (MAX_ENVELOPE_BYTES - 1)):
        with pytest.raises(IntegrityError):
            parse_entries(HEADER + part + leaf, 0, 1, "a file")
    long = Entry(0, b"x" * MAX_ENVELOPE_BYTES, Outcome(1, "accepted"))
    assert parse_entries(render_entries([long]), 0, 1, "a file") == [long]


def test_the_count_of_the_name_is_the_count(tmp_path: Path) -> None:
    data = render_entries(some(3))
    for count in (2, 4):
        with pytest.raises(IntegrityError):
            parse_entries(data, 0, count, "a file")


@given(st.lists(st.integers(1, 5), max_size=6), st.data())
@settings(max_examples=50, deadline=None)
def test_a_folder_gives_any_range(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], data: st.DataObject
) -> None:
    folder, due = EntryFolder(tmp_path_factory.mktemp("entries")), 0
    for size in sizes:
        folder.write(some(size, due))
        due += size
    start = data.draw(st.integers(0, due))
    stop = data.draw(st.integers(start, due))
    assert [entry for chunk in folder.stream(start, stop) for entry in chunk] == some(stop - start, start)
    assert list(folder.gaps(due)) == []
    with pytest.raises(IntegrityError, match="missing"):
        list(folder.stream(start, due + 1))


def test_a_folder_says_what_is_missing_and_what_is_too_much(tmp_path: Path) -> None:
    folder = EntryFolder(tmp_path)
    assert list(EntryFolder(tmp_path / "none").gaps(4)) == [(0, 4)]
    folder.write(some(2, 3))
    folder.write(some(2, 7))
    assert list(folder.gaps(12)) == [(0, 3), (5, 7), (9, 12)]
    with pytest.raises(IntegrityError, match="from 5 on are missing"):
        list(folder.stream(3, 8))
    with pytest.raises(HistoryError, match="does not have"):
        list(folder.gaps(8))
    folder.discard_from(4)
    assert list(folder.gaps(5)) == [(0, 3)]


def test_files_that_overlap_are_refused(tmp_path: Path) -> None:
    folder = EntryFolder(tmp_path)
    folder.write(some(4))
    folder.write(some(2, 2))
    with pytest.raises(IntegrityError, match="overlap"):
        folder.files()


def test_what_is_named_otherwise_is_not_looked_at(tmp_path: Path) -> None:
    folder = EntryFolder(tmp_path)
    folder.write(some(2))
    for name in (
        ".000000000000-2.bundle.abc",
        "000000000002-0.bundle",
        "000000000002-01.bundle",
        "2-1.bundle",
        f"000000000002-{MAX_ENTRIES + 1}.bundle",
        "000000000002-1.bundle ",
        "٠٠٠٠٠٠٠٠٠٠٠٢-1.bundle",
    ):
        (tmp_path / name).write_bytes(b"hostile")
    assert [file.stop for file in folder.files()] == [2]


def test_many_entries_are_several_files(tmp_path: Path) -> None:
    folder = EntryFolder(tmp_path)
    folder.write(some(2 * MAX_ENTRIES + 1, 5))
    assert [file.count for file in folder.files()] == [MAX_ENTRIES, MAX_ENTRIES, 1]


def test_reading_follows_no_link_waits_for_no_pipe_and_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("link", "pipe", "folder", "zero"):
        with pytest.raises(IntegrityError) as caught:
            read_bounded(tmp_path / name, 100)
        assert name in str(caught.value)
    assert read_bounded(tmp_path / "secret", 6) == b"secret"
    with pytest.raises(IntegrityError, match="longer than 5"):
        read_bounded(tmp_path / "secret", 5)
    assert read_bounded(tmp_path / "nothing", 5) is None
    assert read_bounded(tmp_path / "secret" / "under", 5) is None


def test_writing_where_a_file_is_in_the_way_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        write_file(tmp_path / "file" / "under", b"x")
    (tmp_path / "folder" / "under").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        write_file(tmp_path / "folder", b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
