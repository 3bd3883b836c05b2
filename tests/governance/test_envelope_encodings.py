"""Every other spelling of the same envelope is refused: its bytes are its name, so there is one."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest

from fedhouse.errors import EnvelopeError
from fedhouse.governance.envelope import (
    PayloadRef,
    Statement,
    parse_envelope,
    parse_statement,
    pre_authentication,
    sign_statement,
)
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


OTHER_STATEMENTS: dict[str, Callable[[bytes], bytes]] = {
    "a space after a colon": lambda data: data.replace(b'"sequence":', b'"sequence": '),
    "a space after a comma": lambda data: data.replace(b',"issued"', b', "issued"'),
    "a space in front": lambda data: b" " + data,
    "a line break behind": lambda data: data + b"\n",
    "pretty": lambda data: json.dumps(json.loads(data), indent=1, sort_keys=True).encode(),
    "keys in another order": lambda data: json.dumps(
        dict(reversed(json.loads(data).items())), ensure_ascii=False, separators=(",", ":")
    ).encode(),
    "an escaped letter": lambda data: data.replace(b"AA/", b"\\u0041A/"),
    "an escaped letter in a key": lambda data: data.replace(b'"issued"', b'"\\u0069ssued"'),
    "an escaped solidus": lambda data: data.replace(b"AA/", b"AA\\/"),
    "a line feed as \\u000a": lambda data: data.replace(b"\\n", b"\\u000a"),
    "an escaped é": lambda data: data.replace("é".encode(), b"\\u00e9"),
    "ASCII only": lambda data: json.dumps(json.loads(data), separators=(",", ":"), sort_keys=True).encode(),
    "a key twice, the same": lambda data: data.replace(b'"n":12', b'"n":12,"n":12'),
    "a key twice, another first": lambda data: data.replace(b'"n":12', b'"n":13,"n":12'),
    "a signer twice": lambda data: data.replace(b'"signer":', b'"signer":"B6/admin","signer":'),
    "minus zero": lambda data: data.replace(b'"n":12', b'"n":-0'),
    "an exponent": lambda data: data.replace(b'"n":12', b'"n":1e3'),
    "an exponent in capitals": lambda data: data.replace(b'"n":12', b'"n":1E3'),
    "a float": lambda data: data.replace(b'"n":12', b'"n":12.0'),
    "a real float": lambda data: data.replace(b'"n":12', b'"n":0.5'),
    "a leading zero": lambda data: data.replace(b'"n":12', b'"n":012'),
    "a plus sign": lambda data: data.replace(b'"n":12', b'"n":+12'),
    "NaN": lambda data: data.replace(b'"n":12', b'"n":NaN'),
    "infinity": lambda data: data.replace(b'"n":12', b'"n":Infinity'),
    "minus infinity": lambda data: data.replace(b'"n":12', b'"n":-Infinity'),
    "2^53": lambda data: data.replace(b'"n":12', b'"n":%d' % 2**53),
    "-2^53": lambda data: data.replace(b'"n":12', b'"n":-%d' % 2**53),
    "a number of 40,000 digits": lambda data: data.replace(b'"n":12', b'"n":%s' % (b"9" * 40_000)),
    "a lone high surrogate": lambda data: data.replace("é".encode(), b"\\ud800"),
    "a lone low surrogate": lambda data: data.replace("é".encode(), b"\\udc00"),
    "a surrogate pair": lambda data: data.replace("é".encode(), b"\\ud83d\\ude00"),
    "a surrogate in UTF-8": lambda data: data.replace("é".encode(), b"\xed\xa0\x80"),
    "an overlong UTF-8 form": lambda data: data.replace(b"AA/", b"\xc1\x81A/"),
    "half a letter": lambda data: data.replace("é".encode(), b"\xc3"),
    "Latin 1": lambda data: data.decode().encode("latin-1"),
    "UTF-8 with a mark": lambda data: b"\xef\xbb\xbf" + data,
    "UTF-16": lambda data: data.decode().encode("utf-16"),
    "UTF-16 without a mark": lambda data: data.decode().encode("utf-16-le"),
    "UTF-32": lambda data: data.decode().encode("utf-32"),
    "a raw control character": lambda data: data.replace("é".encode(), b"\x01"),
    "something behind": lambda data: data + b"{}",
    "a zero behind": lambda data: data + b"\0",
    "a comment": lambda data: data + b"//",
    "a trailing comma": lambda data: data.replace(b'"n":12', b'"n":12,').replace(b",,", b","),
    "single quotes": lambda data: data.replace(b'"', b"'"),
    "a key that is not ASCII": lambda data: data.replace(b'"n":12', '"ñ":12'.encode()),
}


@pytest.mark.parametrize("how", OTHER_STATEMENTS.values(), ids=OTHER_STATEMENTS)
def test_another_encoding_of_a_statement_is_refused(how: Callable[[bytes], bytes]) -> None:
    changed = how(PAYLOAD)
    if changed == PAYLOAD:  # "a trailing comma" takes itself back where another key follows
        changed = PAYLOAD[:-1] + b",}"
    with pytest.raises(EnvelopeError):
        parse_statement(changed)
    with pytest.raises(EnvelopeError):
        parse_envelope(wrapped(changed))


SIG = base64.b64encode(b"x" * 64)

OTHER_ENVELOPES: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: b"",
    "a space in front": lambda data: b" " + data,
    "a line break behind": lambda data: data + b"\n",
    "a zero behind": lambda data: data + b"\0",
    "a mark in front": lambda data: b"\xef\xbb\xbf" + data,
    "UTF-16": lambda data: data.decode().encode("utf-16"),
    "spaces": lambda data: data.replace(b'":"', b'": "'),
    "keys in another order": lambda data: json.dumps(
        dict(reversed(json.loads(data).items())), separators=(",", ":")
    ).encode(),
    "keyid behind sig": lambda data: _sig_first(data),
    "an escape in the payload": lambda data: data.replace(b'{"payload":"e', b'{"payload":"\\u0065'),
    "an escaped solidus": lambda data: data.replace(b"application/", b"application\\/"),
    "another payload type": lambda data: data.replace(b"vnd.in-toto+json", b"vnd.in-totO+json"),
    "a dot for any letter": lambda data: data.replace(b"vnd.in-toto", b"vndxin-toto"),
    "payload twice": lambda data: data.replace(b'{"payload":', b'{"payload":"e30=","payload":'),
    "one more key": lambda data: data[:-1] + b',"note":""}',
    "one more key in the signature": lambda data: data[:-3] + b',"alg":"none"}]}',
    "no signature": lambda data: data[: data.index(b"[")] + b"[]}",
    "two signatures": lambda data: data[:-2] + b',{"keyid":"%s","sig":"%s"}]}' % (b"0" * 64, SIG),
    "the signature twice": lambda data: data[:-2] + b"," + data[data.index(b"[") + 1 : -2] + b"]}",
    "an empty signature": lambda data: data[: data.index(b'"sig":"') + 7] + b'"}]}',
    "key id in capitals": lambda data: _key_id(data, SIGNER.public.key_id.upper()),
    "a short key id": lambda data: _key_id(data, SIGNER.public.key_id[:63]),
    "a long key id": lambda data: _key_id(data, SIGNER.public.key_id + "0"),
    "no key id": lambda data: _key_id(data, ""),
    "a line break in the base64": lambda data: _payload(data, lambda text: text[:76] + b"\n" + text[76:]),
    "an escaped line break": lambda data: _payload(data, lambda text: text[:76] + b"\\n" + text[76:]),
    "no padding": lambda data: _signature(data, lambda text: text.rstrip(b"=")),
    "one = too few": lambda data: _signature(data, lambda text: text[:-1]),
    "one = too many": lambda data: _signature(data, lambda text: text + b"="),
    "padding bits set": lambda data: _signature(data, _with_padding_bits),
    "base64 for URLs": lambda data: _payload(data, lambda text: text[:-4] + b"_-_-"),
    "an = in the middle": lambda data: _payload(data, lambda text: text[:4] + b"=" + text[4:]),
    "base64 of nothing": lambda data: _payload(data, lambda text: b"===="),
    "a letter too few": lambda data: _payload(data, lambda text: text[1:]),
    "cut off": lambda data: data[:-1],
    "a list of envelopes": lambda data: b"[" + data + b"]",
}


def _sig_first(data: bytes) -> bytes:
    value = json.loads(data)
    value["signatures"][0] = dict(reversed(value["signatures"][0].items()))
    return json.dumps(value, separators=(",", ":")).encode()


def _key_id(data: bytes, new: str) -> bytes:
    return data.replace(SIGNER.public.key_id.encode(), new.encode())


def _payload(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    old = base64.b64encode(PAYLOAD)
    return data.replace(old, change(old))


def _signature(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    old = json.loads(data)["signatures"][0]["sig"].encode()
    assert old.endswith(b"==")
    return data.replace(old, change(old))


def _with_padding_bits(text: bytes) -> bytes:
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    changed = text[:-3] + alphabet[alphabet.index(text[-3]) + 1 :][:1] + b"=="
    assert base64.b64decode(changed) == base64.b64decode(text)
    return changed


@pytest.mark.parametrize("how", OTHER_ENVELOPES.values(), ids=OTHER_ENVELOPES)
def test_another_encoding_of_an_envelope_is_refused(how: Callable[[bytes], bytes]) -> None:
    changed = how(GOOD)
    assert changed != GOOD
    with pytest.raises(EnvelopeError):
        parse_envelope(changed)
