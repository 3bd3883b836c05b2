"""Envelopes against the `rfc8785` package, random statements, random bytes and changed good ones."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from fedhouse.errors import EnvelopeError, SignatureError
from fedhouse.governance.envelope import (
    MAX_INTEGER,
    PayloadRef,
    Statement,
    parse_envelope,
    parse_statement,
    pre_authentication,
    sign_statement,
)
from fedhouse.identity.signer import SoftwareSigner

SIGNER = SoftwareSigner.insecure_from_seed("ed25519", b"\x07" * 32)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
keys = st.text(st.characters(max_codepoint=127), max_size=6)
scalars = st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
labels = st.from_regex(r"[a-z]{1,5}(-[a-z]{1,5}){0,2}", fullmatch=True)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,9}", fullmatch=True)
statements = st.builds(
    Statement,
    event=st.builds("{}.{}".format, labels, labels),
    signer=st.builds("{}/{}".format, names, names),
    consortium=digests,
    sequence=st.integers(1, MAX_INTEGER),
    issued=st.integers(0, MAX_INTEGER),
    subjects=st.lists(st.tuples(labels, digests), min_size=1, max_size=8).map(tuple),
    body=st.dictionaries(keys, values, max_size=4),
    payloads=st.lists(st.builds(PayloadRef, labels, digests, labels), max_size=8).map(tuple),
    version=st.integers(1, 999),
)

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


@given(statements)
def test_any_statement_comes_back_and_is_canonical_by_another_package(statement: Statement) -> None:
    payload = statement.to_bytes()
    assert parse_statement(payload) == statement
    assert rfc8785.dumps(json.loads(payload)) == payload


@given(statements)
def test_any_envelope_comes_back_and_is_written_again_as_the_same_bytes(statement: Statement) -> None:
    data = sign_statement(statement, SIGNER)
    envelope = parse_envelope(data)
    envelope.check_signature(SIGNER.public)
    assert envelope.statement == statement
    assert sign_statement(envelope.statement, SIGNER) == data


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), scalars, max_size=4))
@example({"é": 1})
@example({"\x7f": 1, "\x00": 2})
@example({"\U0001f600": 1, "\ufffd": 2})  # the order by UTF-16 units, and by code points, differ here
def test_keys_that_would_sort_differently_are_refused_and_the_rest_agrees(body: dict[str, Any]) -> None:
    value = json.loads(PAYLOAD)
    value["predicate"]["body"] = body
    canonical = rfc8785.dumps(value)
    if all(key.isascii() for key in body):
        assert parse_statement(canonical).body == body
    else:
        with pytest.raises(EnvelopeError):
            parse_statement(canonical)


@given(st.integers() | st.floats())
@example(-0.0)
@example(1.0)
@example(1e21)
@example(2**53)
@example(True)
def test_numbers_are_integers_below_2_53_or_refused(number: float) -> None:
    payload = PAYLOAD.replace(b'"n":12', b'"n":' + json.dumps(number).encode())
    if isinstance(number, int) and abs(number) <= MAX_INTEGER:
        assert parse_statement(payload).body["n"] == number
    else:
        with pytest.raises(EnvelopeError):
            parse_statement(payload)


PIECES = [
    b'"',
    b"\\",
    b"\\u0041",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"=",
    b"==",
    b"\n",
    b" ",
    b"0",
    b"-",
    b".",
]
PIECES += [b"1e5", b"null", b"true", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b'"sequence":1,', b"/../"]


def changes(data: bytes) -> st.SearchStrategy[bytes]:
    """`data` with a few bytes replaced, put in or taken out."""

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        found = data
        for start, length, new in edits:
            found = found[:start] + new + found[start + length :]
        return found

    piece = st.binary(max_size=3) | st.sampled_from(PIECES)
    edit = st.tuples(st.integers(0, len(data)), st.integers(0, 3), piece)
    return st.lists(edit, min_size=1, max_size=4).map(apply)


def only_envelope_errors(parse: Callable[[bytes], Any], data: bytes) -> Any:
    """What `parse` makes of hostile bytes: something, or None where it refuses as it promises."""
    try:
        return parse(data)
    except EnvelopeError:
        return None


@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode) | changes(GOOD))
def test_hostile_bytes_are_an_envelope_or_an_envelope_error(data: bytes) -> None:
    envelope = only_envelope_errors(parse_envelope, data)
    if envelope is not None:
        assert envelope.raw == data
        assert envelope.statement.to_bytes() == envelope.payload


@given(st.binary(max_size=400) | values.map(rfc8785.dumps) | changes(PAYLOAD))
def test_hostile_statements_are_one_or_an_envelope_error(payload: bytes) -> None:
    statement = only_envelope_errors(parse_statement, payload)
    if statement is not None:
        assert statement.to_bytes() == payload


@given(values, st.sampled_from(["", "predicate", "subject", "predicateType", "_type"]))
def test_any_value_in_the_place_of_a_part_is_read_or_an_envelope_error(value: Any, part: str) -> None:
    whole = json.loads(PAYLOAD)
    whole = value if not part else whole | {part: value}
    only_envelope_errors(parse_statement, rfc8785.dumps(whole))
    inner = json.loads(PAYLOAD)
    for name in ("body", "consortium", "issued", "payloads", "sequence", "signer"):
        told = inner | {"predicate": inner["predicate"] | {name: value}}
        statement = only_envelope_errors(parse_statement, rfc8785.dumps(told))
        assert statement is None or name in ("body", "issued", "payloads", "sequence")


@given(changes(PAYLOAD))
def test_a_signature_does_not_pass_for_a_changed_statement(payload: bytes) -> None:
    signature = json.loads(GOOD)["signatures"][0]["sig"].encode()
    data = GOOD.replace(base64.b64encode(PAYLOAD), base64.b64encode(payload))
    envelope = only_envelope_errors(parse_envelope, data)
    if envelope is not None and payload != PAYLOAD:
        with pytest.raises(SignatureError):
            envelope.check_signature(SIGNER.public)
    assert signature in data
    # Two payloads never are signed as the same bytes, whatever their lengths.
    assert (pre_authentication(payload) == pre_authentication(PAYLOAD)) == (payload == PAYLOAD)
