"""The log's file: what is damaged, cut off, of another make or locked is a typed error; nothing is lost."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fedhouse.chain_adapters.merkle_log import store as store_module
from fedhouse.chain_adapters.merkle_log.log import MerkleLog
from fedhouse.chain_adapters.merkle_log.recovery import FILE, rebuild
from fedhouse.errors import (
    ConfigurationError,
    FedhouseError,
    IntegrityError,
    PolicyRefusedError,
    SignatureError,
    TimeLimitError,
    VerificationError,
)
from fedhouse.governance.sandbox import SandboxConsortium

if TYPE_CHECKING:
    from conftest import House

STOP: dict[str, Any] = {"scope": "consortium", "subject": ""}


@pytest.fixture
def closed(house: House) -> Path:
    """The file of a log with some history, closed."""
    house.log.append(house.consortium.bootstrap())
    house.log.checkpoint()
    house.log.append(house.consortium.job_events(rounds=1))
    house.log.close()
    path = house.folder / "log" / FILE
    assert not path.with_name(f"{FILE}-wal").exists()
    return path


def execute(path: Path, *statements: str) -> None:
    """Change a log's file behind its back."""
    connection = sqlite3.connect(path)
    for statement in statements:
        assert connection.execute(statement).rowcount != 0
    connection.commit()
    connection.close()


