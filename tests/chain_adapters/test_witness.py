"""A witness cosigns one history, forwards, at the right time, after replaying it; and nothing else."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedhouse.chain_adapters.merkle_log.exchange import PublicLog
from fedhouse.chain_adapters.merkle_log.witness import Witness, run_witness
from fedhouse.encoding import sha256
from fedhouse.errors import (
    ConfigurationError,
    FedhouseError,
    HistoryError,
    IntegrityError,
    SignatureError,
    VerificationError,
)
from fedhouse.governance.notes import NoteKey, NoteKind
from fedhouse.governance.sandbox import SandboxClock, SandboxConsortium
from fedhouse.identity.signer import SoftwareSigner

if TYPE_CHECKING:
    from conftest import Forger, House

STOP: dict[str, Any] = {"scope": "consortium", "subject": ""}


def cosignature(
    house: House, member: str = "AA", *, public: Path | None = None, size: int = 0
) -> bytes | None:
    """What a member's witness has answered to the newest checkpoint of a published folder."""
    key = NoteKey(
        f"{house.consortium.origin}/{member}/witness",
        NoteKind.COSIGNATURE,
        house.consortium.signer(f"{member}/witness").public,
    )
    return PublicLog(public or house.public).cosignature(size or house.log.size, key)


def evidence(house: House, member: str = "AA") -> list[dict[str, bytes]]:
    """The cases that a member's witness has kept: file names and contents."""
    folder = house.folder / "witnesses" / member / "evidence"
    cases = sorted(folder.iterdir()) if folder.exists() else []
    return [{file.name: file.read_bytes() for file in case.iterdir()} for case in cases]


def test_cosigns_each_checkpoint_once(house: House) -> None:
    witness = house.witness("AA")
    house.log.publish(house.public)
    assert [witness.step(), witness.step()] == [True, False]
    house.log.append(house.consortium.bootstrap())
    house.clock.advance(31)
    house.log.publish(house.public)
    assert [witness.step(), witness.step()] == [True, False]
    assert witness.follower.state.digest() == house.log.state.digest()


def test_goes_on_from_its_own_copy_after_a_restart(house: House) -> None:
    house.log.append(house.consortium.bootstrap())
    house.cosign("AA")
    entries = house.public / "entries"
    witness = house.witness("AA")
    # What it has seen it does not ask for again.
    for file in entries.iterdir():
        file.unlink()
    assert not witness.step()
    assert witness.follower.state.digest() == house.log.state.digest()
    assert witness.follower.size == house.log.size


def test_two_witnesses_do_not_share_a_folder(house: House) -> None:
    house.log.publish(house.public)
    first = house.witness("AA")
    with pytest.raises(ConfigurationError, match="Another process"):
        house.witness("AA")
    first.close()
    assert house.witness("AA").step()


def test_refuses_a_second_history_of_the_same_size(house: House, second: House) -> None:
    one, other, *_ = house.consortium.bootstrap()
    house.log.append([one])
    second.log.append([other])
    house.cosign("AA")
    second.log.publish(second.public)
    witness = house.witness("AA", public=second.public)
    with pytest.raises(HistoryError, match="split view") as caught:
        witness.step()
    assert cosignature(house, public=second.public) is None
    (case,) = evidence(house)
    assert case["shown.note"] == PublicLog(second.public).checkpoint()
    assert case["known.note"] in PublicLog(house.public).checkpoint()
    assert "evidence" in caught.value.mend


def test_refuses_a_longer_log_that_does_not_go_on_from_its_own(house: House, second: House) -> None:
    events = house.consortium.bootstrap()
    house.log.append(events[:2])
    second.log.append([events[1], events[0], *events[2:]])
    house.cosign("AA")
    second.log.publish(second.public)
    witness = house.witness("AA", public=second.public)
    with pytest.raises(HistoryError, match="do not lead from 3"):
        witness.step()
    assert cosignature(house, public=second.public, size=second.log.size) is None
    assert len(evidence(house)) == 1
    # The known history goes on all the same.
    witness.close()
    house.log.append(events[2:])
    house.clock.advance(31)
    house.log.publish(house.public)
    assert house.witness("AA").step()


@pytest.mark.parametrize("same_history", [True, False])
def test_refuses_a_rollback(house: House, second: House, same_history: bool) -> None:
    events = house.consortium.bootstrap()
    second.log.append([events[0] if same_history else events[1]])
    second.log.publish(second.public)
    house.log.append(events)
    house.cosign("AA")
    witness = house.witness("AA", public=second.public)
    with pytest.raises(HistoryError, match="rollback") as caught:
        witness.step()
    assert ("another history" in str(caught.value)) != same_history
    assert cosignature(house, public=second.public, size=2) is None
    assert len(evidence(house)) == 1


