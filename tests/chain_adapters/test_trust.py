"""Trust: a file in one spelling, and what a ledger's state says about whom to believe."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedhouse.errors import ConfigurationError, IntegrityError, SignatureError, VerificationError
from fedhouse.governance.envelope import parse_envelope
from fedhouse.governance.ledger import Entry
from fedhouse.governance.notes import NoteKey, NoteKind
from fedhouse.governance.proof_files import Outcome
from fedhouse.governance.reducer import apply
from fedhouse.governance.replay import Replay
from fedhouse.governance.sandbox import SandboxConsortium
from fedhouse.governance.state import State
from fedhouse.governance.trust import Trust
from fedhouse.identity.signer import SoftwareSigner

if TYPE_CHECKING:
    from conftest import House


@pytest.fixture
def joined(house: House) -> House:
    """A house whose members have all joined."""
    house.log.append(house.consortium.bootstrap())
    return house


def test_the_file_of_a_trust(joined: House) -> None:
    trust = joined.trust
    lines = trust.render().decode().splitlines()
    assert lines[:2] == ["fedhouse-trust/1", f"consortium {joined.consortium.id}"]
    assert lines[3] == "colluding 1"
    assert [line.split()[1] for line in lines[4:]] == ["AA", "B6", "DL"]
    assert Trust.parse(trust.render()) == trust
    assert len(trust.fingerprint) == 64
    assert replace(trust, colluding=0).fingerprint != trust.fingerprint


def test_names_witnesses_of_active_members_by_entity() -> None:
    consortium = SandboxConsortium(("AA", "B6", "DL", "UA"), entities={"B6": "AA"})
    replay = Replay()
    envelopes = [consortium.founding(), *consortium.bootstrap()[:2]]
    replay.extend(
        Entry(index, envelope, Outcome(consortium.clock(), "accepted"))
        for index, envelope in enumerate(envelopes)
    )
    # UA has not joined.
    assert {entity: len(keys) for entity, keys in Trust.of(replay.state).witnesses.items()} == {
        "AA": 2,
        "DL": 1,
    }


def test_retired_and_revoked_keys_are_not_trusted(joined: House) -> None:
    consortium, before = joined.consortium, joined.trust
    new = SoftwareSigner.insecure_from_seed("ed25519", b"\x09" * 32)
    revoked = {"key": consortium.signer("B6/witness").public.key_id, "effective": joined.clock() + 10**6}
    answers = joined.log.append(
        [
            consortium.sign("AA/witness", "key.rotated", {"binding": consortium.binding("AA/witness", new)}),
            consortium.sign("B6/admin", "key.revoked", revoked),
        ]
    )
    assert all(answer.accepted for answer in answers)
    after = joined.trust.witnesses
    assert [key.public for key in after["AA"]] == [new.public]
    assert "B6" not in after
    assert after["DL"] == before.witnesses["DL"]


def test_no_member_can_spoil_the_trust_by_binding_a_key(joined: House) -> None:
    consortium, before = joined.consortium, joined.trust
    other = SoftwareSigner.insecure_from_seed("ml-dsa-65", b"\x09" * 32)
    answers = joined.log.append(
        [
            consortium.sign("AA/admin", "key.bound", {"binding": consortium.binding("AA/witness-2", other)}),
            consortium.sign(
                "AA/admin", "key.bound", {"binding": consortium.binding("AA/witness-3", consortium.log)}
            ),
        ]
    )
    assert all(answer.accepted for answer in answers)
    assert joined.trust == before
    joined.cosign()
    assert joined.log.finality(joined.log.size).final


def test_names_that_are_too_long_for_a_note_are_left_out() -> None:
    member = "M" * 64
    consortium = SandboxConsortium((member, "B6"), origin="o" * 128)
    state = apply(State(), parse_envelope(consortium.founding()), consortium.clock()).state
    bound = consortium.sign(
        f"{member}/admin",
        "key.bound",
        {"binding": consortium.binding(f"{member}/witness-{'x' * 56}")},
    )
    state = apply(state, parse_envelope(bound), consortium.clock()).state
    assert len(state.keys.of_member(member, "witness")) == 2
    assert len(Trust.of(state).witnesses[member]) == 1


def test_a_state_without_a_consortium_names_nobody() -> None:
    with pytest.raises(IntegrityError, match="founding"):
        Trust.of(State())


def test_checks_a_checkpoint_and_counts(joined: House) -> None:
    joined.log.publish(joined.public)
    head, finality = joined.trust.check(joined.log.checkpoint())
    assert (head.size, finality.cosigners, finality.final) == (9, (), False)
    joined.cosign()
    _, finality = joined.trust.check(joined.log.checkpoint(), strict=True)
    assert finality.cosigners == ("AA", "B6", "DL")
    other = SandboxConsortium(seed="strangers", origin=joined.consortium.origin)
    key = NoteKey(joined.trust.origin, NoteKind.ED25519, other.log.public)
    with pytest.raises(SignatureError):
        replace(joined.trust, log=key).check(joined.log.checkpoint())
    # A line by a key that this reader does not know.
    fewer = replace(joined.trust, witnesses={"AA": joined.trust.witnesses["AA"]}, colluding=0)
    assert fewer.check(joined.log.checkpoint())[1].final
    with pytest.raises(IntegrityError, match="not known"):
        fewer.check(joined.log.checkpoint(), strict=True)


def test_where_all_may_collude_nothing_is_final(joined: House) -> None:
    joined.cosign()
    hopeless = replace(joined.trust, colluding=3)
    with pytest.raises(ConfigurationError):
        hopeless.check(joined.log.checkpoint())
    assert not hopeless.progress(joined.log.checkpoint()).final


@pytest.mark.parametrize("how", ["origin", "log kind", "witness kind", "log is a witness", "twice"])
def test_a_trust_that_contradicts_itself_is_refused(joined: House, how: str) -> None:
    trust = joined.trust
    key = trust.witnesses["AA"][0]
    cosigning = NoteKey(trust.origin, NoteKind.COSIGNATURE, trust.log.public)
    signing = NoteKey(key.name, NoteKind.ED25519, key.public)
    changes = {
        "origin": {"origin": "another.example/log"},
        "log kind": {"log": cosigning},
        "witness kind": {"witnesses": {"AA": (signing,)}},
        "log is a witness": {"witnesses": {"AA": (cosigning,)}},
        "twice": {"witnesses": {"AA": (key,), "B6": (key,)}},
    }
    with pytest.raises(IntegrityError):
        replace(trust, **changes[how])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("trust/1", "trust/2"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text + "\n",
        lambda text: text[:-1],
        lambda text: text.replace("colluding 1", "colluding 01"),
        lambda text: text.replace("colluding 1", "colluding -1"),
        lambda text: text.replace("consortium ", "consortium A"),
        lambda text: text.replace("consortium ", "consortium  "),
        lambda text: text.replace("witness AA", "witness ÄÄ"),
        lambda text: text.replace("witness AA", "witness ZZ"),
        lambda text: text + "witness AA nonsense\n",
        lambda text: text + text.splitlines(keepends=True)[-1],
        lambda text: text + "note to self\n",
        lambda text: "\n".join([*text.split("\n")[:4], *reversed(text.split("\n")[4:-1]), ""]),
        lambda text: "",
        lambda text: text + "x" * 2**20,
    ],
)
def test_a_trust_file_has_one_spelling(joined: House, change) -> None:  # type: ignore[no-untyped-def]
    text = joined.trust.render().decode()
    with pytest.raises(IntegrityError):
        Trust.parse(change(text).encode())


@given(st.one_of(st.binary(max_size=300), st.integers(0, 10**6)))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_hostile_bytes_raise_or_are_a_trust(house: House, hostile: bytes | int) -> None:
    whole = house.trust.render()
    if isinstance(hostile, int):
        place = hostile % len(whole)
        hostile = whole[:place] + bytes([whole[place] ^ (1 + hostile % 255)]) + whole[place + 1 :]
    try:
        trust = Trust.parse(hostile)
    except VerificationError:
        return
    assert trust.render() == hostile
    assert trust != house.trust
