"""Signed events as bytes: a DSSE envelope around an in-toto Statement, in one encoding.

An envelope's bytes are its identity: they are the leaf of the log. So there is exactly one encoding of
each (RFC 8785 canonical JSON inside, a fixed form outside, base64 that re-encodes to itself), and whatever
decodes to the same in another way is refused.

    {"payload":"…","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"…","sig":"…"}]}

The payload is a Statement whose predicate carries the event:

    {"_type": "https://in-toto.io/Statement/v1",
     "predicate": {"body": {…}, "consortium": "…", "issued": 1790000000, "payloads": [], "sequence": 7,
                   "signer": "AA/steward-1"},
     "predicateType": "urn:fedhouse:event:job.approved:1",
     "subject": [{"digest": {"sha256": "…"}, "name": "job"}]}

`sequence` counts the envelopes of a signer, `issued` is the signer's clock in whole seconds, `payloads`
names off-ledger texts by salted digests (`fedhouse.governance.payloads`). The consortium is the SHA-256 of
the envelope that founded it, zeros in that envelope itself; so nothing can be replayed elsewhere.

Integers are below 2^53 and there are no other numbers: amounts are decimal strings.

Sources: DSSE 1.0.2 (secure-systems-lab), in-toto Attestation Framework v1, RFC 8785, RFC 4648.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from fedhouse.errors import EnvelopeError
from fedhouse.identity.keys import PublicKey
from fedhouse.identity.signer import Signer

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
NO_CONSORTIUM: Final = "0" * 64
# Published entries carry a length of 16 bits.
MAX_ENVELOPE_BYTES: Final = 2**16 - 1
MAX_INTEGER: Final = 2**53 - 1
# Objects and lists inside one another. Far below what a stack allows, so that no process refuses what
# another reads; the deepest event, an invitation, has nine.
MAX_DEPTH: Final = 32
MAX_SUBJECTS: Final = 8
MAX_PAYLOADS: Final = 8

_OUTER = re.compile(
    rb'\{"payload":"([A-Za-z0-9+/]+={0,2})","payloadType":"application/vnd\.in-toto\+json",'
    rb'"signatures":\[\{"keyid":"([0-9a-f]{64})","sig":"([A-Za-z0-9+/]+={0,2})"\}\]\}'
)
_EVENT_TYPE = re.compile(r"urn:fedhouse:event:([a-z]+(?:-[a-z]+)*\.[a-z]+(?:-[a-z]+)*):([1-9][0-9]{0,2})")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ACTOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}/[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_LABEL = re.compile(r"[a-z]+(?:-[a-z]+)*")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_NO_BRACKETS = bytes(code for code in range(256) if code not in b"[]{}")
_KEYS_OF_STATEMENT = {"_type", "predicate", "predicateType", "subject"}
_KEYS_OF_PREDICATE = {"body", "consortium", "issued", "payloads", "sequence", "signer"}
_KEYS_OF_PAYLOAD = {"digest", "name", "retention"}


@dataclass(frozen=True, slots=True)
class PayloadRef:
    """An off-ledger text that an event names: the digest of salt and bytes, and how long it is kept."""

    name: str
    digest: str
    retention: str

    def to_json(self) -> dict[str, str]:
        """The reference as a JSON value."""
        return {"digest": self.digest, "name": self.name, "retention": self.retention}


@dataclass(frozen=True, slots=True)
class Statement:
    """What a signer says: an event of a consortium, before it is signed."""

    event: str
    """Family and name, for example `job.approved`; the version of its schema is `version`."""
    signer: str
    consortium: str
    sequence: int
    issued: int
    subjects: tuple[tuple[str, str], ...]
    """Name and SHA-256 of what the event is about, in order."""
    body: Mapping[str, Any]
    payloads: tuple[PayloadRef, ...] = ()
    version: int = 1

    def to_bytes(self) -> bytes:
        """The in-toto Statement, canonical.

        Raises
        ------
        EnvelopeError
            If it has what an event may not carry, a float for example.
        """
        value = {
            "_type": STATEMENT_TYPE,
            "predicate": {
                "body": dict(self.body),
                "consortium": self.consortium,
                "issued": self.issued,
                "payloads": [payload.to_json() for payload in self.payloads],
                "sequence": self.sequence,
                "signer": self.signer,
            },
            "predicateType": f"urn:fedhouse:event:{self.event}:{self.version}",
            "subject": [{"digest": {"sha256": digest}, "name": name} for name, digest in self.subjects],
        }
        try:
            data = _canonical(value)
        except RecursionError as error:
            raise _malformed(f"is nested deeper than {MAX_DEPTH} levels") from error
        parse_statement(data)  # an event that nobody could read must not be signed
        return data


@dataclass(frozen=True, slots=True)
class Envelope:
    """One well-formed envelope. That its signature is good is known only after `check_signature`."""

    raw: bytes = field(repr=False)
    digest: str
    """SHA-256 of the bytes: the name of this event."""
    key_id: str
    statement: Statement
    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    def check_signature(self, key: PublicKey) -> None:
        """Check the signature by `key`, which the caller has found under `key_id`.

        Raises
        ------
        SignatureError
            If it is by another key, or over other bytes.
        """
        key.verify(self.signature, pre_authentication(self.payload))


def pre_authentication(payload: bytes) -> bytes:
    """What DSSE signs: type and payload, each with its length."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign_statement(statement: Statement, signer: Signer) -> bytes:
    """The envelope of `statement`, signed.

    Raises
    ------
    EnvelopeError
        If the statement is malformed or the envelope longer than 65,535 bytes.
    """
    payload = statement.to_bytes()
    signature = signer.sign(pre_authentication(payload))
    data = (
        b'{"payload":"%s","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"%s","sig":"%s"}]}'
        % (base64.b64encode(payload), signer.public.key_id.encode(), base64.b64encode(signature))
    )
    if len(data) > MAX_ENVELOPE_BYTES:
        raise EnvelopeError(
            f"An event of {len(data)} bytes is longer than {MAX_ENVELOPE_BYTES}.",
            mend="Put long texts into the payload store.",
        )
    return data