def test_there_must_be_a_log_to_open(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no ledger"):
        MerkleLog.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_log_is_not_created_twice(house: House) -> None:
    for founding in (house.consortium.founding(), SandboxConsortium(seed="other").founding()):
        with pytest.raises(ConfigurationError, match="already"):
            MerkleLog.create(house.folder / "log", founding, clock=house.clock)
    assert house.reopen().state.consortium.id == house.consortium.id


@pytest.mark.parametrize("case", ["role", "proof", "signature", "log key", "other event"])
def test_a_founding_that_does_not_count_leaves_no_log(tmp_path: Path, case: str) -> None:
    consortium = SandboxConsortium()
    charter = consortium.charter.model_dump(mode="json")
    signer, actor, event = "AA/admin", "AA/admin", "consortium.created"
    if case == "role":
        signer = actor = "AA/officer"
    elif case == "proof":
        charter["founders"][1]["keys"][0]["proof"] = charter["founders"][1]["keys"][1]["proof"]
    elif case == "log key":
        charter["log"] = {"algorithm": "ed25519", "public": "A" * 43 + "="}
    elif case == "other event":
        event = "charter.amended"
    founding = consortium.sign(
        actor, event, {"charter": charter}, consortium="0" * 64, signer=consortium.signer(signer), sequence=1
    )
    if case == "signature":
        founding = founding.replace(b'"sig":"', b'"sig":"AA', 1).replace(b"AA==", b"==", 1)
    with pytest.raises(FedhouseError):
        MerkleLog.create(tmp_path, founding, clock=consortium.clock)
    # The folder serves for the right one.
    with MerkleLog.create(tmp_path, consortium.founding(), clock=consortium.clock) as log:
        assert log.size == 1


def test_a_refused_founding_says_so(tmp_path: Path) -> None:
    consortium = SandboxConsortium()
    body = {"charter": consortium.charter.model_dump(mode="json")}
    founding = consortium.sign("AA/officer", "consortium.created", body, consortium="0" * 64)
    with pytest.raises(PolicyRefusedError, match="role"):
        MerkleLog.create(tmp_path, founding, clock=consortium.clock)


def test_the_operator_has_the_charter_s_key(house: House) -> None:
    with pytest.raises(ConfigurationError, match="not the log key"):
        MerkleLog.open(house.folder / "log", operator=house.consortium.signer("AA/admin"))


def test_without_the_operator_s_key_one_appends_and_signs_nothing(house: House) -> None:
    note = house.log.checkpoint()
    with MerkleLog.open(house.folder / "log", clock=house.clock) as log:
        assert log.checkpoint() == note
        log.append(house.consortium.bootstrap())
        house.clock.advance(31)
        for sign in (log.checkpoint, lambda: log.promise("ab" * 32), lambda: log.publish(house.public)):
            with pytest.raises(ConfigurationError, match="operator's key"):
                sign()


def test_another_format_version_is_refused(closed: Path) -> None:
    execute(closed, "UPDATE meta SET value = 'fedhouse-merkle-log/2' WHERE name = 'format'")
    with pytest.raises(ConfigurationError, match="fedhouse-merkle-log/2"):
        MerkleLog.open(closed.parent)


# What somebody does to the file, and what is refused when it is opened.
CHANGES = {
    "an entry is gone": "DELETE FROM entries WHERE idx = 3",
    "the last entry is gone": "DELETE FROM entries WHERE idx = (SELECT max(idx) FROM entries)",
    "all entries are gone": "DELETE FROM entries",
    "an envelope is another": "UPDATE entries SET envelope = "
    "(SELECT envelope FROM entries WHERE idx = 2) WHERE idx = 3",
    "an envelope is text": "UPDATE entries SET envelope = 'text' WHERE idx = 3",
    "a verdict is another": "UPDATE entries SET verdict = 'role' WHERE idx = 3",
    "a verdict is none": "UPDATE entries SET verdict = 'No Verdict' WHERE idx = 3",
    "a verdict is a number": "UPDATE entries SET verdict = 7 WHERE idx = 3",
    "a time is another": "UPDATE entries SET time = time - 1 WHERE idx = 3",
    "a later time is another": "UPDATE entries SET time = time + 1",
    "a time is no number": "UPDATE entries SET time = 'late' WHERE idx = 3",
    "a node is another": "UPDATE nodes SET hash = zeroblob(32) WHERE tree = 0 AND level = 1 AND idx = 1",
    "an outcome is another": "UPDATE nodes SET hash = zeroblob(32) WHERE tree = 1 AND level = 0 AND idx = 1",
    "a node is gone": "DELETE FROM nodes WHERE tree = 0 AND level = 2 AND idx = 0",
    "a node is too many": "INSERT INTO nodes VALUES (0, 0, 1000, zeroblob(32))",
    "another consortium": "UPDATE meta SET value = 'x' WHERE name = 'consortium'",
    "a checkpoint is text": "UPDATE checkpoints SET note = CAST(note AS TEXT)",
    "a checkpoint is another": "UPDATE checkpoints SET note = "
    "CAST(replace(CAST(note AS TEXT), char(10) || '9' || char(10), char(10) || '8' || char(10)) AS BLOB)",
    "no format": "DELETE FROM meta WHERE name = 'format'",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM nodes; END",
    "a table less": "DROP TABLE cosignatures",
}


@pytest.mark.parametrize("what", list(CHANGES))
def test_a_changed_file_is_refused(closed: Path, what: str) -> None:
    execute(closed, CHANGES[what])
    with pytest.raises(FedhouseError) as caught:
        MerkleLog.open(closed.parent)
    assert isinstance(caught.value, (IntegrityError, ConfigurationError))
    assert caught.value.mend


@pytest.mark.parametrize("part", [0.0, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(closed: Path, part: float) -> None:
    data = closed.read_bytes()
    closed.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(IntegrityError) as caught:
        MerkleLog.open(closed.parent)
    assert "published files" in caught.value.mend


def test_a_flipped_bit_is_noticed_or_harmless(closed: Path, house: House) -> None:
    data = closed.read_bytes()
    with MerkleLog.open(closed.parent, clock=house.clock) as log:
        entries = log.read(0, log.size)
    noticed = 0
    for place in random.Random(4).sample(range(len(data)), 150):
        closed.write_bytes(data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :])
        try:
            log = MerkleLog.open(closed.parent, clock=house.clock)
        except FedhouseError:
            noticed += 1
            continue
        with log:
            assert log.read(0, log.size) == entries
    assert noticed > 50


def test_a_file_that_is_no_database_is_refused(house: House) -> None:
    house.log.close()
    for data in (b"", b"hello", b"SQLite format 3\0" + bytes(4080)):
        (house.folder / "log" / FILE).write_bytes(data)
        with pytest.raises(IntegrityError):
            MerkleLog.open(house.folder / "log")


def test_a_full_disk_records_nothing_and_loses_nothing(house: House) -> None:
    events = [house.consortium.sign("AA/officer", "stop.declared", STOP) for _ in range(400)]
    house.log.append(events[:5])
    connection = house.log._store._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 3}")
    with pytest.raises(FedhouseError, match="full") as caught:
        house.log.append(events[5:])
    assert type(caught.value) is FedhouseError
    assert house.log.size == 6
    connection.execute("PRAGMA max_page_count = 1000000")
    answers = house.log.append(events)
    assert [answer.known for answer in answers] == [True] * 5 + [False] * 395
    state = house.log.state.digest()
    assert house.reopen().state.digest() == state


def test_waits_for_another_process_and_then_says_so(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_PATIENCE_SECONDS", 0.05)
    log = house.reopen()
    other = sqlite3.connect(house.folder / "log" / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TimeLimitError, match="Another process") as caught:
        log.append(house.consortium.bootstrap())
    assert caught.value.exit_code == 4
    assert log.size == 1
    other.execute("ROLLBACK")
    other.close()
    assert len(log.append(house.consortium.bootstrap())) == 8


def test_a_failed_call_leaves_no_transaction_behind(house: House) -> None:
    with pytest.raises(SignatureError):
        house.log.append([_forged(house.consortium)])
    with MerkleLog.open(house.folder / "log", clock=house.clock) as other:
        assert other.append(house.consortium.bootstrap())[0].index == 1
    assert house.log.size == 9


def _forged(consortium: SandboxConsortium) -> bytes:
    data = consortium.sign(
        "AA/officer", "stop.declared", STOP, signer=consortium.signer("nobody"), sequence=1
    )
    nobody, officer = (consortium.signer(name).public.key_id.encode() for name in ("nobody", "AA/officer"))
    return data.replace(nobody, officer)


class TestRebuilding:
    """A log's file made anew from what it had published."""

    def test_is_the_same_log_as_far_as_it_was_published(self, house: House) -> None:
        house.log.append(house.consortium.bootstrap())
        house.cosign()
        entries, note = house.log.read(0, house.log.size), house.log.checkpoint()
        lost = house.consortium.sign("AA/officer", "stop.declared", STOP)
        house.log.append([lost])
        rebuild(house.folder / "again", house.public, house.consortium.id)
        with MerkleLog.open(house.folder / "again", clock=house.clock, operator=house.consortium.log) as log:
            assert log.read(0, log.size) == entries
            assert log.checkpoint() == note
            assert log.finality(log.size).final
            log.publish(house.public)
            assert not log.append([lost])[0].known

    @pytest.mark.parametrize("damage", ["entry", "checkpoint", "consortium"])
    def test_takes_nothing_on_trust(self, house: House, damage: str) -> None:
        house.log.append(house.consortium.bootstrap())
        house.log.publish(house.public)
        consortium = house.consortium.id
        path = house.public / "checkpoint"
        if damage == "entry":
            (path,) = (house.public / "entries").iterdir()
        data = path.read_bytes()
        if damage == "consortium":
            consortium = "ab" * 32
        else:
            path.write_bytes(data[:-30] + bytes([data[-30] ^ 1]) + data[-29:])
        with pytest.raises(VerificationError):
            rebuild(house.folder / "again", house.public, consortium)
        assert not (house.folder / "again" / FILE).exists()

    def test_does_not_write_over_a_log(self, house: House) -> None:
        house.log.publish(house.public)
        with pytest.raises(ConfigurationError, match="already"):
            rebuild(house.folder / "log", house.public, house.consortium.id)


def test_a_call_of_a_hundred_is_one_transaction(house: House) -> None:
    events = [house.consortium.sign("AA/officer", "stop.declared", STOP) for _ in range(300)]
    seen: list[str] = []
    house.log._store._connection.set_trace_callback(seen.append)
    for start in range(0, 300, 100):
        house.log.append(events[start : start + 100])
    assert seen.count("BEGIN IMMEDIATE") == seen.count("COMMIT") == 3
    house.log._store._connection.set_trace_callback(None)
    assert [entry.envelope for entry in house.log.read(1, 301)] == events
