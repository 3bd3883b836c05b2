"""Envelopes have one encoding: everything else that says the same is refused, and so is all that lies."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fedhouse.errors import EnvelopeError, SignatureError, UnknownSignerError
from fedhouse.governance import envelope as module
from fedhouse.governance.envelope import (
    MAX_ENVELOPE_BYTES,
    MAX_INTEGER,
    NO_CONSORTIUM,
    PayloadRef,
    Statement,
    parse_envelope,
    parse_statement,
    pre_authentication,
    sign_statement,
)
from fedhouse.governance.reducer import admit, apply
from fedhouse.governance.sandbox import SandboxConsortium, named
from fedhouse.governance.state import State
from fedhouse.identity.signer import SoftwareSigner

SIGNER = SoftwareSigner.insecure_from_seed("ed25519", b"\x07" * 32)
STATEMENT = Statement(
    event="job.approved",
    signer="AA/steward-1",
    consortium="ab" * 32,
    sequence=7,
    issued=1_790_000_000,
    subjects=(("job", "cd" * 32),),
    body={"bundle": "ef" * 32, "job": "cd" * 32, "n": 12, "note": 'é "quoted" \\ \n /'},
    payloads=(PayloadRef("reason", "01" * 32, "ten-years"),),
)
PAYLOAD = STATEMENT.to_bytes()
GOOD = sign_statement(STATEMENT, SIGNER)


def wrapped(payload: bytes) -> bytes:
    """Bytes in an envelope as `sign_statement` makes it, signed, whatever they are."""
    signature = SIGNER.sign(pre_authentication(payload))
    return (
        b'{"payload":"%s","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"%s","sig":"%s"}]}'
        % (base64.b64encode(payload), SIGNER.public.key_id.encode(), base64.b64encode(signature))
    )


def edited(change: Callable[[dict[str, Any]], None]) -> bytes:
    """The good envelope with its statement changed, canonical and signed."""
    value = json.loads(PAYLOAD)
    change(value)
    return wrapped(json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode())


def test_what_was_signed_comes_back() -> None:
    envelope = parse_envelope(GOOD)
    assert envelope.statement == STATEMENT
    assert envelope.raw == GOOD
    assert envelope.payload == PAYLOAD
    assert envelope.key_id == SIGNER.public.key_id
    envelope.check_signature(SIGNER.public)
    assert wrapped(PAYLOAD) == GOOD
    assert sign_statement(envelope.statement, SIGNER) == GOOD


def test_the_signed_bytes_are_those_of_dsse() -> None:
    # The example of the DSSE specification, version 1.0.2, with our payload type.
    assert pre_authentication(b"hello world") == b"DSSEv1 28 application/vnd.in-toto+json 11 hello world"


def test_a_repr_shows_neither_bytes_nor_signature() -> None:
    shown = repr(parse_envelope(GOOD))
    assert "payload=" not in shown
    assert "signature=" not in shown


def test_the_statement_is_one_of_in_toto() -> None:
    told = json.loads(PAYLOAD)
    assert told["_type"] == "https://in-toto.io/Statement/v1"
    assert told["predicateType"] == "urn:fedhouse:event:job.approved:1"
    assert told["subject"] == [{"digest": {"sha256": "cd" * 32}, "name": "job"}]


def _set(*path: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(value: Any) -> None:
        for step in path[:-1]:
            value = value[step]
        value[path[-1]] = to

    return change


def _drop(*path: str | int) -> Callable[[dict[str, Any]], None]:
    def change(value: Any) -> None:
        for step in path[:-1]:
            value = value[step]
        del value[path[-1]]

    return change


SUBJECT = {"name": "job", "digest": {"sha256": "cd" * 32}}
MALFORMED: dict[str, Callable[[dict[str, Any]], None]] = {
    "another statement type": _set("_type", to="https://in-toto.io/Statement/v0.1"),
    "no statement type": _drop("_type"),
    "an unknown key": _set("extra", to=1),
    "an unknown key in the predicate": _set("predicate", "extra", to=1),
    "an unknown key in a subject": _set("subject", 0, "uri", to="x"),
    "an unknown key in a digest": _set("subject", 0, "digest", "sha512", to="00"),
    "another hash": _set("subject", 0, "digest", to={"sha512": "00" * 64}),
    "an unknown key in a payload": _set("predicate", "payloads", 0, "size", to=1),
    "no predicate": _drop("predicate"),
    "a predicate that is a list": _set("predicate", to=[]),
    "a predicate that is null": _set("predicate", to=None),
    "a missing key in the predicate": _drop("predicate", "payloads"),
    "a missing key in a payload": _drop("predicate", "payloads", 0, "retention"),
    "no subject": _set("subject", to=[]),
    "nine subjects": _set("subject", to=[SUBJECT] * 9),
    "a subject that is a text": _set("subject", to="job"),
    "subjects in an object": _set("subject", to={"0": SUBJECT}),
    "a subject's digest in capitals": _set("subject", 0, "digest", "sha256", to="CD" * 32),
    "a subject's digest too short": _set("subject", 0, "digest", "sha256", to="cd" * 31),
    "a subject's name in capitals": _set("subject", 0, "name", to="Job"),
    "a subject's name with a line break": _set("subject", 0, "name", to="job\n"),
    "nine payloads": _set("predicate", "payloads", to=[STATEMENT.payloads[0].to_json()] * 9),
    "payloads that are null": _set("predicate", "payloads", to=None),
    "another vocabulary": _set("predicateType", to="https://slsa.dev/provenance/v1"),
    "no version": _set("predicateType", to="urn:fedhouse:event:job.approved"),
    "version 0": _set("predicateType", to="urn:fedhouse:event:job.approved:0"),
    "version 01": _set("predicateType", to="urn:fedhouse:event:job.approved:01"),
    "version 1000": _set("predicateType", to="urn:fedhouse:event:job.approved:1000"),
    "a type with a line break": _set("predicateType", to="urn:fedhouse:event:job.approved:1\n"),
    "a type in capitals": _set("predicateType", to="urn:fedhouse:event:Job.approved:1"),
    "a type that is a number": _set("predicateType", to=1),
    "sequence 0": _set("predicate", "sequence", to=0),
    "a negative sequence": _set("predicate", "sequence", to=-1),
    "a sequence that is true": _set("predicate", "sequence", to=True),
    "a sequence that is a text": _set("predicate", "sequence", to="7"),
    "no sequence": _set("predicate", "sequence", to=None),
    "a time before 1970": _set("predicate", "issued", to=-1),
    "a time that is a text": _set("predicate", "issued", to="1790000000"),
    "a time that is false": _set("predicate", "issued", to=False),
    "a body that is a list": _set("predicate", "body", to=[]),
    "a body that is null": _set("predicate", "body", to=None),
    "a signer without a name": _set("predicate", "signer", to="AA/"),
    "a signer without a member": _set("predicate", "signer", to="AA"),
    "a signer with two names": _set("predicate", "signer", to="AA/a/b"),
    "a signer that leaves its folder": _set("predicate", "signer", to="../admin"),
    "a signer with a line break": _set("predicate", "signer", to="AA/admin\n"),
    "a signer in another script": _set("predicate", "signer", to="АА/admin"),  # noqa: RUF001
    "a signer of 65 letters": _set("predicate", "signer", to="A" * 65 + "/admin"),
    "a consortium in capitals": _set("predicate", "consortium", to="AB" * 32),
    "no consortium": _set("predicate", "consortium", to=""),
    "a key in the body that is not ASCII": _set("predicate", "body", "é", to=1),
    "such a key deep in it": _set("predicate", "body", "deep", to=[{"a": [{"é": 1}]}]),
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_statement_is_refused_though_canonical_and_signed(
    change: Callable[[dict[str, Any]], None],
) -> None:
    data = edited(change)
    with pytest.raises(EnvelopeError):
        parse_envelope(data)


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b"null", b"0", b'"x"', b"true", b"[[[[]]]]", b"\xff"])
def test_what_is_no_statement_is_refused(payload: bytes) -> None:
    with pytest.raises(EnvelopeError):
        parse_statement(payload)


@pytest.mark.parametrize("value", [0.5, float("nan"), 2**53, b"x", {1, 2}, object(), {"a": 1.0}, "\ud800"])
def test_what_an_event_cannot_carry_is_never_signed(value: object) -> None:
    with pytest.raises(EnvelopeError):
        sign_statement(replace(STATEMENT, body={"n": value}), SIGNER)


@pytest.mark.parametrize("number", [0, 1, -1, MAX_INTEGER, -MAX_INTEGER])
def test_integers_to_the_limit_come_back(number: int) -> None:
    data = sign_statement(replace(STATEMENT, body={"n": number}, sequence=MAX_INTEGER), SIGNER)
    assert parse_envelope(data).statement.body == {"n": number}


@pytest.mark.parametrize(
    "change",
    [
        {"signer": "AA"},
        {"consortium": ""},
        {"sequence": 0},
        {"issued": -1},
        {"subjects": ()},
        {"event": "job"},
        {"version": 0},
    ],
)
def test_what_nobody_could_read_is_never_signed(change: dict[str, Any]) -> None:
    with pytest.raises(EnvelopeError):
        sign_statement(replace(STATEMENT, **change), SIGNER)


def test_an_envelope_may_have_65535_bytes_and_no_more() -> None:
    def padded(size: int) -> Statement:
        return replace(STATEMENT, body={"n": "x" * size})

    # Base64 makes four bytes of three, so what fits is within three of this.
    fitting = next(size for size in range(49_000, 48_000, -1) if _fits(padded(size)))
    data = sign_statement(padded(fitting), SIGNER)
    assert MAX_ENVELOPE_BYTES - 4 < len(data) <= MAX_ENVELOPE_BYTES
    assert parse_envelope(data).statement == padded(fitting)
    with pytest.raises(EnvelopeError, match="longer than 65535"):
        sign_statement(padded(fitting + 4), SIGNER)
    with pytest.raises(EnvelopeError, match="longer than 65535"):
        parse_envelope(wrapped(padded(fitting + 4).to_bytes()))


def _fits(statement: Statement) -> bool:
    return len(wrapped(statement.to_bytes())) <= MAX_ENVELOPE_BYTES


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """The payload with so many levels inside its body: two levels lie around that."""
    return PAYLOAD.replace(b'"n":12', b'"n":' + opening * depth + b"0" + closing * depth)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"":[', b"]}"), (b'[{"a":', b"}]")])
@pytest.mark.parametrize("depth", [40, 500, 20_000])
def test_deep_nesting_is_refused_whatever_the_stack(opening: bytes, closing: bytes, depth: int) -> None:
    payload = nested(min(depth, 40_000 // len(opening + closing)), opening, closing)
    with pytest.raises(EnvelopeError):
        parse_statement(payload)

    def deeper(calls: int) -> None:
        if calls:
            deeper(calls - 1)
        else:
            with pytest.raises(EnvelopeError):
                parse_statement(payload)

    deeper(500)


def test_nesting_is_limited_where_every_process_still_follows() -> None:
    # Three levels lie outside: the statement, its predicate and its body.
    fitting = module.MAX_DEPTH - 3
    assert parse_statement(nested(fitting)).body["n"]
    deep: Any = 0
    for _ in range(20_000):
        deep = [deep]
    with pytest.raises(EnvelopeError, match="nested deeper"):
        sign_statement(replace(STATEMENT, body={"n": deep}), SIGNER)
    with pytest.raises(EnvelopeError):
        parse_statement(nested(fitting + 1))
    # Many brackets side by side, or in a text, are not deep.
    assert parse_statement(PAYLOAD.replace(b'"n":12', b'"n":[' + b",".join([b"[]"] * 500) + b"]"))
    assert parse_statement(PAYLOAD.replace(b'"n":12', b'"n":"' + b'[{\\"[\\\\' * 500 + b'"'))


def test_every_single_bit_change_is_noticed() -> None:
    sandbox = SandboxConsortium(("AA",))
    state = apply(State(), parse_envelope(sandbox.founding()), sandbox.clock()).state
    good = sandbox.sign("AA/officer", "stop.declared", {"scope": "consortium", "subject": ""})
    assert admit(state, parse_envelope(good)).actor == "AA/officer"
    seen = set()
    for place in range(len(good) * 8):
        changed = bytearray(good)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises((EnvelopeError, SignatureError, UnknownSignerError)) as caught:
            admit(state, parse_envelope(bytes(changed)))
        seen.add(caught.type)
    assert seen == {EnvelopeError, SignatureError, UnknownSignerError}


ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.mark.parametrize(
    "change",
    [
        lambda sig: sig[:-1],
        lambda sig: sig + b"\0",
        lambda sig: b"",
        lambda sig: bytes(64),
        lambda sig: sig[:32] + ((int.from_bytes(sig[32:], "little") + ORDER) % 2**256).to_bytes(32, "little"),
        lambda sig: sig[32:] + sig[:32],
    ],
    ids=["short", "long", "empty", "zero", "the other s", "halves swapped"],
)
def test_another_spelling_of_the_signature_is_refused(change: Callable[[bytes], bytes]) -> None:
    envelope = parse_envelope(GOOD)
    with pytest.raises(SignatureError):
        replace(envelope, signature=change(envelope.signature)).check_signature(SIGNER.public)


def test_a_signature_is_over_type_and_length_too() -> None:
    envelope = parse_envelope(GOOD)
    for signed in (PAYLOAD, b"DSSEv1 " + PAYLOAD, b"application/vnd.in-toto+json" + PAYLOAD):
        with pytest.raises(SignatureError):
            replace(envelope, signature=SIGNER.sign(signed)).check_signature(SIGNER.public)


def test_the_founding_envelope_and_no_other_names_no_consortium() -> None:
    sandbox = SandboxConsortium(("AA",))
    assert parse_envelope(sandbox.founding()).statement.consortium == NO_CONSORTIUM
    assert sandbox.id == parse_envelope(sandbox.founding()).digest
    data = sandbox.sign("AA/admin", "member.left", {})
    assert parse_envelope(data).statement.consortium == sandbox.id
    assert named("job") != sandbox.id
