"""Replays: what a ledger says is checked entry by entry, and an error leaves the replay as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from fedhouse.errors import (
    EnvelopeError,
    HistoryError,
    IntegrityError,
    SignatureError,
    UnknownSignerError,
    VerificationError,
)
from fedhouse.governance import replay as module
from fedhouse.governance.checkpoints import Extensions, LogCheckpoint
from fedhouse.governance.envelope import NO_CONSORTIUM, parse_envelope
from fedhouse.governance.event import ACCEPTED, Effect
from fedhouse.governance.ledger import Entry
from fedhouse.governance.merkle import Frontier, leaf_hash
from fedhouse.governance.proof_files import Outcome
from fedhouse.governance.reducer import apply
from fedhouse.governance.replay import Replay, verify_claims
from fedhouse.governance.sandbox import START, SandboxConsortium
from fedhouse.governance.state import State
from fedhouse.identity.signer import SoftwareSigner

STOP = {"scope": "consortium", "subject": ""}


def entries_of(envelopes: Sequence[bytes]) -> list[Entry]:
    """The entries of a ledger that orders these a second apart."""
    state, found = State(), []
    for index, data in enumerate(envelopes):
        applied = apply(state, parse_envelope(data), START + index)
        state = applied.state
        found.append(Entry(index, data, Outcome(START + index, applied.verdict.code)))
    return found


@cache
def short() -> tuple[Entry, ...]:
    """A consortium and a job; one event is refused."""
    box = SandboxConsortium()
    begun = [box.founding(), *box.bootstrap(), box.sign("AA/agent", "stop.declared", STOP)]
    return tuple(entries_of([*begun, *box.job_events()]))


@cache
def long() -> tuple[Entry, ...]:
    """More entries than are verified in one process."""
    box = SandboxConsortium()
    envelopes = [box.founding(), *box.bootstrap()]
    envelopes += [box.sign("AA/agent", "stop.declared", STOP, sequence=n) for n in range(1, 4200)]
    return tuple(entries_of(envelopes))


def described(replay: Replay) -> tuple[Any, ...]:
    """All that a replay knows."""
    return replay.describe(), replay.time


def fresh(entries: Sequence[Entry] = ()) -> Replay:
    """A replay of some entries."""
    replay = Replay()
    replay.extend(entries)
    return replay


def test_a_replay_gives_what_a_fresh_computation_gives() -> None:
    state, leaves, outcomes = State(), Frontier(), Frontier()
    for entry in short():
        state = apply(state, parse_envelope(entry.envelope), entry.outcome.time).state
        leaves.append(leaf_hash(entry.envelope))
        outcomes.append(leaf_hash(entry.outcome.leaf))
    told = fresh(short()).describe()
    assert told == (len(short()), leaves.root(), outcomes.root(), bytes.fromhex(state.digest()))


@pytest.mark.parametrize("cut", [0, 1, 7, 13, 40])
def test_in_parts_or_at_once_verified_or_not_it_is_the_same(cut: int) -> None:
    whole, parts, trusted = fresh(short()), fresh(short()[:cut]), Replay()
    parts.extend(short()[cut:])
    trusted.extend(iter(short()), verified=True)
    assert described(whole) == described(parts) == described(trusted)


def test_effects_are_told_once() -> None:
    box = SandboxConsortium()
    entries = entries_of([box.founding(), *box.bootstrap(), box.sign("B6/officer", "stop.declared", STOP)])
    replay = Replay()
    assert replay.extend(entries[:-1]) == []
    assert replay.extend(entries[-1:]) == [Effect("stop-work", "")]
    assert replay.extend([]) == []


def _verdict(code: str) -> Callable[[Entry], Entry]:
    return lambda entry: replace(entry, outcome=replace(entry.outcome, verdict=code))


def _time(seconds: int) -> Callable[[Entry], Entry]:
    return lambda entry: replace(entry, outcome=replace(entry.outcome, time=entry.outcome.time + seconds))


def _index(ahead: int) -> Callable[[Entry], Entry]:
    return lambda entry: replace(entry, index=entry.index + ahead)


def _signature(entry: Entry) -> Entry:
    # The last character of the signature but the padding carries bits; `B` for `A` keeps its form.
    cut = entry.envelope.index(b'"sig":"') + 8
    other = b"B" if entry.envelope[cut : cut + 1] != b"B" else b"C"
    return replace(entry, envelope=entry.envelope[:cut] + other + entry.envelope[cut + 1 :])


def _stranger(entry: Entry) -> Entry:
    envelope = parse_envelope(entry.envelope)
    other = SoftwareSigner.insecure_from_seed("ed25519", b"\x01" * 32).public.key_id
    return replace(entry, envelope=entry.envelope.replace(envelope.key_id.encode(), other.encode()))


def _another_key(entry: Entry) -> Entry:
    envelope = parse_envelope(entry.envelope)
    other = SandboxConsortium().signer("DL/owner").public.key_id
    return replace(entry, envelope=entry.envelope.replace(envelope.key_id.encode(), other.encode()))


def _encoding(entry: Entry) -> Entry:
    return replace(entry, envelope=entry.envelope + b"\n")


LIES: dict[str, tuple[Callable[[Entry], Entry], type[VerificationError]]] = {
    "another verdict": (_verdict("stopped"), IntegrityError),
    "a verdict that there is not": (_verdict("perhaps"), IntegrityError),
    "a time that runs backwards": (_time(-100), HistoryError),
    "a time long ago": (_time(-(10**9)), HistoryError),
    "an index too high": (_index(1), HistoryError),
    "an index too low": (_index(-1), HistoryError),
    "a bad signature": (_signature, SignatureError),
    "a stranger's key": (_stranger, UnknownSignerError),
    "another member's key": (_another_key, SignatureError),
    "another encoding": (_encoding, EnvelopeError),
}


@pytest.mark.parametrize(("lie", "kind"), LIES.values(), ids=LIES)
@pytest.mark.parametrize("place", [5, 10, 30])
def test_a_lie_is_told_with_its_place_and_leaves_no_trace(
    lie: Callable[[Entry], Entry], kind: type[VerificationError], place: int
) -> None:
    entries, replay = list(short()), fresh(short()[:3])
    before = described(replay)
    entries[place] = lie(entries[place])
    with pytest.raises(kind, match=rf"^Entry {place}\b|given where {place} is due") as caught:
        replay.extend(entries[3:])
    assert caught.value.mend
    assert described(replay) == before
    replay.extend(short()[3:])
    assert described(replay) == described(fresh(short()))


def test_a_verdict_turned_round_is_noticed_either_way() -> None:
    refused = next(entry.index for entry in short() if entry.outcome.verdict != ACCEPTED)
    for place, verdict in ((refused, ACCEPTED), (refused + 1, "role"), (refused, "stopped")):
        entries = list(short())
        entries[place] = _verdict(verdict)(entries[place])
        with pytest.raises(IntegrityError, match=f"Entry {place}"):
            fresh(entries)


def test_entries_left_out_doubled_or_swapped_are_noticed() -> None:
    entries = list(short())
    for changed in (
        entries[1:],
        entries[:5] + entries[6:],
        [*entries[:5], entries[4], *entries[5:]],
        [*entries[:5], entries[6], entries[5], *entries[7:]],
    ):
        with pytest.raises(HistoryError):
            fresh(changed)
        # With other numbers it is another history: the rules, or the checkpoint, tell.
        renumbered = [replace(entry, index=index) for index, entry in enumerate(changed)]
        replay = Replay()
        with pytest.raises(VerificationError):  # noqa: PT012 - one of the two
            replay.extend(renumbered)
            replay.require(checkpoint(fresh(entries)))


def test_verified_leaves_out_signatures_and_nothing_else() -> None:
    for lie, kind in LIES.values():
        entries = list(short())
        entries[10] = lie(entries[10])
        replay = Replay()
        if lie is _signature:
            replay.extend(entries, verified=True)
            assert replay.describe()[1] != fresh(short()).describe()[1], "and the tree still tells"
            continue
        with pytest.raises((kind, IntegrityError)):
            replay.extend(entries, verified=True)
        assert described(replay) == described(Replay())


def test_an_interruption_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = fresh(short()[:3])
    before = described(replay)

    def interrupted(entry: Any, *rest: Any) -> Any:
        if entry.index == 20:
            raise KeyboardInterrupt
        return real(replay, entry, *rest)

    real = Replay._one
    monkeypatch.setattr(replay, "_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replay.extend(short()[3:])
    assert described(replay) == before
    monkeypatch.undo()
    replay.extend(short()[3:])
    assert described(replay) == described(fresh(short()))


def test_entries_that_do_not_arrive_leave_no_trace() -> None:
    def broken() -> Iterator[Entry]:
        yield from short()[:10]
        raise OSError

    replay = Replay()
    with pytest.raises(OSError):  # noqa: PT011 - as it came
        replay.extend(broken())
    assert described(replay) == described(Replay())


def test_a_refused_founding_before_the_real_one_is_replayed() -> None:
    box = SandboxConsortium()
    body = dict(parse_envelope(box.founding()).statement.body)
    refused = box.sign("AA/owner", "consortium.created", body, consortium=NO_CONSORTIUM, sequence=1)
    entries = entries_of([refused, box.founding()])
    assert [entry.outcome.verdict for entry in entries] == ["role", ACCEPTED]
    assert fresh(entries).state.consortium.id == box.id


def checkpoint(replay: Replay, **changes: Any) -> LogCheckpoint:
    """The checkpoint that a log would sign of what was replayed."""
    size, root, outcomes, state = replay.describe()
    told: dict[str, Any] = {
        "size": size,
        "root": root,
        "time": replay.time,
        "outcomes": outcomes,
        "state": state,
    }
    told |= changes
    lines = Extensions(told["time"], told["outcomes"], told["state"]).lines
    return LogCheckpoint("sandbox.example/ledger", told["size"], told["root"], lines)


def test_a_checkpoint_is_of_exactly_what_was_replayed() -> None:
    replay = fresh(short())
    replay.require(checkpoint(replay))
    replay.require(checkpoint(replay, time=replay.time + 1000))
    for changes, kind in (
        ({"size": replay.size - 1}, IntegrityError),
        ({"size": replay.size + 1}, IntegrityError),
        ({"root": b"x" * 32}, HistoryError),
        ({"outcomes": b"x" * 32}, IntegrityError),
        ({"state": b"x" * 32}, IntegrityError),
        ({"state": bytes.fromhex(State().digest())}, IntegrityError),
        ({"time": replay.time - 1}, HistoryError),
    ):
        with pytest.raises(kind):
            replay.require(checkpoint(replay, **changes))


def test_processes_give_what_one_gives() -> None:
    assert len(long()) > module._ALONE
    alone, together = Replay(), Replay()
    effects = alone.extend(long())
    assert together.extend(long(), parallel=2) == effects
    assert described(together) == described(alone)


def test_processes_find_the_first_lie_and_leave_no_trace() -> None:
    lies: list[tuple[dict[int, Callable[[Entry], Entry]], type[VerificationError], int]] = [
        ({2500: _signature}, SignatureError, 2500),
        ({2500: _signature, 1200: _signature, 4000: _verdict(ACCEPTED)}, SignatureError, 1200),
        ({3100: _verdict(ACCEPTED), 3200: _signature}, IntegrityError, 3100),
        ({3100: _verdict(ACCEPTED), 3050: _signature}, SignatureError, 3050),
    ]
    before = long()[:2]
    for changes, kind, place in lies:
        entries = list(long())
        for where, lie in changes.items():
            entries[where] = lie(entries[where])
        replay = fresh(before)
        with pytest.raises(kind, match=f"^Entry {place}: "):
            replay.extend(entries[2:], parallel=2)
        assert described(replay) == described(fresh(before))


def test_claims_are_checked_one_by_one() -> None:
    signer = SoftwareSigner.insecure_from_seed("ed25519", b"\x07" * 32)
    envelopes = [parse_envelope(SandboxConsortium().founding())]
    good = [
        ("ed25519", SandboxConsortium().signer("AA/admin").public.raw, envelope.signature, envelope.payload)
        for envelope in envelopes
    ]
    assert verify_claims(good) is None
    other = [*good, ("ed25519", signer.public.raw, good[0][2], good[0][3])]
    assert verify_claims(other) == 1
    assert verify_claims([]) is None
