"""Exact integers as small ones: what is too large for one element of a sum travels as several limbs.

A limb is an integer below 2^bits; a number is `limbs` of them, the least significant first. Adding up
two vectors limb by limb and recombining the sums gives the sum of the numbers: the sums carry their
own overflow, so nothing is lost while an element of the sum has room for `contributors · 2^bits`.

Signed numbers travel with a public offset. Splitting them by sign would need none, but would give a
silo away whose sign is unlike all others'.

Example::

    vector = IntegerVector((Field("rows", 3), Field("total", 5, signed=True)), bits=16)
    sums = vector.encode({"rows": [7], "total": [-3]}).astype(np.int64)    # ... of every silo, added up
    contributors, found = vector.decode(sums)                              # 1, {"rows": (7,), "total": (-3,)}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedhouse.errors import IntegrityError, UpdateRejectedError
from fedhouse.jobspec import MAX_CONTRIBUTORS

if TYPE_CHECKING:
    from numpy.typing import NDArray


def limbs_for(largest: int, bits: int) -> int:
    """How many limbs of `bits` bits hold every integer from 0 to `largest`; at least one."""
    return max(1, -(-largest.bit_length() // bits))


def to_limbs(values: Sequence[int], bits: int, limbs: int) -> NDArray[np.uint32]:
    """Non-negative integers as limbs: uint32 [len(values) · limbs], each below 2^bits.

    Raises
    ------
    UpdateRejectedError
        If a value is negative or needs more limbs; names its position, not the value.
    """
    for place, value in enumerate(values):
        if not 0 <= value < 1 << bits * limbs:
            raise UpdateRejectedError(f"Number {place} does not fit {limbs} limbs of {bits} bits.")
    mask = (1 << bits) - 1
    split = [value >> bits * limb & mask for value in values for limb in range(limbs)]
    return np.array(split, dtype=np.uint32)


def from_limbs(sums: NDArray[np.int64], bits: int, limbs: int) -> list[int]:
    """The integers whose limbs (or sums of limbs) are `sums`, int64 [values · limbs]."""
    split = sums.tolist()
    return [
        sum(part << bits * limb for limb, part in enumerate(split[start : start + limbs]))
        for start in range(0, len(split), limbs)
    ]


@dataclass(frozen=True, slots=True)
class Field:
    """`count` integers of one kind, `limbs` limbs each; `signed` ones lie in ±2^(bits·limbs - 1)."""

    name: str
    limbs: int
    signed: bool = False
    count: int = 1

    def offset(self, bits: int) -> int:
        """What is added to each number before it is split into limbs of `bits` bits."""
        return 1 << bits * self.limbs - 1 if self.signed else 0


@dataclass(frozen=True, slots=True)
class IntegerVector:
    """Named exact integers as one vector for an aggregation.

    The first element is 1 in every contribution: its sum says how many offsets to take away.
    """

    fields: tuple[Field, ...]
    bits: int

    @property
    def length(self) -> int:
        """Number of elements of a contribution."""
        return 1 + sum(field.count * field.limbs for field in self.fields)

    def encode(self, values: Mapping[str, Sequence[int]]) -> NDArray[np.uint32]:
        """A contribution, uint32 [length], each element below 2^bits.

        Raises
        ------
        UpdateRejectedError
            If a number is outside its field's range or a field has the wrong number of numbers; names
            the field.
        """
        parts = [np.ones(1, dtype=np.uint32)]
        for field in self.fields:
            offset = field.offset(self.bits)
            numbers = [number + offset for number in values[field.name]]
            if len(numbers) != field.count:
                raise UpdateRejectedError(
                    f"{field.name} has {len(numbers)} numbers, and {field.count} are expected."
                )
            try:
                parts.append(to_limbs(numbers, self.bits, field.limbs))
            except UpdateRejectedError:
                raise UpdateRejectedError(
                    f"{field.name} is outside the range that can be summed exactly."
                ) from None
        return np.concatenate(parts)

    def decode(self, sums: NDArray[np.int64]) -> tuple[int, dict[str, tuple[int, ...]]]:
        """How many contributed, and the exact sum of each number, from sums int64 [length].

        Raises
        ------
        IntegrityError
            If no set of contributions has these sums.
        """
        contributors = require_sums(sums, self.length, self.bits)
        found: dict[str, tuple[int, ...]] = {}
        start = 1
        for field in self.fields:
            end = start + field.count * field.limbs
            offset = contributors * field.offset(self.bits)
            numbers = from_limbs(sums[start:end], self.bits, field.limbs)
            found[field.name] = tuple(number - offset for number in numbers)
            start = end
        return contributors, found


def require_sums(sums: NDArray[np.int64], length: int, bits: int, contributors: int | None = None) -> int:
    """The number of contributors (`sums[0]` where it is not given), if `sums` can be what they give.

    Raises
    ------
    IntegrityError
        If type or length are wrong, or an element is negative or larger than all could make it.
    """
    if sums.dtype != np.int64 or sums.shape != (length,):
        raise IntegrityError(
            f"An opened sum has shape {sums.shape} and type {sums.dtype}, not {length} integers of 64 bits."
        )
    count = int(sums[0]) if contributors is None else contributors
    if not 1 <= count <= MAX_CONTRIBUTORS:
        raise IntegrityError(f"An opened sum claims {count} contributors, not 1 to {MAX_CONTRIBUTORS}.")
    if sums.min() < 0 or sums.max() > count * ((1 << bits) - 1):
        raise IntegrityError(f"An opened sum is not one of {count} contributions of {bits} bits an element.")
    return count
