"""A replica follows, keeps what is final, and goes neither back nor sideways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fedhouse.chain_adapters.merkle_log.exchange import PublicLog
from fedhouse.encoding import sha256
from fedhouse.errors import (
    FedhouseError,
    HistoryError,
    IntegrityError,
    QuorumError,
    SignatureError,
)
from fedhouse.governance.checkpoints import cosign
from fedhouse.governance.event import Effect
from fedhouse.governance.notes import SignedNote, parse_note
from fedhouse.governance.sandbox import SandboxConsortium, named
from fedhouse.governance.trust import Trust

if TYPE_CHECKING:
    from conftest import Forger, House

STOP: dict[str, Any] = {"scope": "consortium", "subject": ""}


@pytest.fixture
def joined(house: House) -> House:
    """A house whose members have all joined, with all of it final."""
    house.log.append(house.consortium.bootstrap())
    house.cosign()
    return house


def stop(house: House) -> bytes:
    """One more event."""
    return house.consortium.sign("AA/officer", "stop.declared", STOP)


def test_final_is_what_enough_entities_have_cosigned(house: House) -> None:
    house.log.append(house.consortium.bootstrap())
    replica = house.replica()
    with pytest.raises(IntegrityError, match="No checkpoint is published"):
        replica.catch_up()
    house.log.publish(house.public)
    replica.catch_up()
    assert (replica.size, replica.final_size) == (9, 0)
    with pytest.raises(QuorumError) as caught:
        replica.require_final(0)
    assert caught.value.exit_code == 4
    for members, final in ((["AA"], 0), (["B6"], 0), (["DL"], 9)):
        house.cosign(*members)
        replica.catch_up()
        assert replica.final_size == final
    replica.require_final(8)
    with pytest.raises(QuorumError):
        replica.require_final(9)
    assert replica.final_state.digest() == replica.state.digest() == house.log.state.digest()


def test_what_is_newer_than_final_is_told_apart(joined: House) -> None:
    joined.log.append([stop(joined)])
    joined.log.publish(joined.public)
    replica = joined.replica()
    replica.catch_up()
    assert (replica.size, replica.final_size) == (10, 9)
    assert replica.state.permissions.stops
    assert not replica.final_state.permissions.stops
    assert replica.finality(9).final
    assert not replica.finality(10).final
    # So it is after a restart.
    replica.close()
    again = joined.replica()
    assert (again.size, again.final_size) == (10, 9)
    assert again.state.permissions.stops
    assert not again.final_state.permissions.stops
    assert again.finality(9).final


def test_gives_every_effect_at_least_once(joined: House) -> None:
    replica = joined.replica()
    assert replica.catch_up() == []
    joined.log.append([stop(joined)])
    joined.cosign()
    expected = Effect("stop-work", "")
    assert replica.catch_up() == [expected]
    assert replica.catch_up() == []
    # A process that starts anew hears of it again: the one before may have died before it acted.
    replica.close()
    again = joined.replica()
    assert again.catch_up() == [expected]
    assert again.catch_up() == []


def test_no_effect_is_lost_to_an_error(joined: House) -> None:
    replica = joined.replica()
    replica.catch_up()
    joined.log.append([stop(joined)])
    joined.cosign()
    path = joined.public / "checkpoint"
    good = path.read_bytes()
    path.write_bytes(b"spoiled")
    with pytest.raises(IntegrityError):
        replica.catch_up()
    path.write_bytes(good)
    assert replica.catch_up() == [Effect("stop-work", "")]


def test_refuses_another_history_of_the_same_size(joined: House, second: House) -> None:
    replica = joined.replica()
    replica.catch_up()
    events = [entry.envelope for entry in joined.log.read(1, joined.log.size)]
    second.log.append([events[1], events[0], *events[2:]])
    second.cosign()
    replica.close()
    other = joined.replica(public=second.public)
    with pytest.raises(HistoryError, match="split view"):
        other.catch_up()
    assert other.final_size == joined.log.size
    assert len(list((joined.folder / "replica" / "evidence").iterdir())) == 1


def test_refuses_to_go_back(joined: House) -> None:
    older = {path: path.read_bytes() for path in joined.public.rglob("*") if path.is_file()}
    joined.log.append([stop(joined)])
    joined.cosign()
    replica = joined.replica()
    replica.catch_up()
    for path, data in older.items():
        path.write_bytes(data)
    for _ in range(2):
        with pytest.raises(HistoryError, match="after it had shown"):
            replica.catch_up()
    assert (replica.size, replica.final_size) == (10, 10)


@pytest.mark.parametrize("kind", ["checkpoint", "final"])
def test_refuses_to_go_back_in_either_file(joined: House, kind: str) -> None:
    path = joined.public / kind
    older = path.read_bytes()
    joined.log.append([stop(joined)])
    joined.cosign()
    replica = joined.replica()
    replica.catch_up()
    path.write_bytes(older)
    with pytest.raises(HistoryError):
        replica.catch_up()


def test_an_earlier_final_checkpoint_must_be_of_the_same_history(
    joined: House, second: House, forger: Forger
) -> None:
    joined.log.append([stop(joined)])
    joined.log.publish(joined.public)
    events = [entry.envelope for entry in joined.log.read(1, joined.log.size)]
    second.log.append([events[1], events[0]])
    second.cosign()
    (joined.public / "final").unlink()
    replica = joined.replica()
    replica.catch_up()
    (joined.public / "final").write_bytes(PublicLog(second.public).checkpoint())
    with pytest.raises(HistoryError, match="another history"):
        replica.catch_up()


def test_refuses_what_is_dated_ahead(house: House) -> None:
    replica = house.replica()
    house.clock.advance(3600)
    house.log.publish(house.public)
    house.clock.advance(-60)
    replica.catch_up()
    replica.close()
    late = house.replica("late")
    house.clock.advance(-1)
    with pytest.raises(HistoryError, match="clock"):
        late.catch_up()
    assert late.size == 0


def test_an_old_checkpoint_is_taken(joined: House) -> None:
    joined.clock.advance(30 * 86_400)
    replica = joined.replica()
    replica.catch_up()
    assert replica.final_size == joined.log.size


def test_a_cosignature_that_is_not_good_is_refused(joined: House) -> None:
    path = joined.public / "checkpoint"
    note = parse_note(path.read_bytes())
    *rest, last = note.signatures
    forged = type(last)(last.name, last.key_hash, last.signature[:-1] + bytes([last.signature[-1] ^ 1]))
    path.write_bytes(SignedNote(note.text, (*rest, forged)).render())
    (joined.public / "final").unlink()
    replica = joined.replica()
    with pytest.raises(SignatureError):
        replica.catch_up()
    assert replica.final_size == 0
    # It has not come into the copy, which opens again.
    replica.close()
    again = joined.replica()
    assert (again.size, again.final_size) == (9, 0)
    joined.log.publish(joined.public)
    again.catch_up()
    assert again.final_size == 9


def test_cosignatures_of_strangers_do_not_count(house: House) -> None:
    house.log.append(house.consortium.bootstrap())
    house.cosign("AA", "B6")
    strangers = SandboxConsortium(seed="strangers", clock=house.clock)
    note = parse_note(PublicLog(house.public).checkpoint())
    lines = tuple(
        cosign(
            note.text, f"{house.consortium.origin}/{member}/witness", strangers.signer(member), house.clock()
        )
        for member in ("DL", "AA")
    )
    (house.public / "checkpoint").write_bytes(SignedNote(note.text, (*note.signatures, *lines)).render())
    replica = house.replica()
    replica.catch_up()
    assert replica.final_size == 0


class TestAnchors:
    """A digest of the consortium, or a whole trust file."""

    def test_a_trust_file_fixes_the_witnesses(self, joined: House) -> None:
        trust = joined.trust
        consortium = joined.consortium
        revoked = {"key": consortium.signer("DL/witness").public.key_id, "effective": joined.clock()}
        joined.log.append([consortium.sign("DL/admin", "key.revoked", revoked)])
        joined.cosign("AA", "B6")
        by_state, by_trust = joined.replica("a"), joined.replica("b", anchor=trust)
        for replica in (by_state, by_trust):
            replica.catch_up()
            assert replica.size == 10
        # The ledger asks for two of two now, the reader's trust file for three of three as before.
        assert by_state.final_size == 10
        assert by_trust.final_size == 0

    def test_another_log_s_trust_is_refused(self, joined: House) -> None:
        trust = joined.trust
        other = Trust(
            trust.consortium,
            trust.origin,
            type(trust.log)(trust.origin, trust.log.kind, joined.consortium.signer("AA/admin").public),
            trust.witnesses,
            trust.colluding,
        )
        with pytest.raises(SignatureError):
            joined.replica(anchor=other).catch_up()
        with pytest.raises(HistoryError, match="another consortium"):
            joined.replica("b", anchor=named("another")).catch_up()


@pytest.mark.parametrize("file", ["final", "head", "entries"])
def test_a_damaged_copy_is_not_used(joined: House, file: str) -> None:
    replica = joined.replica()
    replica.catch_up()
    replica.close()
    folder = joined.folder / "replica"
    path = next((folder / "entries").glob("*.bundle")) if file == "entries" else folder / file
    whole = path.read_bytes()
    for place in range(5, len(whole), max(1, len(whole) // 30)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(FedhouseError):
            joined.replica()
    path.write_bytes(whole)
    assert joined.replica().final_size == 9


def test_a_kill_between_head_and_final_loses_nothing(joined: House) -> None:
    replica = joined.replica()
    replica.catch_up()
    replica.close()
    (joined.folder / "replica" / "final").unlink()
    again = joined.replica()
    assert (again.size, again.final_size) == (9, 0)
    again.catch_up()
    assert again.final_size == 9


class TestPromises:
    """The operator's word on inclusion, and what convicts it."""

    def test_a_kept_promise_is_kept(self, joined: House) -> None:
        envelope = stop(joined)
        joined.log.append([envelope])
        promise = joined.log.promise(sha256(envelope))
        replica = joined.replica()
        with pytest.raises(QuorumError):
            replica.check_promise(promise)
        replica.catch_up()
        replica.check_promise(promise)  # nothing that is final is late yet
        joined.clock.advance(100)
        joined.cosign()
        replica.catch_up()
        replica.check_promise(promise)
        assert not (joined.folder / "replica" / "evidence").exists()

    @pytest.mark.parametrize(("seconds", "broken"), [(59, False), (60, True)])
    def test_a_log_that_is_too_short_convicts_the_operator(
        self, joined: House, second: House, seconds: int, broken: bool
    ) -> None:
        events = [entry.envelope for entry in joined.log.read(1, joined.log.size)]
        envelope = stop(joined)
        joined.log.append([envelope])
        promise = joined.log.promise(sha256(envelope))
        second.log.append(events)
        joined.clock.advance(seconds)
        second.cosign()
        replica = joined.replica(public=second.public)
        replica.catch_up()
        assert replica.final_size == 9
        if not broken:
            replica.check_promise(promise)
            return
        with pytest.raises(HistoryError, match="does not reach it") as caught:
            replica.check_promise(promise)
        assert "evidence" in caught.value.mend

    def test_another_leaf_in_its_place_convicts_the_operator(self, joined: House, second: House) -> None:
        events = [entry.envelope for entry in joined.log.read(1, joined.log.size)]
        envelope = stop(joined)
        joined.log.append([envelope])
        promise = joined.log.promise(sha256(envelope))
        second.log.append([*events, joined.consortium.sign("B6/officer", "stop.declared", STOP), envelope])
        joined.clock.advance(60)
        second.cosign()
        replica = joined.replica(public=second.public)
        replica.catch_up()
        with pytest.raises(HistoryError, match="the log has leaf"):
            replica.check_promise(promise)
        (case,) = (joined.folder / "replica" / "evidence").iterdir()
        assert (case / "shown.note").read_bytes() == promise
        assert (case / "known.note").read_bytes() == PublicLog(second.public).final()
