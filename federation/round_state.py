"""Where a job stands: frozen data that `round_machine` moves along, and its form as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Any, Literal

from fedhouse.encoding import derive_seed, require_digest
from fedhouse.errors import IntegrityError
from fedhouse.jobspec import JobSpec

_FORMAT = "fedhouse-job-state/1"
_REASONS = ("rounds", "target", "patience", "quorum")

Purpose = Literal["statistics", "update", "evaluation"]
"""What is collected and summed: the `purpose` of an `AggregationContext`."""


class Phase(StrEnum):
    """What the job waits for."""

    COLLECTING = "collecting"
    SUMMING = "summing"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finish:
    """The job is done. `detail` is a sentence for people."""

    reason: Literal["rounds", "target", "patience"]
    detail: str


@dataclass(frozen=True, slots=True)
class Fail:
    """Too few silos took part; `detail` says which and why. A retry can succeed, see `reopened`."""

    reason: Literal["quorum"]
    detail: str


@dataclass(frozen=True, slots=True)
class RoundPolicy:
    """What a job says about its rounds; the same for its whole life."""

    job: str
    """Digest of the job; it seeds the sampling."""
    rounds: int
    min_cohort: int
    fraction: float
    evaluated: bool
    metric: str
    higher_is_better: bool
    target: float | None
    patience: int | None

    @classmethod
    def of(cls, job: str, spec: JobSpec) -> RoundPolicy:
        """The policy of the job with this digest and description."""
        return cls(
            job=job,
            rounds=spec.rounds,
            min_cohort=spec.sampling.min_cohort,
            fraction=spec.sampling.fraction,
            evaluated=spec.holdout is not None,
            metric=spec.metric,
            higher_is_better=spec.higher_is_better,
            target=spec.target,
            patience=spec.patience,
        )

    def cohort(self, number: int, silos: Iterable[str]) -> tuple[str, ...]:
        """The silos of round `number`: a seeded share of `silos`, never fewer than `min_cohort` if
        there are so many; sorted.

        Every silo draws a number from (job, round, silo) and the smallest win, so that no library's
        sampling algorithm decides.
        """
        candidates = sorted(silos, key=lambda silo: (derive_seed("sampling", self.job, number, silo), silo))
        # By the decimal that was written: 0.7 of 10 is 7, and in doubles more than 7.
        share = math.ceil(Fraction(repr(self.fraction)) * len(candidates))
        return tuple(sorted(candidates[: max(share, self.min_cohort)]))

    def reached(self, value: float) -> bool:
        """Whether `value` reaches the target, where there is one."""
        if self.target is None:
            return False
        return value >= self.target if self.higher_is_better else value <= self.target


@dataclass(frozen=True, slots=True)
class Collection:
    """Who was asked, and how they answered. Names are sorted, whatever the order of the answers."""

    asked: tuple[str, ...]
    contributed: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    """The reason of each silo that did not contribute."""

    @property
    def waiting(self) -> tuple[str, ...]:
        """Silos that have not answered."""
        return tuple(s for s in self.asked if s not in self.contributed and s not in self.failed)

    def to_json(self) -> dict[str, Any]:
        """The collection as a JSON value."""
        return {
            "asked": list(self.asked),
            "contributed": list(self.contributed),
            "failed": dict(self.failed),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Collection:
        """The collection from what `to_json` gave."""
        told = cls(tuple(value["asked"]), tuple(value["contributed"]), dict(value["failed"]))
        answered = [*told.contributed, *told.failed]
        checks = (
            all(isinstance(text, str) for text in (*told.asked, *told.failed.values())),
            all(list(names) == sorted(set(names)) for names in (told.asked, told.contributed)),
            len(set(answered)) == len(answered) and set(answered) <= set(told.asked),
        )
        if not all(checks):
            raise ValueError("impossible collection")
        return told


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """One round, as far as it has come."""

    number: int
    updates: Collection
    model: str = ""
    """Digest of the model after the round; empty before there is one."""
    evaluations: Collection | None = None
    metrics: Mapping[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """The round as a JSON value."""
        return {
            "number": self.number,
            "updates": self.updates.to_json(),
            "model": self.model,
            "evaluations": None if self.evaluations is None else self.evaluations.to_json(),
            "metrics": None if self.metrics is None else dict(self.metrics),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RoundOutcome:
        """The round from what `to_json` gave."""
        told, metrics = value["evaluations"], value["metrics"]
        return cls(
            number=value["number"],
            updates=Collection.from_json(value["updates"]),
            model=require_digest(value["model"], "A stored round's model") if value["model"] else "",
            evaluations=None if told is None else Collection.from_json(told),
            metrics=None if metrics is None else {name: float(number) for name, number in metrics.items()},
        )


@dataclass(frozen=True, slots=True)
class JobState:
    """Where a job stands. Of the rounds, the last one is the current one."""

    phase: Phase
    purpose: Purpose
    """What is, or was last, collected or summed."""
    statistics: Collection
    encoder: str = ""
    """Digest of the encoder; empty before the statistics are summed."""
    rounds: tuple[RoundOutcome, ...] = ()
    end: Finish | Fail | None = None

    @property
    def round(self) -> int:
        """Number of the current round, 0 during the statistics."""
        return len(self.rounds)

    @property
    def admitted(self) -> tuple[str, ...]:
        """Silos that contributed statistics; only they are asked later."""
        return self.statistics.contributed

    @property
    def excluded(self) -> Mapping[str, str]:
        """Silos that are out for the whole job, each with the reason."""
        return self.statistics.failed

    @property
    def current(self) -> Collection:
        """The collection that is open, or was the last one."""
        found = self.collection(self.purpose, self.round)
        assert found is not None  # `purpose` changes together with its collection
        return found

    def collection(self, purpose: Purpose, number: int) -> Collection | None:
        """The collection of this purpose and round, or None if it has not been opened."""
        if purpose == "statistics":
            return self.statistics if number == 0 else None
        if not 1 <= number <= self.round:
            return None
        outcome = self.rounds[number - 1]
        return outcome.updates if purpose == "update" else outcome.evaluations

    def best(self, policy: RoundPolicy) -> RoundOutcome | None:
        """The first round with the best metric, or None where no round has one."""
        measured = [item for item in self.rounds if item.metrics and policy.metric in item.metrics]
        sign = -1.0 if policy.higher_is_better else 1.0
        return min(measured, key=lambda item: sign * (item.metrics or {})[policy.metric], default=None)

    def to_json(self) -> dict[str, Any]:
        """The state as a JSON value."""
        end = self.end
        return {
            "format": _FORMAT,
            "phase": self.phase.value,
            "purpose": self.purpose,
            "statistics": self.statistics.to_json(),
            "encoder": self.encoder,
            "rounds": [item.to_json() for item in self.rounds],
            "end": None if end is None else {"reason": end.reason, "detail": end.detail},
        }

    @classmethod
    def from_json(cls, value: Any) -> JobState:
        """The state from what `to_json` gave.

        Raises
        ------
        IntegrityError
            If `value` is anything else.
        """
        try:
            end = value["end"]
            kind = Fail if end is not None and end["reason"] == "quorum" else Finish
            if end is not None and end["reason"] not in _REASONS:
                raise ValueError("unknown end")
            state = cls(
                phase=Phase(value["phase"]),
                purpose=value["purpose"],
                statistics=Collection.from_json(value["statistics"]),
                encoder=require_digest(value["encoder"], "A stored encoder") if value["encoder"] else "",
                rounds=tuple(RoundOutcome.from_json(item) for item in value["rounds"]),
                end=None if end is None else kind(end["reason"], end["detail"]),
            )
            _require_consistent(state)
            if state.to_json() != value:
                raise ValueError("unknown keys or another format")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IntegrityError(
                f"The stored state of the job is malformed ({type(error).__name__}).",
                mend="Restore it, or start anew in a fresh run folder.",
            ) from error
        return state


def _require_consistent(state: JobState) -> None:
    """ValueError unless a stored state is one that transitions can give, as far as is cheap to see."""
    numbers = [item.number for item in state.rounds]
    whole = [state.statistics, *(item.updates for item in state.rounds)]
    whole += [item.evaluations for item in state.rounds if item.evaluations is not None]
    if state.phase is Phase.COLLECTING or state.phase is Phase.FAILED:
        whole = [item for item in whole if item is not state.collection(state.purpose, state.round)]
    ended = state.phase in (Phase.FINISHED, Phase.FAILED)
    checks = (
        state.purpose in ("statistics", "update", "evaluation"),
        numbers == list(range(1, len(numbers) + 1)),
        state.collection(state.purpose, state.round) is not None,
        (state.purpose == "statistics") == (not state.rounds) == (state.encoder == ""),
        all(not item.waiting for item in whole),
        all(item.model for item in state.rounds[:-1]),
        ended == (state.end is not None),
        isinstance(state.end, Fail) == (state.phase is Phase.FAILED),
    )
    if not all(checks):
        raise ValueError("inconsistent state")
