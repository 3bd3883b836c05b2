"""Base64 in one spelling, against the standard library's lenient decoder."""

from __future__ import annotations

import base64
import binascii

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedhouse.errors import IntegrityError
from fedhouse.identity.text import b64, unb64

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_ \n"


@given(st.binary(max_size=100))
def test_what_is_written_reads_back(data: bytes) -> None:
    assert unb64(b64(data), "it") == data


@given(st.text(ALPHABET, max_size=12) | st.text(max_size=12))
@example("QQ==")
@example("QR==")
@example("QQ=")
@example("QQ==\n")
@example("QQ==QQ==")
@example("")
def test_no_two_texts_decode_to_the_same(text: str) -> None:
    try:
        lenient = base64.b64decode(text)
    except (binascii.Error, ValueError):
        lenient = None
    if lenient is not None and b64(lenient) == text:
        assert unb64(text, "it") == lenient
    else:
        with pytest.raises(IntegrityError, match="it is not base64"):
            unb64(text, "it")


@pytest.mark.parametrize("value", [None, b"QQ==", 7, ["QQ=="], "A" * 8])
def test_other_values_and_long_texts_are_refused(value: object) -> None:
    with pytest.raises(IntegrityError, match="A proof is no base64 text of at most 4 characters"):
        unb64(value, "A proof", longest=4)


def test_an_error_does_not_repeat_the_text() -> None:
    for text in ("canary!", "canaryä"):
        with pytest.raises(IntegrityError) as caught:
            unb64(text, "A secret")
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
