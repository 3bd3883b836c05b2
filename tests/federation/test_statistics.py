"""Federated statistics against the pooled rows, with fractions: equal, not close."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedhouse.encoder import CategoryEncoding, NumberEncoding
from fedhouse.errors import IntegrityError, SourceChangedError, SourceError
from fedhouse.federation.statistics import StatisticsPlan, nearest_root
from fedhouse.jobspec import JobSpec
from fedhouse.spark_jobs.contract import LocalStatistics, NumberStatistics

SPEC = JobSpec.model_validate(
    {
        "name": "flights",
        "data": "flights",
        "columns": [
            "distance",
            {"name": "carrier", "vocabulary": ["AA", "UA"]},
            {"name": "age", "flag_missing": True},
        ],
        "label": "late",
        "model": "late:Net",
        "train": "late:train",
        "evaluate": "late:evaluate",
    }
)
PLAN = StatisticsPlan(SPEC)

# One row: distance, age, carrier.
Row = tuple[float | None, float | None, str | None]
numbers = st.none() | st.floats(-(2.0**31), 2.0**31) | st.sampled_from([0.0, 1.5, -(2.0**31), 2.0**31])
rows_strategy = st.lists(
    st.tuples(numbers, numbers, st.none() | st.sampled_from(["AA", "UA", "B6"])), max_size=30
)


def unit(value: float) -> int:
    """A number in units of 2^-16, as the contract says: floor(x·2^16 + 1/2)."""
    return math.floor(Fraction(value) * 2**16 + Fraction(1, 2))


def local(rows: list[Row], held_out: int = 0) -> LocalStatistics:
    """What a silo with these training rows would count."""
    told = {}
    for place, name in ((0, "distance"), (1, "age")):
        units = [unit(value) for row in rows if isinstance(value := row[place], float)]
        told[name] = NumberStatistics(len(units), sum(units), sum(one * one for one in units))
    words = [row[2] for row in rows]
    known = (words.count("AA"), words.count("UA"))
    return LocalStatistics(len(rows), held_out, told, {"carrier": (*known, len(rows) - sum(known))})


def summed(silos: list[LocalStatistics]) -> np.ndarray[Any, np.dtype[np.int64]]:
    vectors = [PLAN.encode(silo) for silo in silos]
    assert all(vector.dtype == np.uint32 and vector.shape == (PLAN.length,) for vector in vectors)
    assert all(int(vector.max()) < 2**PLAN.bits for vector in vectors)
    return np.sum(vectors, axis=0, dtype=np.int64)


@settings(deadline=None)
@given(
    rows=rows_strategy, places=st.lists(st.integers(0, 5), min_size=30, max_size=30), silos=st.integers(1, 6)
)
def test_sums_over_silos_equal_the_pooled_rows(rows: list[Row], places: list[int], silos: int) -> None:
    split: list[list[Row]] = [[] for _ in range(silos)]
    for row, place in zip(rows, places, strict=False):
        split[place % silos].append(row)
    found = PLAN.decode(summed([local(part, index) for index, part in enumerate(split)]))
    assert (found.contributors, found.rows, found.held_out) == (silos, len(rows), sum(range(silos)))
    for place, name in ((0, "distance"), (1, "age")):
        values = [Fraction(unit(v), 2**16) for row in rows if isinstance(v := row[place], float)]
        told = found.numbers[name]
        assert told.count == len(values)
        assert told.null_fraction == (Fraction(len(rows) - len(values), len(rows)) if rows else 0)
        if not values:
            assert (told.mean, told.variance) == (None, None)
            continue
        mean = sum(values, Fraction(0)) / len(values)
        assert told.mean == mean
        assert told.variance == sum(((value - mean) ** 2 for value in values), Fraction(0)) / len(values)
    words = [row[2] for row in rows]
    assert found.categories["carrier"] == (
        words.count("AA"),
        words.count("UA"),
        words.count(None) + words.count("B6"),
    )
    assert found.encoder(SPEC) == PLAN.decode(summed([local(rows)])).encoder(SPEC)


def test_means_and_scales_agree_with_numpy() -> None:
    draw = np.random.default_rng(5)
    table: list[Row] = [
        (float(d), float(a), "AA")
        for d, a in zip(draw.gamma(2, 500, 4000), draw.normal(11, 7, 4000), strict=True)
    ]
    encoder = PLAN.decode(summed([local(table[:1000]), local(table[1000:])])).encoder(SPEC)
    for place, encoding in ((0, encoder.encodings[0]), (1, encoder.encodings[2])):
        assert isinstance(encoding, NumberEncoding)
        column = np.array([row[place] for row in table], dtype=np.float64)
        # A value is off by at most half a unit, 2^-17.
        assert encoding.mean == pytest.approx(column.mean(), abs=2**-16)
        assert encoding.scale == pytest.approx(column.std(), abs=2**-15)


def test_the_encoder_has_the_jobs_columns_in_its_order() -> None:
    rows: list[Row] = [(1.0, 3.0, "AA"), (1.0, None, "UA"), (1.0, 5.0, None)]
    encoder = PLAN.decode(summed([local(rows)])).encoder(SPEC)
    assert encoder.label == "late"
    assert encoder.width == SPEC.width
    assert encoder.encodings == (
        NumberEncoding("distance", 1.0, 1.0),  # never varies: left at scale 1
        CategoryEncoding("carrier", ("AA", "UA")),
        NumberEncoding("age", 4.0, 1.0, flag_missing=True),
    )


def test_a_column_without_values_is_left_alone() -> None:
    encoder = PLAN.decode(summed([local([(None, None, None)]), local([])])).encoder(SPEC)
    assert encoder.encodings[0] == NumberEncoding("distance", 0.0, 1.0)


def test_totals_at_the_ends_of_their_range_survive_32_silos() -> None:
    rows = 2**30
    low = NumberStatistics(rows, -(2**77), 2**124)
    high = NumberStatistics(rows, 2**77, 2**124)
    counts = {"carrier": (rows, 0, 0)}
    silos = [LocalStatistics(rows, 0, {"distance": low, "age": high}, counts)] * 32
    found = PLAN.decode(summed(silos))
    assert (found.numbers["distance"].mean, found.numbers["distance"].variance) == (-(2**31), 0)
    assert (found.numbers["age"].mean, found.numbers["age"].variance) == (2**31, 0)


@pytest.mark.parametrize(
    ("column", "number"),
    [
        ("age", NumberStatistics(2**40, 2**79, 2**127)),
        ("distance", NumberStatistics(2**40, 0, 2**128)),
    ],
)
def test_sums_beyond_the_range_name_their_column(column: str, number: NumberStatistics) -> None:
    base = local([])
    statistics = replace(
        base, rows=2**40, numbers={**base.numbers, column: number}, categories={"carrier": (2**40, 0, 0)}
    )
    with pytest.raises(SourceError, match=column) as caught:
        PLAN.encode(statistics)
    assert str(number.total or number.squares) not in str(caught.value)


def test_counts_that_do_not_fit_the_rows_are_refused() -> None:
    good = local([(1.0, 2.0, "AA"), (3.0, None, None)])
    PLAN.encode(good)
    impossible = [
        replace(good, rows=3),
        replace(good, numbers={**good.numbers, "age": NumberStatistics(3, 0, 0)}),
        replace(good, numbers={**good.numbers, "age": NumberStatistics(1, 2, 3)}),
        replace(good, numbers={**good.numbers, "age": NumberStatistics(0, 1, 0)}),
        replace(good, categories={"carrier": (1, 0)}),
    ]
    for statistics in impossible:
        with pytest.raises(SourceChangedError):
            PLAN.encode(statistics)


def test_other_columns_than_the_jobs_are_refused() -> None:
    good = local([])
    for statistics in (
        replace(good, numbers={"distance": NumberStatistics(0, 0, 0)}),
        replace(good, numbers={**good.numbers, "more": NumberStatistics(0, 0, 0)}),
        replace(good, categories={}),
    ):
        with pytest.raises(IntegrityError, match="other columns"):
            PLAN.encode(statistics)


@pytest.mark.parametrize(
    ("places", "value"),
    [
        (slice(1, 2), 2),  # rows
        (slice(7, 8), 2),  # count of distance, more than rows
        (slice(14, 15), 65_535),  # its total, more than its squares allow
        (slice(15, 23), 0),  # its squares
        (slice(-1, None), 1),  # words
    ],
)
def test_sums_that_no_rows_have_are_refused(places: slice, value: int) -> None:
    sums = summed([local([(1.0, 2.0, "AA")])])
    PLAN.decode(sums)
    sums[places] = value
    with pytest.raises(IntegrityError):
        PLAN.decode(sums)


# --- the root ---------------------------------------------------------------------------------------


@given(value=st.fractions(min_value=0).filter(bool))
@example(value=Fraction(1, 3))
@example(value=Fraction(2**124 - 1, 2**60 + 1))
@example(value=Fraction(4))
@example(value=Fraction(1, 2**96))
@example(value=Fraction((2**53 + 1) ** 2, 2**106))  # the root lies half-way between two doubles
@example(value=Fraction((2**53 + 1) ** 2 + 1, 2**106))
@example(value=Fraction((2**53 + 1) ** 2 - 1, 2**106))
def test_the_root_is_the_nearest_double(value: Fraction) -> None:
    root = nearest_root(value)
    below = (Fraction(root) + Fraction(math.nextafter(root, 0.0))) / 2
    above = (Fraction(root) + Fraction(math.nextafter(root, math.inf))) / 2
    assert below**2 <= value <= above**2
