"""The rounds of a job as a pure state machine: events in, a new state and effects out, no I/O.

Invariants
----------
1. The effects follow from the state: `outstanding(state)` says what to do next, so whoever reads a
   stored state goes on from there. A transition returns them exactly when there is something new to do.
2. The state after a collection does not depend on the order in which silos answered.
3. An event that the state already holds changes nothing: contributions, closings and results may come
   twice. An event that contradicts the state, or does not belong to it, raises `IllegalTransitionError`
   and leaves the state as it was.
4. Once a collection is closed its contributors are fixed: a restart sums the same set again. Two sums
   over different sets of the same contributions would give a difference of updates away. One that may no
   longer count is taken out by `Disqualified`, before anything was opened.
5. Nothing is summed from fewer than `min_cohort` silos. Too few end the job with `Fail`, before anything
   was opened; `reopened` makes it ask again.
6. A silo whose statistics are missing (its quality gate failed, or it was late) is out for the whole job.
   One that fails in a round is out of that round only.

Legal order::

    COLLECTING statistics ──▶ SUMMING statistics
      ──▶ round 1: COLLECTING update ──▶ SUMMING update ──▶ COLLECTING evaluation ──▶ SUMMING evaluation
      ──▶ round 2 … ──▶ FINISHED
    COLLECTING anything ──too few──▶ FAILED

A collection closes when every asked silo has contributed or failed, or by `Closed` (a deadline). Without
held-out rows (`policy.evaluated` false) a round ends with its update, and metrics are None.

Example::

    policy = RoundPolicy.of(job.digest, job.spec)
    state = open_job(silos, policy)
    todo = list(outstanding(state))
    while todo:
        effect = todo.pop(0)                      # Collect, Sum, Finish or Fail
        for event in carry_out(effect):           # Contributed, SiloFailed, Closed; a sum's result
            state, effects = transition(state, event, policy)
            if effects:
                store(state.to_json())            # after the files that the state refers to
            todo += effects

    state = reopened(JobState.from_json(stored))  # after a restart that lost what had been collected
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from fedhouse.encoding import require_digest
from fedhouse.errors import ConfigurationError, FedhouseError, IllegalTransitionError
from fedhouse.federation.round_state import (
    Collection,
    Fail,
    Finish,
    JobState,
    Phase,
    Purpose,
    RoundOutcome,
    RoundPolicy,
)
from fedhouse.jobspec import MAX_CONTRIBUTORS
from fedhouse.types import require_name

__all__ = [
    "Aggregated",
    "Closed",
    "Collect",
    "Collection",
    "Contributed",
    "Disqualified",
    "Effect",
    "Evaluated",
    "Event",
    "Fail",
    "Finish",
    "JobState",
    "Phase",
    "Purpose",
    "RoundOutcome",
    "RoundPolicy",
    "SiloFailed",
    "StatisticsSummed",
    "Sum",
    "open_job",
    "outstanding",
    "reopened",
    "transition",
]

_LATE = "did not answer in time"

# --- events -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Contributed:
    """A silo's sealed contribution has arrived whole. `round` is 0 for statistics."""

    purpose: Purpose
    round: int
    silo: str


@dataclass(frozen=True, slots=True)
class SiloFailed:
    """A silo cannot contribute; `reason` is one line without any value of a row."""

    purpose: Purpose
    round: int
    silo: str
    reason: str


@dataclass(frozen=True, slots=True)
class Closed:
    """The deadline of a collection has passed; who has not answered is late."""

    purpose: Purpose
    round: int


@dataclass(frozen=True, slots=True)
class StatisticsSummed:
    """The encoder that the summed statistics gave is stored; `encoder` is its digest."""

    encoder: str


@dataclass(frozen=True, slots=True)
class Aggregated:
    """The model after a round is stored; `model` is its digest."""

    round: int
    model: str


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The summed evaluations of the model after a round; empty where no silo has held-out rows."""

    round: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Disqualified:
    """A contributor of the closed collection no longer counts (its permission was withdrawn, work at it
    stopped). Only before its sum was opened; the driver must not have opened it."""

    purpose: Purpose
    round: int
    silo: str
    reason: str


Event = Contributed | SiloFailed | Closed | Disqualified | StatisticsSummed | Aggregated | Evaluated

# --- effects ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Collect:
    """Ask these silos for a contribution. Asking again is safe: a silo hands over what it stored."""

    purpose: Purpose
    round: int
    silos: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sum:
    """Open the sum of exactly these silos' contributions and answer with its result."""

    purpose: Purpose
    round: int
    contributors: tuple[str, ...]


Effect = Collect | Sum | Finish | Fail

# --- transitions ------------------------------------------------------------------------------------


