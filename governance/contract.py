"""The suite that every ledger passes, ours and those to come. Shipped, so that whoever writes one can run it.

Subclass `LedgerContract` in a test module and give the rig::

    class TestMerkleLog(LedgerContract):
        @pytest.fixture
        def rig(self, tmp_path) -> Rig: ...

Whatever only reads (a replica) passes `fedhouse.governance.reading_contract` alone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedhouse.encoding import sha256
from fedhouse.errors import (
    EnvelopeError,
    HistoryError,
    IntegrityError,
    SignatureError,
    UnknownSignerError,
    VerificationError,
)
from fedhouse.governance.ledger import Appended, Ledger
from fedhouse.governance.merkle import verify_consistency
from fedhouse.governance.proof_files import Outcome
from fedhouse.governance.reading_contract import ReadingContract, Recorded, corpus, head_of
from fedhouse.governance.replay import Replay
from fedhouse.governance.sandbox import SandboxClock, SandboxConsortium, named
from fedhouse.governance.trust import Trust, verify_receipt
from fedhouse.identity.signer import SoftwareSigner


@dataclass
class Rig:
    """A ledger under test, which has recorded the consortium's founding envelope and nothing else."""

    consortium: SandboxConsortium
    """The members AA, B6 and DL, and maybe more; one entity may collude."""
    clock: SandboxClock
    """The clock of the ledger and of all signers."""
    ledger: Ledger
    cosign: Callable[[str], None]
    """Lets a member's witness cosign the newest checkpoint, and the ledger take it in."""
    reopen: Callable[[], Ledger]
    """Closes the ledger and opens it again from what it keeps."""
    opener: str
    """Python source of `open_ledger()`, for a process of its own: opens this ledger, with such a clock."""

    def finalise(self) -> bytes:
        """Let all that is recorded become final; gives the checkpoint."""
        self.ledger.checkpoint()
        for member in self.consortium.members:
            self.cosign(member)
        return self.ledger.checkpoint()


Bad = Callable[[SandboxConsortium], bytes]


def _refused() -> dict[str, Bad]:
    """Envelopes that are recorded and do not count, by their verdicts."""
    body: dict[str, Any] = {"scope": "consortium", "subject": ""}

    def officer(**changes: Any) -> Bad:
        return lambda c: c.sign("AA/officer", "stop.declared", body, **changes)

    return {
        "other-consortium": officer(consortium="ab" * 32),
        "signer": lambda c: c.sign("AA/steward", "stop.declared", body, signer=c.signer("AA/officer")),
        "sequence": officer(sequence=7),
        "future-dated": lambda c: c.sign("AA/officer", "stop.declared", body, issued=c.clock() + 61),
        "unknown-type": lambda c: c.sign("AA/officer", "stop.forgotten", body),
        "schema": lambda c: c.sign("AA/officer", "stop.declared", body | {"more": 1}),
        "subject": officer(subjects=(("job", named("a job")),)),
        "role": lambda c: c.sign("AA/agent", "stop.declared", body),
        "unknown-member": lambda c: c.sign(
            "AA/officer", "stop.declared", {"scope": "member", "subject": "nobody"}
        ),
        "member-inactive": lambda c: c.sign("B6/officer", "stop.declared", body),
    }


def _never_recorded() -> dict[str, tuple[Bad, type[VerificationError]]]:
    """Bytes that no ledger records, and the error that says why."""

    def good(c: SandboxConsortium) -> bytes:
        body = {"scope": "consortium", "subject": ""}
        return c.sign("AA/officer", "stop.declared", body, sequence=1)

    def flipped(c: SandboxConsortium) -> bytes:
        data = good(c)
        # The last signature character before the padding: another signature, still well-formed base64.
        place = data.rindex(b"==") - 3
        return data[:place] + (b"A" if data[place : place + 1] != b"A" else b"B") + data[place + 1 :]

    def stranger(c: SandboxConsortium) -> bytes:
        body = {"scope": "consortium", "subject": ""}
        signer = SoftwareSigner.insecure_from_seed("ed25519", b"\x07" * 32)
        return c.sign("AA/officer", "stop.declared", body, sequence=1, signer=signer)

    return {
        "unknown signer": (stranger, UnknownSignerError),
        "bad signature": (flipped, SignatureError),
        "empty": (lambda c: b"", EnvelopeError),
        "unsigned": (lambda c: good(c).replace(b'"signatures":[{', b'"signatures":[],"x":[{'), EnvelopeError),
        "trailing byte": (lambda c: good(c) + b"\n", EnvelopeError),
        "spaces": (lambda c: good(c).replace(b":", b": ", 1), EnvelopeError),
        "over-long": (lambda c: good(c) + b" " * 70_000, EnvelopeError),
        "not JSON": (lambda c: b"\xff" * 100, EnvelopeError),
    }


