"""Integers as limbs: exact sums, against Python's integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedhouse.errors import IntegrityError, UpdateRejectedError
from fedhouse.secure_agg.limbs import Field, IntegerVector, from_limbs, limbs_for, to_limbs

FIELDS = (Field("rows", 3), Field("total", 5, signed=True, count=2), Field("squares", 8))


@given(
    bits=st.sampled_from([8, 12, 16, 24]),
    limbs=st.integers(1, 8),
    data=st.data(),
    silos=st.integers(1, 32),
    width=st.integers(0, 5),
)
def test_sums_of_limbs_are_limbs_of_sums(
    bits: int, limbs: int, data: st.DataObject, silos: int, width: int
) -> None:
    number = st.one_of(st.integers(0, 2 ** (bits * limbs) - 1), st.just(2 ** (bits * limbs) - 1))
    rows = [data.draw(st.lists(number, min_size=width, max_size=width)) for _ in range(silos)]
    encoded = [to_limbs(row, bits, limbs) for row in rows]
    assert all(vector.dtype == np.uint32 and (vector < 2**bits).all() for vector in encoded)
    sums = np.sum(encoded, axis=0, dtype=np.int64)
    assert from_limbs(sums, bits, limbs) == [sum(column) for column in zip(*rows, strict=True)]


def test_limbs_come_least_significant_first() -> None:
    assert to_limbs([0x123456], 8, 3).tolist() == [0x56, 0x34, 0x12]


@pytest.mark.parametrize("value", [-1, 2**32, 2**200])
def test_what_does_not_fit_is_refused_without_being_shown(value: int) -> None:
    with pytest.raises(UpdateRejectedError, match="Number 1 does not fit") as caught:
        to_limbs([0, value], 16, 2)
    assert str(value) not in str(caught.value)


@pytest.mark.parametrize(
    ("largest", "bits", "limbs"), [(0, 16, 1), (65535, 16, 1), (65536, 16, 2), (2**31, 8, 4)]
)
def test_limbs_for(largest: int, bits: int, limbs: int) -> None:
    assert limbs_for(largest, bits) == limbs


signed = st.integers(-(2**79), 2**79 - 1)
rows_of = st.fixed_dictionaries(
    {
        "rows": st.lists(st.integers(0, 2**48 - 1), min_size=1, max_size=1),
        "total": st.lists(signed | st.sampled_from([-(2**79), -1, 0, 2**79 - 1]), min_size=2, max_size=2),
        "squares": st.lists(st.integers(0, 2**128 - 1), min_size=1, max_size=1),
    }
)


@given(silos=st.lists(rows_of, min_size=1, max_size=32))
def test_a_vector_sums_every_field_exactly(silos: list[dict[str, list[int]]]) -> None:
    vector = IntegerVector(FIELDS, 16)
    sums = np.sum([vector.encode(silo) for silo in silos], axis=0, dtype=np.int64)
    contributors, found = vector.decode(sums)
    assert contributors == len(silos)
    for name in ("rows", "total", "squares"):
        assert found[name] == tuple(map(sum, zip(*(silo[name] for silo in silos), strict=True)))


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("rows", [2**48]),
        ("rows", [-1]),
        ("total", [0, 2**79]),
        ("total", [-(2**79) - 1, 0]),
        ("squares", [2**128]),
        ("total", [0]),
        ("rows", []),
    ],
)
def test_a_vector_names_the_field_that_does_not_fit(name: str, numbers: list[int]) -> None:
    values = {"rows": [0], "total": [0, 0], "squares": [0]} | {name: numbers}
    with pytest.raises(UpdateRejectedError, match=name):
        IntegerVector(FIELDS, 16).encode(values)


def test_a_vector_refuses_sums_that_no_contributions_have() -> None:
    vector = IntegerVector(FIELDS, 16)
    good = vector.encode({"rows": [5], "total": [1, -1], "squares": [3]}).astype(np.int64)
    assert vector.decode(good)[0] == 1
    negative, large, nobody, crowd = (good.copy() for _ in range(4))
    negative[3] = -1
    large[3] = 65536
    nobody[0] = 0
    crowd[0] = 33
    for sums in (negative, large, nobody, crowd, good[:-1], good.astype(np.float64), good.reshape(1, -1)):
        with pytest.raises(IntegrityError):
            vector.decode(sums)
