"""Promises: one spelling, one log, one envelope; what is hostile raises and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedhouse.chain_adapters.merkle_log.promises import check_promise, promise_text, verify_promise
from fedhouse.encoding import sha256
from fedhouse.errors import IntegrityError, SignatureError, VerificationError
from fedhouse.governance.merkle import leaf_hash
from fedhouse.governance.notes import SignedNote, parse_note, sign_note
from fedhouse.governance.sandbox import SandboxConsortium
from fedhouse.governance.trust import Trust

if TYPE_CHECKING:
    from conftest import House


def signed(consortium: SandboxConsortium, text: str) -> bytes:
    """A note by the log's key."""
    return SignedNote(text, (sign_note(text, consortium.origin, consortium.log),)).render()


def test_a_promise_names_leaf_place_and_time(house: House) -> None:
    (envelope, *_) = house.consortium.bootstrap()
    house.clock.advance(3)
    house.log.append([envelope])
    house.clock.advance(500)
    data = house.log.promise(sha256(envelope))
    promise = verify_promise(data, house.trust, envelope)
    assert (promise.origin, promise.index) == (house.consortium.origin, 1)
    assert promise.leaf == leaf_hash(envelope)
    assert promise.due == promise.time + 60 == house.clock() - 500 + 60
    # Asked again, it is the same one.
    assert house.log.promise(sha256(envelope)) == data


def test_only_what_is_recorded_is_promised(house: House) -> None:
    with pytest.raises(IntegrityError, match="recorded"):
        house.log.promise("ab" * 32)


def test_a_promise_is_about_one_envelope_and_by_one_log(house: House) -> None:
    one, other, *_ = house.consortium.bootstrap()
    house.log.append([one, other])
    data = house.log.promise(sha256(one))
    with pytest.raises(IntegrityError, match="another envelope"):
        verify_promise(data, house.trust, other)
    stranger = SandboxConsortium(seed="strangers", origin=house.consortium.origin)
    text = parse_note(data).text
    with pytest.raises(SignatureError):
        verify_promise(signed(stranger, text), house.trust, one)


def test_a_checkpoint_is_no_promise_and_a_promise_no_checkpoint(house: House) -> None:
    (one, *_) = house.consortium.bootstrap()
    house.log.append([one])
    with pytest.raises(IntegrityError):
        verify_promise(house.log.checkpoint(), house.trust, one)
    with pytest.raises(IntegrityError):
        house.trust.check(house.log.promise(sha256(one)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("promise/1", "promise/2"),
        ("index 1", "index 01"),
        ("index 1", "index -1"),
        ("index 1", "index 9999999999999999999"),
        ("time 1", "time 01"),
        ("time 1", "time 9999999"),
        ("leaf ", "leaf A"),
        ("leaf ", "Leaf "),
        ("sandbox.example/ledger", "sandbox.example/other"),
        ("\n", "\n\n"),
    ],
)
def test_a_promise_has_one_spelling(house: House, old: str, new: str) -> None:
    consortium = house.consortium
    (envelope, *_) = consortium.bootstrap()
    text = promise_text(consortium.origin, leaf_hash(envelope), 1, 1_790_000_000)
    verify_promise(signed(consortium, text), house.trust, envelope)
    with pytest.raises(IntegrityError):
        verify_promise(signed(consortium, text.replace(old, new, 1)), house.trust, envelope)


@given(st.one_of(st.binary(max_size=400), st.integers(0, 10**6)))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_hostile_bytes_raise_and_nothing_else(house: House, hostile: bytes | int) -> None:
    consortium = house.consortium
    text = promise_text(consortium.origin, leaf_hash(b"x"), 1, 1_790_000_000)
    whole = signed(consortium, text)
    if isinstance(hostile, int):
        place = hostile % len(whole)
        hostile = whole[:place] + bytes([whole[place] ^ (1 + hostile % 255)]) + whole[place + 1 :]
    with pytest.raises(VerificationError):
        verify_promise(hostile, house.trust, b"x")
    with pytest.raises(VerificationError):
        check_promise(hostile, house.log.checkpoint(), house.trust, lambda _: b"")


def test_a_checkpoint_that_is_not_final_convicts_nobody(house: House) -> None:
    (one, *rest) = house.consortium.bootstrap()
    house.log.append([one, *rest])
    promise = house.log.promise(sha256(one))
    house.clock.advance(100)
    with pytest.raises(IntegrityError, match="cosigned"):
        check_promise(promise, house.log.checkpoint(), house.trust, lambda _: bytes(32))
    assert Trust.of(house.log.state) == house.trust
