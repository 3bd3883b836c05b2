"""The payload store: who reads, what is refused, and that erased is erased."""

from __future__ import annotations

import hashlib
import inspect
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedhouse.errors import ConfigurationError, IntegrityError, PolicyRefusedError
from fedhouse.governance import payloads
from fedhouse.governance.envelope import PayloadRef
from fedhouse.governance.event import Effect
from fedhouse.governance.payloads import MAX_FILE_BYTES, PayloadStore, parse_sealed
from fedhouse.identity.sealing import SealingKey

TEXT = b"The pilot's name was on page 3."
OFFICER, STEWARD, STRANGER = (
    SealingKey.insecure_from_seed(hashlib.shake_256(bytes([n])).digest(96)) for n in range(3)
)
READERS = {"AA/officer": OFFICER.public, "B6/steward-1": STEWARD.public}
OTHER = "0" * 64


@pytest.fixture
def store(tmp_path: Path) -> PayloadStore:
    return PayloadStore(tmp_path / "payloads")


def put(store: PayloadStore, data: bytes = TEXT) -> str:
    return store.put(data, name="reason", retention="incident", readers=READERS).digest


def path_of(store: PayloadStore, digest: str) -> Path:
    return store._folder / f"{digest}.sealed"


# Reading


@pytest.mark.parametrize("data", [b"", b"x", TEXT, secrets.token_bytes(100_000)], ids=len)
def test_every_reader_reads_it(store: PayloadStore, data: bytes) -> None:
    reference = store.put(data, name="reason", retention="incident", readers=READERS)
    assert reference == PayloadRef("reason", reference.digest, "incident")
    assert store.get(reference.digest, "AA/officer", OFFICER) == data
    assert store.get(reference.digest, "B6/steward-1", STEWARD) == data
    assert store.digests() == (reference.digest,)
    assert parse_sealed(store.sealed(reference.digest)).readers == ("AA/officer", "B6/steward-1")


def test_nobody_else_reads_it(store: PayloadStore) -> None:
    digest = put(store)
    with pytest.raises(PolicyRefusedError, match="not sealed to DL/officer"):
        store.get(digest, "DL/officer", STRANGER)
    with pytest.raises(IntegrityError, match="does not open"):
        store.get(digest, "AA/officer", STRANGER)
    with pytest.raises(IntegrityError, match="does not open"):
        store.get(digest, "AA/officer", STEWARD)


def test_the_file_shows_neither_text_nor_salt_and_is_for_its_owner(store: PayloadStore) -> None:
    digest = put(store)
    assert TEXT[:8] not in store.sealed(digest)
    assert path_of(store, digest).stat().st_mode & 0o777 == 0o600
    assert store._folder.stat().st_mode & 0o777 == 0o700
    assert hashlib.sha256(b"fedhouse-payload/1\0" + TEXT).hexdigest() != digest


def test_a_salt_is_drawn_each_time_and_cannot_be_chosen(store: PayloadStore) -> None:
    assert len({put(store) for _ in range(20)}) == 20
    assert not any("salt" in name for name in inspect.signature(store.put).parameters)