def parse_envelope(data: bytes) -> Envelope:
    """The envelope in hostile bytes.

    Raises
    ------
    EnvelopeError
        If they are too long, malformed, or in another encoding than the one that is accepted.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise _malformed(f"is longer than {MAX_ENVELOPE_BYTES} bytes")
    found = _OUTER.fullmatch(data)
    if found is None:
        raise _malformed("is not of the one accepted form")
    payload, signature = _unbase64(found[1]), _unbase64(found[3])
    return Envelope(
        raw=data,
        digest=hashlib.sha256(data).hexdigest(),
        key_id=found[2].decode(),
        statement=parse_statement(payload),
        payload=payload,
        signature=signature,
    )


def parse_statement(payload: bytes) -> Statement:
    """The statement in hostile bytes, without the schema of its event.

    Raises
    ------
    EnvelopeError
        If they are malformed or not canonical.
    """
    _require_shallow(payload)
    try:
        value = _DECODER.decode(payload.decode())
        # Whatever parses to the same value in another way (spaces, duplicate keys, escapes, order)
        # differs from its canonical form.
        if orjson.dumps(value, option=orjson.OPT_SORT_KEYS) != payload:
            raise _malformed("is not canonical JSON (RFC 8785)")
        if not payload.isascii():
            _require_ascii_keys(value)
        return _statement(value)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _malformed(f"has a malformed statement ({type(error).__name__})") from error


def _require_shallow(payload: bytes) -> None:
    """Refuse deep nesting before it is decoded, by counting brackets outside strings."""
    if payload.count(b"[") + payload.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for bracket in _STRING.sub(b"", payload).translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise _malformed(f"is nested deeper than {MAX_DEPTH} levels")


def _statement(value: Any) -> Statement:
    predicate, event = value["predicate"], _EVENT_TYPE.fullmatch(value["predicateType"])
    if value["_type"] != STATEMENT_TYPE or event is None:
        raise _malformed("is of a type that is no event")
    if value.keys() != _KEYS_OF_STATEMENT or predicate.keys() != _KEYS_OF_PREDICATE:
        raise _malformed("has unknown or missing keys")
    sequence, issued, body = predicate["sequence"], predicate["issued"], predicate["body"]
    if type(sequence) is not int or sequence < 1 or type(issued) is not int or issued < 0:
        raise _malformed("has an impossible sequence number or time")
    if type(body) is not dict:
        raise _malformed("has no body")
    return Statement(
        event=event[1],
        signer=_match(_ACTOR, predicate["signer"]),
        consortium=_match(_DIGEST, predicate["consortium"]),
        sequence=sequence,
        issued=issued,
        subjects=_subjects(value["subject"]),
        body=body,
        payloads=_payloads(predicate["payloads"]),
        version=int(event[2]),
    )


def _subjects(value: Any) -> tuple[tuple[str, str], ...]:
    if type(value) is not list or not 1 <= len(value) <= MAX_SUBJECTS:
        raise _malformed(f"has not 1 to {MAX_SUBJECTS} subjects")
    found = []
    for item in value:
        if item.keys() != {"digest", "name"} or item["digest"].keys() != {"sha256"}:
            raise _malformed("has a malformed subject")
        found.append((_match(_LABEL, item["name"]), _match(_DIGEST, item["digest"]["sha256"])))
    return tuple(found)


def _payloads(value: Any) -> tuple[PayloadRef, ...]:
    if type(value) is not list or len(value) > MAX_PAYLOADS:
        raise _malformed(f"has more than {MAX_PAYLOADS} payloads")
    found = []
    for item in value:
        if item.keys() != _KEYS_OF_PAYLOAD:
            raise _malformed("has a malformed payload")
        found.append(
            PayloadRef(
                name=_match(_LABEL, item["name"]),
                digest=_match(_DIGEST, item["digest"]),
                retention=_match(_LABEL, item["retention"]),
            )
        )
    return tuple(found)


def _match(pattern: re.Pattern[str], text: str) -> str:
    if pattern.fullmatch(text) is None:
        raise _malformed("has a malformed name, label or digest")
    return text


def _canonical(value: Any) -> bytes:
    """RFC 8785 for values without floats whose keys are ASCII: there the standard encoder gives the same
    bytes, and so does `orjson`, which checks what was parsed (it would write NaN as null, so it must not
    write what is signed).

    Sorting by code points is sorting by UTF-16 units for ASCII keys, and the escapes are the same; the
    tests compare both with the `rfc8785` package. Other keys are refused.
    """
    try:
        return _ENCODER.encode(value).encode()
    except (ValueError, TypeError) as error:
        raise _malformed(f"cannot be written as canonical JSON ({type(error).__name__})") from error


def _require_ascii_keys(value: Any) -> None:
    if isinstance(value, dict):
        if not all(key.isascii() for key in value):
            raise _malformed("has a key that is not ASCII")
        for item in value.values():
            _require_ascii_keys(item)
    elif isinstance(value, list):
        for item in value:
            _require_ascii_keys(item)


def _unbase64(text: bytes) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise _malformed("has malformed base64") from error
    if base64.b64encode(data) != text:
        raise _malformed("has base64 that is not in its one spelling")
    return data


def _integer(text: str) -> int:
    value = int(text) if len(text) <= 17 else MAX_INTEGER + 1
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise ValueError("an integer beyond 2^53")
    return value


def _no_float(_: object) -> Any:
    raise ValueError("a number that is no integer")


# Made once: making them takes longer than a small event does.
_DECODER = json.JSONDecoder(parse_float=_no_float, parse_constant=_no_float, parse_int=_integer)
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True, default=_no_float
)


def _malformed(how: str) -> EnvelopeError:
    return EnvelopeError(f"An envelope {how}.", mend="Write events with fedhouse, and send them unchanged.")