_KILLED = """
import sys
from pathlib import Path
{opener}
ledger = open_ledger()
envelopes = Path(sys.argv[1]).read_bytes().split(b"\\n")
for start in range(0, len(envelopes), 10):
    ledger.append(envelopes[start : start + 10])
    print(start + 10, flush=True)
"""


class LedgerContract(ReadingContract):
    """Everything that a ledger promises. Give the fixture `rig`."""

    @pytest.fixture
    def rig(self) -> Rig:
        """The ledger under test."""
        raise NotImplementedError("give the fixture `rig`")

    @pytest.fixture
    def recorded(self, rig: Rig) -> Recorded:
        """The ledger with a whole history, all of it final."""
        envelopes = [rig.consortium.founding(), *corpus(rig.consortium)]
        for start in range(1, len(envelopes), 7):
            rig.clock.advance(1)
            rig.ledger.append(envelopes[start : start + 7])
        rig.finalise()
        return Recorded(rig.ledger, tuple(envelopes), Trust.of(rig.ledger.state))

    def test_begins_with_the_founding_envelope(self, rig: Rig) -> None:
        (entry,) = rig.ledger.read(0, 1)
        assert rig.ledger.size == 1
        assert entry.envelope == rig.consortium.founding()
        assert entry.outcome.verdict == "accepted"
        assert rig.ledger.state.consortium.id == rig.consortium.id

    def test_answers_for_each_envelope(self, rig: Rig) -> None:
        envelopes = corpus(rig.consortium)
        answers = rig.ledger.append(envelopes)
        assert [answer.index for answer in answers] == list(range(1, len(envelopes) + 1))
        assert [answer.digest for answer in answers] == [sha256(envelope) for envelope in envelopes]
        assert not any(answer.known for answer in answers)
        entries = rig.ledger.read(1, rig.ledger.size)
        assert [answer.outcome for answer in answers] == [entry.outcome for entry in entries]

    def test_appending_nothing_is_nothing(self, rig: Rig) -> None:
        assert rig.ledger.append([]) == ()
        assert rig.ledger.size == 1

    def test_one_by_one_or_all_at_once_is_the_same(self, rig: Rig) -> None:
        envelopes = corpus(rig.consortium)
        for envelope in envelopes:
            rig.ledger.append([envelope])
        replay = Replay()
        replay.extend(rig.ledger.read(0, rig.ledger.size))
        assert rig.ledger.append(envelopes)[-1].index == len(envelopes)
        assert rig.ledger.size == len(envelopes) + 1
        assert replay.state.digest() == rig.ledger.state.digest()

    def test_the_same_bytes_are_recorded_once(self, rig: Rig) -> None:
        first, second, *_ = rig.consortium.bootstrap()
        once = rig.ledger.append([first, second, first])
        assert [answer.known for answer in once] == [False, False, True]
        rig.clock.advance(5)
        again = rig.ledger.append([second, first])
        assert [answer.known for answer in again] == [True, True]
        assert _stories(again) == _stories([once[1], once[0]])
        assert _stories([once[2]]) == _stories([once[0]])
        assert rig.ledger.size == 3

    def test_a_signer_s_sequence_counts(self, rig: Rig) -> None:
        consortium, body = rig.consortium, {"scope": "consortium", "subject": ""}
        first, second, third = (consortium.sign("AA/officer", "stop.declared", body) for _ in range(3))
        verdicts = [answer.outcome.verdict for answer in rig.ledger.append([first, third, second])]
        assert verdicts == ["accepted", "sequence", "accepted"]
        # What came too early is recorded, and used up nothing.
        assert rig.ledger.append([third])[0].known

    @pytest.mark.parametrize("code", list(_refused()))
    def test_a_refused_event_is_recorded_and_changes_nothing(self, rig: Rig, code: str) -> None:
        before = rig.ledger.state
        (answer,) = rig.ledger.append([_refused()[code](rig.consortium)])
        assert answer.outcome.verdict == code
        assert not answer.accepted
        assert rig.ledger.state.permissions == before.permissions
        assert rig.ledger.read(1, 2)[0].outcome == answer.outcome

    @pytest.mark.parametrize("case", list(_never_recorded()))
    def test_what_is_by_nobody_or_malformed_records_nothing(self, rig: Rig, case: str) -> None:
        make, error = _never_recorded()[case]
        good = rig.consortium.bootstrap()
        state = rig.ledger.state
        with pytest.raises(error) as caught:
            rig.ledger.append([good[0], make(rig.consortium), good[1]])
        assert caught.value.mend
        assert rig.ledger.size == 1
        assert rig.ledger.state is state or rig.ledger.state.digest() == state.digest()
        assert not any(answer.known for answer in rig.ledger.append(good[:2]))

    def test_what_another_consortium_signed_does_not_count(self, rig: Rig) -> None:
        # The same keys sit in both: only the name of the consortium tells them apart.
        other = SandboxConsortium(rig.consortium.members, clock=rig.clock, rules={"job_approvals": 1})
        assert other.id != rig.consortium.id
        body = {"scope": "consortium", "subject": ""}
        (answer,) = rig.ledger.append([other.sign("AA/officer", "stop.declared", body)])
        assert answer.outcome.verdict == "other-consortium"
        assert not rig.ledger.state.permissions.stops
        (again,) = rig.ledger.append([other.founding()])
        assert again.outcome.verdict == "other-consortium"

    def test_a_key_counts_until_its_revocation_takes_effect(self, rig: Rig) -> None:
        consortium, until = rig.consortium, rig.clock() + 100
        body = {"scope": "consortium", "subject": ""}
        revocation = {"key": consortium.signer("AA/officer").public.key_id, "effective": until}
        rig.ledger.append([consortium.sign("AA/admin", "key.revoked", revocation)])
        rig.clock.advance(99)
        (before,) = rig.ledger.append([consortium.sign("AA/officer", "stop.declared", body)])
        rig.clock.advance(1)
        (after,) = rig.ledger.append([consortium.sign("AA/officer", "stop.declared", body)])
        assert (before.outcome.verdict, after.outcome.verdict) == ("accepted", "key-revoked")

    def test_time_stands_still_while_the_clock_catches_up(self, rig: Rig) -> None:
        one, two, three, *_ = rig.consortium.bootstrap()
        times = [rig.ledger.append([one])[0].outcome.time]
        rig.clock.advance(-59)
        times += [rig.ledger.append([two])[0].outcome.time]
        rig.clock.advance(70)
        times += [rig.ledger.append([three])[0].outcome.time]
        assert times == [times[0], times[0], times[0] + 11]

    def test_a_clock_that_has_fallen_back_stops_the_log(self, rig: Rig) -> None:
        one, two, *_ = rig.consortium.bootstrap()
        rig.ledger.append([one])
        rig.clock.advance(-3600)
        with pytest.raises(HistoryError, match="clock"):
            rig.ledger.append([two])
        assert rig.ledger.size == 2
        rig.clock.advance(3600)
        assert rig.ledger.append([two])[0].accepted

    def test_entries_come_after_the_checkpoint_before_them(self, rig: Rig) -> None:
        rig.clock.advance(50)
        head = head_of(rig.ledger.checkpoint())
        rig.clock.advance(-40)
        (answer,) = rig.ledger.append(rig.consortium.bootstrap()[:1])
        assert answer.outcome.time >= head.fedhouse.time

    def test_a_checkpoint_stands_until_the_log_grows(self, rig: Rig) -> None:
        first = rig.ledger.checkpoint()
        rig.clock.advance(1)
        assert head_of(rig.ledger.checkpoint()) == head_of(first)
        rig.ledger.append(rig.consortium.bootstrap())
        rig.clock.advance(1)
        second = head_of(rig.ledger.checkpoint())
        proof = rig.ledger.prove_consistency(1, second.size)
        verify_consistency(1, head_of(first).root, second.size, second.root, proof)
        assert second.size == rig.ledger.size

    def test_finality_grows_with_cosignatures(self, rig: Rig) -> None:
        envelopes = rig.consortium.bootstrap()
        rig.ledger.append(envelopes)
        rig.ledger.checkpoint()
        members, trust = rig.consortium.members, Trust.of(rig.ledger.state)
        required = rig.ledger.finality(rig.ledger.size).required
        for number, member in enumerate(members, start=1):
            rig.cosign(member)
            rig.cosign(member)
            finality = rig.ledger.finality(rig.ledger.size)
            assert sorted(finality.cosigners) == sorted(members[:number])
            assert finality.final == (number >= required)
            receipt = rig.ledger.receipt(1)
            if finality.final:
                assert verify_receipt(envelopes[0], receipt, trust).verdict == "accepted"
            else:
                with pytest.raises(IntegrityError, match="cosigned"):
                    verify_receipt(envelopes[0], receipt, trust)

    def test_nobody_has_cosigned_what_no_checkpoint_covers(self, rig: Rig) -> None:
        rig.ledger.checkpoint()
        rig.ledger.append(rig.consortium.bootstrap())
        assert rig.ledger.finality(rig.ledger.size) == Trust.of(rig.ledger.state).nobody()
        assert not rig.ledger.finality(rig.ledger.size).final

    def test_what_is_final_stays_so_while_the_log_grows(self, rig: Rig) -> None:
        envelopes = rig.consortium.bootstrap()
        rig.ledger.append(envelopes[:3])
        rig.finalise()
        rig.ledger.append(envelopes[3:])
        rig.ledger.checkpoint()
        assert rig.ledger.finality(4).final
        assert not rig.ledger.finality(rig.ledger.size).final
        trust = Trust.of(rig.ledger.state)
        assert verify_receipt(envelopes[2], rig.ledger.receipt(3), trust).verdict == "accepted"

    def test_there_is_no_receipt_before_a_checkpoint(self, rig: Rig) -> None:
        rig.ledger.checkpoint()
        rig.ledger.append(rig.consortium.bootstrap()[:1])
        with pytest.raises(IntegrityError, match="checkpoint"):
            rig.ledger.receipt(1)

    def test_everything_is_there_after_closing_and_opening(self, rig: Rig) -> None:
        envelopes = corpus(rig.consortium)
        answers = rig.ledger.append(envelopes)
        note, entries = rig.finalise(), rig.ledger.read(0, rig.ledger.size)
        state, receipt = rig.ledger.state.digest(), rig.ledger.receipt(5)
        again = rig.reopen()
        assert again.read(0, again.size) == entries
        assert again.state.digest() == state
        assert again.checkpoint() == note
        assert again.receipt(5) == receipt
        assert again.finality(again.size).final
        known = again.append(envelopes)
        assert all(answer.known for answer in known)
        assert _stories(known) == _stories(answers)
        assert again.append([_refused()["role"](rig.consortium)])[0].index == len(entries)

    @pytest.mark.slow
    @pytest.mark.parametrize("acknowledged", [10, 50, 200])
    def test_a_kill_loses_and_halves_nothing(self, rig: Rig, tmp_path: Path, acknowledged: int) -> None:
        body = {"scope": "consortium", "subject": ""}
        envelopes = [rig.consortium.sign("AA/officer", "stop.declared", body) for _ in range(1000)]
        corpus_file = tmp_path / "envelopes"
        corpus_file.write_bytes(b"\n".join(envelopes))
        told = _killed_after(rig.opener, corpus_file, acknowledged)
        ledger = rig.reopen()
        recorded = ledger.size - 1
        assert told <= recorded
        assert recorded % 10 == 0
        entries = ledger.read(0, ledger.size)
        assert [entry.envelope for entry in entries[1:]] == envelopes[:recorded]
        replay = Replay()
        replay.extend(entries, verified=True)
        replay.require(head_of(ledger.checkpoint()))
        known = ledger.append(envelopes)
        assert [answer.known for answer in known] == [True] * recorded + [False] * (1000 - recorded)


def _killed_after(opener: str, corpus_file: Path, acknowledged: int) -> int:
    """How many entries a process had acknowledged when it was killed in the middle of appending."""
    code = _KILLED.format(opener=opener)
    told = 0
    with subprocess.Popen([sys.executable, "-c", code, str(corpus_file)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told = int(line)
            if told >= acknowledged:
                process.kill()
                break
        # What was acknowledged before the kill arrived counts too.
        with suppress(ValueError):
            told = max([told, *(int(line) for line in process.stdout if line.endswith(b"\n"))])
    assert told >= acknowledged, "the process ended before it was killed; see its output"
    return told


def _stories(answers: Sequence[Appended]) -> list[tuple[int, str, Outcome]]:
    """Answers without the mark that they were known."""
    return [(answer.index, answer.digest, answer.outcome) for answer in answers]