def test_the_digest_is_of_salt_and_text(store: PayloadStore, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[bytes] = []

    def draw(length: int) -> bytes:
        drawn.append(os.urandom(length))
        return drawn[-1]

    monkeypatch.setattr(payloads.secrets, "token_bytes", draw)
    digest = put(store)
    assert digest == hashlib.sha256(b"fedhouse-payload/1\0" + drawn[0] + TEXT).hexdigest()


# Hostile files


def test_every_flipped_bit_is_found(store: PayloadStore) -> None:
    digest = put(store)
    good = store.sealed(digest)
    path = path_of(store, digest)
    for place in range(len(good)):
        changed = bytearray(good)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises((IntegrityError, PolicyRefusedError)):
            store.get(digest, "AA/officer", OFFICER)
    path.write_bytes(good)
    assert store.get(digest, "AA/officer", OFFICER) == TEXT


def test_every_cut_off_file_is_found(store: PayloadStore) -> None:
    digest = put(store)
    good = store.sealed(digest)
    for length in [*range(0, len(good), 7), len(good) - 1]:
        path_of(store, digest).write_bytes(good[:length])
        with pytest.raises(IntegrityError):
            store.get(digest, "AA/officer", OFFICER)


def test_a_good_file_under_another_digest_is_found(store: PayloadStore) -> None:
    digest = put(store)
    path_of(store, digest).rename(path_of(store, OTHER))
    with pytest.raises(IntegrityError, match="does not open"):
        store.get(OTHER, "AA/officer", OFFICER)


def test_a_liar_among_the_writers_is_found(store: PayloadStore) -> None:
    """Sealed to the right digest and reader, with another text inside: only the salted digest tells."""
    digest = put(store)
    other = payloads._sealed(digest, secrets.token_bytes(32) + b"another text", READERS)
    path_of(store, digest).write_bytes(other)
    with pytest.raises(IntegrityError, match="another one"):
        store.get(digest, "AA/officer", OFFICER)


def test_an_oversized_file_is_refused_before_it_is_parsed(store: PayloadStore) -> None:
    digest = put(store)
    with path_of(store, digest).open("r+b") as file:
        file.truncate(2**40)  # sparse: reading all of it would fill the memory
    with pytest.raises(IntegrityError, match="longer than 16 MiB"):
        store.get(digest, "AA/officer", OFFICER)
    with pytest.raises(IntegrityError, match="longer than 16 MiB"):
        store.receive(OTHER, bytes(MAX_FILE_BYTES + 1))


@given(st.binary(max_size=3000))
def test_random_bytes_are_refused(data: bytes) -> None:
    for file in (data, b"fedhouse-sealed-payload/1\n" + data):
        with pytest.raises(IntegrityError, match="payload's file"):
            parse_sealed(file)


@pytest.mark.parametrize("order", [("B6/b", "AA/a"), ("AA/a", "AA/a")])
def test_readers_stand_in_order_and_once(order: tuple[str, str]) -> None:
    head = b"fedhouse-sealed-payload/1\n" + (2).to_bytes(2, "big")
    keys = b"".join(bytes([len(name)]) + name.encode() + bytes(payloads._SEALED_KEY) for name in order)
    with pytest.raises(IntegrityError, match="out of order or twice"):
        parse_sealed(head + keys + bytes(48))


@pytest.mark.parametrize("digest", ["../../etc/passwd", "0" * 63, "A" * 64, "", "0" * 64 + "\n"])
@pytest.mark.parametrize("call", ["sealed", "erase", "receive", "get", "erased"])
def test_names_are_digests(store: PayloadStore, digest: str, call: str) -> None:
    more: dict[str, tuple[Any, ...]] = {"receive": (b"",), "get": ("AA/officer", OFFICER)}
    with pytest.raises(IntegrityError, match="not a SHA-256 digest"):
        getattr(store, call)(digest, *more.get(call, ()))


# Handing on


def test_a_file_is_handed_on_closed(store: PayloadStore, tmp_path: Path) -> None:
    digest = put(store)
    other = PayloadStore(tmp_path / "other")
    other.receive(digest, store.sealed(digest))
    other.receive(digest, store.sealed(digest))
    assert other.get(digest, "B6/steward-1", STEWARD) == TEXT


def test_what_is_stored_is_not_replaced(store: PayloadStore) -> None:
    digest = put(store)
    hostile = payloads._sealed(digest, bytes(40), {"AA/officer": STRANGER.public})
    with pytest.raises(IntegrityError, match="stored already"):
        store.receive(digest, hostile)
    assert store.get(digest, "AA/officer", OFFICER) == TEXT


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Reason"},
        {"name": "a--b"},
        {"name": "x" * 65},
        {"retention": "../x"},
        {"retention": ""},
        {"readers": {}},
        {"readers": {"officer": OFFICER.public}},
        {"readers": {f"AA/a{number}": OFFICER.public for number in range(257)}},
        {"data": bytes(MAX_FILE_BYTES)},
    ],
    ids=str,
)
def test_what_cannot_be_stored_is_refused(store: PayloadStore, change: dict[str, Any]) -> None:
    good = {"data": TEXT, "name": "reason", "retention": "incident", "readers": READERS}
    asked = good | change
    with pytest.raises(ConfigurationError):
        store.put(asked.pop("data"), **asked)
    assert list(store._folder.iterdir()) == []


# Erasing


def test_erased_is_erased(store: PayloadStore, tmp_path: Path) -> None:
    digest = put(store)
    backup = store.sealed(digest)
    store.erase(digest)
    store.erase(digest)
    assert store.erased(digest)
    assert store.digests() == ()
    assert not path_of(store, digest).exists()
    for again in (
        lambda: store.get(digest, "AA/officer", OFFICER),
        lambda: store.sealed(digest),
        lambda: store.receive(digest, backup),
        lambda: PayloadStore(store._folder).receive(digest, backup),
    ):
        with pytest.raises(PolicyRefusedError, match="was erased"):
            again()


def test_a_file_put_back_by_a_restored_backup_goes_when_the_store_opens(store: PayloadStore) -> None:
    digest = put(store)
    backup = store.sealed(digest)
    store.erase(digest)
    path_of(store, digest).write_bytes(backup)
    with pytest.raises(PolicyRefusedError, match="was erased"):
        store.get(digest, "AA/officer", OFFICER)
    PayloadStore(store._folder)
    assert not path_of(store, digest).exists()


