"""Drives a job's rounds: carries out what the round machine asks for, and tells it what happened.

Invariants
----------
1. Every decision is the machine's (`round_machine`); here is I/O only.
2. Files that a state refers to are written before the state. Killed anywhere, a coordinator opened on
   the same folder goes on from the stored state, asks again for what it had collected, and ends with the
   same bits: silos hand over what they stored.
3. It sees sealed contributions and opened sums, nothing else of a silo.
4. Each step is recorded (`oversight`) when it opens, before its sum is opened, and after. Recording
   again changes nothing, so a restart may.

Example::

    coordinator = Coordinator.open(job=digest, spec=spec, bundle=bundle, agents=agents,
                                   aggregator=aggregator, folder=folder)
    outcome = coordinator.run()
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fedhouse.bundle import Bundle
from fedhouse.encoding import digest_of, sha256
from fedhouse.errors import FedhouseError, QuorumError
from fedhouse.federation.agent import SiloAgent
from fedhouse.federation.oversight import RoundOversight, Step, Unwatched
from fedhouse.federation.plan import JobPlan
from fedhouse.federation.round_machine import (
    Aggregated,
    Collect,
    Contributed,
    Disqualified,
    Effect,
    Evaluated,
    Event,
    Fail,
    Finish,
    JobState,
    Purpose,
    RoundPolicy,
    SiloFailed,
    StatisticsSummed,
    Sum,
    open_job,
    outstanding,
    reopened,
    transition,
)
from fedhouse.federation.server_optimizer import ServerOptimizer
from fedhouse.federation.store import CoordinatorStore
from fedhouse.jobspec import JobSpec
from fedhouse.secure_agg.aggregator import Aggregator
from fedhouse.snapshot import snapshot_vector

if TYPE_CHECKING:
    from fedhouse.encoder import Encoder

log = logging.getLogger(__name__)

_TIMED_AS: Mapping[Purpose, str] = {
    "statistics": "statistics",
    "update": "training",
    "evaluation": "evaluation",
}


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """So many of `total` silos have done their part of a phase (`admission` or a purpose)."""

    phase: str
    round: int
    done: int
    total: int


Progress = Callable[[ProgressEvent], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished job as its coordinator saw it."""

    state: JobState
    exported_round: int
    """The round whose model is the job's: the last; with a patience, the one with the best metric."""
    rows: int
    """Training rows of all admitted silos."""
    bytes_uploaded: Mapping[str, int]
    """For each silo that this process heard from, the bytes of its last update."""
    seconds: Mapping[str, float]
    """Wall time of each phase, in this process."""


