"""What every party of a job derives from its description: codecs, lengths, contexts.

Silos and coordinator compute it apart from each other, so a coordinator cannot choose it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from fedhouse.bundle import Bundle
from fedhouse.encoding import sha256
from fedhouse.federation.evaluation import EvaluationPlan
from fedhouse.federation.statistics import StatisticsPlan
from fedhouse.jobspec import JobSpec
from fedhouse.secure_agg.aggregator import AggregationContext
from fedhouse.secure_agg.fixed_point import FixedPointCodec
from fedhouse.snapshot import snapshot_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class JobPlan:
    """The derived constants of one job. `job` is its digest."""

    job: str
    spec: JobSpec
    bundle: Bundle

    @property
    def parameters(self) -> int:
        """The length of an update."""
        return self.bundle.layout.size

    def model_digest(self, weights: NDArray[np.float32]) -> str:
        """What a model is called everywhere: SHA-256 of its safetensors file. `weights` is float32 [P]."""
        return sha256(snapshot_bytes(self.bundle.layout, weights))

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
