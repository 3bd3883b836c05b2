"""What a silo's side of a job gives to the federation: plain numbers, no Spark and no torch types.

`SiloRunner` is the contract; `fedhouse.spark_jobs.runner` implements it on Spark. Nothing here is
encrypted or rounded yet: these values stay inside the silo.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fedhouse.errors import IntegrityError, QualityGateError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fedhouse.encoder import Encoder

# Numbers enter statistics as integers in units of 2^-16, their squares in units of 2^-32.
STATISTICS_FRACTION_BITS = 16

# Scores in [0, 1] are counted in so many bins of equal width; the last one includes 1.
SCORE_BINS = 1024


@dataclass(frozen=True, slots=True)
class Admission:
    """A silo's pinned table, and what its quality gate found. Counts and digests, no values.

    `pin` and `gate` are JSON values: `Pin.to_json`, and the gate's report with its list of `checks`.
    `failure` is one line, empty where every check passed.
    """

    pin: Mapping[str, Any]
    pin_digest: str
    gate: Mapping[str, Any]
    failure: str = ""

    def require_passed(self) -> None:
        """Nothing, if the rows are what the dataset declares.

        Raises
        ------
        QualityGateError
            Otherwise.
        """
        if self.failure:
            raise QualityGateError(
                self.failure, mend="Mend the silo's table; the bounds are in the dataset's file."
            )

    def to_json(self) -> dict[str, Any]:
        """The admission as a JSON value."""
        return {
            "pin": dict(self.pin),
            "pin_digest": self.pin_digest,
            "gate": dict(self.gate),
            "failure": self.failure,
        }

    @classmethod
    def from_json(cls, value: Any) -> Admission:
        """The admission from what `to_json` gave.

        Raises
        ------
        IntegrityError
            If `value` is anything else.
        """
        try:
            return cls(dict(value["pin"]), value["pin_digest"], dict(value["gate"]), value["failure"])
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(
                "A stored admission is malformed.", mend="Use a fresh run folder."
            ) from error


@dataclass(frozen=True, slots=True)
class NumberStatistics:
    """Sums over the training rows of one numeric column.

    `total` and `squares` are exact integers, in units of 2^-16 and 2^-32.
    """

    count: int
    total: int
    squares: int


@dataclass(frozen=True, slots=True)
class LocalStatistics:
    """Sums over one silo's training rows. `rows` includes rows with nulls; held-out rows count apart.

    `categories` gives for each category column the count of each word of its vocabulary and, last, of
    the rest (nulls included).
    """

    rows: int
    held_out: int
    numbers: Mapping[str, NumberStatistics]
    categories: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class LocalUpdate:
    """One silo's update of a round: local minus base parameters, averaged over its partitions by
    example count.

    `delta` is float64 of length P in the bundle's layout, not yet clipped. `cpu_class` names the
    instruction set that the bits depend on.
    """

    delta: NDArray[np.float64]
    examples: int
    partitions: Mapping[int, int]
    """Examples of each partition that had any."""
    seconds: float
    cpu_class: str


@dataclass(frozen=True, slots=True)
class LocalEvaluation:
    """One silo's evaluation on its held-out rows.

    `metrics` are means over examples, as the job's `evaluate` returned them, weighted by example
    count. `positives` and `negatives` are int64 histograms of scores, `SCORE_BINS` bins each.
    """

    examples: int
    metrics: Mapping[str, float]
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]
    seconds: float


class SiloRunner(Protocol):
    """One silo's warehouse, gate and training for one job.

    Legal order: `admit` first (again after a restart), then `statistics`, then `train` and `evaluate`
    for any round, `close` last. Every call gives the same result when it is repeated.
    """

    silo: str

    def admit(self, earlier: Admission | None = None) -> Admission:
        """Resolve the pin and run the quality gate, once a job; whether it passed is in the result.
        Given an `earlier` admission of this job, checks that the table is still in that state and
        returns the same.

        Raises
        ------
        SourceError, SourceChangedError
            If the source cannot be read, or is not what an earlier admission of this job pinned.
        """
        ...

    def statistics(self) -> LocalStatistics:
        """Sums over the training rows."""
        ...

    def train(self, round_number: int, weights: NDArray[np.float32], encoder: Encoder) -> LocalUpdate:
        """Train from `weights` (float32, length P) on the silo's training rows.

        Raises
        ------
        UserCodeError, UpdateRejectedError, TimeLimitError
            If the job's code fails, returns something else than declared, or takes too long.
        SourceChangedError
            If the table changed.
        """
        ...

    def evaluate(self, round_number: int, weights: NDArray[np.float32], encoder: Encoder) -> LocalEvaluation:
        """Evaluate `weights` on the silo's held-out rows; raises what `train` raises."""
        ...

    def close(self) -> None:
        """Delete prepared rows and release what was taken. Safe to call twice."""
        ...