@dataclass
class Coordinator:
    """One job's coordinator; make it by `open`."""

    plan: JobPlan
    agents: Mapping[str, SiloAgent]
    aggregator: Aggregator
    store: CoordinatorStore
    policy: RoundPolicy
    state: JobState
    oversight: RoundOversight = field(default_factory=Unwatched)
    parallel: int = 1
    progress: Progress | None = None
    _sealed: dict[tuple[Purpose, int, str], bytes] = field(default_factory=dict, init=False, repr=False)
    _errors: dict[str, FedhouseError] = field(default_factory=dict, init=False, repr=False)
    _admitted: set[str] = field(default_factory=set, init=False)
    _bytes: dict[str, int] = field(default_factory=dict, init=False)
    _seconds: dict[str, float] = field(default_factory=dict, init=False)

    @classmethod
    def open(
        cls,
        *,
        job: str,
        spec: JobSpec,
        bundle: Bundle,
        agents: Mapping[str, SiloAgent],
        aggregator: Aggregator,
        folder: Path,
        oversight: RoundOversight | None = None,
        parallel: int = 1,
        progress: Progress | None = None,
    ) -> Coordinator:
        """A coordinator for the job with digest `job`, where `folder` left it, or at its beginning.

        Raises
        ------
        ConfigurationError
            If there are too few or too many silos.
        IntegrityError
            If the stored state is malformed.
        """
        store = CoordinatorStore(folder, bundle.layout)
        policy = RoundPolicy.of(job, spec)
        stored = store.state()
        state = open_job(agents, policy) if stored is None else reopened(JobState.from_json(stored))
        plan = JobPlan(job, spec, bundle)
        watched = oversight or Unwatched()
        return cls(plan, agents, aggregator, store, policy, state, watched, parallel, progress)

    def run(self) -> Outcome:
        """Run the job to its end.

        Raises
        ------
        QuorumError
            If too few silos took part. Where all that were asked failed alike, their error instead.
        """
        todo = list(outstanding(self.state))
        while todo:
            effect = todo.pop(0)
            for event in self._carry_out(effect):
                self.state, effects = transition(self.state, event, self.policy)
                if effects:
                    self.store.save_state(self.state.to_json())
                todo += effects
        rows = self.store.statistics()["rows"]
        return Outcome(self.state, self._exported(), rows, dict(self._bytes), dict(self._seconds))

    def _exported(self) -> int:
        best = self.state.best(self.policy)
        return best.number if best is not None and self.policy.patience is not None else self.state.round

    def _carry_out(self, effect: Effect) -> Iterable[Event]:
        match effect:
            case Collect(purpose, number, silos):
                self.oversight.opened(self._place(purpose, number), self.state.current.asked)
                return self._collect(purpose, number, silos)
            case Sum(purpose, number, contributors):
                return self._sum(purpose, number, contributors)
            case Finish(reason, detail):
                exported = self._exported()
                model = self._model_digest(exported) if exported else None
                self.oversight.finished(reason, self.state.round, model)
                log.info("job finished: %s", detail, extra={"job": self.plan.job[:16]})
                return ()
            case Fail(_, detail):
                raise self._failure(detail)

    def _failure(self, detail: str) -> FedhouseError:
        """The silos' own error where all failed alike (a retry of broken code helps nobody), else quorum."""
        errors = [self._errors[silo] for silo in self.state.current.failed if silo in self._errors]
        alike = len({type(error) for error in errors}) == 1 and len(errors) == len(self.state.current.asked)
        if alike:
            return type(errors[0])(f"All {len(errors)} silos failed. {errors[0].what}", mend=errors[0].mend)
        return QuorumError(detail, mend="Mend what the silos say, then resume.")

    # --- collecting -----------------------------------------------------------------------------

    def _collect(self, purpose: Purpose, number: int, silos: tuple[str, ...]) -> Iterator[Event]:
        """Ask silos in parallel; their answers as events, in the order in which they come."""
        missing = [silo for silo in silos if silo not in self._admitted]
        with self._timed("admission"):
            refused = dict(self._ask(missing, lambda silo: self._admit(silo), "admission", number))
        with self._timed(_TIMED_AS[purpose]):
            asked = [silo for silo in silos if silo not in refused]
            answers = {**refused, **dict(self._ask(asked, self._request(purpose, number), purpose, number))}
        for silo, error in answers.items():
            if error is None:
                yield Contributed(purpose, number, silo)
            else:
                fields = {"job": self.plan.job[:16], "round": number, "silo": silo, "purpose": purpose}
                log.warning("silo failed: %s", error, extra=fields)
                self._errors[silo] = error
                yield SiloFailed(purpose, number, silo, error.what)

    def _ask(
        self, silos: Iterable[str], call: Callable[[str], None], phase: str, number: int
    ) -> Iterator[tuple[str, FedhouseError | None]]:
        """`call` for every silo; with the silo's error, or None. Admission reports errors only."""
        silos = list(silos)
        with ThreadPoolExecutor(self.parallel, thread_name_prefix="silo") as pool:
            futures = {pool.submit(call, silo): silo for silo in silos}
            for done, future in enumerate(as_completed(futures), 1):
                error = future.exception()
                if error is not None and not isinstance(error, FedhouseError):
                    raise error
                if self.progress is not None:
                    self.progress(ProgressEvent(phase, number, done, len(silos)))
                if error is not None or phase != "admission":
                    yield futures[future], error

    def _admit(self, silo: str) -> None:
        self.agents[silo].admit()
        self._admitted.add(silo)

    def _request(self, purpose: Purpose, number: int) -> Callable[[str], None]:
        """What to ask a silo for; its answer is kept until it is summed."""
        if purpose == "statistics":
            return lambda silo: self._keep(purpose, number, silo, self.agents[silo].statistics())
        encoder: Encoder = self.store.encoder()
        if purpose == "update":
            base = self.store.model(number - 1)
            return lambda silo: self._keep(
                purpose, number, silo, self.agents[silo].update(number, base, encoder)
            )
        model = self.store.model(number)
        return lambda silo: self._keep(
            purpose, number, silo, self.agents[silo].evaluation(number, model, encoder)
        )

    def _keep(self, purpose: Purpose, number: int, silo: str, sealed: bytes) -> None:
        self.oversight.check(self._place(purpose, number), silo, sha256(sealed))
        self._sealed[purpose, number, silo] = sealed
        if purpose == "update":
            self._bytes[silo] = len(sealed)

    # --- summing --------------------------------------------------------------------------------

    def _sum(self, purpose: Purpose, number: int, contributors: tuple[str, ...]) -> Iterator[Event]:
        """Open the sum of exactly these contributions; after a restart they are asked for again."""
        missing = [silo for silo in contributors if (purpose, number, silo) not in self._sealed]
        if missing:
            failed = [
                silo
                for event in self._collect(purpose, number, tuple(missing))
                if isinstance(event, SiloFailed) and (silo := event.silo)
            ]
            if failed:
                raise QuorumError(
                    f"Silo {failed[0]} no longer hands over its {purpose} of the closed round {number}.",
                    mend="Bring the silo back, then resume; the set of a closed round never changes.",
                )
        step = self._place(purpose, number)
        fallen = self.oversight.closed(step, contributors)
        if fallen:
            silo, reason = next(iter(fallen.items()))
            yield Disqualified(purpose, number, silo, reason)
            return
        with self._timed("aggregation"):
            sealed = {silo: self._sealed.pop((purpose, number, silo)) for silo in contributors}
            event = self._opened(purpose, number, sealed)
        match event:
            case StatisticsSummed(encoder):
                self.oversight.published(step, encoder, {})
            case Aggregated(_, model):
                self.oversight.published(step, model, {})
            case Evaluated(_, metrics):
                self.oversight.published(step, digest_of("fedhouse-metrics/1", dict(metrics)), metrics)
        yield event

    def _place(self, purpose: Purpose, number: int) -> Step:
        """The step, with the digest of what it starts from."""
        if purpose == "statistics":
            return Step(purpose, number, self.plan.bundle.digest)
        return Step(purpose, number, self._model_digest(number - 1 if purpose == "update" else number))

    def _model_digest(self, number: int) -> str:
        return self.plan.model_digest(self.store.model(number))

    def _opened(self, purpose: Purpose, number: int, sealed: Mapping[str, bytes]) -> Event:
        if purpose == "statistics":
            sums = self.aggregator.open_sum(self.plan.statistics_context(), sealed)
            told = self.plan.statistics.decode(sums)
            encoder = told.encoder(self.plan.spec)
            self.store.save_encoder(encoder)
            self.store.save_statistics({"rows": told.rows, "held_out": told.held_out})
            weights = snapshot_vector(self.plan.bundle.layout, self.plan.bundle.weights)
            start = ServerOptimizer(self.plan.spec.server).initial(self.plan.parameters)
            self.store.save_round(0, weights, start.arrays())
            return StatisticsSummed(encoder.digest)
        if purpose == "update":
            return self._step(number, sealed)
        sums = self.aggregator.open_sum(self.plan.evaluation_context(number), sealed)
        return Evaluated(number, self.plan.evaluation.decode(sums).to_json())

    def _step(self, number: int, sealed: Mapping[str, bytes]) -> Event:
        """The model after round `number` from its summed updates."""
        sums = self.aggregator.open_sum(self.plan.update_context(number), sealed)
        mean, _ = self.plan.codec.decode(sums, len(sealed))
        optimizer = ServerOptimizer(self.plan.spec.server)
        before = optimizer.restore(self.store.optimizer(number - 1), self.plan.parameters)
        weights, after = optimizer.step(self.store.model(number - 1), mean, before)
        self.store.save_round(number, weights, after.arrays())
        return Aggregated(number, self.plan.model_digest(weights))

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + time.monotonic() - began