def open_job(silos: Iterable[str], policy: RoundPolicy) -> JobState:
    """The first state of a job of these silos.

    Raises
    ------
    ConfigurationError
        If a name is malformed or stands twice, or if there are too few or too many silos.
    """
    names = [require_name(silo, "silo name") for silo in silos]
    if len(set(names)) != len(names):
        raise ConfigurationError("A job names a silo twice.", mend="Give each silo its own name.")
    if not policy.min_cohort <= len(names) <= MAX_CONTRIBUTORS:
        raise ConfigurationError(
            f"The job has {len(names)} silos, and it needs {policy.min_cohort} to {MAX_CONTRIBUTORS}.",
            mend="Invite more or fewer, or change sampling.min_cohort.",
        )
    return JobState(Phase.COLLECTING, "statistics", Collection(tuple(sorted(names))))


def outstanding(state: JobState) -> tuple[Effect, ...]:
    """What is to be done in this state; safe to be done again after a restart."""
    match state.phase:
        case Phase.COLLECTING:
            return (Collect(state.purpose, state.round, state.current.waiting),)
        case Phase.SUMMING:
            return (Sum(state.purpose, state.round, state.current.contributed),)
        case Phase.FINISHED | Phase.FAILED:
            return () if state.end is None else (state.end,)
        case unknown:
            assert_never(unknown)


def reopened(state: JobState) -> JobState:
    """The state with its open collection empty again, and a failed one open again.

    For a driver that lost what it had collected, and for a retry after too few silos took part: nothing
    of that collection has been opened, so asking anew gives nothing away. Other states stay as they are.
    """
    if state.phase in (Phase.SUMMING, Phase.FINISHED):
        return state
    return _with_current(replace(state, phase=Phase.COLLECTING, end=None), Collection(state.current.asked))


def transition(state: JobState, event: Event, policy: RoundPolicy) -> tuple[JobState, tuple[Effect, ...]]:
    """The state after `event`, and what is newly to be done.

    Raises
    ------
    IllegalTransitionError
        If the event does not belong to the state; the state stays as it is.
    """
    if _holds(state, event):
        return state, ()
    match event:
        case Contributed() | SiloFailed() | Closed():
            _require_phase(state, event, Phase.COLLECTING, event.purpose, event.round)
            following = _answered(state, event, policy)
        case Disqualified():
            _require_phase(state, event, Phase.SUMMING, event.purpose, event.round)
            following = _disqualified(state, event, policy)
            return following, outstanding(following)
        case StatisticsSummed(encoder):
            _require_phase(state, event, Phase.SUMMING, "statistics", 0)
            following = replace(state, encoder=_digest(encoder, "encoder"))
            following = _open_round(following, policy)
        case Aggregated(number, model):
            _require_phase(state, event, Phase.SUMMING, "update", number)
            outcome = replace(state.rounds[-1], model=_digest(model, "model"))
            following = _after_update(state, outcome, policy)
        case Evaluated(number, metrics):
            _require_phase(state, event, Phase.SUMMING, "evaluation", number)
            if not all(math.isfinite(value) for value in metrics.values()):
                raise IllegalTransitionError(f"A metric of round {number} is not finite.")
            outcome = replace(state.rounds[-1], metrics=dict(metrics))
            following = _decide(replace(state, rounds=(*state.rounds[:-1], outcome)), policy)
        case unknown:
            assert_never(unknown)
    moved = (following.phase, following.purpose, following.round) != (state.phase, state.purpose, state.round)
    return following, outstanding(following) if moved else ()


# --- the rules --------------------------------------------------------------------------------------


def _with_current(state: JobState, collection: Collection) -> JobState:
    if state.purpose == "statistics":
        return replace(state, statistics=collection)
    outcome = state.rounds[-1]
    if state.purpose == "update":
        outcome = replace(outcome, updates=collection)
    else:
        outcome = replace(outcome, evaluations=collection)
    return replace(state, rounds=(*state.rounds[:-1], outcome))


def _holds(state: JobState, event: Event) -> bool:
    """Whether the state holds already what the event says (invariant 3)."""
    match event:
        case Contributed(purpose, number, silo):
            found = state.collection(purpose, number)
            return found is not None and silo in found.contributed
        case SiloFailed(purpose, number, silo, _) | Disqualified(purpose, number, silo, _):
            found = state.collection(purpose, number)
            return found is not None and silo in found.failed
        case Closed(purpose, number):
            is_open = state.phase is Phase.COLLECTING and (purpose, number) == (state.purpose, state.round)
            return not is_open and state.collection(purpose, number) is not None
        case StatisticsSummed(encoder):
            return state.encoder == encoder != ""
        case Aggregated(number, model):
            return 1 <= number <= state.round and state.rounds[number - 1].model == model != ""
        case Evaluated(number, metrics):
            return 1 <= number <= state.round and state.rounds[number - 1].metrics == metrics
        case unknown:
            assert_never(unknown)