def test_erasing_overwrites_before_it_removes(store: PayloadStore) -> None:
    """A second name of the same file shows what happened to its blocks."""
    digest = put(store)
    link = store._folder / "link"
    link.hardlink_to(path_of(store, digest))
    length = link.stat().st_size
    store.erase(digest)
    assert link.read_bytes() == bytes(length)


def test_what_a_killed_writer_left_goes_too(store: PayloadStore) -> None:
    digest = put(store)
    left = store._folder / f".{digest}.sealed.x1y2"
    left.write_bytes(store.sealed(digest))
    store.erase(digest)
    assert not left.exists()


def test_what_was_never_here_can_be_erased(store: PayloadStore) -> None:
    digest = put(store)
    data = store.sealed(digest)
    elsewhere = PayloadStore(store._folder / "elsewhere")
    elsewhere.erase(digest)
    with pytest.raises(PolicyRefusedError, match="was erased"):
        elsewhere.receive(digest, data)


def test_an_erasure_killed_in_the_middle_is_finished(store: PayloadStore) -> None:
    digest = put(store)
    code = """
import os, signal, sys
from pathlib import Path
from fedhouse.governance import payloads
def die(self, digest):
    os.kill(os.getpid(), signal.SIGKILL)
store = payloads.PayloadStore(Path(sys.argv[1]))
payloads.PayloadStore._destroy = die
store.erase(sys.argv[2])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(store._folder), digest], check=False, timeout=60, cwd="/"
    )
    assert done.returncode == -signal.SIGKILL
    assert path_of(store, digest).exists()
    with pytest.raises(PolicyRefusedError, match="was erased"):
        store.get(digest, "AA/officer", OFFICER)
    assert PayloadStore(store._folder).digests() == ()


def test_erasing_follows_the_ledger(store: PayloadStore, world: Any) -> None:
    reference = store.put(TEXT, name="reason", retention="incident", readers=READERS)
    other = store.put(b"kept", name="reason", retention="incident", readers=READERS)
    dataset = {"name": "flights", "schema_digest": OTHER, "columns": ["late"], "suite": OTHER, "rows": "1-2"}
    world.must("AA/steward", "dataset.registered", dataset, payloads=[reference, other])
    payload = {"payload": reference.digest}
    early = world.state
    world.must("B6/officer", "record.hold-placed", payload)
    effect = Effect("erase-payload", reference.digest)
    with pytest.raises(PolicyRefusedError, match="under a hold by B6"):
        store.follow([effect], world.state)
    world.must("B6/officer", "record.hold-released", payload)
    for state in (world.state, early):
        with pytest.raises(PolicyRefusedError, match="No event of this ledger has erased"):
            store.follow([effect], state)
    assert set(store.digests()) == {reference.digest, other.digest}
    world.must("AA/officer", "record.payload-erased", payload | {"basis": "court-order"})
    assert store.follow([Effect("stop-work", "x"), *world.effects], world.state) == (reference.digest,)
    assert store.digests() == (other.digest,)
    assert store.follow(world.effects, world.state) == (reference.digest,)
    with pytest.raises(PolicyRefusedError, match="was erased"):
        store.receive(reference.digest, store.sealed(other.digest))


def test_one_hold_keeps_all_of_a_batch(store: PayloadStore, world: Any) -> None:
    """Nothing is erased if one of several may not be."""
    references = [store.put(TEXT, name="reason", retention="incident", readers=READERS) for _ in range(2)]
    dataset = {"name": "flights", "schema_digest": OTHER, "columns": ["late"], "suite": OTHER, "rows": "1-2"}
    world.must("AA/steward", "dataset.registered", dataset, payloads=references)
    world.must("B6/officer", "record.hold-placed", {"payload": references[1].digest})
    erased = {"payload": references[0].digest, "basis": "mistake"}
    world.must("AA/officer", "record.payload-erased", erased)
    with pytest.raises(PolicyRefusedError, match="under a hold"):
        store.follow([Effect("erase-payload", one.digest) for one in references], world.state)
    assert len(store.digests()) == 2


def test_no_message_carries_the_text(store: PayloadStore, capsys: pytest.CaptureFixture[str]) -> None:
    digest = put(store)
    shown: list[str] = [repr(store), repr(parse_sealed(store.sealed(digest)).readers)]
    calls: list[Callable[[], object]] = [
        lambda: store.get(digest, "DL/officer", STRANGER),
        lambda: store.get(digest, "AA/officer", STRANGER),
        lambda: store.put(TEXT, name="NO", retention="incident", readers=READERS),
    ]
    for call in calls:
        with pytest.raises((IntegrityError, PolicyRefusedError, ConfigurationError)) as caught:
            call()
        shown.append(f"{caught.value} {caught.value.__cause__} {caught.value.__context__}")
    assert "pilot" not in "".join(shown) + capsys.readouterr().out


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        PayloadStore(tmp_path / "file" / "payloads")
