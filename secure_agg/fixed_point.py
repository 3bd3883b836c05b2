"""Updates as small unsigned integers: clipped, weighted, rounded without bias, and back from their sum.

Integers add up to the same sum in every order, and they are what a secure sum can carry.

Invariants
----------
1. An encoded element is below 2^bits, so a sum of up to 32 of them is below 2^(bits + 5): at 16 bits it
   fits a lane of 21. This holds by construction, not by luck with the data.
2. Rounding is unbiased: the expected level of a value is the value. An exact level is never moved.
3. The same update, example count and seed give the same integers on every machine: only elementwise
   IEEE double operations and raw Philox words are used.
4. The weight that a silo applied is the example count that it sent: both are counted up to
   `max_examples`, and that count travels exactly.

With n examples the weight is w = min(n, max_examples) / max_examples. The decoded mean is
Σ w·delta / Σ w, where Σ w comes out of the sums themselves.

Example::

    codec = FixedPointCodec(bits=16, coordinate=1.0, max_examples=100_000, parameters=len(delta))
    clipped, report = clip_update(delta, norm=10.0, coordinate=1.0)
    sums = codec.encode(clipped, examples=8_000, seed=7).astype(np.int64)     # ... of every silo, added up
    mean, examples = codec.decode(sums, contributors=1)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import numpy as np

from fedhouse.errors import IntegrityError, UpdateRejectedError
from fedhouse.secure_agg.limbs import from_limbs, limbs_for, require_sums, to_limbs

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Work goes in blocks that stay in the cache, and its order does not depend on the machine.
_BLOCK: Final = 2**16
_LANES: Final = 2**10


@dataclass(frozen=True, slots=True)
class ClipReport:
    """What clipping did to an update. Stays inside the silo."""

    norm_before: float
    norm_scaled: bool
    coordinates_clipped: int


def clip_update(
    delta: NDArray[np.float64], norm: float, coordinate: float
) -> tuple[NDArray[np.float64], ClipReport]:
    """`delta`, float64 [P], scaled to a Euclidean norm of at most `norm`, then each element cut to
    ±`coordinate`.

    Scaling keeps the direction; cutting bounds what rounding must represent. The norm holds to a few
    units in the last place.

    Raises
    ------
    UpdateRejectedError
        If `delta` is not a finite float64 vector.
    """
    _require_update(delta)
    before = euclidean_norm(delta)
    scaled = before > norm
    clipped = delta * (norm / before) if scaled else delta
    beyond = int(np.count_nonzero(np.abs(clipped) > coordinate))
    return np.clip(clipped, -coordinate, coordinate), ClipReport(before, scaled, beyond)


def euclidean_norm(vector: NDArray[np.float64]) -> float:
    """The 2-norm of a finite vector, with the same bits on every machine.

    BLAS adds in an order that depends on the processor; here 1,024 running sums are kept and added
    exactly at the end. Squares are taken of multiples of the largest element, so none overflows.
    """
    peak = float(np.abs(vector).max(initial=0.0))
    if peak == 0.0:
        return 0.0
    lanes = np.zeros(_LANES)
    for start in range(0, len(vector), _BLOCK):
        block = vector[start : start + _BLOCK] / peak
        whole = len(block) // _LANES * _LANES
        lanes += np.square(block[:whole]).reshape(-1, _LANES).sum(axis=0)
        lanes[: len(block) - whole] += np.square(block[whole:])
    return peak * math.sqrt(math.fsum(lanes))


@dataclass(frozen=True)
class FixedPointCodec:
    """Updates of `parameters` elements within ±`coordinate` as integers of `bits` bits, and back.

    `bits` is 8, 12, 16 or 24; a level is coordinate / (2^(bits-1) - 1).
    """

    bits: int
    coordinate: float
    max_examples: int
    parameters: int

    @property
    def levels(self) -> int:
        """Levels on each side of zero."""
        return (1 << self.bits - 1) - 1

    @property
    def bias(self) -> int:
        """What makes levels unsigned."""
        return 1 << self.bits - 1

    @property
    def count_limbs(self) -> int:
        """Elements that carry the example count."""
        return limbs_for(self.max_examples, self.bits)

    @property
    def length(self) -> int:
        """Elements of an encoded update: one a parameter, and the example count behind them."""
        return self.parameters + self.count_limbs

    def encode(self, delta: NDArray[np.float64], examples: int, seed: int) -> NDArray[np.uint32]:
        """`delta`, float64 [parameters] within ±`coordinate`, as uint32 [length], each below 2^bits.

        `seed` in [0, 2^64) decides the rounding. Without examples the update counts for nothing.

        Raises
        ------
        UpdateRejectedError
            If `delta` is not finite, of another shape or beyond the bound; if `examples` is negative.
        """
        _require_update(delta)
        if len(delta) != self.parameters:
            raise UpdateRejectedError(
                f"The update has {len(delta)} parameters, and the model has {self.parameters}."
            )
        if np.abs(delta).max(initial=0.0) > self.coordinate:
            raise UpdateRejectedError(
                f"An element of the update lies beyond ±{self.coordinate:g}.", mend="Clip it first."
            )
        if examples < 0:
            raise UpdateRejectedError("The update claims a negative number of examples.")
        counted = min(examples, self.max_examples)
        encoded = np.empty(self.length, dtype=np.uint32)
        self._round(delta, counted / self.max_examples, seed, encoded[: self.parameters])
        encoded[self.parameters :] = to_limbs([counted], self.bits, self.count_limbs)
        return encoded

    def decode(self, sums: NDArray[np.int64], contributors: int) -> tuple[NDArray[np.float64], int]:
        """The weighted mean update, float64 [parameters], and the examples that counted, from the sums of
        `contributors` encoded updates, int64 [length].

        Raises
        ------
        IntegrityError
            If no encoded updates have these sums.
        UpdateRejectedError
            If no contributor had an example.
        """
        require_sums(sums, self.length, self.bits, contributors)
        examples = from_limbs(sums[self.parameters :], self.bits, self.count_limbs)[0]
        if examples > contributors * self.max_examples:
            raise IntegrityError("The sum of updates claims more examples than its contributors may count.")
        levels = sums[: self.parameters] - contributors * self.bias
        # Rounding moves a value by less than one level, so a contributor's levels stay below this.
        reach = self.levels * examples // self.max_examples + contributors
        if np.abs(levels).max(initial=0) > reach:
            raise IntegrityError("The sum of updates is larger than its example count allows.")
        if examples == 0:
            raise UpdateRejectedError(
                "No contributor of the round had an example to train on.",
                mend="Look at the labels and the holdout.",
            )
        unit = Fraction(self.coordinate) * self.max_examples / (self.levels * examples)
        return levels.astype(np.float64) * float(unit), examples

    def _round(self, delta: NDArray[np.float64], weight: float, seed: int, out: NDArray[np.uint32]) -> None:
        """Biased levels of `weight` · `delta` into `out`, rounded up with the probability of the rest.

        A level is compared by parts: adding the random number to a whole level could carry it into the
        next one, and at the bound out of the range.
        """
        # Raw words: the streams of NumPy's distributions may change between its versions (NEP 19).
        words = np.random.Philox(key=seed)
        for start in range(0, len(delta), _BLOCK):
            part = slice(start, min(start + _BLOCK, len(delta)))
            # Each factor is at most 1 after division, and rounding is monotone: |level| <= levels.
            level = delta[part] / self.coordinate * weight * self.levels
            whole = np.floor(level)
            chance = (words.random_raw(len(level)) >> np.uint64(11)) * 2.0**-53
            out[part] = (whole + (chance < level - whole) + self.bias).astype(np.uint32)


def _require_update(delta: NDArray[np.float64]) -> None:
    if delta.dtype != np.float64 or delta.ndim != 1:
        raise UpdateRejectedError(
            f"An update must be a float64 vector, not {delta.dtype} of {delta.ndim} axes."
        )
    if not np.isfinite(delta).all():
        raise UpdateRejectedError(
            "The update has elements that are not finite.", mend="Lower the learning rate."
        )
