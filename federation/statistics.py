"""Statistics of all silos' rows from sums alone, exact: integers on the way, fractions at the end.

Each silo's counts, totals and squares travel as limbs of an aggregation, so only their sums are opened.
Totals have a sign and carry a public offset. The result does not depend on how the rows are split over
silos: it equals, to the last bit, what the pooled rows would give.

Example::

    plan = StatisticsPlan(spec)
    sums = sum(plan.encode(silo.statistics()).astype(np.int64) for silo in silos)
    encoder = plan.decode(sums).encoder(spec)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from fedhouse.encoder import CategoryEncoding, Encoder, NumberEncoding
from fedhouse.errors import IntegrityError, SourceChangedError, SourceError, UpdateRejectedError
from fedhouse.jobspec import JobSpec
from fedhouse.secure_agg.limbs import Field, IntegerVector
from fedhouse.spark_jobs.contract import STATISTICS_FRACTION_BITS, LocalStatistics, NumberStatistics

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BITS: Final = 16
# Room for 2^48 rows a silo; a number of up to 2^31 is 2^47 units, so that with 2^30 rows a total stays
# below 2^77 and squares below 2^124.
_COUNT: Final = 3
_TOTAL: Final = 5
_SQUARES: Final = 8


@dataclass(frozen=True, slots=True)
class FederatedNumber:
    """One numeric column over the training rows of all silos; exact.

    `mean` and `variance` (of the population) are over rows with a value, None where there is none.
    """

    count: int
    mean: Fraction | None
    variance: Fraction | None
    null_fraction: Fraction


@dataclass(frozen=True, slots=True)
class FederatedStatistics:
    """What the sums say about the rows of `contributors` silos.

    `categories` gives for each category column the count of each word and, last, of the rest.
    """

    contributors: int
    rows: int
    held_out: int
    numbers: Mapping[str, FederatedNumber]
    categories: Mapping[str, tuple[int, ...]]

    def encoder(self, spec: JobSpec) -> Encoder:
        """How rows become features: means and standard deviations, each the nearest double.

        A column that never varies, or has no value, is left at scale 1.
        """
        encodings: list[NumberEncoding | CategoryEncoding] = []
        for column in spec.columns:
            if column.vocabulary is not None:
                encodings.append(CategoryEncoding(column.name, column.vocabulary))
                continue
            told = self.numbers[column.name]
            mean = float(told.mean) if told.mean is not None else 0.0
            scale = nearest_root(told.variance) if told.variance else 1.0
            encodings.append(NumberEncoding(column.name, mean, scale, column.flag_missing))
        return Encoder(tuple(encodings), spec.label)


class StatisticsPlan:
    """How one job's statistics become an integer vector of `length` elements of `bits` bits, and back."""

    bits = _BITS

    def __init__(self, spec: JobSpec) -> None:
        self._numbers = tuple(column.name for column in spec.columns if column.vocabulary is None)
        self._categories = {c.name: c.width for c in spec.columns if c.vocabulary is not None}
        fields = [Field("rows", _COUNT), Field("held_out", _COUNT)]
        for name in self._numbers:
            fields += [
                Field(f"{name} count", _COUNT),
                Field(f"{name} total", _TOTAL, signed=True),
                Field(f"{name} squares", _SQUARES),
            ]
        fields += [Field(f"{name} words", _COUNT, count=width) for name, width in self._categories.items()]
        self._vector = IntegerVector(tuple(fields), _BITS)

    @property
    def length(self) -> int:
        """Number of elements of a contribution."""
        return self._vector.length

    def encode(self, local: LocalStatistics) -> NDArray[np.uint32]:
        """One silo's contribution, uint32 [length].

        Raises
        ------
        SourceError
            If a column's sums are larger than can travel; names the column.
        SourceChangedError
            If a column's counts do not fit the number of rows: two passes saw different rows.
        IntegrityError
            If the columns are not those of the job.
        """
        if set(local.numbers) != set(self._numbers) or set(local.categories) != set(self._categories):
            raise IntegrityError("A silo's statistics are of other columns than the job's.")
        values: dict[str, tuple[int, ...]] = {"rows": (local.rows,), "held_out": (local.held_out,)}
        for name, told in local.numbers.items():
            _require_possible(name, told, local.rows)
            values[f"{name} count"] = (told.count,)
            values[f"{name} total"] = (told.total,)
            values[f"{name} squares"] = (told.squares,)
        for name, counts in local.categories.items():
            if len(counts) != self._categories[name] or sum(counts) != local.rows:
                raise SourceChangedError(
                    f"The counts of column {name} do not add up to the number of rows.",
                    mend="If the table is being written, run again when it is done.",
                )
            values[f"{name} words"] = counts
        try:
            return self._vector.encode(values)
        except UpdateRejectedError as error:
            raise SourceError(
                f"Statistics: {error.what}",
                mend="Bound the column in the dataset, or give it in another unit.",
            ) from None

    def decode(self, sums: NDArray[np.int64]) -> FederatedStatistics:
        """The statistics from the element-wise sums of all contributions, int64 [length].

        Raises
        ------
        IntegrityError
            If no silos' statistics have these sums.
        """
        contributors, found = self._vector.decode(sums)
        rows = found["rows"][0]
        numbers = {
            name: _federated(
                name, rows, *(found[f"{name} {part}"][0] for part in ("count", "total", "squares"))
            )
            for name in self._numbers
        }
        categories = {name: found[f"{name} words"] for name in self._categories}
        for name, counts in categories.items():
            if sum(counts) != rows:
                raise IntegrityError(f"The summed counts of column {name} do not add up to the rows.")
        return FederatedStatistics(contributors, rows, found["held_out"][0], numbers, categories)


def _require_possible(name: str, told: NumberStatistics, rows: int) -> None:
    if not 0 <= told.count <= rows or told.total**2 > told.count * told.squares:
        raise SourceChangedError(
            f"The sums of column {name} belong to no {rows} rows.",
            mend="If the table is being written, run again when it is done.",
        )


def _federated(name: str, rows: int, count: int, total: int, squares: int) -> FederatedNumber:
    # By Cauchy and Schwarz no numbers have a larger total; a violation is a forged or broken sum.
    if count > rows or total**2 > count * squares:
        raise IntegrityError(f"The summed statistics of column {name} belong to no rows.")
    nulls = Fraction(rows - count, rows) if rows else Fraction(0)
    if count == 0:
        return FederatedNumber(0, None, None, nulls)
    unit = 1 << STATISTICS_FRACTION_BITS
    mean = Fraction(total, count * unit)
    variance = Fraction(squares * count - total**2, (count * unit) ** 2)
    return FederatedNumber(count, mean, variance, nulls)


def nearest_root(value: Fraction) -> float:
    """The double nearest to the square root of a positive fraction.

    The root is taken in integers of at least 55 bits and rounded to odd, after which the division's
    own rounding is the only one (Boldo and Melquiond, When double rounding is odd, 2005).
    """
    numerator, denominator = value.numerator, value.denominator
    shift = (numerator.bit_length() - denominator.bit_length() - 109) // 2
    if shift >= 0:
        return (_root_to_odd(numerator, denominator << 2 * shift) << shift) / 1
    return _root_to_odd(numerator << -2 * shift, denominator) / (1 << -shift)


def _root_to_odd(numerator: int, denominator: int) -> int:
    root = math.isqrt(numerator // denominator)
    return root | (root * root * denominator != numerator)
