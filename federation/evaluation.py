"""How good a model is on all silos' held-out rows, from sums alone.

Each silo's metrics times its examples, and the histograms of its scores, travel as limbs of an
aggregation. The area under the ROC curve comes from the summed histograms: exact where no two scores
share a bin, and off by at most half the share of pairs that do.

Example::

    plan = EvaluationPlan(spec)
    sums = sum(plan.encode(silo.evaluate(3, weights, encoder)).astype(np.int64) for silo in silos)
    plan.decode(sums).to_json()                                   # {"auc": 0.71, "loss": 0.44}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from fedhouse.errors import IntegrityError, UpdateRejectedError
from fedhouse.jobspec import JobSpec
from fedhouse.secure_agg.limbs import Field, IntegerVector
from fedhouse.spark_jobs.contract import SCORE_BINS, LocalEvaluation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BITS: Final = 16
# Room for 2^48 examples a silo, and for metrics within ±2^30 in units of 2^-32 times the examples.
_COUNT: Final = 3
_METRIC: Final = 7
_METRIC_UNIT: Final = 2**32
_LARGEST_METRIC: Final = 2.0**30


@dataclass(frozen=True, slots=True)
class FederatedMetrics:
    """The evaluation of one model on the held-out rows of `contributors` silos.

    `values` are means over examples of what the job's `evaluate` returned. `auc` is None where positive
    or negative rows are missing; without examples there are no values.
    """

    contributors: int
    examples: int
    auc: float | None
    values: Mapping[str, float]

    def to_json(self) -> dict[str, float]:
        """All metrics by name; `auc` among them where there is one."""
        return dict(self.values) | ({} if self.auc is None else {"auc": self.auc})


class EvaluationPlan:
    """How one job's evaluations become an integer vector of `length` elements of `bits` bits, and back."""

    bits = _BITS

    def __init__(self, spec: JobSpec) -> None:
        self._report = spec.report
        fields = [Field("examples", _COUNT)]
        fields += [Field(f"metric {name}", _METRIC, signed=True) for name in self._report]
        fields += [Field(name, _COUNT, count=SCORE_BINS) for name in ("positives", "negatives")]
        self._vector = IntegerVector(tuple(fields), _BITS)

    @property
    def length(self) -> int:
        """Number of elements of a contribution."""
        return self._vector.length

    def encode(self, local: LocalEvaluation) -> NDArray[np.uint32]:
        """One silo's contribution, uint32 [length]; of zeros where it has no held-out rows.

        Only the metrics that the job reports leave.

        Raises
        ------
        UpdateRejectedError
            If a reported metric is missing, not finite or beyond ±2^30, or if the counts of scores
            are not those of the examples; names the metric, never its value.
        """
        positives, negatives = local.positives.tolist(), local.negatives.tolist()
        if min(positives + negatives) < 0 or sum(positives) + sum(negatives) != local.examples:
            raise UpdateRejectedError("The counts of scores do not add up to the evaluated examples.")
        values = {"examples": (local.examples,), "positives": positives, "negatives": negatives}
        for name in self._report:
            values[f"metric {name}"] = (self._weighted(name, local),)
        return self._vector.encode(values)

    def decode(self, sums: NDArray[np.int64]) -> FederatedMetrics:
        """The metrics from the element-wise sums of all contributions, int64 [length].

        Raises
        ------
        IntegrityError
            If no silos' evaluations have these sums.
        """
        contributors, found = self._vector.decode(sums)
        examples = found["examples"][0]
        positives, negatives = found["positives"], found["negatives"]
        if sum(positives) + sum(negatives) != examples:
            raise IntegrityError("The summed counts of scores do not add up to the examples.")
        values = {}
        for name in self._report:
            total = found[f"metric {name}"][0]
            if abs(total) > examples * int(_LARGEST_METRIC) * _METRIC_UNIT:
                raise IntegrityError(f"The summed metric {name} is larger than its examples allow.")
            if examples:
                values[name] = float(Fraction(total, examples * _METRIC_UNIT))
        return FederatedMetrics(contributors, examples, _auc(positives, negatives), values)

    @staticmethod
    def _weighted(name: str, local: LocalEvaluation) -> int:
        if local.examples == 0:
            return 0
        value = local.metrics.get(name)
        if value is None:
            raise UpdateRejectedError(
                f"evaluate returned no '{name}'.", mend="Return it, or take it out of the job's report."
            )
        if not (math.isfinite(value) and abs(value) <= _LARGEST_METRIC):
            raise UpdateRejectedError(
                f"evaluate returned a '{name}' that is not finite or beyond ±2^30.",
                mend="Look for a loss that diverges.",
            )
        # From the double's exact value, so that the integer is the same on every machine.
        return round(Fraction(value) * local.examples * _METRIC_UNIT)


def auc_from_histograms(positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> float | None:
    """Area under the ROC curve from counts of scores by bin, lowest bin first; None if a class is empty.

    The share of pairs in which the positive lies in a higher bin, pairs in one bin counted half: the
    trapezoid through the curve's points. It differs from the AUC of the scores themselves by at most
    Σ p·n / (2·P·N), p and n the counts of a bin.
    """
    return _auc(tuple(positives.tolist()), tuple(negatives.tolist()))


def _auc(positives: tuple[int, ...], negatives: tuple[int, ...]) -> float | None:
    pairs = sum(positives) * sum(negatives)
    if pairs == 0:
        return None
    twice = below = 0
    for positive, negative in zip(positives, negatives, strict=True):
        twice += positive * (2 * below + negative)
        below += negative
    return float(Fraction(twice, 2 * pairs))
