"""The suite that every aggregation must pass, whatever it hides and however.

Subclass it in a test module and give the aggregator::

    class TestReference(AggregatorContract):
        @pytest.fixture
        def aggregator(self) -> Aggregator:
            return ReferenceAggregator()
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fedhouse.errors import IntegrityError, QuorumError, UpdateRejectedError
from fedhouse.secure_agg.aggregator import AggregationContext, Aggregator

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONTEXT = AggregationContext(job="a" * 64, round=3, purpose="update", length=1003, bits=16)
OTHERS: dict[str, dict[str, Any]] = {
    "job": {"job": "b" * 64},
    "round": {"round": 4},
    "purpose": {"purpose": "evaluation"},
    "length": {"length": 1004},
    "bits": {"bits": 12},
    "max_contributors": {"max_contributors": 31},
}


def random_values(context: AggregationContext, seed: int) -> NDArray[np.uint32]:
    """A contribution that fits `context`, with both extremes in it."""
    top = 2**context.bits
    values = np.random.default_rng(seed).integers(0, top, context.length, dtype=np.uint32)
    values[:2] = (0, top - 1)
    return values


class AggregatorContract:
    """What an aggregation promises: exact sums, and a refusal of everything else."""

    @pytest.fixture
    def aggregator(self) -> Aggregator:
        """The aggregator under test."""
        raise NotImplementedError("give the fixture `aggregator`")

    def test_says_in_its_name_when_it_hides_nothing(self, aggregator: Aggregator) -> None:
        assert aggregator.secure or "insecure" in aggregator.name

    @pytest.mark.parametrize("bits", [8, 12, 13, 16, 24])
    @pytest.mark.parametrize("contributors", [1, 2, 32])
    def test_sums_are_exact(self, aggregator: Aggregator, bits: int, contributors: int) -> None:
        context = replace(CONTEXT, bits=bits)
        values = {f"silo-{index}": random_values(context, index) for index in range(contributors)}
        sealed = {silo: aggregator.seal(context, silo, value) for silo, value in values.items()}
        total = aggregator.open_sum(context, sealed)
        assert total.dtype == np.int64
        assert total.tolist() == [
            sum(column) for column in zip(*(v.tolist() for v in values.values()), strict=True)
        ]

    @pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 2**16 - 1, 2**16 + 1])
    def test_every_length(self, aggregator: Aggregator, length: int) -> None:
        context = AggregationContext(job="a" * 64, round=1, purpose="statistics", length=length, bits=12)
        values = np.full(length, 2**12 - 1, dtype=np.uint32)
        total = aggregator.open_sum(context, {"A": aggregator.seal(context, "A", values)})
        assert np.array_equal(total, values)

    def test_nothing_overflows_at_the_extreme(self, aggregator: Aggregator) -> None:
        context = replace(CONTEXT, bits=24)
        values = np.full(context.length, 2**24 - 1, dtype=np.uint32)
        sealed = {f"silo-{i}": aggregator.seal(context, f"silo-{i}", values) for i in range(32)}
        assert set(aggregator.open_sum(context, sealed).tolist()) == {32 * (2**24 - 1)}

    def test_order_does_not_matter(self, aggregator: Aggregator) -> None:
        sealed = {s: aggregator.seal(CONTEXT, s, random_values(CONTEXT, i)) for i, s in enumerate("ABCD")}
        backwards = dict(reversed(sealed.items()))
        assert np.array_equal(aggregator.open_sum(CONTEXT, sealed), aggregator.open_sum(CONTEXT, backwards))

    def test_sealing_leaves_the_values_alone(self, aggregator: Aggregator) -> None:
        values = random_values(CONTEXT, 1)
        before = values.copy()
        aggregator.seal(CONTEXT, "A", values)
        assert np.array_equal(values, before)

    @pytest.mark.parametrize(
        "values",
        [
            np.zeros(1002, dtype=np.uint32),
            np.zeros(1004, dtype=np.uint32),
            np.zeros((1003, 1), dtype=np.uint32),
            np.zeros(1003, dtype=np.int64),
            np.zeros(1003, dtype=np.float64),
            np.full(1003, 2**16, dtype=np.uint32),
            np.full(1003, 2**32 - 1, dtype=np.uint32),
        ],
        ids=["short", "long", "matrix", "signed", "float", "one too large", "far too large"],
    )
    def test_refuses_values_that_do_not_fit(self, aggregator: Aggregator, values: Any) -> None:
        with pytest.raises(UpdateRejectedError, match="silo-7"):
            aggregator.seal(CONTEXT, "silo-7", values)

    @pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
    def test_refuses_another_context(self, aggregator: Aggregator, other: dict[str, Any]) -> None:
        foreign = replace(CONTEXT, **other)
        sealed = {
            "silo-1": aggregator.seal(CONTEXT, "silo-1", random_values(CONTEXT, 1)),
            "silo-2": aggregator.seal(foreign, "silo-2", random_values(foreign, 2)),
        }
        with pytest.raises(IntegrityError, match="silo-2"):
            aggregator.open_sum(CONTEXT, sealed)

    def test_refuses_another_silos_contribution(self, aggregator: Aggregator) -> None:
        first = aggregator.seal(CONTEXT, "silo-1", random_values(CONTEXT, 1))
        with pytest.raises(IntegrityError, match="silo-2"):
            aggregator.open_sum(CONTEXT, {"silo-1": first, "silo-2": first})

    @pytest.mark.parametrize("kept", [0, 1, 7, 11, 40, -33, -32, -1])
    def test_refuses_what_is_cut_short(self, aggregator: Aggregator, kept: int) -> None:
        sealed = aggregator.seal(CONTEXT, "silo-1", random_values(CONTEXT, 1))
        with pytest.raises(IntegrityError, match="silo-1"):
            aggregator.open_sum(CONTEXT, {"silo-1": sealed[:kept]})

    @pytest.mark.parametrize("more", [b"\0", b"x" * 32, b"\0" * 10_000])
    def test_refuses_trailing_bytes(self, aggregator: Aggregator, more: bytes) -> None:
        sealed = aggregator.seal(CONTEXT, "silo-1", random_values(CONTEXT, 1))
        with pytest.raises(IntegrityError, match="silo-1"):
            aggregator.open_sum(CONTEXT, {"silo-1": sealed + more})

    def test_refuses_a_flipped_bit_wherever_it_is(self, aggregator: Aggregator) -> None:
        context = replace(CONTEXT, length=11, bits=12)
        sealed = aggregator.seal(context, "silo-1", random_values(context, 1))
        step = max(1, 8 * len(sealed) // 4096)
        for position in range(0, 8 * len(sealed), step):
            damaged = bytearray(sealed)
            damaged[position // 8] ^= 1 << position % 8
            with pytest.raises(IntegrityError, match="silo-1"):
                aggregator.open_sum(context, {"silo-1": bytes(damaged)})

    def test_refuses_to_sum_nothing(self, aggregator: Aggregator) -> None:
        with pytest.raises(QuorumError):
            aggregator.open_sum(CONTEXT, {})

    def test_refuses_more_than_the_context_allows(self, aggregator: Aggregator) -> None:
        context = replace(CONTEXT, max_contributors=2)
        sealed = {s: aggregator.seal(context, s, random_values(context, 1)) for s in "ABC"}
        with pytest.raises(QuorumError):
            aggregator.open_sum(context, sealed)