def test_the_same_contradiction_is_kept_once_and_many_fill_no_disk(house: House, forger: Forger) -> None:
    house.log.append(house.consortium.bootstrap())
    house.cosign("AA")
    witness = house.witness("AA")
    steps = [(house.consortium.founding(), house.clock())]
    for number in range(105):
        forger.publish(house.public, steps, time=house.clock() - number)
        for _ in range(2):
            with pytest.raises(HistoryError):
                witness.step()
    assert len(evidence(house)) == 100


@pytest.mark.parametrize("claim", ["state", "outcomes"])
def test_never_cosigns_two_claims_about_one_size(house: House, forger: Forger, claim: str) -> None:
    house.cosign("AA")
    steps = [(house.consortium.founding(), house.clock())]
    if claim == "state":
        forger.publish(house.public, steps, time=house.clock(), state=bytes(32))
    else:
        forger.publish(house.public, steps, time=house.clock(), verdicts={0: "role"})
    before = cosignature(house)
    with pytest.raises(HistoryError, match="split view"):
        house.witness("AA").step()
    assert cosignature(house) == before


def test_replays_rules_states_and_signatures(house: House, forger: Forger) -> None:
    now, consortium = house.clock(), house.consortium
    good = [(envelope, now) for envelope in (consortium.founding(), *consortium.bootstrap())]
    unsigned = consortium.sign("AA/officer", "stop.declared", STOP, signer=consortium.signer("x"))
    key_id = consortium.signer("AA/officer").public.key_id.encode()
    unsigned = unsigned.replace(consortium.signer("x").public.key_id.encode(), key_id)
    witness = house.witness("AA")
    # The log has signed for each of these itself, so its note is kept as evidence.
    cases: list[tuple[type[FedhouseError], dict[str, Any], list[tuple[bytes, int]]]] = [
        (IntegrityError, {"state": bytes(32)}, good),
        (IntegrityError, {"verdicts": {3: "role"}}, good),
        (SignatureError, {}, [*good, (unsigned, now)]),
    ]
    for number, (error, changes, steps) in enumerate(cases, start=1):
        forger.publish(house.public, steps, time=now, **changes)
        with pytest.raises(error):
            witness.step()
        assert witness.follower.size == 0
        assert len(evidence(house)) == number
        assert cosignature(house, size=len(steps)) is None
    # And nothing of it is left behind.
    forger.publish(house.public, good, time=now)
    assert witness.step()
    assert witness.follower.size == len(good)


def test_refuses_what_is_dated_before_the_checkpoint_that_it_knows(house: House, forger: Forger) -> None:
    now, consortium = house.clock(), house.consortium
    founding, *rest = [(envelope, now) for envelope in (consortium.founding(), *consortium.bootstrap())]
    forger.publish(house.public, [founding], time=now + 50)
    witness = house.witness("AA")
    assert witness.step()
    forger.publish(house.public, [founding, *rest], time=now + 50)
    with pytest.raises(HistoryError, match="is dated"):
        witness.step()
    forger.publish(house.public, [founding, *((envelope, now + 50) for envelope, _ in rest)], time=now + 49)
    with pytest.raises(HistoryError, match="backwards in time"):
        witness.step()
    forger.publish(house.public, [founding, *((envelope, now + 50) for envelope, _ in rest)], time=now + 51)
    assert witness.step()


@pytest.mark.parametrize("off", [-3600, -61, 61, 3600])
def test_refuses_when_its_clock_is_off(house: House, off: int) -> None:
    house.log.publish(house.public)
    clock = SandboxClock(house.clock() + off)
    witness = house.witness("AA", clock=clock)
    with pytest.raises(HistoryError, match="clock"):
        witness.step()
    assert cosignature(house) is None
    # Once the clock is right it goes on: nothing from the wrong time stands in its way.
    clock.now = house.clock()
    assert witness.step()


@pytest.mark.parametrize("off", [-60, 60])
def test_a_minute_is_allowed(house: House, off: int) -> None:
    house.log.publish(house.public)
    assert house.witness("AA", clock=SandboxClock(house.clock() + off)).step()


def test_refuses_when_the_log_s_clock_is_off(house: House) -> None:
    right = SandboxClock(house.clock())
    witness = house.witness("AA", clock=right)
    house.clock.advance(3600)
    house.log.append(house.consortium.bootstrap())
    house.log.publish(house.public)
    with pytest.raises(HistoryError, match="clock"):
        witness.step()
    house.clock.advance(-3600)
    with pytest.raises(HistoryError, match="clock"):
        house.log.append([house.consortium.sign("AA/officer", "stop.declared", STOP)])
    # When the true time has caught up, both go on.
    right.advance(3600)
    house.clock.advance(3600)
    assert witness.step()


