"""The operator's turn at the published folder: what it writes, what it takes in, and what it refuses."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fedhouse.chain_adapters.merkle_log import heads
from fedhouse.chain_adapters.merkle_log.exchange import PublicLog
from fedhouse.chain_adapters.merkle_log.log import MerkleLog
from fedhouse.chain_adapters.merkle_log.recovery import FILE
from fedhouse.errors import ConfigurationError, HistoryError, IntegrityError
from fedhouse.governance.checkpoints import LogCheckpoint, cosign, parse_checkpoint
from fedhouse.governance.notes import NoteKey, NoteKind, SignedNote, parse_note
from fedhouse.governance.sandbox import SandboxConsortium

if TYPE_CHECKING:
    from conftest import House

STOP: dict[str, Any] = {"scope": "consortium", "subject": ""}


def shown(house: House) -> LogCheckpoint:
    """What the published checkpoint says."""
    return parse_checkpoint(parse_note(PublicLog(house.public).checkpoint()).text)


def files(house: House) -> dict[str, tuple[int, bytes]]:
    """The published entry files, by name: inode and contents."""
    return {
        path.name: (path.stat().st_ino, path.read_bytes()) for path in (house.public / "entries").iterdir()
    }


@pytest.fixture
def joined(house: House) -> House:
    """A house whose members have all joined, with all of it final."""
    house.log.append(house.consortium.bootstrap())
    house.cosign()
    return house


def test_nothing_is_published_yet(tmp_path: Path) -> None:
    public = PublicLog(tmp_path)
    with pytest.raises(IntegrityError, match="No checkpoint is published"):
        public.checkpoint()
    assert public.final() is None
    assert public.newest() is None


def test_publishes_entries_checkpoint_and_what_is_final(joined: House) -> None:
    public = PublicLog(joined.public)
    assert public.checkpoint() == joined.log.checkpoint() == public.final()
    assert tuple(public.entries(0, joined.log.size)) == joined.log.read(0, joined.log.size)
    assert {path.name for path in joined.public.iterdir()} == {
        "checkpoint",
        "final",
        "entries",
        "cosignatures",
    }


def test_entry_files_never_change(joined: House) -> None:
    first = files(joined)
    joined.log.append(joined.consortium.job_events())
    joined.log.publish(joined.public)
    second = files(joined)
    assert second.items() > first.items()
    joined.log.publish(joined.public)
    assert files(joined) == second


def test_the_newest_final_checkpoint_stays_in_sight(joined: House) -> None:
    before = PublicLog(joined.public).final()
    joined.log.append([joined.consortium.sign("AA/officer", "stop.declared", STOP)])
    joined.log.publish(joined.public)
    assert shown(joined).size == joined.log.size
    assert PublicLog(joined.public).final() == before
    joined.cosign()
    assert PublicLog(joined.public).final() == PublicLog(joined.public).checkpoint()


def test_leaves_witnesses_half_a_minute_for_one_checkpoint(joined: House) -> None:
    def grow() -> None:
        joined.log.append([joined.consortium.sign("AA/officer", "stop.declared", STOP)])
        assert joined.log.publish(joined.public) == shown(joined)
        assert not joined.log.finality(joined.log.size).final

    grow()
    first = shown(joined)
    joined.clock.advance(29)
    grow()
    assert shown(joined) == first
    joined.clock.advance(1)
    joined.log.publish(joined.public)
    assert shown(joined).size == joined.log.size > first.size
    # An answer by all makes way at once.
    grow()
    assert shown(joined).size < joined.log.size
    joined.cosign()
    assert shown(joined).size == joined.log.size


def test_signs_afresh_while_witnesses_are_silent(joined: House) -> None:
    joined.log.append([joined.consortium.sign("AA/officer", "stop.declared", STOP)])
    joined.log.publish(joined.public)
    first = shown(joined)
    joined.clock.advance(31)
    joined.log.publish(joined.public)
    second = shown(joined)
    assert (second.size, second.root) == (first.size, first.root)
    assert second.fedhouse.time == first.fedhouse.time + 31
    joined.cosign()
    joined.clock.advance(3600)
    joined.log.publish(joined.public)
    assert shown(joined) == second


def test_waits_for_nobody_where_there_are_no_witnesses(house: House) -> None:
    consortium = house.consortium
    revoked = {"key": consortium.signer("AA/witness").public.key_id, "effective": 0}
    house.log.append([consortium.sign("AA/admin", "key.revoked", revoked)])
    for _ in range(3):
        house.log.append([consortium.sign("AA/officer", "stop.declared", STOP)])
        house.log.publish(house.public)
        assert shown(house).size == house.log.size
    first = shown(house)
    house.clock.advance(100)
    house.log.publish(house.public)
    assert shown(house) == first


def test_publishes_anew_what_was_lost(joined: House) -> None:
    joined.log.append(joined.consortium.job_events())
    joined.log.publish(joined.public)
    before = {name: data for name, (_, data) in files(joined).items()}
    for name in list(before)[:-1]:
        (joined.public / "entries" / name).unlink()
    (joined.public / "checkpoint").write_bytes(b"spoiled")
    joined.log.publish(joined.public)
    assert {name: data for name, (_, data) in files(joined).items()} == before
    assert shown(joined).size == joined.log.size
    shutil.rmtree(joined.public)
    joined.log.publish(joined.public)
    assert tuple(PublicLog(joined.public).entries(0, joined.log.size)) == joined.log.read(0, joined.log.size)


def test_a_half_written_file_is_no_file(joined: House) -> None:
    (joined.public / "entries" / ".000000000009-5.bundle.k3x").write_bytes(b"fedhouse-entr")
    joined.log.append(joined.consortium.job_events())
    joined.cosign()
    replica = joined.replica()
    replica.catch_up()
    assert replica.final_size == joined.log.size


@pytest.mark.parametrize("damage", [b"", b"\xff" * 50, b"x" * 10**6, None])
def test_a_damaged_checkpoint_is_replaced(
    joined: House, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = joined.public / "checkpoint"
    good = path.read_bytes()
    path.write_bytes(good.replace(b"time 1", b"time 2") if damage is None else damage)
    joined.log.publish(joined.public)
    assert path.read_bytes() == good
    assert "damaged" in caplog.text


def test_links_in_place_of_files_are_replaced(joined: House, tmp_path: Path) -> None:
    path, target = joined.public / "checkpoint", tmp_path / "elsewhere"
    good = path.read_bytes()
    target.write_bytes(b"not to be touched")
    path.unlink()
    path.symlink_to(target)
    joined.log.publish(joined.public)
    assert not path.is_symlink()
    assert path.read_bytes() == good
    assert target.read_bytes() == b"not to be touched"


def test_refuses_the_folder_of_another_log(joined: House) -> None:
    other = SandboxConsortium(seed="other", clock=joined.clock)
    with (
        MerkleLog.create(
            joined.folder / "other", other.founding(), clock=joined.clock, operator=other.log
        ) as log,
        pytest.raises(HistoryError, match="another log"),
    ):
        log.publish(joined.public)


@pytest.mark.parametrize("damaged_checkpoint", [False, True])
def test_refuses_to_publish_from_too_old_a_backup(house: House, damaged_checkpoint: bool) -> None:
    path = house.folder / "log" / FILE
    house.log.close()
    backup = path.read_bytes()
    log = house.reopen()
    log.append(house.consortium.bootstrap())
    log.publish(house.public)
    before = {path: path.read_bytes() for path in house.public.rglob("*") if path.is_file()}
    log.close()
    path.write_bytes(backup)
    log = house.reopen()
    assert log.size == 1
    if damaged_checkpoint:
        (house.public / "checkpoint").write_bytes(b"damaged")
    with pytest.raises(HistoryError, match="backup"):
        log.publish(house.public)
    # Another history of the same length is refused as well.
    for _ in range(len(house.consortium.bootstrap())):
        log.append([house.consortium.sign("AA/officer", "stop.declared", STOP)])
    if not damaged_checkpoint:
        with pytest.raises(HistoryError, match="others"):
            log.publish(house.public)
        assert before == {path: path.read_bytes() for path in house.public.rglob("*") if path.is_file()}


def test_refuses_what_a_second_coordinator_has_published(house: House, second: House) -> None:
    one, other, *_ = house.consortium.bootstrap()
    house.log.append([one])
    second.log.append([other])
    house.log.publish(house.public)
    with pytest.raises(HistoryError, match="others"):
        second.log.publish(house.public)


def test_an_operator_whose_clock_fell_back_publishes_nothing(joined: House) -> None:
    joined.log.append([joined.consortium.sign("AA/officer", "stop.declared", STOP)])
    before = PublicLog(joined.public).checkpoint()
    joined.clock.advance(-3600)
    with pytest.raises(HistoryError, match="clock"):
        joined.log.publish(joined.public)
    assert PublicLog(joined.public).checkpoint() == before


class TestCosignatures:
    """What comes from witnesses, and from those who say that they are."""

    def key(self, house: House, member: str) -> NoteKey:
        """The verifier key of a member's witness."""
        public = house.consortium.signer(f"{member}/witness").public
        return NoteKey(f"{house.consortium.origin}/{member}/witness", NoteKind.COSIGNATURE, public)

    def path(self, house: House, member: str = "AA") -> Path:
        """Where its answer to the newest checkpoint stands."""
        path = PublicLog(house.public).cosignature_path(house.log.size, self.key(house, member))
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def answer(self, house: House, member: str = "AA", *, signer: str = "", text: str = "") -> bytes:
        """An answer in the name of a member's witness."""
        text = text or parse_note(house.log.checkpoint()).text
        key = self.key(house, member)
        line = cosign(text, key.name, house.consortium.signer(signer or f"{member}/witness"), house.clock())
        return SignedNote(text, (line,)).render()

    @pytest.fixture
    def waiting(self, joined: House) -> House:
        """A house with a checkpoint that nobody has cosigned."""
        joined.log.append([joined.consortium.sign("AA/officer", "stop.declared", STOP)])
        joined.log.publish(joined.public)
        return joined

    def cosigners(self, house: House) -> tuple[str, ...]:
        """Who has cosigned the newest checkpoint, after the operator's turn."""
        house.log.publish(house.public)
        return house.log.finality(house.log.size).cosigners

    def test_a_good_one_is_taken_in(self, waiting: House) -> None:
        self.path(waiting).write_bytes(self.answer(waiting))
        assert self.cosigners(waiting) == ("AA",)
        assert parse_note(PublicLog(waiting.public).checkpoint()).signature_by(self.key(waiting, "AA"))

    def test_a_stranger_s_is_not_looked_at(self, waiting: House, caplog: pytest.LogCaptureFixture) -> None:
        stranger = waiting.consortium.signer("X/witness")
        text = parse_note(waiting.log.checkpoint()).text
        line = cosign(text, "X/witness", stranger, waiting.clock())
        note = SignedNote(text, (line,)).render()
        self.path(waiting).with_name("0123456789abcdef.note").write_bytes(note)
        self.path(waiting).write_bytes(note)
        assert self.cosigners(waiting) == ()
        assert waiting.log.cosigned(note).cosigners == ()

    @pytest.mark.parametrize(
        "case",
        ["another's key", "empty", "random", "huge", "other checkpoint", "cut", "link", "pipe", "folder"],
    )
    def test_a_bad_one_is_ignored_and_named(
        self, waiting: House, case: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        caplog.set_level(logging.WARNING)
        path, good = self.path(waiting), self.answer(waiting)
        contents = {
            "another's key": self.answer(waiting, signer="B6/witness"),
            "empty": b"",
            "random": os.urandom(200),
            "huge": b"x" * 10**6,
            "other checkpoint": self.answer(waiting, text=f"{waiting.consortium.origin}\n1\n{'A' * 43}=\n"),
            "cut": good[:-5],
        }
        if case in contents:
            path.write_bytes(contents[case])
        elif case == "link":
            (tmp_path / "target").write_bytes(good)
            path.symlink_to(tmp_path / "target")
        elif case == "pipe":
            os.mkfifo(path)
        else:
            path.mkdir()
        # One that is good comes through beside it.
        self.path(waiting, "B6").write_bytes(self.answer(waiting, "B6"))
        assert self.cosigners(waiting) == ("B6",)
        # What is of another checkpoint, or by a key that is not asked for, is nothing worth a warning.
        if case not in ("other checkpoint", "another's key"):
            assert str(path) in caplog.text

    def test_a_forged_one_under_the_right_key_hash_is_named(
        self, waiting: House, caplog: pytest.LogCaptureFixture
    ) -> None:
        good = parse_note(self.answer(waiting))
        (line,) = good.signatures
        forged = type(line)(line.name, line.key_hash, line.signature[:-1] + bytes([line.signature[-1] ^ 1]))
        note = SignedNote(good.text, (forged,)).render()
        self.path(waiting).write_bytes(note)
        assert self.cosigners(waiting) == ()
        assert str(self.path(waiting)) in caplog.text
        assert "not by key" in caplog.text

    def test_one_entity_counts_once(self, joined: House) -> None:
        consortium = joined.consortium
        joined.log.append(
            [
                consortium.sign("AA/admin", "key.bound", {"binding": consortium.binding("AA/witness-2")}),
                consortium.sign("AA/admin", "affiliation.declared", {"member": "B6"}),
                consortium.sign("B6/admin", "affiliation.declared", {"member": "AA"}),
            ]
        )
        text = parse_note(joined.log.checkpoint()).text
        lines = tuple(
            cosign(text, f"{consortium.origin}/{actor}", consortium.signer(actor), joined.clock())
            for actor in ("AA/witness", "AA/witness-2", "B6/witness")
        )
        finality = joined.log.cosigned(SignedNote(text, lines).render())
        assert finality.cosigners == ("AA",)
        assert not finality.final
        assert len(parse_note(joined.log.checkpoint()).signatures) == 2

    def test_no_more_are_kept_than_a_note_holds(
        self, waiting: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(heads, "MAX_SIGNATURES", 3)
        for member in waiting.consortium.members:
            waiting.log.cosigned(self.answer(waiting, member))
        assert waiting.log.finality(waiting.log.size).cosigners == ("AA", "B6")
        assert len(parse_note(waiting.log.checkpoint()).signatures) == 3

    def test_a_note_of_no_checkpoint_is_refused(self, waiting: House) -> None:
        text = f"{waiting.consortium.origin}\n1\n{'A' * 43}=\n"
        with pytest.raises(IntegrityError, match="no checkpoint of this ledger"):
            waiting.log.cosigned(self.answer(waiting, text=text))

    def test_revoking_a_witness_takes_no_finality_away(self, joined: House) -> None:
        consortium, size = joined.consortium, joined.log.size
        assert joined.log.finality(size).final
        revoked = {"key": consortium.signer("AA/witness").public.key_id, "effective": joined.clock()}
        joined.log.append([consortium.sign("AA/admin", "key.revoked", revoked)])
        assert joined.log.finality(size).cosigners == ("AA", "B6", "DL")
        assert joined.log.finality(size).final
        # From then on the others suffice: two witnesses, of whom one may collude.
        joined.cosign("B6", "DL")
        assert joined.log.finality(joined.log.size).cosigners == ("B6", "DL")
        assert joined.log.finality(joined.log.size).final


@pytest.mark.parametrize("name", ["checkpoint", "entries"])
def test_a_folder_that_cannot_be_written_is_a_typed_error(house: House, name: str) -> None:
    house.public.mkdir()
    if name == "checkpoint":
        (house.public / name).mkdir()
    else:
        (house.public / name).write_bytes(b"in the way")
    with pytest.raises((ConfigurationError, IntegrityError)) as caught:
        house.log.publish(house.public)
    assert str(house.public / name) in str(caught.value)