def _require_phase(state: JobState, event: Event, phase: Phase, purpose: Purpose, number: int) -> None:
    if (state.phase, state.purpose, state.round) != (phase, purpose, number):
        raise IllegalTransitionError(
            f"{type(event).__name__} of {purpose}, round {number}, came while the job was "
            f"{state.phase} ({state.purpose}, round {state.round}).",
            mend="It is late, early or of another run; it was left out.",
        )


def _digest(text: str, what: str) -> str:
    try:
        return require_digest(text, f"The new {what}'s name")
    except FedhouseError as error:
        raise IllegalTransitionError(error.what) from None


def _answered(state: JobState, event: Contributed | SiloFailed | Closed, policy: RoundPolicy) -> JobState:
    """The open collection after an answer or the deadline; closed when nobody is waited for."""
    collection = state.current
    failed = dict(collection.failed)
    if isinstance(event, Closed):
        failed |= dict.fromkeys(collection.waiting, _LATE)
        collection = replace(collection, failed=failed)
    elif event.silo not in collection.waiting:
        raise IllegalTransitionError(
            f"Silo {event.silo} was not asked for {event.purpose} of round {event.round}, or has answered.",
            mend="It was left out.",
        )
    elif isinstance(event, SiloFailed):
        collection = replace(collection, failed=failed | {event.silo: event.reason})
    else:
        collection = replace(collection, contributed=tuple(sorted((*collection.contributed, event.silo))))
    following = _with_current(state, collection)
    if collection.waiting:
        return following
    if len(collection.contributed) < policy.min_cohort:
        return replace(following, phase=Phase.FAILED, end=Fail("quorum", _too_few(following, policy)))
    return replace(following, phase=Phase.SUMMING)


def _disqualified(state: JobState, event: Disqualified, policy: RoundPolicy) -> JobState:
    """The closed collection without a contributor, if there are enough others."""
    collection = state.current
    if event.silo not in collection.contributed:
        raise IllegalTransitionError(
            f"Silo {event.silo} is no contributor to {event.purpose} of round {event.round}.",
            mend="It was left out.",
        )
    contributed = tuple(silo for silo in collection.contributed if silo != event.silo)
    failed = dict(collection.failed) | {event.silo: event.reason}
    following = _with_current(state, replace(collection, contributed=contributed, failed=failed))
    if len(contributed) < policy.min_cohort:
        return replace(following, phase=Phase.FAILED, end=Fail("quorum", _too_few(following, policy)))
    return following


def _too_few(state: JobState, policy: RoundPolicy) -> str:
    found = state.current
    where = "Statistics" if state.round == 0 else f"Round {state.round}, {state.purpose}"
    reasons = "; ".join(f"{silo}: {reason.rstrip('.')}" for silo, reason in sorted(found.failed.items()))
    return (
        f"{where}: {len(found.contributed)} of {len(found.asked)} silos contributed, and "
        f"{policy.min_cohort} are needed ({reasons})."
    )


def _open_round(state: JobState, policy: RoundPolicy) -> JobState:
    number = state.round + 1
    opened = RoundOutcome(number, Collection(policy.cohort(number, state.admitted)))
    return replace(state, phase=Phase.COLLECTING, purpose="update", rounds=(*state.rounds, opened))


def _after_update(state: JobState, outcome: RoundOutcome, policy: RoundPolicy) -> JobState:
    """Evaluation by all admitted silos, not the cohort alone; or the decision, without held-out rows."""
    if not policy.evaluated:
        return _decide(replace(state, rounds=(*state.rounds[:-1], outcome)), policy)
    outcome = replace(outcome, evaluations=Collection(state.admitted))
    return replace(state, phase=Phase.COLLECTING, purpose="evaluation", rounds=(*state.rounds[:-1], outcome))


def _decide(state: JobState, policy: RoundPolicy) -> JobState:
    """The next round, or the end. Rounds without the metric neither reach a target nor try a patience."""
    end: Finish | None = None
    value = (state.rounds[-1].metrics or {}).get(policy.metric)
    best = state.best(policy)
    if value is not None and policy.reached(value):
        end = Finish("target", f"{policy.metric} reached its target in round {state.round}.")
    elif state.round >= policy.rounds:
        end = Finish("rounds", f"All {policy.rounds} rounds are done.")
    elif best is not None and policy.patience is not None:
        later = state.rounds[best.number :]
        if sum(policy.metric in (item.metrics or {}) for item in later) >= policy.patience:
            end = Finish("patience", f"{policy.metric} has not become better since round {best.number}.")
    if end is None:
        return _open_round(state, policy)
    return replace(state, phase=Phase.FINISHED, end=end)