def test_leaves_an_old_final_checkpoint_in_peace(house: House) -> None:
    house.log.append(house.consortium.bootstrap())
    house.cosign()
    shutil.rmtree(house.folder / "witnesses" / "AA")
    shutil.rmtree(house.public / "cosignatures")
    house.clock.advance(3600)
    witness = house.witness("AA")
    assert not witness.step()
    assert witness.follower.size == house.log.size


def test_answers_a_fresh_checkpoint_of_the_same_size(house: House) -> None:
    house.cosign("AA")
    first = cosignature(house)
    house.clock.advance(45)
    house.log.publish(house.public)
    assert house.witness("AA").step()
    assert cosignature(house) not in (None, first)


def test_a_spoiled_answer_is_given_again(house: House) -> None:
    house.cosign("AA")
    (path,) = (house.public / "cosignatures" / "1").iterdir()
    for spoiled in (b"", b"\xff" * 10, path.read_bytes()[:-3], b"x" * 10**6):
        path.write_bytes(spoiled)
        witness = house.witness("AA")
        assert [witness.step(), witness.step()] == [True, False]
        witness.close()


def test_pins_the_consortium(house: House, tmp_path: Path) -> None:
    house.log.publish(house.public)
    for consortium in ("ab" * 32, sha256(house.consortium.bootstrap()[0])):
        witness = Witness(
            tmp_path / consortium[:4],
            house.public,
            house.consortium.signer("AA/witness"),
            "AA/witness",
            consortium,
            clock=house.clock,
        )
        with pytest.raises(HistoryError, match="another consortium"):
            witness.step()
        witness.close()
    with pytest.raises(IntegrityError):
        Witness(tmp_path / "x", house.public, house.consortium.signer("AA/witness"), "AA/witness", "AB" * 32)


def test_does_not_take_up_a_copy_of_another_consortium(house: House, tmp_path: Path) -> None:
    house.cosign("AA")
    other = SandboxConsortium(seed="other", clock=house.clock)
    with pytest.raises(HistoryError, match="another consortium"):
        Witness(
            house.folder / "witnesses" / "AA",
            house.public,
            house.consortium.signer("AA/witness"),
            "AA/witness",
            other.id,
            clock=house.clock,
        )


def test_takes_the_log_s_key_from_the_charter(house: House, forger: Forger) -> None:
    stranger = SoftwareSigner.insecure_from_seed("ed25519", b"\x05" * 32)
    steps = [(house.consortium.founding(), house.clock())]
    forger.publish(house.public, steps, time=house.clock(), signer=stranger)
    with pytest.raises(SignatureError):
        house.witness("AA").step()
    assert evidence(house) == []


def test_an_empty_log_is_no_log(house: House, forger: Forger) -> None:
    house.log.publish(house.public)
    entries = {file: file.read_bytes() for file in (house.public / "entries").iterdir()}
    forger.publish(house.public, [], time=house.clock())
    for file, data in entries.items():
        file.write_bytes(data)
    witness = house.witness("AA")
    with pytest.raises(IntegrityError, match="founding"):
        witness.step()
    witness.close()
    house.log.publish(house.public)
    assert house.witness("AA").step()


