"""The plain integer sum: the contract, the real size of its bytes, and that it calls itself insecure."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedhouse.errors import IntegrityError
from fedhouse.secure_agg.aggregator import AggregationContext, Aggregator
from fedhouse.secure_agg.contract import CONTEXT, AggregatorContract, random_values
from fedhouse.secure_agg.reference import ReferenceAggregator


class TestReference(AggregatorContract):
    @pytest.fixture
    def aggregator(self) -> Aggregator:
        return ReferenceAggregator()


@pytest.fixture
def aggregator() -> ReferenceAggregator:
    return ReferenceAggregator()


def forged(body: bytes) -> bytes:
    """`body` with a right checksum, as somebody malicious would make it."""
    return body + hashlib.sha256(body).digest()


def test_it_says_that_it_is_insecure(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        aggregator = ReferenceAggregator()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "insecure" in caplog.text
    assert (aggregator.secure, aggregator.name) == (False, "reference (insecure)")
    assert (ReferenceAggregator.__doc__ or "").startswith("INSECURE")


@pytest.mark.parametrize(("bits", "bytes_per_element"), [(8, 1.0), (12, 1.5), (16, 2.0), (24, 3.0)])
def test_an_element_takes_its_bits_and_no_more(
    aggregator: ReferenceAggregator, bits: int, bytes_per_element: float
) -> None:
    context = replace(CONTEXT, length=200_000, bits=bits)
    sealed = aggregator.seal(context, "A", random_values(context, 1))
    assert len(sealed) / context.length == pytest.approx(bytes_per_element, abs=0.01)


def test_the_bytes_are_pinned(aggregator: ReferenceAggregator) -> None:
    """The format of version 1, written out by hand: 0x001, 0xABC, 0xFFF at 12 bits are 01 C0 AB FF 0F."""
    context = AggregationContext(job="c" * 64, round=2, purpose="statistics", length=3, bits=12)
    header = (
        b'{"context":{"bits":12,"job":"' + b"c" * 64 + b'","length":3,"max_contributors":32,'
        b'"purpose":"statistics","round":2},"silo":"AA"}'
    )
    body = b"FHPLAIN\x01" + len(header).to_bytes(4, "little") + header + bytes.fromhex("01c0abff0f")
    values = np.array([0x001, 0xABC, 0xFFF], dtype=np.uint32)
    assert aggregator.seal(context, "AA", values) == body + hashlib.sha256(body).digest()


def test_sealing_is_deterministic(aggregator: ReferenceAggregator) -> None:
    values = random_values(CONTEXT, 5)
    assert aggregator.seal(CONTEXT, "A", values) == aggregator.seal(CONTEXT, "A", values.copy())


def test_a_right_checksum_does_not_help_a_wrong_form(aggregator: ReferenceAggregator) -> None:
    context = replace(CONTEXT, length=3, bits=12)
    good = aggregator.seal(context, "A", np.zeros(3, dtype=np.uint32))[:-32]
    wrong = {
        "another version": good.replace(b"FHPLAIN\x01", b"FHPLAIN\x02"),
        "one byte more": good + b"\0",
        "one byte less": good[:-1],
        "spare bits set": good[:-1] + b"\xf0",
        "no header": good[:12],
        "spaced header": good.replace(b'"silo":"A"', b'"silo": "A"'),
    }
    for body in wrong.values():
        with pytest.raises(IntegrityError, match="silo A"):
            aggregator.open_sum(context, {"A": forged(body)})


@given(
    values=st.integers(8, 24).flatmap(
        lambda bits: st.tuples(st.just(bits), st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=70))
    )
)
def test_packing_round_trips(values: tuple[int, list[int]]) -> None:
    bits, numbers = values
    context = replace(CONTEXT, length=len(numbers), bits=bits)
    aggregator = ReferenceAggregator()
    sealed = aggregator.seal(context, "A", np.array(numbers, dtype=np.uint32))
    assert aggregator.open_sum(context, {"A": sealed}).tolist() == numbers
