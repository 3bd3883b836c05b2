"""Updates as integers: against exact arithmetic with fractions, and at the extremes."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedhouse.errors import IntegrityError, UpdateRejectedError
from fedhouse.secure_agg.fixed_point import FixedPointCodec, clip_update, euclidean_norm

WIDTHS = (8, 12, 16, 24)
LANE_BITS = 5  # room for 32 contributors


def vectors(bound: float, size: int | None = None) -> st.SearchStrategy[Any]:
    shape = st.integers(1, 40) if size is None else size
    inner = st.floats(-bound, bound, allow_subnormal=True) | st.sampled_from([-bound, 0.0, -0.0, bound])
    return arrays.arrays(np.float64, shape, elements=inner)


# --- clipping ---------------------------------------------------------------------------------------


@given(delta=vectors(1e6), norm=st.floats(1e-3, 1e3), coordinate=st.floats(1e-3, 1e3))
def test_clipping_bounds_norm_and_coordinates(
    delta: np.ndarray[Any, Any], norm: float, coordinate: float
) -> None:
    clipped, report = clip_update(delta, norm, coordinate)
    assert np.abs(clipped).max() <= coordinate
    assert math.sqrt(math.fsum(clipped**2)) <= norm * (1 + 1e-12)
    assert report.norm_scaled == (report.norm_before > norm)
    if not report.norm_scaled and report.coordinates_clipped == 0:
        assert clipped.tobytes() == delta.tobytes()


def test_clipping_by_hand() -> None:
    clipped, report = clip_update(np.array([3.0, -4.0]), 10.0, 3.5)
    assert clipped.tolist() == [3.0, -3.5]
    assert (report.norm_before, report.norm_scaled, report.coordinates_clipped) == (5.0, False, 1)
    clipped, report = clip_update(np.array([3.0, -4.0]), 2.5, 1.75)
    assert clipped.tolist() == [1.5, -1.75]
    assert (report.norm_before, report.norm_scaled, report.coordinates_clipped) == (5.0, True, 1)


@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 2**16 - 1, 2**16, 2**16 + 1500])
def test_the_norm_agrees_with_an_exact_sum(size: int) -> None:
    vector = np.random.default_rng(size).normal(size=size)
    exact = math.sqrt(math.fsum(x * x for x in vector.tolist()))
    assert euclidean_norm(vector) == pytest.approx(exact, rel=1e-14)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1.0, 1e160, 1e300])
def test_the_norm_neither_overflows_nor_vanishes(scale: float) -> None:
    assert euclidean_norm(np.array([3.0, 4.0]) * scale) == pytest.approx(5.0 * scale, rel=1e-14)
    assert euclidean_norm(np.zeros(3)) == 0.0


# --- coding -----------------------------------------------------------------------------------------


@given(
    bits=st.sampled_from(WIDTHS),
    delta=vectors(0.5),
    examples=st.integers(0, 200_000),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_level_is_a_neighbour_of_the_exact_value(
    bits: int, delta: np.ndarray[Any, Any], examples: int, seed: int
) -> None:
    """The slow oracle: with fractions, a level is the floor or the ceiling of the value, up to the
    rounding of three double operations."""
    codec = FixedPointCodec(bits, 0.5, 100_000, len(delta))
    encoded = codec.encode(delta, examples, seed)
    assert encoded.dtype == np.uint32
    assert encoded.shape == (codec.length,)
    assert encoded.max() < 2**bits
    weight = Fraction(min(examples, 100_000), 100_000)
    for value, level in zip(delta.tolist(), encoded[: len(delta)].tolist(), strict=True):
        exact = Fraction(value) / Fraction(1, 2) * weight * codec.levels
        slack = abs(exact) * Fraction(1, 2**50)
        assert abs(level - codec.bias) <= codec.levels
        assert exact - 1 - slack < level - codec.bias < exact + 1 + slack


@settings(deadline=None)
@given(
    bits=st.sampled_from(WIDTHS),
    silos=st.lists(st.tuples(vectors(2.0, 6), st.integers(1, 5000)), min_size=1, max_size=32),
)
def test_the_mean_is_the_weighted_mean_up_to_one_level_a_silo(
    bits: int, silos: list[tuple[np.ndarray[Any, Any], int]]
) -> None:
    codec = FixedPointCodec(bits, 2.0, 3000, 6)
    sums = np.zeros(codec.length, dtype=np.int64)
    for index, (delta, examples) in enumerate(silos):
        sums += codec.encode(delta, examples, index)
    mean, examples = codec.decode(sums, len(silos))
    counted = [min(count, 3000) for _, count in silos]
    assert examples == sum(counted)
    bound = Fraction(len(silos) * 2 * 3000, codec.levels * examples) * (1 + Fraction(1, 2**40))
    for place in range(6):
        exact = (
            sum(Fraction(float(d[place])) * n for (d, _), n in zip(silos, counted, strict=True)) / examples
        )
        assert abs(Fraction(float(mean[place])) - exact) <= bound


@given(
    bits=st.sampled_from(WIDTHS),
    examples=st.integers(1, 10_000),
    sign=st.sampled_from([-1.0, 1.0]),
    data=st.data(),
)
def test_the_bound_itself_is_exact_at_full_weight(
    bits: int, examples: int, sign: float, data: st.DataObject
) -> None:
    """An exact level is never moved: not even where adding a random number would carry it further."""
    coordinate = data.draw(st.floats(1e-6, 1e6))
    codec = FixedPointCodec(bits, coordinate, examples, 300)
    encoded = codec.encode(np.full(300, sign * coordinate), examples, data.draw(st.integers(0, 2**63 - 1)))
    assert set(encoded[:300].tolist()) == {codec.bias + int(sign) * codec.levels}


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_32_contributors_at_the_extreme_fit_their_lane(bits: int, sign: float) -> None:
    codec = FixedPointCodec(bits, 1.0, 2**31, 5)
    sums = np.zeros(codec.length, dtype=np.int64)
    for seed in range(32):
        sums += codec.encode(np.full(5, sign), 2**40, seed)
    assert sums.min() >= 0
    assert sums.max() < 2 ** (bits + LANE_BITS)
    mean, examples = codec.decode(sums, 32)
    assert mean.tolist() == [sign] * 5
    assert examples == 32 * 2**31


def test_rounding_is_unbiased() -> None:
    """200,000 roundings of one value: their mean is off by no more than six standard errors."""
    codec = FixedPointCodec(8, 1.0, 100, 200_000)
    for value, weight in ((0.3, 100), (-0.7123, 37), (1e-4, 1)):
        encoded = codec.encode(np.full(200_000, value), weight, seed=11)[:200_000].astype(np.float64)
        exact = value * weight / 100 * codec.levels
        assert abs(encoded.mean() - codec.bias - exact) < 6 * 0.5 / math.sqrt(200_000)
        assert len(set(encoded.tolist())) == 2


def test_rounding_depends_on_the_seed_alone() -> None:
    delta = np.random.default_rng(1).uniform(-1, 1, 70_000)
    codec = FixedPointCodec(16, 1.0, 1000, 70_000)
    assert np.array_equal(codec.encode(delta, 700, 5), codec.encode(delta.copy(), 700, 5))
    assert not np.array_equal(codec.encode(delta, 700, 5), codec.encode(delta, 700, 6))


def test_the_integers_are_pinned() -> None:
    """Another version of NumPy must give the same integers: a retried contribution is compared by bytes."""
    codec = FixedPointCodec(12, 1.0, 1000, 8)
    encoded = codec.encode(np.array([-0.9, -0.6, -0.4, -0.1, 0.1, 0.4, 0.6, 0.9]), 777, 2013)
    assert encoded.tolist() == PINNED


PINNED = [617, 1093, 1412, 1889, 2207, 2685, 3002, 3479, 777]


def test_an_update_without_examples_counts_for_nothing() -> None:
    codec = FixedPointCodec(16, 1.0, 1000, 3)
    nothing = codec.encode(np.array([1.0, -1.0, 0.5]), 0, 1).astype(np.int64)
    assert nothing[:3].tolist() == [codec.bias] * 3
    something = codec.encode(np.array([0.0, 1.0, -1.0]), 1000, 2).astype(np.int64)
    mean, examples = codec.decode(nothing + something, 2)
    assert (mean.tolist(), examples) == ([0.0, 1.0, -1.0], 1000)
    with pytest.raises(UpdateRejectedError, match="had an example"):
        codec.decode(nothing, 1)


@pytest.mark.parametrize(
    ("delta", "examples"),
    [
        (np.array([0.0, np.nan]), 1),
        (np.array([0.0, np.inf]), 1),
        (np.array([0.0, -np.inf]), 1),
        (np.array([0.0, 1.0000000000000002]), 1),
        (np.array([0.0, -2.0]), 1),
        (np.array([0.0]), 1),
        (np.array([0.0, 0.0, 0.0]), 1),
        (np.zeros((1, 2)), 1),
        (np.zeros(2, dtype=np.float32), 1),
        (np.zeros(2, dtype=np.int64), 1),
        (np.zeros(2), -1),
    ],
)
def test_what_was_not_declared_is_refused(delta: np.ndarray[Any, Any], examples: int) -> None:
    with pytest.raises(UpdateRejectedError):
        FixedPointCodec(16, 1.0, 1000, 2).encode(delta, examples, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_clipping_does_not_hide_what_is_not_finite(bad: float) -> None:
    with pytest.raises(UpdateRejectedError, match="not finite"):
        clip_update(np.array([1.0, bad]), 1.0, 1.0)
    with pytest.raises(UpdateRejectedError, match="float64"):
        clip_update(np.zeros(2, dtype=np.float32), 1.0, 1.0)


def test_sums_that_no_updates_have_are_refused() -> None:
    codec = FixedPointCodec(16, 1.0, 1000, 3)
    good = codec.encode(np.array([1.0, -0.5, 0.0]), 500, 1).astype(np.int64)
    codec.decode(good, 1)
    beyond, negative, crowd, weightless = (good.copy() for _ in range(4))
    beyond[0] = 2**16
    negative[1] = -1
    crowd[3] = 1001
    weightless[3] = 5
    for sums, contributors in (
        (beyond, 1),
        (negative, 1),
        (crowd, 1),
        (weightless, 1),
        (good, 0),
        (good, 2),
        (good, 33),
        (good[:-1], 1),
        (good.astype(np.uint64), 1),
    ):
        with pytest.raises(IntegrityError):
            codec.decode(sums, contributors)