def test_only_cosigns_under_a_key_that_the_ledger_names(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    consortium = house.consortium
    house.log.publish(house.public)
    newcomer = Witness(
        house.folder / "newcomer",
        house.public,
        consortium.signer("AA/witness-2"),
        "AA/witness-2",
        consortium.id,
        clock=house.clock,
    )
    assert not newcomer.step()
    assert "names no witness AA/witness-2" in caplog.text
    revoked = consortium.signer("AA/witness").public.key_id
    house.log.append(
        [
            consortium.sign("AA/admin", "key.bound", {"binding": consortium.binding("AA/witness-2")}),
            consortium.sign("AA/admin", "key.revoked", {"key": revoked, "effective": house.clock() + 9999}),
        ]
    )
    house.clock.advance(31)
    house.log.publish(house.public)
    assert newcomer.step()
    assert not house.witness("AA").step()
    newcomer.close()


def test_a_witness_needs_an_ed25519_key(house: House) -> None:
    with pytest.raises(ConfigurationError, match="ml-dsa-65"):
        Witness(
            house.folder / "w",
            house.public,
            SoftwareSigner.insecure_from_seed("ml-dsa-65", b"\x01" * 32),
            "AA/witness",
            house.consortium.id,
        )


_KILLED = """
import os, signal, sys
from pathlib import Path
from fedhouse.chain_adapters.merkle_log.witness import Witness
from fedhouse.governance.sandbox import SandboxClock, SandboxConsortium
class Fatal:
    def __init__(self, signer):
        self.public = signer.public
    def sign(self, message):
        os.kill(os.getpid(), signal.SIGKILL)
clock = SandboxClock()
consortium = SandboxConsortium(clock=clock)
witness = Witness(Path(sys.argv[1]), Path(sys.argv[2]), Fatal(consortium.signer("AA/witness")), "AA/witness",
                  consortium.id, clock=clock)
witness.step()
"""


def test_killed_before_its_answer_left_it_answers_after_its_restart(house: House) -> None:
    house.log.append(house.consortium.bootstrap())
    house.log.publish(house.public)
    folder = house.folder / "witnesses" / "AA"
    died = subprocess.run([sys.executable, "-c", _KILLED, str(folder), str(house.public)], check=False)
    assert died.returncode == -9
    assert (folder / "head").read_bytes() == PublicLog(house.public).checkpoint()
    assert cosignature(house) is None
    assert house.witness("AA").step()
    assert cosignature(house) is not None


def test_what_was_copied_and_not_verified_is_thrown_away(house: House) -> None:
    house.cosign("AA")
    own = house.folder / "witnesses" / "AA" / "entries"
    house.log.append(house.consortium.bootstrap())
    house.clock.advance(31)
    house.log.publish(house.public)
    # As a kill between copying and replaying leaves it, with a later index too.
    (own / "000000000001-0001.bundle").write_bytes(b"half")
    (own / "000000000001-3.bundle").write_bytes(b"half")
    (own / ".000000000001-8.bundle.x").write_bytes(b"half")
    assert house.witness("AA").step()


@pytest.mark.parametrize("file", ["head", "entries"])
def test_a_damaged_own_copy_is_not_used(house: House, file: str) -> None:
    house.log.append(house.consortium.bootstrap())
    house.cosign("AA")
    folder = house.folder / "witnesses" / "AA"
    path = folder / "head" if file == "head" else next((folder / "entries").glob("*.bundle"))
    whole = path.read_bytes()
    for place in range(5, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(IntegrityError, match="own copy"):
            house.witness("AA")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IntegrityError, match="own copy"):
        house.witness("AA")
    path.write_bytes(whole)
    assert not house.witness("AA").step()


def test_damaged_published_entries_are_no_other_history(house: House) -> None:
    house.log.append(house.consortium.bootstrap())
    house.log.publish(house.public)
    (path,) = (house.public / "entries").iterdir()
    whole = path.read_bytes()
    witness = house.witness("AA")
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(VerificationError) as caught:
            witness.step()
        assert not isinstance(caught.value, HistoryError) or "another consortium" in str(caught.value)
    assert evidence(house) == []
    path.write_bytes(whole[:-1])
    with pytest.raises(IntegrityError, match="cut off"):
        witness.step()
    path.unlink()
    with pytest.raises(IntegrityError, match="missing"):
        witness.step()
    house.log.publish(house.public)
    assert witness.step()


def test_a_folder_that_takes_no_answer_is_a_typed_error(house: House) -> None:
    house.log.publish(house.public)
    (house.public / "cosignatures").write_bytes(b"in the way")
    with pytest.raises(FedhouseError, match="cannot be written"):
        house.witness("AA").step()


def test_runs_until_it_is_stopped_and_logs_each_refusal_once(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stop, clock = threading.Event(), SandboxClock(house.clock() + 3600)
    polled: list[int] = []

    def tick() -> int:
        # Called at least once a step: the fifth sees the right time, a later one ends the run.
        polled.append(1)
        if len(polled) == 10:
            clock.now = house.clock()
        if len(polled) > 20:
            stop.set()
        return clock.now

    house.log.publish(house.public)
    witness = Witness(
        house.folder / "witnesses" / "AA",
        house.public,
        house.consortium.signer("AA/witness"),
        "AA/witness",
        house.consortium.id,
        clock=tick,
    )
    run_witness(witness, poll_seconds=0.001, stop=stop)
    refusals = [record for record in caplog.records if "not cosigned" in record.getMessage()]
    assert len(refusals) == 1
    assert "HistoryError" in refusals[0].message
    assert cosignature(house) is not None
    # It has released its folder.
    assert not house.witness("AA").step()


@given(st.one_of(st.binary(max_size=300), st.integers(0, 10**6)))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_hostile_checkpoints_raise_and_change_nothing(house: House, hostile: bytes | int) -> None:
    whole = house.log.checkpoint()
    if not house.public.exists():
        house.log.publish(house.public)
    if isinstance(hostile, int):
        place = hostile % len(whole)
        hostile = whole[:place] + bytes([whole[place] ^ (1 + hostile % 255)]) + whole[place + 1 :]
    (house.public / "checkpoint").write_bytes(hostile)
    witness = house.witness("AA")
    try:
        with pytest.raises(VerificationError):
            witness.step()
        assert witness.follower.size == 0
        assert not (house.folder / "witnesses" / "AA" / "head").exists()
    finally:
        witness.close()
    assert cosignature(house) is None
