"""What every party of a job derives from its description: codecs, lengths, contexts.

Silos and coordinator compute it apart from each other, so a coordinator cannot choose it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from fedhouse.federation.evaluation import EvaluationPlan
from fedhouse.federation.statistics import StatisticsPlan
from fedhouse.jobspec import JobSpec
from fedhouse.secure_agg.aggregator import AggregationContext
from fedhouse.secure_agg.fixed_point import FixedPointCodec


@dataclass(frozen=True)
class JobPlan:
    """The derived constants of one job. `job` is its digest, `parameters` the length of an update."""

    job: str
    spec: JobSpec
    parameters: int

    @cached_property
    def statistics(self) -> StatisticsPlan:
        """How local statistics become integers."""
        return StatisticsPlan(self.spec)

    @cached_property
    def evaluation(self) -> EvaluationPlan:
        """How local evaluations become integers."""
        return EvaluationPlan(self.spec)

    @cached_property
    def codec(self) -> FixedPointCodec:
        """How updates become integers."""
        return FixedPointCodec(
            self.spec.bits, self.spec.clip.coordinate, self.spec.max_examples, self.parameters
        )

    def statistics_context(self) -> AggregationContext:
        """The context of the statistics, which belong to no round."""
        return AggregationContext(self.job, 0, "statistics", self.statistics.length, self.statistics.bits)

    def update_context(self, number: int) -> AggregationContext:
        """The context of the updates of round `number`."""
        return AggregationContext(self.job, number, "update", self.codec.length, self.spec.bits)

    def evaluation_context(self, number: int) -> AggregationContext:
        """The context of the evaluations of the model after round `number`."""
        return AggregationContext(
            self.job, number, "evaluation", self.evaluation.length, self.evaluation.bits
        )
