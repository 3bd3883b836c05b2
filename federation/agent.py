"""One silo's side of a job: run, clip, round, seal, persist, and only then hand over.

Invariants
----------
1. A contribution is persisted before it leaves. Asked again for the same thing, the agent hands over
   the stored bytes; it never makes a second contribution from the same base.
2. A stored contribution names the base model that it was made from. Asked for the same round with
   another base, the agent refuses: two contributions to one round would be a difference of updates.
3. Updates are clipped and rounded to integers here, inside the silo.
4. What leaves is sealed by the aggregator, and committed to by its digest before it leaves.
5. Gate 1: nothing is read, and nothing leaves, while the silo's oversight forbids it.

Example::

    agent = SiloAgent(plan, "AA", runner, aggregator, folder, oversight)
    agent.admit()
    sealed = agent.statistics()
    sealed = agent.update(1, weights, encoder)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedhouse.encoding import derive_seed, read_json, sha256, write_atomic, write_json
from fedhouse.errors import IntegrityError, PolicyRefusedError
from fedhouse.federation.oversight import SiloOversight, Step, Unwatched
from fedhouse.federation.plan import JobPlan
from fedhouse.secure_agg.aggregator import AggregationContext, Aggregator
from fedhouse.secure_agg.fixed_point import clip_update
from fedhouse.spark_jobs.contract import Admission, SiloRunner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fedhouse.encoder import Encoder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SiloAgent:
    """Acts for one silo in one job. `folder` is the silo's own state; nobody else reads it."""

    plan: JobPlan
    silo: str
    runner: SiloRunner
    aggregator: Aggregator
    folder: Path
    oversight: SiloOversight = field(default_factory=Unwatched)

    def admit(self) -> Admission:
        """Pin the table and pass the quality gate, once a job.

        Raises
        ------
        PolicyRefusedError
            If the job may not run here.
        QualityGateError
            If the rows are not what the dataset declares.
        SourceError, SourceChangedError
            As `SiloRunner.admit`.
        """
        self._require_permitted()
        path = self.folder / "admission.json"
        admission = self.runner.admit(Admission.from_json(read_json(path)) if path.exists() else None)
        self.oversight.attest(admission)
        admission.require_passed()
        write_json(path, admission.to_json())
        log.info("silo admitted", extra=self._fields(0))
        return admission

    def statistics(self) -> bytes:
        """The silo's sums, sealed."""
        context = self.plan.statistics_context()
        return self._contribute(
            context,
            self.plan.bundle.digest,
            lambda: (self.plan.statistics.encode(self.runner.statistics()), {}),
        )

    def update(self, number: int, weights: NDArray[np.float32], encoder: Encoder) -> bytes:
        """The silo's update of round `number` from `weights` (float32 [P]), clipped, rounded, sealed."""
        context = self.plan.update_context(number)

        def make() -> tuple[NDArray[np.uint32], dict[str, Any]]:
            update = self.runner.train(number, weights, encoder)
            clip = self.plan.spec.clip
            clipped, report = clip_update(update.delta, clip.norm, clip.coordinate)
            seed = derive_seed("rounding", self.plan.job, number, self.silo)
            facts = {
                "milliseconds": int(update.seconds * 1000),
                "examples": update.examples,
                "cpu_class": update.cpu_class,
                "norm": float(report.norm_before),
                "norm_scaled": bool(report.norm_scaled),
                "coordinates_clipped": int(report.coordinates_clipped),
            }
            return self.plan.codec.encode(clipped, update.examples, seed), facts

        return self._contribute(context, self.plan.model_digest(weights), make)

    def evaluation(self, number: int, weights: NDArray[np.float32], encoder: Encoder) -> bytes:
        """The silo's evaluation of the model after round `number`, sealed."""
        context = self.plan.evaluation_context(number)

        def make() -> tuple[NDArray[np.uint32], dict[str, Any]]:
            told = self.runner.evaluate(number, weights, encoder)
            return self.plan.evaluation.encode(told), {"milliseconds": int(told.seconds * 1000)}

        return self._contribute(context, self.plan.model_digest(weights), make)

    def facts(self, context: AggregationContext) -> Mapping[str, Any]:
        """What the silo noted of a contribution for itself: seconds, examples, clipping. Stays here."""
        facts: Mapping[str, Any] = read_json(self._path(context).with_suffix(".json"))["facts"]
        return facts

    def close(self) -> None:
        """Delete prepared rows."""
        self.runner.close()

    def _require_permitted(self) -> None:
        """Gate 1. What may not be used is not kept either: prepared rows go when it refuses."""
        try:
            self.oversight.require_permitted()
        except PolicyRefusedError:
            self.runner.close()
            raise

    def _contribute(
        self,
        context: AggregationContext,
        base: str,
        make: Callable[[], tuple[NDArray[np.uint32], dict[str, Any]]],
    ) -> bytes:
        self._require_permitted()
        step = Step(context.purpose, context.round, base)
        path = self._path(context)
        note = path.with_suffix(".json")
        if note.exists():
            sealed = self._stored(path, note, base)
            self.oversight.commit(step, sha256(sealed))
            return sealed
        values, facts = make()
        sealed = self.aggregator.seal(context, self.silo, values)
        # The note comes last: it says that the bytes beside it are whole.
        write_atomic(path, sealed, mode=0o600)
        write_json(note, {"base": base, "digest": sha256(sealed), "bytes": len(sealed), "facts": facts})
        log.info("contribution stored", extra=self._fields(context.round) | {"purpose": context.purpose})
        self.oversight.commit(step, sha256(sealed))
        return sealed

    def _stored(self, path: Path, note: Path, base: str) -> bytes:
        told = read_json(note)
        if told.get("base") != base:
            raise IntegrityError(
                f"Silo {self.silo} has contributed to this round from another base model.",
                mend="Use a fresh run folder; a second contribution would give the first away.",
            )
        try:
            sealed = path.read_bytes()
        except OSError as error:
            raise IntegrityError(f"{path} cannot be read: {error.strerror}.") from error
        if sha256(sealed) != told.get("digest"):
            raise IntegrityError(f"{path} is not what silo {self.silo} stored.", mend="Restore it.")
        return sealed

    def _path(self, context: AggregationContext) -> Path:
        return self.folder / "contributions" / f"{context.purpose}-{context.round:04d}.sealed"

    def _fields(self, number: int) -> dict[str, Any]:
        return {"job": self.plan.job[:16], "silo": self.silo, "round": number}
