"""The suite that everything passes from which a ledger's entries can be read: ledgers, replicas.

Subclass `ReadingContract` in a test module and give the fixture `recorded`: a reader of the history that
`corpus` makes, all of it final.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import pytest

from fedhouse.encoding import sha256
from fedhouse.errors import IntegrityError, VerificationError
from fedhouse.governance.checkpoints import Finality, LogCheckpoint, parse_checkpoint
from fedhouse.governance.ledger import Entry
from fedhouse.governance.merkle import Frontier, leaf_hash, verify_consistency, verify_inclusion
from fedhouse.governance.notes import parse_note
from fedhouse.governance.proof_files import Outcome, ProofFile, ProvenOutcome, parse_outcome, parse_proof
from fedhouse.governance.replay import Replay
from fedhouse.governance.sandbox import SandboxConsortium
from fedhouse.governance.state import State
from fedhouse.governance.trust import Trust, verify_receipt


class Reader(Protocol):
    """The reading half of a `Ledger`."""

    kind: str

    @property
    def size(self) -> int: ...
    @property
    def state(self) -> State: ...
    def read(self, start: int, stop: int) -> tuple[Entry, ...]: ...
    def checkpoint(self) -> bytes: ...
    def finality(self, size: int) -> Finality: ...
    def prove_inclusion(self, index: int, size: int) -> tuple[bytes, ...]: ...
    def prove_consistency(self, old: int, new: int) -> tuple[bytes, ...]: ...
    def receipt(self, index: int) -> bytes: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Recorded:
    """What a reader has to show: all of it is final."""

    reader: Reader
    envelopes: tuple[bytes, ...]
    trust: Trust


def corpus(consortium: SandboxConsortium) -> list[bytes]:
    """A history after the founding: a whole job, with refusals in between."""
    stop = consortium.sign("B6/officer", "stop.declared", {"scope": "member", "subject": "B6"})
    lift = {"stop": sha256(stop)}
    return [
        *consortium.bootstrap(),
        consortium.sign("AA/agent", "stop.lifted", lift),  # refused: no person
        *consortium.job_events(rounds=2, evaluated=True),
        stop,
        consortium.sign("B6/officer", "stop.lifted", lift),  # refused: four eyes
        consortium.sign("B6/admin", "stop.lifted", lift),
        consortium.sign("AA/admin", "stop.lifted", lift),
    ]


class ReadingContract:
    """What may be read, and that it proves itself. Give the fixture `recorded`."""

    @pytest.fixture
    def recorded(self) -> Recorded:
        """A reader of a history as `corpus` makes it."""
        raise NotImplementedError("give the fixture `recorded`")

    def test_has_a_kind(self, recorded: Recorded) -> None:
        assert recorded.reader.kind

    def test_reads_what_was_recorded_in_order(self, recorded: Recorded) -> None:
        reader, envelopes = recorded.reader, recorded.envelopes
        entries = reader.read(0, reader.size)
        assert [entry.envelope for entry in entries] == list(envelopes)
        assert [entry.index for entry in entries] == list(range(len(envelopes)))
        for start, stop in ((0, 0), (0, 1), (3, 7), (len(envelopes) - 1, len(envelopes))):
            assert reader.read(start, stop) == entries[start:stop]

    @pytest.mark.parametrize(("start", "stop"), [(-1, 1), (2, 1), (0, 10**6), (10**6, 10**6)])
    def test_refuses_ranges_that_it_does_not_have(self, recorded: Recorded, start: int, stop: int) -> None:
        with pytest.raises(IntegrityError):
            recorded.reader.read(start, stop)

    def test_times_never_run_backwards(self, recorded: Recorded) -> None:
        times = [entry.outcome.time for entry in recorded.reader.read(0, recorded.reader.size)]
        assert times == sorted(times)
        assert len(set(times)) > 1

    def test_a_replay_gives_outcomes_state_and_checkpoint(self, recorded: Recorded) -> None:
        reader = recorded.reader
        replay = Replay()
        replay.extend(reader.read(0, reader.size))
        replay.require(head_of(reader.checkpoint()))
        assert replay.state.digest() == reader.state.digest()

    def test_refusals_are_in_the_log(self, recorded: Recorded) -> None:
        verdicts = {entry.outcome.verdict for entry in recorded.reader.read(0, recorded.reader.size)}
        assert {"accepted", "role", "four-eyes"} <= verdicts

    def test_all_of_it_is_final(self, recorded: Recorded) -> None:
        for size in (1, recorded.reader.size):
            assert recorded.reader.finality(size).final
        head, finality = recorded.trust.check(recorded.reader.checkpoint(), strict=True)
        assert head.size == recorded.reader.size
        finality.require()

    def test_finality_needs_entries(self, recorded: Recorded) -> None:
        with pytest.raises(IntegrityError):
            recorded.reader.finality(recorded.reader.size + 1)

    def test_every_receipt_verifies_offline(self, recorded: Recorded) -> None:
        for entry in recorded.reader.read(0, recorded.reader.size):
            receipt = recorded.reader.receipt(entry.index)
            assert verify_receipt(entry.envelope, receipt, recorded.trust) == entry.outcome

    def test_a_receipt_is_for_one_envelope(self, recorded: Recorded) -> None:
        receipt = recorded.reader.receipt(3)
        for index, envelope in enumerate(recorded.envelopes):
            if index != 3:
                with pytest.raises(IntegrityError):
                    verify_receipt(envelope, receipt, recorded.trust)

    def test_a_receipt_is_for_one_index_and_outcome(self, recorded: Recorded) -> None:
        envelope = recorded.envelopes[3]
        proof = parse_proof(recorded.reader.receipt(3))
        for changed in _changed(proof):
            with pytest.raises(VerificationError):
                verify_receipt(envelope, changed.render(), recorded.trust)

    def test_a_receipt_is_for_one_trust(self, recorded: Recorded) -> None:
        envelope, receipt = recorded.envelopes[3], recorded.reader.receipt(3)
        stranger = SandboxConsortium(seed="strangers", origin=recorded.trust.origin)
        replay = Replay()
        replay.extend([Entry(0, stranger.founding(), Outcome(stranger.clock(), "accepted"))])
        with pytest.raises(VerificationError):
            verify_receipt(envelope, receipt, Trust.of(replay.state))

    def test_inclusion_is_proved_for_every_size(self, recorded: Recorded) -> None:
        leaves = [leaf_hash(envelope) for envelope in recorded.envelopes]
        roots = list(_roots(leaves))
        for size in range(1, len(leaves) + 1):
            for index in {0, size // 3, size // 2, size - 1}:
                proof = recorded.reader.prove_inclusion(index, size)
                verify_inclusion(leaves[index], index, size, proof, roots[size])

    def test_consistency_is_proved_between_all_sizes(self, recorded: Recorded) -> None:
        roots = list(_roots([leaf_hash(envelope) for envelope in recorded.envelopes]))
        for new in range(1, len(roots)):
            for old in {0, 1, new // 2, new - 1, new}:
                proof = recorded.reader.prove_consistency(old, new)
                verify_consistency(old, roots[old], new, roots[new], proof)

    @pytest.mark.parametrize(("index", "size"), [(0, 10**6), (5, 5), (-1, 5), (0, 0)])
    def test_proves_no_inclusion_of_what_is_not_there(
        self, recorded: Recorded, index: int, size: int
    ) -> None:
        with pytest.raises(IntegrityError):
            recorded.reader.prove_inclusion(index, size)

    @pytest.mark.parametrize(("old", "new"), [(0, 10**6), (5, 4), (-1, 5)])
    def test_proves_no_consistency_of_what_is_not_there(self, recorded: Recorded, old: int, new: int) -> None:
        with pytest.raises(IntegrityError):
            recorded.reader.prove_consistency(old, new)


def head_of(note: bytes) -> LogCheckpoint:
    """What a checkpoint says; its signatures are not looked at."""
    return parse_checkpoint(parse_note(note).text)


def _roots(leaves: Sequence[bytes]) -> Iterator[bytes]:
    """The root of each size from 0 on."""
    frontier = Frontier()
    yield frontier.root()
    for leaf in leaves:
        frontier.append(leaf)
        yield frontier.root()


def _changed(proof: ProofFile) -> Iterator[ProofFile]:
    """Receipts that each say something else than `proof`."""
    assert proof.extra is not None
    proven = parse_outcome(proof.extra)
    time, verdict = proven.outcome.time, proven.outcome.verdict
    for outcome in (Outcome(time + 1, verdict), Outcome(time, "role"), Outcome(max(time - 1, 0), verdict)):
        extra = ProvenOutcome(outcome, proven.path).render()
        yield ProofFile(extra, proof.index, proof.path, proof.checkpoint)
    yield ProofFile(None, proof.index, proof.path, proof.checkpoint)
    for index in (proof.index - 1, proof.index + 1):
        yield ProofFile(proof.extra, index, proof.path, proof.checkpoint)
    for place in range(len(proof.path)):
        path = list(proof.path)
        path[place] = bytes(32)
        yield ProofFile(proof.extra, proof.index, tuple(path), proof.checkpoint)
    yield ProofFile(proof.extra, proof.index, proof.path[:-1], proof.checkpoint)
